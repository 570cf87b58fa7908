"""Params: what each kind takes, by position, by name and by query string, and that its schema says the same."""

from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]  # comes with jsonrpcserver, without types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.errors import InvalidParams
from skilld.rpc.params import (
    Kind,
    Param,
    any_json,
    array_of,
    base64_text,
    boolean,
    check_params,
    from_query,
    hex_text,
    integer,
    mapping_of,
    nullable,
    one_of,
    record,
    secret,
    text,
    text_or,
)

CONTENT = text_or(text(max_chars=5), record(base64=base64_text(max_bytes=3)))

KINDS = {
    "text": text(),
    "text of 2 to 4": text(min_chars=2, max_chars=4),
    "name": text(pattern="[a-z]+(-[a-z]+)*", rule="lower-case words joined by hyphens"),
    "integer": integer(),
    "integer from 1 to 100": integer(1, 100),
    "boolean": boolean(),
    "one of": one_of("utf-8", "base64"),
    "hex": hex_text(min_bytes=1, max_bytes=4),
    "array": array_of(integer(0, 5), 3),
    "mapping": mapping_of(nullable(CONTENT), max_items=2, keys=text(min_chars=1)),
    "content": CONTENT,
    "anything": any_json(),
}

# kind, what is given, what the handler gets
TAKEN: list[tuple[str, Any, Any]] = [
    ("text", "", ""),
    ("text", "é\n", "é\n"),
    ("text of 2 to 4", "ab", "ab"),
    ("text of 2 to 4", "😀😀😀😀", "😀😀😀😀"),
    ("name", "a-b", "a-b"),
    ("integer", -(2**70), -(2**70)),
    ("integer", 3.0, 3),
    ("integer from 1 to 100", 1, 1),
    ("integer from 1 to 100", 100, 100),
    ("boolean", False, False),
    ("one of", "utf-8", "utf-8"),
    ("hex", "0x00Ff", b"\x00\xff"),
    ("hex", "0XAB", b"\xab"),
    ("hex", "deadbeef", b"\xde\xad\xbe\xef"),
    ("array", [], []),
    ("array", [0, 1.0, 5], [0, 1, 5]),
    ("mapping", {"a": "x", "b": None}, {"a": "x", "b": None}),
    ("content", "hello", "hello"),
    ("content", {"base64": "AAE="}, {"base64": b"\x00\x01"}),
    ("anything", [{"a": None}], [{"a": None}]),
]

# kind, what is given, what the message says
REFUSED: list[tuple[str, Any, str]] = [
    ("text", 5, "must be text, not 5"),
    ("text", True, "must be text, not True"),
    ("text of 2 to 4", "a", "must be text of 2 to 4 characters, not 'a'"),
    ("text of 2 to 4", "abcde", "must be text of 2 to 4 characters, not 'abcde'"),
    ("name", "a--b", "must be lower-case words joined by hyphens, not 'a--b'"),
    ("name", "a\n", "must be lower-case words joined by hyphens, not 'a\\n'"),
    ("integer", "5", "must be a whole number, not '5'"),
    ("integer", True, "must be a whole number, not True"),
    ("integer", 1.5, "must be a whole number, not 1.5"),
    ("integer from 1 to 100", 0, "must be a whole number from 1 to 100, not 0"),
    ("integer from 1 to 100", 101, "must be a whole number from 1 to 100, not 101"),
    ("boolean", 1, "must be true or false, not 1"),
    ("boolean", "true", "must be true or false, not 'true'"),
    ("one of", "utf-16", "must be one of utf-8, base64, not 'utf-16'"),
    ("one of", ["utf-8"], "must be one of utf-8, base64, not ['utf-8']"),
    ("hex", "", "must be hexadecimal digits of 1 to 4 bytes, not ''"),
    ("hex", "0x", "must be hexadecimal digits of 1 to 4 bytes, not '0x'"),
    ("hex", "abc", "must be hexadecimal digits of 1 to 4 bytes, not 'abc'"),
    ("hex", "0011223344", "must be hexadecimal digits of 1 to 4 bytes, not '0011223344'"),
    ("hex", "zz", "must be hexadecimal digits of 1 to 4 bytes, not 'zz'"),
    ("hex", "ab ", "must be hexadecimal digits of 1 to 4 bytes, not 'ab '"),
    ("array", "x", "must be an array of at most 3 items, not 'x'"),
    ("array", [1, 2, 3, 4], "must be an array of at most 3 items, not [1, 2, 3, 4]"),
    ("array", [1, 9], "item 1 must be a whole number from 0 to 5, not 9"),
    ("mapping", [], "must be an object of at most 2 members, not []"),
    ("mapping", {"": "x"}, "member '' must be text of at least 1 character, not ''"),
    ("mapping", {"a": 5}, "member 'a' must be text or an object with the members base64, not 5"),
    ("content", {"base64": "A"}, "member 'base64' must be base64 of at most 3 bytes, not 'A'"),
    ("content", {"base64": "AAAAAAAA"}, "member 'base64' must be base64 of at most 3 bytes, not 'AAAAAAAA'"),
    ("content", {"x": 1}, "must be text or an object with the members base64, not {'x': 1}"),
    ("content", 5, "must be text or an object with the members base64, not 5"),
    ("content", "longer", "must be text of at most 5 characters, not 'longer'"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "expected"), TAKEN)
