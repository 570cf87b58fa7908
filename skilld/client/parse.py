"""
A reply's JSON as a frozen value, in one step.

Members that a class does not know are ignored, so that a client works with a newer daemon; a member that is missing
or of another type is a :class:`BadReply` that names it.

Owns: nothing; values only.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from skilld.client.errors import BadReply
from skilld.errors import quote

T = TypeVar("T")
Reader = Callable[[Any, str], Any]


def parse(cls: type[T], value: Any) -> T:
    """
    Turn a reply into a value.

    Raises:
        BadReply: A member is missing or has another type; names it.
    """
    result: T = _reader(cls)(value, cls.__name__)  # type: ignore[arg-type]  # a class is hashable
    return result


@lru_cache(maxsize=256)
def _reader(hint: Any) -> Reader:
    """The function that turns JSON into what a type hint says."""
    if hint is Any:
        return lambda value, _: value
    if dataclasses.is_dataclass(hint):
        return _object_reader(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin is types.UnionType:
        inner = _reader(args[0])  # every union here is "X | None"
        return lambda value, where: None if value is None else inner(value, where)
    if origin is tuple:
        item = _reader(args[0])
        as_list = _plain_reader(list, "an array")
        return lambda value, where: tuple(item(each, f"{where}[]") for each in as_list(value, where))
    if origin is Mapping:
        return _plain_reader(dict, "an object")
    return _plain_reader((int, float) if hint is float else hint, hint.__name__)


def _object_reader(cls: Any) -> Reader:
    fields = dataclasses.fields(cls)
    missing = dataclasses.MISSING
    required = {f.name for f in fields if f.default is missing and f.default_factory is missing}
    hints = get_type_hints(cls)
    members = [(f.name, _reader(hints[f.name])) for f in fields]

    def read_object(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise BadReply(f"{where} must be an object, not {quote(value)}")
        if not required <= value.keys():
            raise BadReply(f"{where}.{min(required - value.keys())} is missing")
        return cls(**{name: read(value[name], f"{where}.{name}") for name, read in members if name in value})

    return read_object


def _plain_reader(kind: Any, what: str) -> Reader:
    def read_plain(value: Any, where: str) -> Any:
        # To Python True is an int; to JSON it is not.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise BadReply(f"{where} must be {what}, not {quote(value)}")
        return value

    return read_plain
