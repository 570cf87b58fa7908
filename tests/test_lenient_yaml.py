"""YAML, read leniently: values JSON can carry, rescued values, and bombs that do not go off."""

from __future__ import annotations

import itertools
import json
from datetime import date
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skilld.skills.lenient_yaml import CHARS_PER_VALUE, DEPTH_LIMIT, VALUE_LIMIT, FrontmatterError, parse_yaml
from skilld.skills.model import Finding, Json

FLOW = "flow style ([...] or {...}) is refused by strict parsers (skills-ref)"
ANCHOR = "an anchor is refused by strict parsers (skills-ref)"
TAG = "a tag is refused by strict parsers (skills-ref)"
TAB = "a tab is refused by strict parsers (skills-ref)"
COLON = "YAML: mapping values are not allowed in this context"
AS_TEXT = "; the value was read as plain text"


def fields_of(text: str) -> dict[str, Json]:
    return parse_yaml(text)[0]


def messages_of(text: str) -> list[str]:
    return [finding.message for finding in parse_yaml(text)[2]]


def refusal_of(text: str, first_line: int = 1) -> Finding:
    with pytest.raises(FrontmatterError) as caught:
        parse_yaml(text, first_line)
    return caught.value.finding


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("text", "text"),
        ("yes", True),
        ("Off", False),
        ("true", True),
        ("y", "y"),
        ("~", None),
        ("", None),
        ("null", None),
        ("0", 0),
        ("-12", -12),
        ("1_000", 1_000),
        ("017", 15),
        ("0o17", "0o17"),
        ("0x1F", 31),
        ("0b101", 5),
        ("1:30", 90),
        ("1.5", 1.5),
        ("1e3", "1e3"),
        ("1.0e+3", 1_000.0),
        (".5", 0.5),
        ("1:30.5", 90.5),
        ("9223372036854775807", 2**63 - 1),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", "18446744073709551616"),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", "-9223372036854775809"),
        ("1.0e+999", "1.0e+999"),
        (".nan", ".nan"),
        (".NaN", ".NaN"),
        (".inf", ".inf"),
        ("-.Inf", "-.Inf"),
        ("2026-01-05", "2026-01-05"),
        ("2026-1-5", "2026-1-5"),
        ("2026-02-30", "2026-02-30"),
        ("2026-13-45", "2026-13-45"),
        ("0000-01-01", "0000-01-01"),
        ("2026-01-05T10:00:00Z", "2026-01-05T10:00:00+00:00"),
        ("2026-01-05 10:00:00.5 +2", "2026-01-05T10:00:00.500000+02:00"),
        ("2026-01-05 25:00:00", "2026-01-05 25:00:00"),
        ("2026-01-05 10:00:00 +99:99", "2026-01-05 10:00:00 +99:99"),
        ("=", "="),
        ("<<", "<<"),
        ("'1'", "1"),
        ('"yes"', "yes"),
        ('"\\u263a\\x41\\U0001F600"', "☺A😀"),
        ('"\\0"', "\0"),
        ("1.2.3", "1.2.3"),
        ("http://a:80/b", "http://a:80/b"),
        ("a#b", "a#b"),
        ("a # b", "a"),
        ("|\n  a\n  b\n", "a\nb\n"),
        (">-\n  a\n  b\n", "a b"),
    ],
)
def test_a_scalar_is_what_yaml_1_1_says_made_safe_for_json(written: str, expected: Json) -> None:
    """What JSON, or a calendar, cannot hold stays as written; a date is ISO text."""
    value = fields_of(f"k: {written}")["k"]
    assert (value, type(value)) == (expected, type(expected))


@pytest.mark.parametrize(
    "number",
    [
        "9" * 5_000,
        "0x" + "f" * 5_000,
        "0b" + "1" * 50_000,
        "1" + ":59" * 200,
        "1" + ":59" * 100_000,
        "1." + "5" * 100_000,
    ],
)
def test_a_number_of_thousands_of_digits_stays_as_written(number: str) -> None:
    """Neither reading nor writing it may take long, or fail."""
    assert fields_of(f"k: {number}") == {"k": number}