def test_takes(kind: str, value: Any, expected: Any) -> None:
    """A value that obeys its rule comes out as the handler wants it."""
    assert check_params((Param("p", KINDS[kind], required=True),), {"p": value}) == {"p": expected}
    assert check_params((Param("p", KINDS[kind], required=True),), [value]) == {"p": expected}


@pytest.mark.parametrize(("kind", "value", "message"), REFUSED)
def test_refuses(kind: str, value: Any, message: str) -> None:
    """A value that breaks its rule is refused with the field's name, the rule and the value."""
    with pytest.raises(InvalidParams) as caught:
        check_params((Param("p", KINDS[kind], required=True),), {"p": value})
    assert caught.value.facts == {"field": "p", "message": message}


# Where the schema is the wider of the two: base64 is an annotation to it, and Python's "$" allows a last newline.
WIDER = [("content", {"base64": "A"}), ("name", "a\n")]


@pytest.mark.parametrize(
    ("kind", "value", "is_taken"),
    [(kind, value, True) for kind, value, _ in TAKEN]
    + [(kind, value, False) for kind, value, _ in REFUSED if (kind, value) not in WIDER],
)
def test_schema_says_what_the_check_does(kind: str, value: Any, is_taken: bool) -> None:
    """The JSON Schema takes what the check takes and refuses what it refuses."""
    assert jsonschema.Draft7Validator(dict(KINDS[kind].schema)).is_valid(value) == is_taken


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 200) | st.floats(-2, 2) | st.text("ab-0xF ", max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "base64", ""]), inner),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("content", "mapping")])
@given(value=JSON)
def test_schema_and_check_agree(kind: str, value: Any) -> None:
    """Schema and check agree about any value."""
    try:
        check_params((Param("p", KINDS[kind], required=True),), {"p": value})
        is_taken = True
    except InvalidParams:
        is_taken = False
    assert jsonschema.Draft7Validator(dict(KINDS[kind].schema)).is_valid(value) == is_taken


PARAMS = (
    Param("name", text(min_chars=1), required=True),
    Param("limit", integer(1, 100), required=False, default=10),
    Param("tags", array_of(text(), 5), required=False),
    Param("deep", boolean(), required=False, default=False),
)


@pytest.mark.parametrize(
    ("given_params", "expected"),
    [
        pytest.param(["a"], {"name": "a", "limit": 10, "tags": None, "deep": False}, id="positions"),
        pytest.param(["a", 5, ["x"], True], {"name": "a", "limit": 5, "tags": ["x"], "deep": True}, id="all positions"),
        pytest.param({"deep": True, "name": "a"}, {"name": "a", "limit": 10, "tags": None, "deep": True}, id="names"),
        pytest.param(
            {"name": "a", "limit": None, "tags": None},
            {"name": "a", "limit": 10, "tags": None, "deep": False},
            id="null for what is optional",
        ),
    ],
)
def test_defaults_fill_what_is_left_out(given_params: Any, expected: dict[str, Any]) -> None:
    """Params are taken by position or by name; what is left out, or null, has its default."""
    assert check_params(PARAMS, given_params) == expected


@pytest.mark.parametrize(
    ("given_params", "field", "message"),
    [
        pytest.param([], "name", "is required", id="missing, by position"),
        pytest.param({}, "name", "is required", id="missing, by name"),
        pytest.param({"name": None}, "name", "must be text of at least 1 character, not None", id="null for required"),
        pytest.param(
            {"name": "a", "nam": 1}, "nam", "unknown; the parameters are name, limit, tags, deep", id="unknown"
        ),
        pytest.param({"nam": "a"}, "nam", "unknown; the parameters are name, limit, tags, deep", id="misspelt"),
        pytest.param(["a", 1, [], True, 5], "params", "at most 4 are taken, not 5", id="too many positions"),
    ],
)
def test_refuses_the_wrong_set(given_params: Any, field: str, message: str) -> None:
    """Missing, unknown and surplus params are refused by name."""
    with pytest.raises(InvalidParams) as caught:
        check_params(PARAMS, given_params)
    assert caught.value.facts == {"field": field, "message": message}


