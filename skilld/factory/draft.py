"""
Writes a skill from the answers of a dialogue: its name, description, body, and the files of a complex one.

What a person said stands in the body character for character, as Markdown that means nothing else (see
``markdown``); headings and the rest of the words are ours.

Owns: nothing; values only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from skilld.factory import starter
from skilld.factory.answers import Answers, Example
from skilld.factory.markdown import block, fence, inline, is_plain_line
from skilld.factory.naming import make_name, make_title
from skilld.factory.phrases import bare_task
from skilld.skills import edit
from skilld.skills.edit import Fields
from skilld.skills.model import DESCRIPTION_LIMIT_CHARS

# What a long goal may take of the description before the trigger words, which search lives on, have their turn.
_GOAL_SHARE_CHARS = 300
# A piece of the example longer than this is pointed to, not repeated, in the steps.
_QUOTE_LIMIT_CHARS = 80
# More parts than this are prose that we misread, not the steps of a task.
_PARTS_LIMIT = 12

_TROUBLE = "When something is missing or goes wrong"


@dataclass(frozen=True)
class Draft:
    """A skill that is not on disk yet; the members are the parameters of ``skills.create``."""

    name: str
    description: str
    body: str
    compatibility: str | None = None
    scripts: Mapping[str, str] = field(default_factory=dict)
    assets: Mapping[str, str] = field(default_factory=dict)


def make_draft(answers: Answers, *, taken: Callable[[str], bool]) -> Draft:
    """
    Write the skill that the answers describe.

    Args:
        answers: Checked answers to every question.
        taken: Tells whether a skill of this name is there already.

    Returns:
        A draft whose name is valid and not taken, and whose description has 1 to 1,024 characters.
    """
    name = make_name(answers.goal, answers.triggers, answers.name, taken=taken)
    title = make_title(name, answers.goal)
    description, described = _describe(answers)
    sections = [
        f"# {title}",
        _goal(answers.goal),
        "## When to use",
        _when_to_use(answers.triggers, described),
        "## Steps",
        "\n".join(f"{number}. {step}" for number, step in enumerate(_steps(answers), start=1)),
        "## Example",
        _example(answers.example),
    ]
    if answers.complexity == "complex":
        sections += ["## Files", _FILES]
    sections += [f"## {_TROUBLE}", block(answers.edge_cases), _OTHERWISE]
    body = "\n\n".join(sections) + "\n"
    if answers.complexity != "complex":
        return Draft(name, description, body)
    return Draft(
        name,
        description,
        body,
        compatibility="Requires Python 3.8 or later for its script",
        scripts={starter.SCRIPT_PATH: starter.SCRIPT},
        assets={starter.TEMPLATE_PATH: starter.make_template(title, answers.example)},
    )


def fields_of(draft: Draft) -> Fields:
    """Return the draft's SKILL.md as the store takes it."""
    return Fields(draft.description, compatibility=draft.compatibility, body=draft.body)


def render_skill_md(draft: Draft) -> str:
    """Return the text of the draft's SKILL.md: that which creating it writes."""
    return edit.render_skill_md(draft.name, fields_of(draft)).decode()