@pytest.mark.parametrize(
    ("text", "expected", "messages"),
    [
        ("k: !!str 12", "12", [TAG]),
        ("k: !!int '12'", 12, [TAG]),
        ("k: !!int twelve", "twelve", [TAG]),
        ("k: !!int ''", "", [TAG]),
        ("k: !!float 3", 3.0, [TAG]),
        ("k: !!float x", "x", [TAG]),
        ("k: !!bool maybe", "maybe", [TAG]),
        ("k: !!null x", None, [TAG]),
        ("k: !!timestamp soon", "soon", [TAG]),
        ("k: !!timestamp 2026-01-05", "2026-01-05", [TAG]),
        ("k: !!binary aGVsbG8=", "aGVsbG8=", [TAG]),
        ("k: !!binary '%%%'", "%%%", [TAG]),
        ("k: !!map x", "x", [TAG]),
        ("k: !!unheard-of x", "x", [TAG]),
        ("k: !!set\n  ? a\n  ? b\n", {"a": None, "b": None}, [TAG]),
        ("k: !!omap\n  - a: 1\n", [{"a": 1}], [TAG]),
        ("k: !!pairs\n  - a: 1\n  - a: 2\n", [{"a": 1}, {"a": 2}], [TAG]),
        ("k: !!seq\n  a: 1\n", {"a": 1}, [TAG]),
        ("k: !mine x", "x", ["the tag '!mine' is ignored"]),
        ("k: !mine\n  a: 1\n", {"a": 1}, ["the tag '!mine' is ignored"]),
        ("k: !<tag:example.org,2000:x> y", "y", ["the tag 'tag:example.org,2000:x' is ignored"]),
        ("k: ! 12", 12, []),
        ("k: !!python/name:os.system ''", "", ["the tag 'tag:yaml.org,2002:python/name:os.system' is ignored"]),
        ("k: !!python/tuple\n  - 1\n", [1], ["the tag 'tag:yaml.org,2002:python/tuple' is ignored"]),
        (
            "k: !!python/object/apply:os.system\n  - 'false'\n",
            ["false"],
            ["the tag 'tag:yaml.org,2002:python/object/apply:os.system' is ignored"],
        ),
    ],
)
def test_a_tag_makes_no_object(text: str, expected: Json, messages: list[str]) -> None:
    """YAML's own tags give JSON's types where the value suits; all others are passed over, with a warning."""
    fields, _, findings = parse_yaml(text)
    assert (fields, [finding.message for finding in findings]) == ({"k": expected}, messages)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1: a", {"1": "a"}),
        ("1.50: a", {"1.50": "a"}),
        ("0x10: a", {"0x10": "a"}),
        ("yes: a", {"yes": "a"}),
        ("null: a", {"null": "a"}),
        ("~: a", {"~": "a"}),
        (".nan: a", {".nan": "a"}),
        ("2026-01-05: a", {"2026-01-05": "a"}),
        ("'': a", {"": "a"}),
        ("? [a, 1, {b: ~}]\n: v", {'["a", 1, {"b": null}]': "v"}),
        ("? - é\n: v", {'["é"]': "v"}),
        ("{a, b}: v", {'{"a": null, "b": null}': "v"}),
        ("k: &x name\n*x : v", {"k": "name", "name": "v"}),
        ("k: &x [1]\n*x : v", {"k": [1], "[1]": "v"}),
        ("? a\n? b", {"a": None, "b": None}),
    ],
)
def test_every_key_becomes_text(text: str, expected: dict[str, Json]) -> None:
    """A scalar as written, a collection as JSON."""
    assert fields_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected", "duplicates"),
    [
        ("b: &b {x: 1}\nk:\n  <<: *b\n  y: 2", {"x": 1, "y": 2}, 0),
        ("b: &b {x: 1}\nk:\n  <<: *b\n  x: 2", {"x": 2}, 0),
        ("b: &b {x: 1}\nk:\n  x: 2\n  <<: *b", {"x": 2}, 0),
        ("b: &b {x: 1}\nk:\n  <<: *b\n  x: 2\n  x: 3", {"x": 3}, 1),
        ("b: &b {x: 1, z: 3}\nk:\n  <<: [*b, {x: 2, y: 2}]", {"x": 1, "z": 3, "y": 2}, 0),
        ("b: &b {x: 1}\nk:\n  <<: *b\n  <<: {x: 2, y: 2}", {"x": 1, "y": 2}, 0),
        ("b: ~\nk:\n  <<: text", {"<<": "text"}, 0),
        ("b: ~\nk:\n  <<: [text]", {"<<": ["text"]}, 0),
        ("b: ~\nk:\n  '<<': {x: 1}", {"<<": {"x": 1}}, 0),
        ("b: ~\nk:\n  <<: {}", {}, 0),
    ],
)
def test_a_merge_key_gives_what_is_not_given(text: str, expected: Json, duplicates: int) -> None:
    """Earlier mappings win over later ones, own keys over both, whatever the order; no mapping, no merge."""
    fields, _, findings = parse_yaml(text)
    assert fields["k"] == expected
    assert sum("given twice" in finding.message for finding in findings) == duplicates


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("name: 1.0\ndescription: yes", {"name": "1.0", "description": "yes"}),
        ("name: '1'\ndescription: |\n  a\n", {"name": "1", "description": "a\n"}),
        ("name: [a]\ndescription: {a: b}", {}),
        ("name: a\nname: [b]", {}),
        ("name: [b]\nname: a", {"name": "a"}),
        ("name: &x 1.0\ndescription: *x", {"name": "1.0", "description": "1.0"}),
        ("m: {name: inner}", {}),
        ("m: &m {name: 1, description: d}\n<<: *m", {"description": "d"}),
        ("name: own\n<<: {name: merged}", {"name": "own"}),
        ("name: [own]\n<<: {name: merged}", {}),
        ("<<: {name: merged}\nname: own", {"name": "own"}),
        ("name: !!int '7'", {"name": "7"}),
    ],
)
def test_the_top_levels_scalars_are_kept_as_written(text: str, written: dict[str, str]) -> None:
    """A name that looks like a number is the text that the author wrote."""
    assert parse_yaml(text)[1] == written


