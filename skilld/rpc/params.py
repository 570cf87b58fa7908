"""
The parameters of methods: what each may be, checked before any work is done.

A :class:`Kind` is a check and the JSON Schema that says the same, in one value, so that the published OpenRPC document
comes from the code that checks. :func:`check_params` takes params by position or by name; :func:`from_query` brings a
query string to the form that :func:`check_params` takes.

``null`` for an optional parameter counts as left out: typed clients send their empty options so.

Owns: nothing; values only.

Source: JSON-RPC 2.0, section 4.2; JSON Schema draft 7 (the dialect of OpenRPC 1.3).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skilld.errors import QUOTE_LIMIT_CHARS, InvalidParams, ParseError, quote
from skilld.rpc import jsontext

# A JSON text in a query string may be this deep; the limits of messages are the framings' business.
QUERY_NESTING = 16


class Refused(ValueError):
    """A value breaks its rule; the text says how, and names the value."""


def _same(text: str) -> Any:
    return text


@dataclass(frozen=True)
class Kind:
    """
    What a parameter may be.

    ``check`` returns the value that the handler gets, or raises :class:`Refused`. ``from_text`` brings one text of a
    query string to the JSON value that it stands for; what it cannot bring, it returns as it is, for ``check`` to
    refuse. ``takes_many`` says that a repeated key is an array.
    """

    schema: Mapping[str, Any]
    check: Callable[[Any], Any]
    from_text: Callable[[str], Any] = _same
    takes_many: bool = False


@dataclass(frozen=True)
class Param:
    """One parameter. ``default`` is what the handler gets where the caller left it out; it is not checked."""

    name: str
    kind: Kind
    required: bool
    default: Any = None
    doc: str = ""


def check_params(params: tuple[Param, ...], given: list[Any] | dict[str, Any]) -> dict[str, Any]:
    """
    Check what a caller gave against what a method takes.

    Args:
        params: The method's parameters, in the order of their positions.
        given: The ``params`` of a request: an array is by position, an object by name.

    Returns:
        A value for every parameter, by name, defaults filled in.

    Raises:
        InvalidParams: A value breaks its rule, a required one is missing, a name is unknown, or there are too many
            positions; names the field and the bad value.
    """
    if isinstance(given, list):
        if len(given) > len(params):
            raise InvalidParams("params", f"at most {len(params)} are taken, not {len(given)}")
        given = {param.name: value for param, value in zip(params, given, strict=False)}
    elif given:
        _refuse_unknown(params, given)
    values = {}
    for param in params:
        value = given.get(param.name)
        # A required parameter may be null where its kind allows it; an optional one is then left out.
        if value is None and (not param.required or param.name not in given):
            if param.required:
                raise InvalidParams(param.name, "is required")
            values[param.name] = param.default
            continue
        try:
            values[param.name] = param.kind.check(value)
        except Refused as exc:
            raise InvalidParams(param.name, str(exc)) from None
    return values


def from_query(params: tuple[Param, ...], query: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """
    Bring the texts of a query string to JSON values: ``"10"`` to 10, ``"true"`` to True, repeated keys to an array.

    Never raises: a text that stands for no value of its parameter's kind stays a text, and :func:`check_params` then
    refuses it with the field's name; likewise an unknown name, and a key that is repeated though one value is taken.

    Args:
        params: The method's parameters.
        query: Every key with its texts, in order.

    Returns:
        Params by name, for :func:`check_params`.
    """
    kinds = {param.name: param.kind for param in params}
    given: dict[str, Any] = {}
    for name, texts in query.items():
        kind = kinds.get(name)
        if kind is not None and kind.takes_many and not (len(texts) == 1 and texts[0].startswith("[")):
            given[name] = [kind.from_text(text) for text in texts]
        elif len(texts) > 1:
            given[name] = list(texts)
        elif kind is not None and kind.takes_many:
            given[name] = _json_or_text(texts[0])
        else:
            given[name] = kind.from_text(texts[0]) if kind is not None else texts[0]
    return given


def text(*, min_chars: int = 0, max_chars: int | None = None, pattern: str | None = None, rule: str = "") -> Kind:
    """
    Text.

    Args:
        min_chars: Least number of characters (code points).
        max_chars: Greatest number of characters.
        pattern: Regular expression that the whole text matches; keep to what Python and ECMA-262 share.
        rule: What the text must be, in words, for messages; needed where there is a ``pattern``.
    """
    matches = re.compile(pattern).fullmatch if pattern else None
    what = rule or f"text{_span(min_chars, max_chars, 'character')}"

    def check(value: Any) -> str:
        if (
            not isinstance(value, str)
            or len(value) < min_chars
            or (max_chars is not None and len(value) > max_chars)
            or (matches is not None and not matches(value))
        ):
            raise _must_be(what, value)
        return value

    schema: dict[str, Any] = {"type": "string"}
    if min_chars:
        schema["minLength"] = min_chars
    if max_chars is not None:
        schema["maxLength"] = max_chars
    if pattern:
        schema["pattern"] = f"^(?:{pattern})$"
    return Kind(schema, check)


def integer(minimum: int | None = None, maximum: int | None = None) -> Kind:
    """A whole number within bounds, both included; ``1.0`` is one, ``true`` is none."""
    if minimum is not None and maximum is not None:
        what = f"a whole number from {minimum} to {maximum}"
    elif minimum is not None:
        what = f"a whole number of at least {minimum}"
    elif maximum is not None:
        what = f"a whole number of at most {maximum}"
    else:
        what = "a whole number"

    def check(value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or (minimum is not None and value < minimum)
            or (maximum is not None and value > maximum)
        ):
            raise _must_be(what, value)
        return value

    def from_text(text: str) -> Any:
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,19}", text) else text

    schema: dict[str, Any] = {"type": "integer"}
    if minimum is not None:
        schema["minimum"] = minimum
    if maximum is not None:
        schema["maximum"] = maximum
    return Kind(schema, check, from_text)


def boolean() -> Kind:
    """True or false; in a query string ``true``, ``false``, ``1`` or ``0``."""
    words = {"true": True, "false": False, "1": True, "0": False}

    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise _must_be("true or false", value)
        return value

    return Kind({"type": "boolean"}, check, lambda text: words.get(text, text))


def one_of(*choices: str) -> Kind:
    """One of a few texts."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _must_be(f"one of {', '.join(choices)}", value)
        return value

    return Kind({"type": "string", "enum": list(choices)}, check)


