"""Writing a SKILL.md: what is asked for is there, and nothing else has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields as members
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skilld.skills.edit import (
    EditRefused,
    Fields,
    check_fields,
    check_new_name,
    check_tools,
    render_skill_md,
    splice_skill_md,
)
from skilld.skills.frontmatter import parse_skill_md

# As a careful author would write it, with all that an edit could destroy.
AUTHORED = """\
---
# Who may change this: the forms team.
name:   pdf   # as the directory
x-owner: "forms \\u00e9"   # unknown to us
description: >-   # folded
  Fill in forms,
  page by page.

license: 'MIT'  # SPDX
metadata: # kept by hand
  # the team
  author: forms
  version: "1.0"   # a text
  priority: 1
allowed-tools:   # few
- Read   # files
- Write
# the end
---

# Fill forms

Do it.
"""


def body_of(content: bytes) -> str:
    return parse_skill_md(content, None).body


def spliced(text: str, **values: Any) -> str:
    return splice_skill_md(text.encode(), Fields(**values)).decode()


def refused(call: Any) -> list[str | None]:
    """The fields that a refusal names."""
    with pytest.raises(EditRefused) as caught:
        call()
    return [finding.field for finding in caught.value.findings]


def test_a_new_skill_md_is_what_an_author_would_write() -> None:
    """Fields in the specification's order, a blank line, the body; quotes only where they are needed."""
    made = render_skill_md(
        "pdf",
        Fields(
            description="Fill: forms",
            license="MIT",
            compatibility="yes",
            allowed_tools=("Read", "Bash(git add:*)"),
            metadata={"author": "me", "version": "1.0", "a: b": "x\ny"},
            body="\n \n# Hi\n\n  text",
        ),
    )
    assert made.decode() == (
        "---\nname: pdf\ndescription: 'Fill: forms'\nlicense: MIT\ncompatibility: 'yes'\n"
        "allowed-tools: 'Read Bash(git add:*)'\nmetadata:\n  author: me\n  version: '1.0'\n  'a: b': \"x\\ny\"\n"
        "---\n\n# Hi\n\n  text"
    )


def test_fields_without_a_value_are_left_out() -> None:
    """Empty texts, lists and maps are no fields, and an empty body needs no blank line."""
    made = render_skill_md("a", Fields("x", license=" ", compatibility="", allowed_tools=(), metadata={}, body=""))
    assert made == b"---\nname: a\ndescription: x\n---\n"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(
            {"description": "New: text"},
            AUTHORED.replace(
                ">-   # folded\n  Fill in forms,\n  page by page.\n\nlicense", "'New: text'   # folded\n\nlicense"
            ),
            id="a block scalar, its comment and the blank line below it",
        ),
        pytest.param({"license": "it's"}, AUTHORED.replace("'MIT'", "'it''s'"), id="in the author's quotes"),
        pytest.param({"license": ""}, AUTHORED.replace("license: 'MIT'  # SPDX\n", ""), id="a field taken away"),
        pytest.param(
            {"metadata": {"author": "forms", "version": "2.0", "priority": "1"}},
            AUTHORED.replace('"1.0"', '"2.0"').replace("priority: 1", "priority: '1'"),
            id="only the entries of a map that differ",
        ),
        pytest.param(
            {"metadata": {"author": "forms", "version": "1.0", "new key": "no"}},
            AUTHORED.replace("  priority: 1\n", "  new key: 'no'\n"),
            id="an entry added and one taken away",
        ),
        pytest.param(
            {"metadata": {}},
            AUTHORED.replace(
                'metadata: # kept by hand\n  # the team\n  author: forms\n  version: "1.0"   # a text\n  priority: 1\n',
                "",
            ),
            id="the whole map taken away",
        ),
        pytest.param(
            {"allowed_tools": ("Read",)},
            AUTHORED.replace("allowed-tools:   # few\n- Read   # files\n- Write\n", "allowed-tools: Read   # few\n"),
            id="a list becomes a text",
        ),
        pytest.param(
            {"compatibility": "Python 3"},
            AUTHORED.replace("- Write\n", "- Write\ncompatibility: Python 3\n"),
            id="a field added below the last one",
        ),
        pytest.param({"body": "\n\n# New\r\n"}, AUTHORED.split("# Fill")[0] + "# New\r\n", id="the body"),
        pytest.param({"body": ""}, AUTHORED.split("# Fill")[0], id="the body taken away"),
        pytest.param(
            {"description": "Fill in forms, page by page.", "license": "MIT", "body": "# Fill forms\n\nDo it.\n"},
            AUTHORED,
            id="nothing, where all is so already",
        ),
        pytest.param({}, AUTHORED, id="nothing"),
    ],
)
def test_an_edit_changes_what_it_is_about(values: dict[str, Any], expected: str) -> None:
    """All other bytes of an author's file stay, with either line end and behind a byte order mark."""
    assert spliced(AUTHORED, **values) == expected
    crlf = AUTHORED.replace("\n", "\r\n")
    result = spliced(crlf, **{key: value for key, value in values.items() if key != "body"})
    if "body" not in values:
        assert result == expected.replace("\n", "\r\n")
    marked = b"\xef\xbb\xbf" + AUTHORED.encode()
    assert splice_skill_md(marked, Fields(**values)) == b"\xef\xbb\xbf" + expected.encode()