@pytest.mark.parametrize(
    ("text", "fields", "findings"),
    [
        ("d: a: b", {"d": "a: b"}, [(COLON + AS_TEXT, "d", 1)]),
        ("x: 1\nd: a: b\ny: 2", {"x": 1, "d": "a: b", "y": 2}, [(COLON + AS_TEXT, "d", 2)]),
        ("d: a: b: c", {"d": "a: b: c"}, [(COLON + AS_TEXT, "d", 1)]),
        ('d: it\'s: "so" # really', {"d": 'it\'s: "so" # really'}, [(COLON + AS_TEXT, "d", 1)]),
        ("d: a:", {"d": "a:"}, [(COLON + AS_TEXT, "d", 1)]),
        ("d: a: b\n  c: d\n  e\nx: 1", {"d": "a: b c: d e", "x": 1}, [(COLON + AS_TEXT, "d", 1)]),
        ("d: a\n  b: c\n  d", {"d": "a b: c d"}, [(COLON + AS_TEXT, "d", 1)]),
        ("d: a\n  b\n  c: d\nx: 1", {"d": "a b c: d", "x": 1}, [(COLON + AS_TEXT, "d", 1)]),
        ("d: a: b\n\n  c\n\nx: 1", {"d": "a: b c", "x": 1}, [(COLON + AS_TEXT, "d", 1)]),
        ("m:\n  d: a: b\n  e: f", {"m": {"d": "a: b", "e": "f"}}, [(COLON + AS_TEXT, "d", 2)]),
        (
            "m:\n  n:\n    d: a: b\n      c: d\n    e: f",
            {"m": {"n": {"d": "a: b c: d", "e": "f"}}},
            [(COLON + AS_TEXT, "d", 3)],
        ),
        ("l:\n  - d: a: b\n    e: f", {"l": [{"d": "a: b", "e": "f"}]}, [(COLON + AS_TEXT, "d", 2)]),
        ("d: a: b\r\nx: 1\r\n", {"d": "a: b", "x": 1}, [(COLON + AS_TEXT, "d", 1)]),
        ("a: b: c\nd: e: f", {"a": "b: c", "d": "e: f"}, [(COLON + AS_TEXT, "a", 1), (COLON + AS_TEXT, "d", 2)]),
        ("'d': a: b", {"d": "a: b"}, [(COLON + AS_TEXT, "'d'", 1)]),
        ("d e: a: b", {"d e": "a: b"}, [(COLON + AS_TEXT, "d e", 1)]),
    ],
)
def test_an_unquoted_colon_is_rescued(text: str, fields: dict[str, Json], findings: list[tuple[str, str, int]]) -> None:
    """The value with its continuation lines is plain text; the warning names parser message, key and line."""
    expected = [Finding("warning", message, field, line) for message, field, line in findings]
    assert (parse_yaml(text)[0], parse_yaml(text)[2]) == (fields, expected)