def hex_text(*, max_bytes: int, min_bytes: int = 0) -> Kind:
    """Bytes as hexadecimal digits of either case, with or without ``0x``; the handler gets the bytes."""
    what = f"hexadecimal digits{_span(min_bytes, max_bytes, 'byte')}"
    digits = re.compile(r"(?:0[xX])?((?:[0-9a-fA-F]{2})*)")

    def check(value: Any) -> bytes:
        # The length first: the pattern then runs over a short text only.
        if not isinstance(value, str) or len(value) > 2 * max_bytes + 2:
            raise _must_be(what, value)
        match = digits.fullmatch(value)
        if not match or not min_bytes <= len(match[1]) // 2 <= max_bytes:
            raise _must_be(what, value)
        return bytes.fromhex(match[1])

    pattern = f"^(0[xX])?([0-9a-fA-F]{{2}}){{{min_bytes},{max_bytes}}}$"
    return Kind({"type": "string", "pattern": pattern}, check)


def secret(kind: Kind, rule: str) -> Kind:
    """The same, but a refusal says ``rule`` and not what was given."""

    def check(value: Any) -> Any:
        try:
            return kind.check(value)
        except Refused:
            raise Refused(f"must be {rule}") from None

    return Kind(kind.schema, check, kind.from_text, kind.takes_many)


def base64_text(*, max_bytes: int) -> Kind:
    """Bytes as padded base64 (RFC 4648, section 4); the handler gets the bytes."""
    what = f"base64{_span(0, max_bytes, 'byte')}"
    max_chars = (max_bytes + 2) // 3 * 4

    def check(value: Any) -> bytes:
        if not isinstance(value, str) or len(value) > max_chars:
            raise _must_be(what, value)
        try:
            content = base64.b64decode(value, validate=True)
        except ValueError:
            raise _must_be(what, value) from None
        if len(content) > max_bytes:
            raise _must_be(what, value)
        return content

    return Kind({"type": "string", "contentEncoding": "base64", "maxLength": max_chars}, check)