@pytest.mark.parametrize(
    ("before", "values", "after"),
    [
        pytest.param("license:\n", {"license": "MIT"}, "license: MIT\n", id="no value"),
        pytest.param("license: # c\n", {"license": "MIT"}, "license: MIT # c\n", id="no value but a comment"),
        pytest.param("license:\n  MIT\n", {"license": "BSD"}, "license: BSD\n", id="a value below its key"),
        pytest.param("license: a\n  b # c\n", {"license": "B"}, "license: B # c\n", id="a plain value on two lines"),
        pytest.param("license: a\nlicense: b\n", {"license": "c"}, "license: a\nlicense: c\n", id="given twice"),
        pytest.param("license: a\nx: 1\nlicense: b\n", {"license": ""}, "x: 1\n", id="given twice, taken away"),
        pytest.param('"license" : a\n', {"license": "b"}, '"license" : b\n', id="a quoted key"),
        pytest.param("license: &l a\n", {"license": "b"}, "license: b\n", id="an anchor that nobody uses"),
        pytest.param("a: &a x\nlicense: *a\n", {"license": "b"}, "a: &a x\nlicense: b\n", id="an alias"),
        pytest.param("license: !!str a\n", {"license": "b"}, "license: b\n", id="a tag"),
        pytest.param("license: 1.0\n", {"license": "1.0"}, "license: 1.0\n", id="a number that reads as the text"),
        pytest.param("license: 1.0\n", {"license": "2.0"}, "license: '2.0'\n", id="a number that does not"),
        pytest.param("license: {a: b}\n", {"license": "c"}, "license: c\n", id="a map where a text should be"),
        pytest.param("metadata: x # c\n", {"metadata": {"a": "b"}}, "metadata:\n  a: b # c\n", id="a text for a map"),
        pytest.param("metadata: {a: b} # c\n", {"metadata": {"a": "c"}}, "metadata:\n  a: c # c\n", id="a flow map"),
        pytest.param("metadata:\n", {"metadata": {"a": "b"}}, "metadata:\n  a: b\n", id="an empty map"),
        pytest.param(
            "metadata:\n  - x\n", {"metadata": {"a": "b"}}, "metadata:\n  a: b\n", id="a list where a map should be"
        ),
        pytest.param(
            "m: &m {a: x}\nmetadata:\n  <<: *m\n  b: y\n",
            {"metadata": {"a": "x", "b": "z"}},
            "m: &m {a: x}\nmetadata:\n  <<: *m\n  b: z\n",
            id="a merged entry stays merged",
        ),
        pytest.param(
            "allowed-tools: Read, Write\n", {"allowed_tools": ("Read", "Write")}, "allowed-tools: Read, Write\n",
            id="the same tools in another style",
        ),
        pytest.param(
            "x: |+\n  a\n\n\n", {"license": "MIT"}, "x: |+\n  a\n\n\nlicense: MIT\n", id="behind blank lines that count"
        ),
        pytest.param("x: a: b\nlicense: c: d\n", {"license": "e"}, "x: a: b\nlicense: e\n", id="rescued: one value"),
        pytest.param(
            "x: a: b\n  more\n\n# c\nlicense: c: d\n  more # text\n\n# end\n",
            {"license": "e", "compatibility": "f"},
            "x: a: b\n  more\n\n# c\nlicense: e\ncompatibility: f\n\n# end\n",
            id="rescued: lines of a value",
        ),
        pytest.param("x: a: b\nlicense: c: d\n", {"license": ""}, "x: a: b\n", id="rescued: taken away"),
        pytest.param(
            "x: a: b\nmetadata:\n  a: b: c\n  d: e\n",
            {"metadata": {"a": "b", "d": "e"}},
            "x: a: b\nmetadata:\n  a: b\n  d: e\n",
            id="rescued: a map",
        ),
        pytest.param("\tx: 1\n", {"license": "a"}, "\tx: 1\nlicense: a\n", id="rescued: tabs"),
    ],
)  # fmt: skip
def test_every_way_to_write_a_value_can_be_changed(before: str, values: dict[str, Any], after: str) -> None:
    """The frontmatter around it stays."""
    text = "---\nname: pdf\ndescription: Fill.\n{}---\nDo it.\n"
    if before.startswith("\t"):
        text = text.replace("Fill.\n{}", "a: b\n{}")  # the rescue reads tabs only where YAML fails
    assert spliced(text.format(before), **values) == text.format(after)


