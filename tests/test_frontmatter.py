"""From the bytes of a SKILL.md to fields and body: the fixtures that tell readers of skills apart, and worse."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import orjson
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from skilld.skills.frontmatter import body_of, decode, parse_skill_md, split
from skilld.skills.lenient_yaml import FrontmatterError
from skilld.skills.model import Finding, Json

BODY = "\nSteps.\n"
FLOW = "flow style ([...] or {...}) is refused by strict parsers (skills-ref)"
ANCHOR = "an anchor is refused by strict parsers (skills-ref)"
NO_FRONTMATTER = "no frontmatter: the first line must be '---'"


@dataclass(frozen=True)
class Case:
    """
    A SKILL.md in a directory "fixture", and what is to come out: what is served, or the one problem.

    ``findings`` are (message, field, line); a case without a description is not served, and has one.
    """

    id: str
    content: bytes
    name: str | None = None
    description: str | None = None
    findings: tuple[tuple[str, str | None, int | None], ...] = ()
    file_name: str = "SKILL.md"
    tools: tuple[str, ...] | None = None
    frontmatter: dict[str, Json] | None = field(default=None, hash=False)


def md(*lines: str, body: str = BODY) -> bytes:
    return "\n".join(["---", *lines, "---", body]).encode()


def named(name: str) -> bytes:
    return md(f"name: {name}", "description: Does things.")


def described(*lines: str) -> bytes:
    return md("name: fixture", *lines)


def differs(name: str) -> tuple[str, str, None]:
    return (f"name {name!r} differs from the directory's name 'fixture'", "name", None)


def characters(name: str) -> tuple[str, str, None]:
    return (f"name {name!r} may hold letters, digits and hyphens only", "name", None)


# The 34 fixtures on which readers of skills disagree. Only five cannot be served.
FIXTURES = (
    Case("control", described("description: Does things."), "fixture", "Does things."),
    Case("name-differs-from-directory", named("other"), "other", "Does things.", (differs("other"),)),
    Case(
        "name-missing",
        md("description: Does things."),
        None,
        "Does things.",
        (("name is missing; the directory's name is used", "name", None),),
    ),
    Case(
        "name-upper-case-and-blank",
        named("My Skill"),
        "My Skill",
        "Does things.",
        (("name 'My Skill' must be lower case", "name", None), characters("My Skill"), differs("My Skill")),
    ),
    Case("name-underscore", named("a_b"), "a_b", "Does things.", (characters("a_b"), differs("a_b"))),
    Case("name-plugin-colon", named("ns:tool"), "ns:tool", "Does things.", (characters("ns:tool"), differs("ns:tool"))),
    Case("name-accent", named("café"), "café", "Does things.", (differs("café"),)),
    Case("name-cjk", named("技能"), "技能", "Does things.", (differs("技能"),)),
    Case(
        "name-65-characters",
        named("a" * 65),
        "a" * 65,
        "Does things.",
        (("name has 65 characters, the limit is 64", "name", None), differs("a" * 65)),
    ),
    Case("name-reserved-word", named("claude-api"), "claude-api", "Does things.", (differs("claude-api"),)),
    Case("name-yaml-int", named("123"), "123", "Does things.", (differs("123"),)),
    Case("description-missing", md("name: fixture"), findings=(("description is missing", "description", 1),)),
    Case(
        "description-1025-characters",
        described("description: " + "d" * 1_025),
        "fixture",
        "d" * 1_025,
        (("description has 1025 characters, the limit is 1024", "description", None),),
    ),
    Case("description-tag", described("description: Use <b>this</b>."), "fixture", "Use <b>this</b>."),
    Case("description-folded", described("description: >", "  Does", "  things."), "fixture", "Does things."),
    Case(
        "description-list",
        described("description:", "  - Does things."),
        findings=(("description must be text, not a list", "description", None),),
    ),
    Case(
        "prose-colon",
        described("description: Use when: asked."),
        "fixture",
        "Use when: asked.",
        (("YAML: mapping values are not allowed in this context; the value was read as plain text", "description", 3),),
    ),
    Case(
        "unknown-field",
        described("description: Does things.", "model: opus"),
        "fixture",
        "Does things.",
        (("unknown field 'model'", "model", None),),
        frontmatter={"name": "fixture", "description": "Does things.", "model": "opus"},
    ),
    Case(
        "metadata-nested",
        described("description: Does things.", "metadata:", "  a:", "    - 1", "    - b: true"),
        "fixture",
        "Does things.",
        frontmatter={"name": "fixture", "description": "Does things.", "metadata": {"a": [1, {"b": True}]}},
    ),
    Case(
        "metadata-flow",
        described("description: Does things.", "metadata: {a: b}"),
        "fixture",
        "Does things.",
        ((FLOW, None, 4),),
        frontmatter={"name": "fixture", "description": "Does things.", "metadata": {"a": "b"}},
    ),
    Case(
        "allowed-tools-list",
        described("description: Does things.", "allowed-tools:", "  - Read", "  - Bash(git add:*)"),
        "fixture",
        "Does things.",
        tools=("Read", "Bash(git add:*)"),
    ),
    Case(
        "date",
        described("description: Does things.", "updated: 2026-01-05"),
        "fixture",
        "Does things.",
        (("unknown field 'updated'", "updated", None),),
        frontmatter={"name": "fixture", "description": "Does things.", "updated": "2026-01-05"},
    ),
    Case(
        "duplicate-key",
        described("description: First.", "description: Second."),
        "fixture",
        "Second.",
        (("'description' is given twice; the last counts", "description", 4),),
    ),
    Case(
        "anchor-and-alias",
        md("name: &n fixture", "description: *n"),
        "fixture",
        "fixture",
        ((ANCHOR, None, 2),),
    ),
    Case(
        "tab-indent",
        described("description: Does things.", "metadata:", "\ta: b"),
        "fixture",
        "Does things.",
        (
            (
                "YAML: while scanning for the next token, found character that cannot start any token; "
                "tabs were read as blanks",
                None,
                5,
            ),
        ),
    ),
    Case("dashes-in-description", described("description: a --- b"), "fixture", "a --- b"),
    Case("no-newline-at-the-end", b"---\nname: fixture\ndescription: Does things.\n---", "fixture", "Does things."),
    Case(
        "unclosed",
        b"---\nname: fixture\ndescription: Does things.\n\nSteps.\n",
        findings=(("the frontmatter is not closed by a line '---'", None, 1),),
    ),
    Case(
        "blank-line-first",
        b"\n" + described("description: Does things."),
        "fixture",
        "Does things.",
        (("blank lines before the opening '---'", None, 1),),
    ),
    Case("no-frontmatter", b"# Steps\n\nDo things.\n", findings=((NO_FRONTMATTER, None, 1),)),
    Case("crlf", described("description: Does things.").replace(b"\n", b"\r\n"), "fixture", "Does things."),
    Case(
        "byte-order-mark",
        b"\xef\xbb\xbf" + described("description: Does things."),
        "fixture",
        "Does things.",
        (("the file starts with a byte order mark", None, 1),),
    ),
    Case(
        "not-utf-8",
        b"---\nname: fixture\ndescription: caf\xe9\n---\n",
        "fixture",
        "caf\ufffd",
        (("not UTF-8: byte 0xe9 at offset 34", None, 3),),
    ),
    Case("lower-case-file", described("description: Does things."), "fixture", "Does things.", file_name="skill.md"),
)

CONTROL = "YAML: control characters are not allowed; such characters were replaced by U+FFFD"

# What else a disk may hold under the name SKILL.md.
POISON = (
    Case("empty", b"", findings=((NO_FRONTMATTER, None, 1),)),
    Case("blank", b" \n\t\n\n", findings=((NO_FRONTMATTER, None, 1),)),
    Case("one-line", b"---", findings=(("the frontmatter is not closed by a line '---'", None, 1),)),
    Case("empty-frontmatter", b"---\n---\n", findings=(("the frontmatter must be a mapping, not empty", None, 2),)),
    Case("comment", md("# nothing"), findings=(("the frontmatter must be a mapping, not empty", None, 2),)),
    Case("scalar", md("text"), findings=(("the frontmatter must be a mapping, not a scalar", None, 2),)),
    Case("list", md("- name: a"), findings=(("the frontmatter must be a mapping, not a list", None, 2),)),
    Case("toml", b'+++\nname = "a"\n+++\n', findings=((NO_FRONTMATTER, None, 1),)),
    Case("four-dashes", b"----\nname: a\n----\n", findings=((NO_FRONTMATTER, None, 1),)),
    Case("text-first", b"Hello\n---\nname: a\n---\n", findings=((NO_FRONTMATTER, None, 1),)),
    Case(
        "utf-16", md("name: a").decode().encode("utf-16"), findings=(("the file is UTF-16, it must be UTF-8", None, 1),)
    ),
    Case("utf-16-be", b"\xfe\xff\0-\0-\0-", findings=(("the file is UTF-16, it must be UTF-8", None, 1),)),
    Case("nul", described("description: a\0b"), "fixture", "a\ufffdb", ((CONTROL, None, 3),)),
    Case("nul-only", b"\0" * 100, findings=((NO_FRONTMATTER, None, 1),)),
    Case("form-feed", described("license: a", "description: b\x0c"), "fixture", "b\ufffd", ((CONTROL, None, 4),)),
    Case("elf", b"\x7fELF\x02\x01\x01" + bytes(range(256)), findings=((NO_FRONTMATTER, None, 1),)),
    Case("description-null", described("description: ~"), "fixture", "~"),
    Case("description-empty", described("description:"), findings=(("description is missing", "description", 1),)),
    Case("description-blank", described('description: "  "'), findings=(("description is missing", "description", 1),)),
    Case(
        "description-map",
        described("description: {a: b}"),
        findings=(("description must be text, not a mapping", "description", None),),
    ),
    Case(
        "name-list",
        md("name: [a]", "description: d"),
        None,
        "d",
        (
            (FLOW, None, 2),
            ("name must be text, not a list", "name", None),
            ("name is missing; the directory's name is used", "name", None),
        ),
    ),
    Case("booleans", md("name: yes", "description: no"), "yes", "no", (differs("yes"),)),
    Case("numbers", md("name: 1.0", "description: 2026_01"), "1.0", "2026_01", (characters("1.0"), differs("1.0"))),
    Case(
        "two-documents",
        b"---\nname: fixture\ndescription: d\n--- x\n---\n",
        findings=(("more than one YAML document", None, 4),),
    ),
    Case(
        "python-tag",
        described("description: d", "x: !!python/object/apply:os.system [false]"),
        "fixture",
        "d",
        (
            (FLOW, None, 4),
            ("the tag 'tag:yaml.org,2002:python/object/apply:os.system' is ignored", None, 4),
            ("unknown field 'x'", "x", None),
        ),
        frontmatter={"name": "fixture", "description": "d", "x": [False]},
    ),
    Case(
        "undefined-alias",
        described("description: *emphasis first"),
        "fixture",
        "*emphasis first",
        (("YAML: found undefined alias 'emphasis'; the value was read as plain text", "description", 3),),
    ),
    Case(
        "recursive-alias",
        described("description: d", "x: &x [*x]"),
        findings=(("alias *x refers to itself", None, 4),),
    ),
    Case(
        "lone-surrogate",
        described('description: "\\ud800"'),
        "fixture",
        "\\ud800",
        (
            (
                "YAML: while parsing a quoted scalar, found invalid Unicode character escape code; "
                "the value was read as plain text",
                "description",
                3,
            ),
        ),
    ),
    Case(
        "beyond-rescue",
        described("description d"),
        findings=(("YAML: while scanning a simple key, could not find expected ':'", None, 4),),
    ),
)

CASES = (*FIXTURES, *POISON)


def test_the_fixtures_are_34() -> None:
    """No fixture is lost."""
    assert len({case.id for case in FIXTURES}) == 34
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_skill_md_is_read_as_its_author_meant_it(case: Case) -> None:
    """Name, description and findings of each case; what cannot be served has one error, with its line."""
    severity = "warning" if case.description is not None else "error"
    expected = tuple(Finding("warning", message, field, line) for message, field, line in case.findings)
    if severity == "error":
        with pytest.raises(FrontmatterError) as caught:
            parse_skill_md(case.content, "fixture")
        message, finding_field, line = case.findings[0]
        assert caught.value.finding == Finding("error", message, finding_field, line)
        assert len(case.findings) == 1
        return
    text = parse_skill_md(case.content, "fixture")
    assert (text.name, text.description, text.findings) == (case.name, case.description, expected)
    assert text.allowed_tools == case.tools
    if case.frontmatter is not None:
        assert text.frontmatter == case.frontmatter


@pytest.mark.parametrize("case", [case for case in CASES if case.description is not None], ids=lambda case: case.id)
def test_the_body_can_be_had_without_parsing_the_yaml(case: Case) -> None:
    """body_of returns what parse_skill_md found."""
    assert body_of(case.content) == parse_skill_md(case.content, None).body


@pytest.mark.parametrize(
    ("text", "yaml_text", "body", "first_line"),
    [
        ("---\na: b\n---\nbody\n", "a: b\n", "body\n", 1),
        ("---\na: b\n---", "a: b\n", "", 1),
        ("---\na: b\n---\n", "a: b\n", "", 1),
        ("---\na: b\n---  \t\nbody", "a: b\n", "body", 1),
        ("---  \na: b\n---\n", "a: b\n", "", 1),
        ("---\r\na: b\r\n---\r\nbody\r\n", "a: b\r\n", "body\r\n", 1),
        ("---\n---\n", "", "", 1),
        ("\n \t\n---\na: b\n---\n", "a: b\n", "", 3),
        ("---\na: b\n---\n\n\n  \n  body\n\n", "a: b\n", "  body\n\n", 1),
        ("---\na: b\n---\nbody\n---\nmore\n---\n", "a: b\n", "body\n---\nmore\n---\n", 1),
        ("---\na: b --- c\n---\nbody", "a: b --- c\n", "body", 1),
        ("---\na: |\n  ---\n  x\n---\nbody", "a: |\n  ---\n  x\n", "body", 1),
        ("---\na: b\n----\n---\nbody", "a: b\n----\n", "body", 1),
        ("---\na: b\n---x\n---\nbody", "a: b\n---x\n", "body", 1),
        ("---\na: b\n--- x\n---\nbody", "a: b\n--- x\n", "body", 1),
        ("---\na: b\n---\n\u2028body", "a: b\n", "\u2028body", 1),
    ],
)
def test_the_frontmatter_ends_at_a_line_of_three_dashes(text: str, yaml_text: str, body: str, first_line: int) -> None:
    """Only a whole line counts; the body loses its leading blank lines and nothing else."""
    parts = split(text)
    assert (parts.yaml, parts.body, parts.first_line) == (yaml_text, body, first_line)


@pytest.mark.parametrize(
    ("lines", "tools"),
    [
        ([], None),
        (["allowed-tools:"], None),
        (["allowed-tools: 5"], None),
        (["allowed-tools: Read Write"], ("Read", "Write")),
        (["allowed-tools: Read, Write,Bash"], ("Read", "Write", "Bash")),
        (["allowed-tools: [Read, 'Bash(git add:*)']"], ("Read", "Bash(git add:*)")),
        (
            ["allowed-tools: Bash(git add:*), Bash(npm run test:*) Read"],
            ("Bash(git add:*)", "Bash(npm run test:*)", "Read"),
        ),
        (["allowed-tools: >", "  Read", "  Write"], ("Read", "Write")),
        (["allowed-tools: '*'"], ("*",)),
        (["allowed-tools: ''"], ()),
        (["allowed-tools: {Read: true}"], None),
    ],
)
def test_allowed_tools_come_in_three_habits(lines: list[str], tools: tuple[str, ...] | None) -> None:
    """Blanks, commas or a list; what is inside parentheses belongs to the tool."""
    assert parse_skill_md(described("description: d", *lines), "fixture").allowed_tools == tools


@pytest.mark.parametrize(
    ("line", "attribute", "expected", "messages"),
    [
        ("license: MIT", "license", "MIT", []),
        ("license: 2.0", "license", "2.0", []),
        ("license: ' MIT '", "license", "MIT", []),
        ("license:", "license", None, []),
        ("license: [MIT]", "license", None, [FLOW, "license must be text, not a list"]),
        ("compatibility: 'Python 3'", "compatibility", "Python 3", []),
        ("compatibility: {python: 3}", "compatibility", None, [FLOW, "compatibility must be text, not a mapping"]),
        (f"compatibility: {'c' * 500}", "compatibility", "c" * 500, []),
        (
            f"compatibility: {'c' * 501}",
            "compatibility",
            "c" * 501,
            ["compatibility has 501 characters, the limit is 500"],
        ),
        (
            f"compatibility: '{'c' * 500} '",
            "compatibility",
            "c" * 500,
            ["compatibility has 501 characters, the limit is 500"],
        ),
        ("metadata: {}", "metadata", {}, [FLOW]),
        ("metadata:", "metadata", None, []),
        ("metadata: text", "metadata", "text", ["metadata must be a map"]),
        ("metadata: {1: 2}", "metadata", {"1": 2}, [FLOW]),
    ],
)
def test_a_field_of_the_wrong_kind_is_a_warning(line: str, attribute: str, expected: Json, messages: list[str]) -> None:
    """Text fields are text as written, or absent; the skill is served either way."""
    text = parse_skill_md(described("description: d", line), "fixture")
    assert (getattr(text, attribute), [finding.message for finding in text.findings]) == (expected, messages)


def test_limits_count_blanks_as_the_specification_does() -> None:
    """A description of 1,024 characters and a newline is one too long, and is served without the newline."""
    text = parse_skill_md(described("description: |", "  " + "d" * 1_024), "fixture")
    assert text.description == "d" * 1_024
    assert [finding.message for finding in text.findings] == ["description has 1025 characters, the limit is 1024"]


@pytest.mark.parametrize(
    "chunk",
    [
        b"a" * 1_000_000,
        b"a " * 500_000,
        b" " * 999_999 + b"a",
        b" " * 900_000 + b"a: b",
        b"a: " * 330_000,
        b"\t" * 999_999 + b"b",
    ],
)
def test_a_line_of_a_megabyte_is_read(chunk: bytes) -> None:
    """Length alone stops nothing: the description comes out whole, blanks at its ends apart."""
    text = parse_skill_md(b"---\nname: fixture\ndescription: x" + chunk + b"\n---\n", "fixture")
    assert text.description == (b"x" + chunk).decode().strip()


@pytest.mark.parametrize(
    "content",
    [
        b"\n" * 1_000_000,
        b" " * 1_000_000,
        b" \n" * 500_000,
        b"---" + b" " * 1_000_000 + b"x",
        b"---\n" + b"--- x\n" * 160_000,
        b"---\n" + (b"---" + b" " * 1_000 + b"x\n") * 1_000,
        b"---\n" + b"- " * 500_000 + b"\n---\n",
        b"---\n" + b"? " * 500_000 + b"\n---\n",
        b"---\nx: " + b"[" * 100_000 + b"\n---\n",
        b"---\nx: " + b"{a: " * 100_000 + b"\n---\n",
        b"---\n" + b"".join(b" " * depth + b"a:\n" for depth in range(1_000)) + b"---\n",
        b"---\na" + b" " * 900_000 + b"b\n---\n",
        b"---\n" + b"x: y: z\n" * 120_000 + b"---\n",
        b"---\n" + b"x\n" * 500_000 + b"---\n",
        b"---\n" + b"x: 'y\n" * 160_000 + b"---\n",
        b"---\n" + b"".join(b"k%d: v\n" % number for number in range(60_000)) + b"---\n",
        b"---\nx: 1" + b":59" * 300_000 + b"\n---\n",
    ],
    ids=[
        "newlines",
        "blanks",
        "blank lines",
        "opening",
        "dashes",
        "dashes and blanks",
        "deep list",
        "deep keys",
        "deep flow",
        "deep flow map",
        "deep map",
        "blank key",
        "colons",
        "no colons",
        "quotes",
        "many keys",
        "sexagesimal",
    ],
)
def test_a_megabyte_of_anything_is_refused_at_once(content: bytes) -> None:
    """No text makes the parser slower than its length."""
    with pytest.raises(FrontmatterError):
        parse_skill_md(content, "fixture")


@pytest.mark.parametrize(
    ("content", "text", "findings"),
    [
        (b"plain", "plain", []),
        ("ü技😀".encode(), "ü技😀", []),
        (b"\xef\xbb\xbfx", "x", [Finding("warning", "the file starts with a byte order mark", line=1)]),
        (b"a\nb\xffc\xfe", "a\nb\ufffdc\ufffd", [Finding("warning", "not UTF-8: byte 0xff at offset 3", line=2)]),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd", [Finding("warning", "not UTF-8: byte 0xed at offset 0", line=1)]),
        (b"\xc0\x80", "\ufffd\ufffd", [Finding("warning", "not UTF-8: byte 0xc0 at offset 0", line=1)]),
    ],
)
def test_bad_bytes_are_replaced_and_named(content: bytes, text: str, findings: list[Finding]) -> None:
    """One warning names the first bad byte, its offset and its line."""
    assert decode(content) == (text, findings)


# Texts out of what breaks YAML parsers, between lines that make a frontmatter of them.
PIECES = st.sampled_from(
    [
        "name: a",
        "description: d",
        ": ",
        "- ",
        "? ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "!!int ",
        "!x ",
        "<<: ",
        "'",
        '"',
        "#",
        "|",
        ">",
        "\n",
        "\r\n",
        "\r",
        "\t",
        " ",
        "  ",
        "---",
        "...",
        "%",
        "@",
        "`",
        "\\",
        "\0",
        "\x07",
        "\x85",
        "\u2028",
        "\ufeff",
        "\ud7ff",
        "0x",
        "9" * 25,
        "1e999",
        ".nan",
        "2026-99-99",
        "~",
        "yes",
        "é",
        "技",
        "😀",
        '"\\ud800"',
        '"\\0"',
        "1:59:59",
    ]
)
TEXTS = st.lists(PIECES, max_size=30).map("".join)


def check(content: bytes) -> None:
    try:
        text = parse_skill_md(content, "fixture")
    except FrontmatterError as exc:
        assert exc.finding.message
        assert "\n" not in exc.finding.message
        return
    for value in (
        text.frontmatter,
        [text.name, text.description, text.license, text.compatibility, text.allowed_tools],
    ):
        written = json.dumps(value, allow_nan=False)
        written.encode()
        assert json.loads(orjson.dumps(value)) == json.loads(written)
    assert text.description.strip()
    assert text.body == body_of(content)


@settings(max_examples=400)
@given(st.one_of(st.binary(), st.binary().map(lambda between: b"---\n" + between + b"\n---\n")))
@example(b"---\nname: a\ndescription: d\nx: 0x" + b"f" * 4_000 + b"\n---\n")
@example(b"---\nname: a\ndescription: d\nx: " + b"{" * 60 + b"a: 1" + b"}: 1" * 59 + b"}\n---\n")
def test_no_bytes_crash_the_parser(content: bytes) -> None:
    """Any bytes are a skill whose values JSON can carry, or a FrontmatterError."""
    check(content)


@settings(max_examples=800)
@given(TEXTS)
def test_no_yaml_crashes_the_parser(text: str) -> None:
    """Nor do texts made of what YAML trips over."""
    check(f"---\nname: a\ndescription: d\n{text}\n---\nbody".encode(errors="replace"))
    check(f"---\ndescription: {text}\n---\nbody".encode(errors="replace"))


JSON_TEXTS = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Cn"), exclude_characters="\ufeff\u2028\u2029"), max_size=20
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | JSON_TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(JSON_TEXTS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(st.dictionaries(JSON_TEXTS, JSON_VALUES, max_size=6), st.booleans())
def test_what_yaml_dumps_comes_back(fields: dict[str, Json], in_flow_style: bool) -> None:
    """A mapping of JSON's types, dumped by PyYAML, is the frontmatter word for word."""
    fields = {**fields, "name": "fixture", "description": "d"}
    dumped = yaml.safe_dump(fields, allow_unicode=True, default_flow_style=in_flow_style or None, width=10_000)
    content = f"---\n{dumped}---\nbody".encode()
    text = parse_skill_md(content, "fixture")
    assert (text.frontmatter, text.body) == (fields, "body")