@pytest.mark.parametrize(
    ("text", "fields", "start"),
    [
        ("d: @all", {"d": "@all"}, "YAML: while scanning for the next token"),
        ("d: `ls`", {"d": "`ls`"}, "YAML: while scanning for the next token"),
        ("d: %x", {"d": "%x"}, "YAML: while scanning for the next token"),
        ("d: **bold** text", {"d": "**bold** text"}, "YAML: while scanning an alias"),
        ("d: *bold text", {"d": "*bold text"}, "YAML: found undefined alias 'bold'"),
        ("d: & more", {"d": "& more"}, "YAML: while scanning an anchor"),
        ("d: [file] [options]", {"d": "[file] [options]"}, "YAML: while parsing a block mapping"),
        ("d: [file", {"d": "[file"}, "YAML: while parsing a flow"),
        ("d: {a} b", {"d": "{a} b"}, "YAML: while parsing a block mapping"),
        ("d: ]", {"d": "]"}, "YAML: while parsing a block node"),
        ("d: > folded here", {"d": "folded here"}, "YAML: while scanning a block scalar"),
        ("d: | literal here", {"d": "literal here"}, "YAML: while scanning a block scalar"),
        ('d: "a" b', {"d": '"a" b'}, "YAML: while parsing a block mapping"),
        ("d: 'it's'", {"d": "it's"}, "YAML: while parsing a block mapping"),
        ('d: "\\d+"', {"d": "\\d+"}, "YAML: while parsing a quoted scalar"),
        ('d: "open\nx: 1', {"d": '"open', "x": 1}, "YAML: while scanning a quoted scalar"),
        ('d: "\\ud83d\\ude00"', {"d": "\\ud83d\\ude00"}, "YAML: while parsing a quoted scalar"),
        ("d: ? x", {"d": "? x"}, "YAML: mapping keys are not allowed"),
        ("d: - x", {"d": "- x"}, "YAML: block sequence entries are not allowed"),
        ("d: , x", {"d": ", x"}, "YAML: while parsing a block node"),
        ("d: !a!b c", {"d": "!a!b c"}, "YAML: while parsing a node"),
    ],
)
def test_what_yaml_reserves_is_rescued(text: str, fields: dict[str, Json], start: str) -> None:
    """A value that starts like YAML's syntax, and is none, is the text that the author wrote."""
    parsed, _, findings = parse_yaml(text)
    assert (parsed, [finding.field for finding in findings]) == (fields, ["d"])
    assert findings[0].message.startswith(start)
    assert findings[0].message.endswith(AS_TEXT)


