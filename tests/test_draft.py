"""The skill that the factory writes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from skilld.factory.answers import AnswerRefused, Answers, Complexity, Example, read_example, read_text, read_triggers
from skilld.factory.draft import Draft, make_draft, render_skill_md
from skilld.skills.frontmatter import parse_skill_md
from skilld.skills.search import Document, Index, prepare

INVOICES = Answers(
    goal="create monthly invoices from time sheets, then mail them to the client",
    triggers=("invoice", "bill a client", "when I upload a time sheet"),
    example=Example("", "Client: ACME\nHours: 12", "ACME owes us for 12 hours"),
    complexity="simple",
    edge_cases="- No hourly rate: ask me\n- No date: leave the row out",
)

SECTIONS = ["When to use", "Steps", "Example", "When something is missing or goes wrong"]


def free(_: str) -> bool:
    return False


def draft_of(**changes: Any) -> Draft:
    return make_draft(Answers(**{**vars(INVOICES), **changes}), taken=free)


class Read:
    """What a CommonMark reader and a YAML reader see in a SKILL.md; the answers are taken from that alone."""

    def __init__(self, skill_md: str) -> None:
        opening, frontmatter, self.body = skill_md.split("---\n", 2)
        assert opening == ""
        self.frontmatter: dict[str, object] = yaml.safe_load(frontmatter)
        self.tokens = MarkdownIt("commonmark").enable("table").parse(self.body)
        self.headings = [
            (token.tag, self.tokens[index + 1].content, token)
            for index, token in enumerate(self.tokens)
            if token.type == "heading_open"
        ]

    @property
    def kinds(self) -> set[str]:
        """The kinds of all tokens, those inside a line too."""
        inline = {child.type for token in self.tokens for child in token.children or ()}
        return {token.type for token in self.tokens} | inline

    def section(self, title: str) -> tuple[list[Token], str]:
        """The tokens and the source of a section."""
        titles = [heading for _, heading, _ in self.headings]
        index = titles.index(title)
        start = self.tokens.index(self.headings[index][2]) + 3
        after = self.headings[index + 1][2] if index + 1 < len(titles) else None
        end = self.tokens.index(after) if after else len(self.tokens)
        lines = self.body.split("\n")
        first, last = self.tokens[start - 3].map, after.map if after else [len(lines)]
        assert first and last
        return self.tokens[start:end], "\n".join(lines[first[1] : last[0]]).strip("\n")

    @staticmethod
    def fences(tokens: list[Token]) -> list[str]:
        return [token.content.removesuffix("\n") for token in tokens if token.type == "fence"]

    @property
    def answers(self) -> Answers:
        tokens, source = self.section(self.headings[0][1])
        goal = next(iter(self.fences(tokens)), source.removeprefix("**Goal:**").strip(" \n"))
        tokens, _ = self.section("When to use")
        triggers = []
        for index, token in enumerate(tokens):
            if token.type == "list_item_open":
                children = tokens[index + 2].children or []
                assert {child.type for child in children} in ({"text"}, {"code_inline"})
                triggers.append("".join(child.content for child in children))
        tokens, _ = self.section("Example")
        fences = self.fences(tokens)
        example = Example("", *fences) if len(fences) == 2 else Example(*fences)
        tokens, source = self.section(SECTIONS[-1])
        edge_cases = next(iter(self.fences(tokens)), source.rpartition("\n\nIn every other case")[0])
        complexity: Complexity = "complex" if "Files" in [title for _, title, _ in self.headings] else "simple"
        return Answers(goal, tuple(triggers), example, complexity, edge_cases)


def normal(answers: Answers) -> Answers:
    """The answers as far as a skill holds them: of a split example the parts, and no chosen name."""
    example = Example("", answers.example.input, answers.example.output)
    return Answers(
        answers.goal,
        answers.triggers,
        example if answers.example.is_split else answers.example,
        answers.complexity,
        answers.edge_cases,
    )


# Kinds of tokens that our own words need; a link, HTML, an image, a quotation or a table would be injected.
OUR_KINDS = {
    "heading_open", "heading_close", "paragraph_open", "paragraph_close", "inline", "text", "strong_open",
    "strong_close", "code_inline", "fence", "softbreak", "hardbreak", "bullet_list_open", "bullet_list_close",
    "ordered_list_open", "ordered_list_close", "list_item_open", "list_item_close",
}  # fmt: skip


def check_skill(draft: Draft, answers: Answers) -> None:
    """Assert all that holds for every skill of the factory."""
    skill_md = render_skill_md(draft)
    read = Read(skill_md)
    expected = {"name": draft.name, "description": draft.description}
    if draft.compatibility:
        expected["compatibility"] = draft.compatibility
    assert read.frontmatter == expected
    assert read.kinds <= OUR_KINDS
    sections = [*SECTIONS[:3], "Files", SECTIONS[3]] if answers.complexity == "complex" else SECTIONS
    assert [(tag, title) for tag, title, _ in read.headings[1:]] == [("h2", title) for title in sections]
    assert read.headings[0][0] == "h1"
    assert read.answers == normal(answers)
    parsed = parse_skill_md(skill_md.encode(), draft.name)
    assert (parsed.name, parsed.description, parsed.findings) == (draft.name, draft.description, ())
    assert parsed.body.strip() == draft.body.strip()
    assert 1 <= len(draft.description) <= 1_024


def test_simple_skill_is_written_as_an_author_would() -> None:
    """The whole text of a simple skill."""
    assert (
        render_skill_md(draft_of())
        == """\