def test_a_frontmatter_in_braces_stays_in_braces() -> None:
    """Values are replaced, added and taken away between commas."""
    text = '---\n{name: pdf, "description":"Fill.", license: MIT, x: 1}\n---\n'
    assert spliced(text, description="a, b", license="", compatibility="c", metadata={"d": "e"}) == (
        "---\n{name: pdf, \"description\": 'a, b', x: 1, compatibility: 'c', metadata: {'d': 'e'}}\n---\n"
    ).replace("compatibility", "'compatibility'").replace("metadata", "'metadata'")


@pytest.mark.parametrize(
    ("text", "values", "fields"),
    [
        pytest.param("no frontmatter", {"license": "x"}, [None], id="unreadable"),
        pytest.param("---\nname: a\n---\n", {"license": "x"}, ["description"], id="not a skill"),
        pytest.param("---\ndescription: &d x\ny: *d\n---\n", {"description": "z"}, ["description"], id="anchor used"),
        pytest.param("---\nm: &m {license: x}\n<<: *m\ndescription: y\n---\n", {"license": ""}, ["license"], id="<<"),
        pytest.param(AUTHORED, {"description": "", "license": ""}, ["description"], id="none"),
        pytest.param(AUTHORED, {"description": "x" * 1_025}, ["description"], id="too long"),
        pytest.param(AUTHORED, {"metadata": {"a": 1}}, ["metadata"], id="no text"),
        pytest.param(AUTHORED, {"metadata": {" ": "a", "k" * 1_001: "b"}}, ["metadata", "metadata"], id="keys"),
        pytest.param(AUTHORED, {"allowed_tools": ("a b", "")}, ["allowed_tools", "allowed_tools"], id="tools"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(text: str, values: dict[str, Any], fields: list[str | None]) -> None:
    """A rule is broken, or more than was asked for would change; every field is named."""
    assert refused(lambda: spliced(text, **values)) == fields


def test_a_value_that_is_there_may_break_a_rule() -> None:
    """What skills.get returned can be given back as it is."""
    text = f"---\nname: pdf\ndescription: {'x' * 2_000}\nmetadata:\n  n: 1\n---\n"
    assert spliced(text, description="x" * 2_000, metadata={"n": 1}) == text


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("pdf", 0), ("データ", 0), ("a-1", 0), ("", 1), ("PDF", 1), ("-a", 1), ("a--b", 1), ("a/b", 1), ("a b", 1),
        ("x" * 65, 1), ("search", 1), ("attest", 1), ("node", 1), (" pdf", 1), ("ﬁll", 1), ("ö" * 200, 2),
        ("Search--_", 3), ("..", 1), ("a\0", 1),
    ],
)  # fmt: skip
def test_names_follow_the_specification(name: str, rules: int) -> None:
    """Each broken rule is one error about the name."""
    findings = list(check_new_name(name, {"node"}))
    assert [(finding.severity, finding.field) for finding in findings] == [("error", "name")] * rules


def test_rules_are_checked_together() -> None:
    """Every violation is listed, each with its field."""
    assert [finding.field for finding in check_fields({"description": None, "compatibility": "x" * 501})] == [
        "description",
        "compatibility",
    ]
    assert list(check_tools(("Read", "Bash(git add:*)", "mcp__a__b"))) == []
    assert len(list(check_tools(("Read, Write", "Bash(a", " ")))) == 3


TEXTS = st.text(max_size=40)
LINES = st.text(min_size=1, max_size=40)
FIELDS = st.builds(
    Fields,
    description=st.none() | LINES.filter(str.strip),
    license=st.none() | TEXTS,
    compatibility=st.none() | TEXTS,
    allowed_tools=st.none()
    | st.lists(st.sampled_from(["Read", "Bash(git add:*)", "mcp__a__b", "Édit"]), max_size=3).map(tuple),
    metadata=st.none() | st.dictionaries(LINES.filter(str.strip), TEXTS, max_size=3),
    body=st.none() | st.text(max_size=60),
)
NAMES = st.from_regex(r"[a-z0-9]+(-[a-z0-9]+){0,2}", fullmatch=True).filter(lambda name: not list(check_new_name(name)))


def shown(content: bytes) -> dict[str, Any]:
    """What a SKILL.md shows of the fields that can be given."""
    text = parse_skill_md(content, None)
    return {member.name: getattr(text, member.name) for member in members(Fields)}


def expected_of(fields: Fields, before: Mapping[str, Any]) -> dict[str, Any]:
    """What it shall show."""
    result = dict(before)
    for key, value in vars(fields).items():
        if key == "body" and value is not None:
            result[key] = body_of(b"---\ndescription: x\n---\n" + value.encode())
        elif isinstance(value, str):
            result[key] = value.strip() or None
        elif value is not None:
            result[key] = value or None
    return result


@given(NAMES, FIELDS, LINES.filter(str.strip))
def test_any_created_skill_parses_back(name: str, given_fields: Fields, description: str) -> None:
    """Whatever the texts are, they are read back as they were given, and no rule is broken."""
    fields = Fields(**{**vars(given_fields), "description": description})
    content = render_skill_md(name, fields)
    nothing = dict.fromkeys(shown(content)) | {"body": ""}
    assert shown(content) == expected_of(fields, nothing)
    assert parse_skill_md(content, name).findings == ()
    assert b"---" not in content.split(b"\n---\n")[0][4:]


# Parts of a hand-written frontmatter: what may stand for a field, and what no edit may touch.
HAND_WRITTEN = {
    "name": ["name: pdf\n", "name: 'pdf'  # c\n"],
    "description": ["description: |\n  x\n  y\n\n", "description: a: b\n c\n", "'description': x\n"],
    "license": ["", "license: MIT # c\n", "license:\n", "license: >\n  a\n  b\n", "license: a\nlicense: b\n"],
    "metadata": ["", "metadata:\n  # in\n  a: 'b' # c\n  n: 1\n", "metadata: {a: b}\n", "metadata:\n"],
    "allowed-tools": ["", "allowed-tools: [Read]\n", "allowed-tools:\n- Read\n- Write # c\n", "allowed-tools: Read\n"],
}  # fmt: skip
UNTOUCHED = ["# a comment\n", 'x-one: "1" # c\n', "x-two:\n  - a\n  - b\n", "\n", "x-three: |\n  # no comment\n  z\n"]


@st.composite
def hand_written(draw: st.DrawFn) -> str:
    parts = [draw(st.sampled_from(ways)) for ways in HAND_WRITTEN.values()]
    parts += draw(st.lists(st.sampled_from(UNTOUCHED), max_size=4, unique=True))
    frontmatter = "".join(draw(st.permutations(parts)))
    return f"---\n{frontmatter}---\n{draw(st.sampled_from(['', chr(10), chr(10) * 3]))}# Body\n\ntext"


@settings(max_examples=200)
@given(hand_written(), st.lists(FIELDS, min_size=1, max_size=4), st.booleans())
def test_any_sequence_of_updates_keeps_untouched_bytes(text: str, updates: list[Fields], crlf: bool) -> None:
    """Every part that no update is about is there, byte for byte and in order, and only what was asked for shows."""
    if crlf:
        text = text.replace("\n", "\r\n")
    content = text.encode()
    untouched = [part for part in UNTOUCHED if part.strip() and part in text]
    untouched = [part.replace("\n", "\r\n") if crlf else part for part in untouched]
    untouched.sort(key=text.index)
    for fields in updates:
        before = shown(content)
        content = splice_skill_md(content, fields)
        assert shown(content) == expected_of(fields, before)
        places = [content.index(part.encode()) for part in untouched]
        assert places == sorted(places)
        if fields.body is None:
            assert content.endswith(body_of(content).encode())
        assert splice_skill_md(content, fields) == content