@pytest.mark.parametrize(
    ("text", "fields", "finding"),
    [
        ("m:\n\ta: b\n\tc: d", {"m": {"a": "b", "c": "d"}}, ("tabs were read as blanks", 2)),
        ("\ta: b\n\tc: d", {"a": "b", "c": "d"}, ("tabs were read as blanks", 1)),
        ("x: 1\na: b\0c", {"x": 1, "a": "b\ufffdc"}, ("such characters were replaced by U+FFFD", 2)),
        ("a: 'b\x7f'", {"a": "b\ufffd"}, ("such characters were replaced by U+FFFD", 1)),
        ("x: 1\na: b\u2028c", {"x": 1, "a": "b c"}, ("line separators were read as blanks", 2)),
        ("a: b\x85c", {"a": "b c"}, ("line separators were read as blanks", 1)),
        ("a: b\rc", {"a": "b c"}, ("line separators were read as blanks", 1)),
    ],
)
def test_odd_characters_are_rescued(text: str, fields: dict[str, Json], finding: tuple[str, int]) -> None:
    """Tabs that indent, control characters and the line breaks of YAML 1.1 stop nothing."""
    parsed, _, findings = parse_yaml(text)
    assert (parsed, len(findings)) == (fields, 1)
    how, line = finding
    assert (findings[0].message.rpartition("; ")[2], findings[0].line, findings[0].field) == (how, line, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\tb", [TAB]),
        ("a: b\tc", [TAB]),
        ("a: b\t\nc: d", [TAB]),
        ("a: 'b\tc'", []),
        ('a: "b\tc"', []),
        ("a: |\n  b\tc\n", []),
        ("a: [b]", [FLOW]),
        ("a: {b: c}\nd: [e]", [FLOW]),
        ("a: &x b", [ANCHOR]),
        ("a: !!str b", [TAG]),
    ],
)
def test_what_strict_parsers_refuse_is_a_warning(text: str, expected: list[str]) -> None:
    """Each kind is named once, at its first place."""
    assert messages_of(text) == expected


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "the frontmatter must be a mapping, not empty", 1),
        ("# c", "the frontmatter must be a mapping, not empty", 1),
        ("~", "the frontmatter must be a mapping, not empty", 1),
        ("a", "the frontmatter must be a mapping, not a scalar", 1),
        ("- a", "the frontmatter must be a mapping, not a list", 1),
        ("a: 1\n--- \nb: 2", "more than one YAML document", 2),
        ("a: 1\n...\nb: 2", "YAML: did not find expected <document start>", 3),
        ("a: 1\nno colon", "YAML: while scanning a simple key, could not find expected ':'", 2),
        ("a: 1\n b: 2\nc", COLON, 2),
        ("a: &x [*x]", "alias *x refers to itself", 1),
        ("a: 1\nb: &x {c: *x}", "alias *x refers to itself", 2),
        ("a: &x\n  <<: *x", "alias *x refers to itself", 2),
        ("%YAML 1.1\na: 1", "YAML: did not find expected <document start>", 2),
    ],
)
def test_what_is_beyond_rescue_is_refused_with_its_line(text: str, message: str, line: int) -> None:
    """The parser's own words, and the line as an editor counts it."""
    assert refusal_of(text) == Finding("error", message, None, line)
    assert refusal_of(text, 10).line == line + 9


@pytest.mark.parametrize("breaks", ["\u2028", "\x85", "\r"])
def test_lines_are_counted_as_an_editor_counts(breaks: str) -> None:
    """YAML 1.1 takes more characters for line breaks; the line of an error does not shift by them."""
    assert refusal_of(f"a: 'x{breaks}y{breaks}z'\nb: 1\nno colon\nc: 2").line == 4


NINE = "[x, x, x, x, x, x, x, x, x]"