def _describe(answers: Answers) -> tuple[str, int]:
    """Return the description, and how many of the triggers it holds whole."""
    what = _sentence(answers.goal)
    room = DESCRIPTION_LIMIT_CHARS - 1 - min(len(what), _GOAL_SHARE_CHARS)
    fitting: list[str] = []
    for trigger in answers.triggers:
        if len(_use_when([*fitting, trigger])) <= room:
            fitting.append(trigger)
    when = _use_when(fitting or [_shorten(answers.triggers[0], room // 2)])
    return f"{_shorten(what, DESCRIPTION_LIMIT_CHARS - 1 - len(when))} {when}", len(fitting)


def _use_when(triggers: list[str]) -> str:
    quoted = [f'"{trigger}"' for trigger in triggers]
    listed = " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
    return f"Use when the user mentions or describes {listed}."


def _sentence(text: str) -> str:
    """Return a task as one sentence: on one line, without "please", with a capital and a full stop."""
    task = bare_task(text)
    first_word = task.split(" ", 1)[0]
    if first_word.islower() and first_word[0].isascii():
        task = task[0].upper() + task[1:]
    if task.endswith((".", "!", "?", "…", "。", "！", "？")):
        return task
    # Chinese and Japanese, whose letters these are, have a full stop of their own.
    return f"{task}。" if "\u3040" <= task[-1] <= "\u9fff" else f"{task}."


def _shorten(text: str, limit_chars: int) -> str:
    """Cut a text to a number of characters, between two words if that costs less than half of it."""
    if len(text) <= limit_chars:
        return text
    cut = text[: limit_chars - 1]
    words = cut.rpartition(" ")[0]
    return (words if len(words) > limit_chars // 2 else cut).rstrip(" ,;:.-") + "…"


def _goal(goal: str) -> str:
    return f"**Goal:** {goal}" if is_plain_line(goal) else f"**Goal:**\n\n{block(goal)}"


def _when_to_use(triggers: tuple[str, ...], described: int) -> str:
    lines = ["Use this skill when the user mentions or describes any of these:", ""]
    lines += [f"- {inline(trigger)}" for trigger in triggers]
    if described < len(triggers):
        lines += [
            "",
            f"The description holds {described} of these {len(triggers)}; the others did not fit into its "
            f"{DESCRIPTION_LIMIT_CHARS:,} characters.",
        ]
    return "\n".join(lines)


def _steps(answers: Answers) -> Iterator[str]:
    """Yield the steps, each a line: get the input, do the parts of the goal, give the output its form, check."""
    example = answers.example
    if example.is_split:
        yield f"Find the input in the request. Expect something like {_mention(example.input, 'the input below')}."
    else:
        yield "Find in the request what the example below starts from."
    yield f'If a part of it is missing or unclear, follow "{_TROUBLE}" before going on.'
    yield from _parts(answers.goal) or ["Do what the goal at the top of this document says."]
    if answers.complexity == "complex":
        yield (
            f"Write the fields that `assets/{starter.TEMPLATE_PATH}` names to a file, one a line as in "
            f"`Client name: ACME`, and run `python3 scripts/{starter.SCRIPT_PATH} FILE`. If it fails, its message "
            "says what is missing."
        )
    write = "Complete the result" if answers.complexity == "complex" else "Write the output"
    if example.is_split:
        yield (
            f"{write} in the form of {_mention(example.output, 'the output below')}: "
            "the same parts in the same order, with the values of this request."
        )
    else:
        yield f"{write} in the form that the example below shows, with the values of this request."
    yield "Check the output against the request, and name every assumption that went into it."


def _mention(text: str, otherwise: str) -> str:
    return f'"{text}"' if is_plain_line(text) and len(text) <= _QUOTE_LIMIT_CHARS else otherwise


_SENTENCE_END = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<=[.!?])\s+(?=[A-Z])|(?<=[。！？])")
_THEN = re.compile(r"(?:[,;]\s*(?:and\s+)?|\s+and\s+)then\s+|;\s+", re.IGNORECASE)
_ITEM = re.compile(r"\A(?:[-*+•]|\d{1,3}[.)])\s+")


def _parts(goal: str) -> list[str]:
    """Split a goal into its tasks, a sentence each; empty where it is not plain words or too many."""
    tasks = [
        _ITEM.sub("", task).strip()
        for line in goal.split("\n")
        for sentence in _SENTENCE_END.split(" ".join(line.split()))
        for task in _THEN.split(sentence)
    ]
    parts = [_sentence(task) for task in tasks if task]
    return parts if len(parts) <= _PARTS_LIMIT and all(map(is_plain_line, parts)) else []


def _example(example: Example) -> str:
    if example.is_split:
        return f"Input:\n\n{fence(example.input)}\n\nOutput:\n\n{fence(example.output)}"
    return fence(example.text)


_FILES = f"""\
- `scripts/{starter.SCRIPT_PATH}` reads an input from a file or from standard input, fills the template with its
  fields and writes the result to standard output. `python3 scripts/{starter.SCRIPT_PATH} --help` explains it. Work
  that must come out the same every time belongs into its function `compute_fields`.
- `assets/{starter.TEMPLATE_PATH}` is the form of the result. `${{client_name}}` stands for the field "Client name"
  of the input, `${{input}}` for the whole input, `$$` for a dollar sign; any other word is fixed."""

_OTHERWISE = "In every other case say what is missing and ask. Never make up a value to fill a gap."
