"""
JSON in and out of the socket: strict, exact and fast.

In: UTF-8 only, no ``NaN``, no number beyond a double's range, no lone surrogate, no deeper than asked; integers of any
size come through exactly. Out: one line, never ``NaN``, integers of any size again.

Owns: nothing; the edge around orjson, with the standard library where orjson is not exact.

Source: RFC 8259; measured on orjson 3.13: an integer beyond 64 bits becomes a float, NaN is written as ``null``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson

from skilld.errors import ParseError

# orjson is exact up to 64 bits; every longer integer has at least this many digits in a row.
_LONG_DIGITS = 19
_TO_ZEROS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else byte for byte in range(256))
_ZEROS = b"0" * _LONG_DIGITS
_LONG_RUN = re.compile(rb"[0-9]{%d,}" % _LONG_DIGITS)
_SURROGATE = re.compile("[\ud800-\udfff]")

# As plain types only: a dataclass or a date in a reply is a mistake of the method that made it.
_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


class Unserialisable(ValueError):
    """A value holds something that JSON cannot carry."""


def parse(text: bytes, *, nesting: int) -> Any:
    """
    Parse one JSON text.

    Args:
        text: UTF-8 without a byte order mark.
        nesting: Greatest depth of arrays and objects; a bare value has depth 0.

    Raises:
        ParseError: Not JSON, not UTF-8, too deep, or a number that no double can hold; the message says where.
    """
    try:
        # Two passes in C, cheap beside the parser: is there a run of digits that orjson may not carry exactly?
        long_number = _ZEROS in text.translate(_TO_ZEROS)
        value = _parse_exactly(text) if long_number else orjson.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ParseError(f"Parse error: {_one_line(exc)}") from None
    # No text is deeper than it has opening brackets, so that only few need a look at the value.
    if text.count(b"[") + text.count(b"{") > nesting and _is_deeper(value, nesting):
        raise ParseError(f"Parse error: nested deeper than {nesting} levels")
    return value


def serialise(value: Any) -> bytes:
    """
    Write one value as JSON, UTF-8, on one line.

    Mappings and tuples are written as objects and arrays. A lone surrogate (a file name that is not UTF-8) is written
    as U+FFFD, for a strict reader would refuse the whole text otherwise.

    Raises:
        Unserialisable: The value holds a set, bytes, NaN, a key that is no text, a cycle or anything else foreign.
    """
    try:
        text = orjson.dumps(value, _plain, _OPTIONS)
    except TypeError:
        return _serialise_exactly(value)
    # orjson writes NaN as null; only a text with a null in it needs a look at the value.
    if b"null" in text and _has_nan(value):
        raise Unserialisable("not a finite number")
    return text


def _parse_exactly(text: bytes) -> Any:
    # orjson judges the grammar, for it is the stricter of the two, with the long numbers out of its way.
    orjson.loads(_LONG_RUN.sub(b"1", text))
    return json.loads(text.decode("utf-8"), parse_float=_finite, parse_constant=_refuse_constant)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is beyond the range of a double")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _is_deeper(value: Any, nesting: int) -> bool:
    """Whether arrays and objects are nested more than ``nesting`` deep: level by level, without recursion."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(nesting):
        if not level:
            return False
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is list or type(child) is dict
        ]
    return bool(level)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _serialise_exactly(value: Any) -> bytes:
    """Write what orjson refuses and JSON can carry: long integers, and lone surrogates by replacement."""
    try:
        _refuse_foreign_keys(value)
        text = json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as exc:
        raise Unserialisable(_one_line(exc)) from None
    return _SURROGATE.sub("\ufffd", text).encode()


def _refuse_foreign_keys(value: Any) -> None:
    # json.dumps would turn the keys 1 and None into texts.
    if isinstance(value, Mapping):
        for key, child in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is no text")
            _refuse_foreign_keys(child)
    elif isinstance(value, list | tuple):
        for child in value:
            _refuse_foreign_keys(child)


def _has_nan(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(map(_has_nan, value.values()))
    return isinstance(value, list | tuple) and any(map(_has_nan, value))


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())
