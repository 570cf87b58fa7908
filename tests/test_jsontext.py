"""JSON in and out: strict, exact, one line."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.errors import ParseError
from skilld.rpc.jsontext import Unserialisable, parse, serialise

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b'{"a":1', "", id="cut off"),
        pytest.param(b"[1,]", "trailing comma", id="trailing comma"),
        pytest.param(b"1 2", "", id="two values"),
        pytest.param(b"NaN", "", id="NaN"),
        pytest.param(b"[Infinity]", "", id="Infinity"),
        pytest.param(b"-Infinity", "", id="-Infinity"),
        pytest.param(b"1e400", "infinity", id="beyond a double"),
        pytest.param(b"[12345678901234567890, 1e400]", "infinity", id="beyond a double, by a long integer"),
        pytest.param(b"1" + b"0" * 300 + b"e10", "range of a double", id="beyond a double by its digits"),
        pytest.param(b"[12345678901234567890, NaN]", "", id="NaN by a long integer"),
        pytest.param(b'[12345678901234567890, "\\ud800"]', "surrogate", id="surrogate by a long integer"),
        pytest.param(b"[01234567890123456789012]", "", id="long integer with a leading zero"),
        pytest.param(b"9" * 5_000, "", id="integer of 5,000 digits"),
        pytest.param(b"01", "leading zero", id="leading zero"),
        pytest.param(b"'a'", "", id="single quotes"),
        pytest.param(b'"a\nb"', "control character", id="raw newline in text"),
        pytest.param(b'"\xff"', "UTF-8", id="invalid UTF-8"),
        pytest.param(b'"\xed\xa0\x80"', "UTF-8", id="surrogate in UTF-8"),
        pytest.param(b'"\\ud800"', "surrogate", id="lone surrogate"),
        pytest.param(b"\xef\xbb\xbf1", "BOM", id="byte order mark"),
        pytest.param('{"a":1}'.encode("utf-16"), "", id="UTF-16"),
        pytest.param('{"a":1}'.encode("utf-32-le"), "", id="UTF-32"),
        pytest.param(b"\x001", "", id="NUL"),
    ],
)
def test_refuses_what_is_not_json(text: bytes, where: str) -> None:
    """What RFC 8259 does not allow is a parse error that says what is wrong, on one line."""
    with pytest.raises(ParseError) as caught:
        parse(text, nesting=64)
    assert caught.value.message.startswith("Parse error: ")
    assert where in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 2**70 + 1, 10**400 + 7, 2**53 + 1, 0, -1])
def test_integers_survive_exactly(number: int) -> None:
    """An integer of any size comes out as it went in."""
    text = json.dumps([number, {"a": number}]).encode()
    assert parse(text, nesting=2) == [number, {"a": number}]
    assert serialise({"id": number}) == b'{"id":%d}' % number


def test_many_digits_in_text_are_only_text() -> None:
    """A run of digits inside a string is left alone."""
    assert parse(b'{"a":"00000000000000000000000","b":1.5}', nesting=1) == {"a": "0" * 23, "b": 1.5}


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        pytest.param(b"1", 0, id="scalar"),
        pytest.param(b"[]", 1, id="array"),
        pytest.param(b'[{"a":[[1,2],{}]}]', 4, id="mixed"),
        pytest.param(b'["[[[[[[[[", "{{{{{{"]', 1, id="brackets in text"),
        pytest.param(b"[[],[],[],[],[],[]]", 2, id="wide"),
        pytest.param(b"[" * 500 + b"]" * 500, 500, id="500 deep"),
    ],
)
def test_depth_is_limited_exactly(text: bytes, depth: int) -> None:
    """A text as deep as the limit is read, one deeper is refused."""
    parse(text, nesting=depth)
    if depth:
        with pytest.raises(ParseError, match=f"nested deeper than {depth - 1} levels"):
            parse(text, nesting=depth - 1)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_great_depth_is_refused_without_recursion(text: bytes) -> None:
    """A text of 100,000 brackets is a parse error, whether or not it is closed."""
    with pytest.raises(ParseError):
        parse(text, nesting=64)


def test_last_of_two_equal_keys_wins() -> None:
    """A key given twice has its last value, by either parser."""
    assert parse(b'{"a":1,"a":2}', nesting=1) == {"a": 2}
    assert parse(b'{"a":1,"a":20000000000000000000}', nesting=1) == {"a": 2 * 10**19}


@given(JSON)
def test_everything_comes_back(value: Any) -> None:
    """Whatever JSON can carry is read as it was written, and is one line."""
    text = serialise(value)
    assert b"\n" not in text
    assert parse(text, nesting=1_000) == value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({1, 2}, id="set"),
        pytest.param(b"x", id="bytes"),
        pytest.param(object(), id="object"),
        pytest.param({"a": [1, float("nan")]}, id="NaN"),
        pytest.param(float("inf"), id="infinity"),
        pytest.param([2**70, float("nan")], id="NaN by a long integer"),
        pytest.param({1: 2}, id="key that is no text"),
        pytest.param({"a": {None: 2**70}}, id="key that is null by a long integer"),
    ],
)
def test_refuses_what_json_cannot_carry(value: object) -> None:
    """A value that JSON has no word for is an error, never a near value."""
    with pytest.raises(Unserialisable):
        serialise(value)


def test_cycle_is_refused() -> None:
    """A list that holds itself is an error."""
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(Unserialisable):
        serialise(cycle)


def test_null_is_no_nan() -> None:
    """None is written as null, whatever stands beside it."""
    assert serialise({"a": None, "b": [1.5, None, "null"]}) == b'{"a":null,"b":[1.5,null,"null"]}'


def test_mappings_and_tuples_are_objects_and_arrays() -> None:
    """Frozen values need no conversion."""
    assert serialise(MappingProxyType({"a": (1, MappingProxyType({}))})) == b'{"a":[1,{}]}'
    assert serialise(MappingProxyType({"a": (2**70,)})) == b'{"a":[%d]}' % 2**70


def test_lone_surrogate_is_replaced() -> None:
    """A file name that is not UTF-8 does not spoil the reply that names it."""
    assert serialise(["a\udcffb", "é"]) == '["a\ufffdb","é"]'.encode()