def bomb(levels: int) -> str:
    lines = [f"a: &a {NINE}"]
    names = "abcdefghijk"[:levels]
    lines += [f"{name}: &{name} {NINE.replace('x', '*' + last)}" for last, name in itertools.pairwise(names)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(10),
        bomb(5),
        f"a: &a '{'x' * 500_000}'\nb: [{', '.join(['*a'] * 50)}]",
        f"a: &a {{{', '.join(f'k{n}: 1' for n in range(5_000))}}}\nb:\n" + "  - <<: *a\n" * 5,
        "a: " + "{" * 60 + "b: 1" + "}: 1" * 59 + "}",
        bomb(4) + "\n? *d\n: 1\n? [*d, *d]\n: 2",
        "a: [" + "1," * VALUE_LIMIT + "]",
    ],
    ids=["values", "fewer values", "long text", "merges", "keys of keys", "keys of aliases", "plain values"],
)
def test_a_bomb_does_not_go_off(text: str) -> None:
    """What aliases and keys expand to is counted before it is made."""
    message = refusal_of(text).message
    assert message == f"more than {VALUE_LIMIT:,} values, or too long ones with the aliases expanded"


def test_a_small_bomb_is_only_a_value() -> None:
    """Under the limit, aliases are what they stand for."""
    fields = fields_of(bomb(3))
    assert fields["c"] == [[["x"] * 9] * 9] * 9


def test_the_limits_leave_room_for_a_frontmatter_of_a_megabyte() -> None:
    """One text may be as long as a SKILL.md may be."""
    text = "x" * (1 << 20)
    assert fields_of(f"d: {text}") == {"d": text}
    assert (1 << 20) / CHARS_PER_VALUE < VALUE_LIMIT


@pytest.mark.parametrize("pair", [("[", "]"), ("{a: ", "}")])
def test_nesting_ends_at_a_depth(pair: tuple[str, str]) -> None:
    """64 levels are read, one more is refused, and any number is refused as fast."""
    opened, closed = pair
    inside = DEPTH_LIMIT - 1
    assert json.dumps(fields_of(f"k: {opened * inside}x{closed * inside}")).count("x") == 1
    assert (
        refusal_of(f"k: {opened * DEPTH_LIMIT}x{closed * DEPTH_LIMIT}").message == f"nested deeper than {DEPTH_LIMIT}"
    )


def test_many_broken_values_are_given_up() -> None:
    """Some dozens of rescued values are enough for any frontmatter; the first error is the one reported."""
    text = "\n".join(f"k{number}: a: b" for number in range(200))
    assert refusal_of(text, 2) == Finding("error", COLON, None, 2)
    assert len(messages_of("\n".join(f"k{number}: a: b" for number in range(31)))) == 31


def as_json(value: Any) -> Any:
    """PyYAML's values as JSON has them."""
    if isinstance(value, dict):
        assume(all(isinstance(key, str) for key in value))
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [as_json(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value


YAML_PIECES = [
    "a: b\n",
    "c: ",
    "- ",
    "? ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "!!str ",
    "!!int ",
    "<<: ",
    "'x'",
    '"y"',
    "#c",
    "|\n  ",
    ">\n  ",
    "\n",
    "\n  ",
    "  ",
    "1",
    "1.5",
    "yes",
    "~",
    "2026-01-02",
    "x",
    "y: ",
    ", ",
    ": ",
    "d: {e: f}\n",
    "g:\n  - h\n  - i: j\n",
    "k: |\n  l\n\n  m\n",
]


@settings(max_examples=1_000)
@given(st.lists(st.sampled_from(YAML_PIECES), max_size=8).map("".join))
def test_what_pyyaml_accepts_comes_out_as_pyyaml_has_it(text: str) -> None:
    """Leniency never changes the meaning of good YAML."""
    try:
        expected = yaml.load(text, yaml.CSafeLoader)
        expected = as_json(expected)
    except (yaml.YAMLError, ValueError, LookupError, RecursionError):
        return
    if isinstance(expected, dict):
        assert fields_of(text) == expected
