"""What a skill is: the specification's rules, and the values as the wire has them."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime

import pytest

from skilld.skills.model import (
    RESERVED_NAMES,
    Finding,
    Json,
    Problem,
    Resource,
    Skill,
    check_compatibility,
    check_description,
    check_fields,
    check_metadata,
    check_name,
    parse_allowed_tools,
)

SKILL = Skill(
    id="team/pdf",
    name="pdf",
    description="Fill forms.",
    license=None,
    compatibility=None,
    metadata=None,
    allowed_tools=None,
    frontmatter={"name": "pdf", "description": "Fill forms."},
    resources=(),
    path="/skills/team/pdf",
    root="/skills",
    skill_md="/skills/team/pdf/SKILL.md",
    skill_md_sha256="0" * 64,
    digest="sha256:1",
    modified_ns=1_700_000_000_123_456_789,
    problems=(),
)

LOWER = "must be lower case"
CHARACTERS = "may hold letters, digits and hyphens only"


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("pdf", []),
        ("a", []),
        ("a" * 64, []),
        ("pdf-2-html", []),
        ("2d", []),
        ("技能", []),
        ("café", []),
        ("ａｂ", []),  # full-width letters are a, b after NFKC
        (" pdf ", []),
        ("", ["name is empty"]),
        (" ", ["name is empty"]),
        ("a" * 65, ["name has 65 characters, the limit is 64"]),
        ("PDF", [f"name 'PDF' {LOWER}"]),
        ("É", [f"name 'É' {LOWER}"]),
        ("-a", ["name '-a' must not start or end with a hyphen"]),
        ("a-", ["name 'a-' must not start or end with a hyphen"]),
        ("a--b", ["name 'a--b' must not hold two hyphens in a row"]),
        ("a_b", [f"name 'a_b' {CHARACTERS}"]),
        ("a b", [f"name 'a b' {CHARACTERS}"]),
        ("a/b", [f"name 'a/b' {CHARACTERS}"]),
        ("a.b", [f"name 'a.b' {CHARACTERS}"]),
        ("ns:a", [f"name 'ns:a' {CHARACTERS}"]),
        ("a\nb", [f"name 'a\\nb' {CHARACTERS}"]),
        ("a\0b", [f"name 'a\\x00b' {CHARACTERS}"]),
        ("a\u200bb", [f"name 'a\\u200bb' {CHARACTERS}"]),
        ("..", [f"name '..' {CHARACTERS}"]),
        ("<a>", [f"name '<a>' {CHARACTERS}"]),
        (
            "-A--b_",
            [
                f"name '-A--b_' {LOWER}",
                "name '-A--b_' must not start or end with a hyphen",
                "name '-A--b_' must not hold two hyphens in a row",
                f"name '-A--b_' {CHARACTERS}",
            ],
        ),
    ],
)
def test_a_name_is_lower_case_letters_digits_and_single_hyphens(name: str, messages: list[str]) -> None:
    """The specification's rules, in the reading of its reference validator: any script's letters count."""
    assert list(check_name(name)) == messages


@pytest.mark.parametrize(
    ("name", "dir_name", "messages"),
    [
        ("pdf", "pdf", []),
        ("pdf", None, []),
        ("cafe\u0301", "caf\u00e9", []),  # two ways to write one name
        ("pdf", "PDF", ["name 'pdf' differs from the directory's name 'PDF'"]),
        ("pdf", "", ["name 'pdf' differs from the directory's name ''"]),
    ],
)
def test_a_name_equals_its_directorys(name: str, dir_name: str | None, messages: list[str]) -> None:
    """Composed and decomposed letters are equal; case is not."""
    assert list(check_name(name, dir_name)) == messages


@pytest.mark.parametrize(
    ("check", "value", "messages"),
    [
        (check_description, "d", []),
        (check_description, "d" * 1_024, []),
        (check_description, "d" * 1_025, ["description has 1025 characters, the limit is 1024"]),
        (check_description, " \n", ["description is empty"]),
        (check_description, "Use <b>this</b>, claude", []),
        (check_compatibility, "", []),
        (check_compatibility, "c" * 500, []),
        (check_compatibility, "c" * 501, ["compatibility has 501 characters, the limit is 500"]),
        (check_metadata, {}, []),
        (check_metadata, {"a": [1]}, []),
        (check_metadata, [], ["metadata must be a map"]),
        (check_metadata, "text", ["metadata must be a map"]),
    ],
)
def test_the_other_fields_have_their_limits(check: object, value: Json, messages: list[str]) -> None:
    """Lengths count characters, not bytes; nothing else in a text is forbidden."""
    assert callable(check)
    assert list(check(value)) == messages


def test_a_frontmatter_is_held_against_all_rules() -> None:
    """Unknown fields first, in the author's order, then the fields in the specification's."""
    frontmatter = {"version": 1, "metadata": "x", "name": "A", "tags": []}
    assert list(check_fields(frontmatter, {"name": "A"}, "a")) == [
        Finding("warning", "unknown field 'version'", "version"),
        Finding("warning", "unknown field 'tags'", "tags"),
        Finding("warning", "name 'A' must be lower case", "name"),
        Finding("warning", "name 'A' differs from the directory's name 'a'", "name"),
        Finding("warning", "metadata must be a map", "metadata"),
    ]
    missing = Finding("warning", "name is missing; the directory's name is used", "name")
    assert list(check_fields({"description": "d"}, {"description": "d"}, None)) == [missing]


@pytest.mark.parametrize(
    ("value", "tools"),
    [
        (None, None),
        (5, None),
        ({"Read": None}, None),
        ("", ()),
        (" , ", ()),
        ([], ()),
        ([" Read ", "", "Write"], ("Read", "Write")),
        ([1, None], ("1", "None")),
        ("Read", ("Read",)),
        ("Read Write", ("Read", "Write")),
        ("Read,Write", ("Read", "Write")),
        ("Read ,\n Write", ("Read", "Write")),
        ("Bash(git add:*) Read", ("Bash(git add:*)", "Read")),
        ("Bash(a, b), Read", ("Bash(a, b)", "Read")),
        ("Bash(f(x, y) z)", ("Bash(f(x, y) z)",)),
        ("Bash(never closed, Read", ("Bash(never closed, Read",)),
        ("a) b", ("a)", "b")),
        ("mcp__x__y *", ("mcp__x__y", "*")),
    ],
)
def test_allowed_tools_are_split_outside_parentheses(value: Json, tools: tuple[str, ...] | None) -> None:
    """Blanks and commas part tools; parentheses that nobody closed keep their text."""
    assert parse_allowed_tools(value) == tools


def test_a_skill_as_json_leaves_out_what_its_author_did_not_set() -> None:
    """Everything else is there, and the body is the caller's."""
    assert SKILL.to_json("Steps.") == {
        "id": "team/pdf",
        "name": "pdf",
        "description": "Fill forms.",
        "frontmatter": {"name": "pdf", "description": "Fill forms."},
        "body": "Steps.",
        "scripts": [],
        "references": [],
        "assets": [],
        "resources": [],
        "path": "/skills/team/pdf",
        "root": "/skills",
        "digest": "sha256:1",
        "modified": "2023-11-14T22:13:20.123Z",
        "problems": [],
    }
    assert SKILL.summary() == {"id": "team/pdf", "name": "pdf", "description": "Fill forms."}