def array_of(item: Kind, max_items: int) -> Kind:
    """An array; in a query string a repeated key, or one JSON array."""
    what = f"an array of at most {max_items} items"

    def check(value: Any) -> list[Any]:
        if not isinstance(value, list) or len(value) > max_items:
            raise _must_be(what, value)
        return [_within(f"item {index}", item, entry) for index, entry in enumerate(value)]

    schema = {"type": "array", "items": dict(item.schema), "maxItems": max_items}
    return Kind(schema, check, item.from_text, takes_many=True)


def mapping_of(value_kind: Kind, *, max_items: int = 10_000, keys: Kind | None = None) -> Kind:
    """An object of any names; ``keys`` is what a name may be. In a query string a JSON object."""
    what = f"an object of at most {max_items} members"

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > max_items:
            raise _must_be(what, value)
        checked = {}
        for name, entry in value.items():
            where = f"member {quote(name)}"
            checked[_within(where, keys, name) if keys else name] = _within(where, value_kind, entry)
        return checked

    schema: dict[str, Any] = {"type": "object", "additionalProperties": dict(value_kind.schema)}
    if keys:
        schema["propertyNames"] = dict(keys.schema)
    return Kind({**schema, "maxProperties": max_items}, check, _json_or_text)


def record(**members: Kind) -> Kind:
    """An object with exactly these members, such as ``{"base64": "..."}``."""
    what = f"an object with the members {', '.join(members)}"

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or value.keys() != members.keys():
            raise _must_be(what, value)
        return {name: _within(f"member {quote(name)}", kind, value[name]) for name, kind in members.items()}

    schema = {
        "type": "object",
        "properties": {name: dict(kind.schema) for name, kind in members.items()},
        "required": list(members),
        "additionalProperties": False,
    }
    return Kind(schema, check, _json_or_text)


def nullable(kind: Kind) -> Kind:
    """``null``, which the handler gets as ``None``, or a value of the kind."""

    def check(value: Any) -> Any:
        return None if value is None else kind.check(value)

    return Kind({"anyOf": [dict(kind.schema), {"type": "null"}]}, check, kind.from_text)


def text_or(text_kind: Kind, other: Kind) -> Kind:
    """A text, or a value of another kind that is no text, such as ``text_or(text(), record(hex=...))``."""

    def check(value: Any) -> Any:
        if isinstance(value, str):
            return text_kind.check(value)
        try:
            return other.check(value)
        except Refused as exc:
            # What is wrong within a value of the other kind is no question of texts.
            raise Refused(re.sub(r"\Amust be ", "must be text or ", str(exc))) from None

    def from_text(text: str) -> Any:
        return _json_or_text(text) if text.startswith("{") else text

    return Kind({"anyOf": [dict(text_kind.schema), dict(other.schema)]}, check, from_text)


def any_json() -> Kind:
    """Any JSON value; in a query string JSON, or else a text."""
    return Kind({}, lambda value: value, _json_or_text)


def _refuse_unknown(params: tuple[Param, ...], given: Mapping[str, Any]) -> None:
    names = [param.name for param in params]
    for name in given:
        if name not in names:
            takes = f"the parameters are {', '.join(names)}" if names else "no parameters are taken"
            raise InvalidParams(name[:QUOTE_LIMIT_CHARS], f"unknown; {takes}")


def _within(where: str, kind: Kind, value: Any) -> Any:
    try:
        return kind.check(value)
    except Refused as exc:
        raise Refused(f"{where} {exc}") from None


def _must_be(what: str, value: Any) -> Refused:
    return Refused(f"must be {what}, not {quote(value)}")


def _span(least: int, most: int | None, unit: str) -> str:
    if most is None:
        return f" of at least {least} {unit}{'s' if least != 1 else ''}" if least else ""
    if least in (0, most):
        return f" of {'at most ' if least != most else ''}{most} {unit}{'s' if most != 1 else ''}"
    return f" of {least} to {most} {unit}s"


def _json_or_text(text: str) -> Any:
    try:
        return jsontext.parse(text.encode("utf-8", "surrogatepass"), nesting=QUERY_NESTING)
    except ParseError:
        return text