def test_no_params_are_said_so() -> None:
    """A method without parameters refuses any."""
    assert check_params((), []) == check_params((), {}) == {}
    with pytest.raises(InvalidParams, match="x: unknown; no parameters are taken"):
        check_params((), {"x": 1})


def test_required_param_may_be_null_where_its_kind_allows_it() -> None:
    """A required parameter that may be null must still be given."""
    params = (Param("p", nullable(integer()), required=True),)
    assert check_params(params, [None]) == {"p": None}
    with pytest.raises(InvalidParams, match="p: is required"):
        check_params(params, [])


def test_a_huge_bad_value_is_cut() -> None:
    """A message quotes no more than a line of a hostile value, nor of its name."""
    with pytest.raises(InvalidParams) as caught:
        check_params(PARAMS, {"name": ["x" * 10_000_000]})
    assert len(caught.value.message) < 400
    with pytest.raises(InvalidParams) as caught:
        check_params(PARAMS, {"x" * 10_000_000: 1})
    assert len(str(caught.value.data)) < 1_000


@pytest.mark.parametrize(
    ("kind", "texts", "value"),
    [
        pytest.param(integer(), ["10"], 10, id="number"),
        pytest.param(integer(), ["-3"], -3, id="negative number"),
        pytest.param(integer(), ["ten"], "ten", id="no number"),
        pytest.param(integer(), ["1", "2"], ["1", "2"], id="repeated, though one is taken"),
        pytest.param(integer(), ["٣"], "٣", id="another script's digit"),
        pytest.param(integer(), ["9" * 10_000], "9" * 10_000, id="too long a number"),
        pytest.param(boolean(), ["true"], True, id="true"),
        pytest.param(boolean(), ["0"], False, id="0"),
        pytest.param(boolean(), ["yes"], "yes", id="no boolean"),
        pytest.param(text(), ["10"], "10", id="text stays text"),
        pytest.param(text(), ["[1]"], "[1]", id="text that looks like JSON"),
        pytest.param(text(), [""], "", id="empty"),
        pytest.param(array_of(text(), 9), ["a"], ["a"], id="array of one"),
        pytest.param(array_of(text(), 9), ["a", "b"], ["a", "b"], id="repeated key"),
        pytest.param(array_of(text(), 9), ['["a","b"]'], ["a", "b"], id="JSON array"),
        pytest.param(array_of(text(), 9), ['["a"', "x"], ['["a"', "x"], id="repeated key with a bracket"),
        pytest.param(array_of(text(), 9), ["[a"], "[a", id="broken JSON array"),
        pytest.param(array_of(integer(), 9), ["1", "2"], [1, 2], id="numbers"),
        pytest.param(mapping_of(text()), ['{"a":"b"}'], {"a": "b"}, id="JSON object"),
        pytest.param(CONTENT, ["5"], "5", id="content that is text"),
        pytest.param(CONTENT, ['{"base64":"AA=="}'], {"base64": "AA=="}, id="content that is an object"),
        pytest.param(any_json(), ["5"], 5, id="any JSON"),
        pytest.param(any_json(), ["a b"], "a b", id="any text"),
    ],
)
def test_query_texts_become_json(kind: Kind, texts: list[str], value: Any) -> None:
    """A text of a query string is the value that it stands for; what stands for none is left for the check."""
    assert from_query((Param("p", kind, required=True),), {"p": texts}) == {"p": value}


def test_query_keeps_unknown_names_for_the_check() -> None:
    """An unknown key of a query string is refused as an unknown name is."""
    with pytest.raises(InvalidParams, match="x: unknown"):
        check_params(PARAMS, from_query(PARAMS, {"name": ["a"], "x": ["1"]}))


def test_a_secret_is_not_repeated() -> None:
    """A refusal names the rule, not the value; what is taken is taken as ever."""
    kind = secret(hex_text(max_bytes=2), "hexadecimal digits")
    params = (Param("data", kind, required=True),)
    assert check_params(params, {"data": "0xff"}) == {"data": b"\xff"}
    with pytest.raises(InvalidParams, match=r"^data: must be hexadecimal digits$"):
        check_params(params, {"data": "geheim"})
    assert kind.schema == hex_text(max_bytes=2).schema