def test_a_skill_as_json_has_all_that_its_author_set() -> None:
    """Files are listed by folder and once more with their digests."""
    paths = ("LICENSE", "assets/a.txt", "references/sub/b.md", "scripts-old/x", "scripts/run.py")
    skill = replace(
        SKILL,
        license="MIT",
        compatibility="Python 3",
        metadata={"a": 1},
        allowed_tools=("Read",),
        digest=None,
        resources=tuple(Resource(path, 1, None, path == "scripts/run.py") for path in paths),
        problems=(Problem("/skills/team/pdf", "warning", "m", "team/pdf", "pdf", "name", 2),),
    )
    expected = {
        "license": "MIT",
        "compatibility": "Python 3",
        "metadata": {"a": 1},
        "allowed_tools": ["Read"],
        "scripts": ["scripts/run.py"],
        "references": ["references/sub/b.md"],
        "assets": ["assets/a.txt"],
        "digest": None,
        "problems": [
            {
                "path": "/skills/team/pdf",
                "id": "team/pdf",
                "name": "pdf",
                "field": "name",
                "severity": "warning",
                "message": "m",
                "line": 2,
            }
        ],
    }
    written = skill.to_json("")
    assert {key: written[key] for key in expected} == expected
    assert written["resources"] == [
        {"path": path, "size": 1, "sha256": None, "executable": path == "scripts/run.py"} for path in paths
    ]
    json.dumps(written, allow_nan=False)


def test_a_problem_leaves_out_what_is_not_known() -> None:
    """Path, severity and message are always there."""
    problem = Problem("/skills/x", "error", "cannot be read")
    assert problem.to_json() == {"path": "/skills/x", "severity": "error", "message": "cannot be read"}


@pytest.mark.parametrize(
    ("modified_ns", "expected"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1_000_000, "1969-12-31T23:59:59.999Z"),
        (1_700_000_000_999_999_999, "2023-11-14T22:13:20.999Z"),
        (int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * 10**9, "9999-12-31T00:00:00.000Z"),
        (10**21, "9999-12-31T23:59:59.000Z"),
        (10**30, "9999-12-31T23:59:59.000Z"),
        (-(10**20), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_beyond_the_calendar_is_the_calendars_end(modified_ns: int, expected: str) -> None:
    """File systems hold time stamps that RFC 3339 cannot write; such a skill is served like any other."""
    assert replace(SKILL, modified_ns=modified_ns).to_json("")["modified"] == expected


def test_values_are_frozen() -> None:
    """A snapshot that a caller holds cannot change under it."""
    with pytest.raises(FrozenInstanceError):
        SKILL.name = "other"  # type: ignore[misc]


def test_the_names_of_routes_are_reserved() -> None:
    """An id of one of these would hide behind a REST route."""
    assert set(RESERVED_NAMES) == {"search", "problems", "prompt", "changes", "validate", "attest"}