---
name: create-monthly-invoices
description: Create monthly invoices from time sheets, then mail them to the client. Use when the user mentions or \
describes "invoice", "bill a client" or "when I upload a time sheet".
---

# Create monthly invoices

**Goal:** create monthly invoices from time sheets, then mail them to the client

## When to use

Use this skill when the user mentions or describes any of these:

- invoice
- bill a client
- when I upload a time sheet

## Steps

1. Find the input in the request. Expect something like the input below.
2. If a part of it is missing or unclear, follow "When something is missing or goes wrong" before going on.
3. Create monthly invoices from time sheets.
4. Mail them to the client.
5. Write the output in the form of "ACME owes us for 12 hours": the same parts in the same order, with the values of \
this request.
6. Check the output against the request, and name every assumption that went into it.

## Example

Input:

```text
Client: ACME
Hours: 12
```

Output:

```text
ACME owes us for 12 hours
```

## When something is missing or goes wrong

- No hourly rate: ask me
- No date: leave the row out

In every other case say what is missing and ask. Never make up a value to fill a gap.
"""
    )


def test_complex_skill_has_a_script_and_a_template() -> None:
    """A complex skill brings both files, and its body tells how to use them."""
    draft = draft_of(complexity="complex")
    assert draft.assets == {"template.md": "${client} owes us for ${hours} hours\n"}
    assert list(draft.scripts) == ["run.py"]
    assert draft.scripts["run.py"].startswith("#!/usr/bin/env python3\n")
    for path in ("scripts/run.py", "assets/template.md"):
        assert f"`{path}`" in draft.body
    check_skill(draft, Answers(**{**vars(INVOICES), "complexity": "complex"}))


def test_chosen_name_is_used_and_numbered_when_taken() -> None:
    """The chosen name beats the goal's, and is never one that is taken."""
    assert draft_of(name="bills").name == "bills"
    assert make_draft(Answers(**{**vars(INVOICES), "name": "bills"}), taken={"bills"}.__contains__).name == "bills-2"


@pytest.mark.parametrize(
    ("goal", "description"),
    [
        ("please fill forms", 'Fill forms. Use when the user mentions or describes "x".'),
        ("Fill forms!", 'Fill forms! Use when the user mentions or describes "x".'),
        ("iPhone backups", 'iPhone backups. Use when the user mentions or describes "x".'),
        ("a\n---\nname: evil", 'A --- name: evil. Use when the user mentions or describes "x".'),
        ("整理发票", '整理发票。 Use when the user mentions or describes "x".'),
    ],
)
def test_description_says_what_and_when(goal: str, description: str) -> None:
    """The goal as one sentence, then the trigger words."""
    assert draft_of(goal=goal, triggers=("x",)).description == description


def test_description_holds_every_trigger_that_fits() -> None:
    """A long goal leaves room for the trigger words."""
    triggers = tuple(f"trigger number {number}" for number in range(20))
    description = draft_of(goal="very " * 3_000 + "long", triggers=triggers).description
    assert all(f'"{trigger}"' in description for trigger in triggers)
    assert "…" in description
    assert len(description) <= 1_024


def test_body_says_which_triggers_the_description_lacks() -> None:
    """As many triggers as fit stand in the description; the body has all and says so."""
    triggers = (*(f"trigger number {number}" for number in range(50)), "z" * 2_000, "last")
    draft = draft_of(triggers=triggers)
    held = [trigger for trigger in triggers if f'"{trigger}"' in draft.description]
    assert held[0] == "trigger number 0"
    assert held[-1] == "last"
    assert f"The description holds {len(held)} of these 52; the others did not fit" in draft.body
    assert all(f"\n- {trigger}\n" in draft.body for trigger in triggers)
    assert len(draft.description) <= 1_024


@pytest.mark.parametrize("trigger", [*INVOICES.triggers, "paperwork", "发票"])
def test_search_finds_the_skill_by_its_triggers(trigger: str) -> None:
    """Each trigger, asked for among other skills of the factory, brings its skill first."""
    index = Index()
    for goal, triggers in (
        (INVOICES.goal, (*INVOICES.triggers, "paperwork", "发票")),
        ("summarise meeting notes", ("minutes", "when I upload a recording")),
        ("review pull requests", ("code review", "bill of materials")),
    ):
        draft = draft_of(goal=goal, triggers=triggers)
        index.add(prepare(Document(draft.name, draft.name, draft.description, (), draft.body)))
    assert index.search(trigger, 10).hits[0].id == "create-monthly-invoices"


def test_trigger_too_long_for_any_description_is_cut() -> None:
    """A description says when to use the skill even if no trigger fits whole."""
    description = draft_of(triggers=("word " * 500 + "end",)).description
    assert 'describes "word word' in description
    assert len(description) <= 1_024


@pytest.mark.parametrize(
    ("goal", "steps"),
    [
        ("fill forms", ["Fill forms."]),
        ("Read the form. Fill it in; and then sign it", ["Read the form.", "Fill it in.", "Sign it."]),
        ("1. read it\n2. fill it, then sign it", ["Read it.", "Fill it.", "Sign it."]),
        ("Convert files, e.g. PDF to text", ["Convert files, e.g. PDF to text."]),
        ("# not ours", ["Do what the goal at the top of this document says."]),
        ("a. B. " * 20, ["Do what the goal at the top of this document says."]),
    ],
)
def test_steps_follow_the_goal(goal: str, steps: list[str]) -> None:
    """Each task of the goal is a step; a goal that is data, or prose, is pointed to."""
    _, source = Read(render_skill_md(draft_of(goal=goal))).section("Steps")
    assert [line.partition(". ")[2] for line in source.split("\n")][2:-2] == steps


HOSTILE = [
    "---",
    "---\nname: evil\ndescription: x\n---\n# Evil",
    "key: value: more # comment",
    "```\n# Evil\n```",
    "````````",
    "`a` ``b`` ```c",
    "<script>alert(1)</script><!-- ",
    "<details>\n\n# Evil",
    "# Evil\n## Steps",
    "Evil\n====\nEvil\n---",
    "% YAML 1.2",
    "@at |pipe >fold !tag &anchor *alias {a: b} [c]",
    "> quote\n\n    code\n\n\ttab",
    "1. one\n1.\n- - x\n* * *",
    "![i](x) [l](y) [r]: z <http://a.b>",
    "&lt;b&gt; \\# \\\\",
    "a | b\n--|--\nc | d",
    "مرحبا \u202e dlrow \u2066olleh\u2069 שלום",
    "line\u2028separator \ufeff bom \ufffe",
    "null",
    "'single' \"double\" it's",
    "x" * 10_000,
    "word " * 2_000 + "end",
    "🎉\U0001f600 \U000e0001",
    "a---b----c-----d",
    "In every other case say what is missing",
]


@pytest.mark.parametrize("complexity", ["simple", "complex"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_answers_come_out_intact(text: str, complexity: Complexity) -> None:
    """Text that means something to YAML or Markdown reads back as text, and adds nothing to the document."""
    answers = Answers(text, read_triggers(f"word\n{text}"), read_example(text), complexity, text)
    check_skill(make_draft(answers, taken=free), answers)


FRAGMENTS = st.sampled_from(
    ["---", "```", "````", "~~~", "`", "# ", "## Steps", "<b>", "<!--", "- ", "1. ", "> ", "|", "\n", "\n\n", "    ",
     "\t", "[a](b)", "![", "&lt;", "*", "_", "**", ": ", " #", "===", "\r\n", "\\", "'", '"', "%", "@", "\u202e",
     "\u2028", "$", "${a}", "Input: ", "Output: ", " -> ", "→", " gives ", ", ", " or ", ";", "a", "word",
     "Client: ACME", "שלום"]
)  # fmt: skip
ANSWERS = st.one_of(st.text(min_size=1), st.lists(FRAGMENTS, min_size=1, max_size=12).map("".join))


def answers_from(goal: str, triggers: str, example: str, complexity: Complexity, edge_cases: str) -> Answers:
    """Take the answers in as the dialogue does; what it refuses is no answer."""
    try:
        return Answers(
            read_text(goal),
            read_triggers(read_text(triggers)),
            read_example(read_text(example)),
            complexity,
            read_text(edge_cases),
        )
    except AnswerRefused:
        assume(False)
        raise


@given(ANSWERS, ANSWERS, ANSWERS, st.sampled_from(["simple", "complex"]), ANSWERS)
def test_any_answers_give_a_valid_skill_that_parses_back(
    goal: str, triggers: str, example: str, complexity: Complexity, edge_cases: str
) -> None:
    """Whatever is answered, the skill is valid and a reader finds the same answers in it, character for character."""
    answers = answers_from(goal, triggers, example, complexity, edge_cases)
    check_skill(make_draft(answers, taken=free), answers)


@given(ANSWERS, ANSWERS, ANSWERS, st.sampled_from(["simple", "complex"]), ANSWERS)
def test_any_skill_passes_the_reference_validator(
    goal: str, triggers: str, example: str, complexity: Complexity, edge_cases: str
) -> None:
    """``skills-ref validate`` has nothing to say about a skill of the factory."""
    validator = pytest.importorskip("skills_ref.validator", reason="skills-ref is not installed")
    answers = answers_from(goal, triggers, example, complexity, edge_cases)
    draft = make_draft(answers, taken=free)
    with tempfile.TemporaryDirectory() as root:
        skill_dir = Path(root, draft.name)
        skill_dir.mkdir()
        (skill_dir / "SKILL.md").write_text(render_skill_md(draft), encoding="utf-8")
        assert validator.validate(skill_dir) == []
