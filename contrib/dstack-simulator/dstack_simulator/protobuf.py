"""
The guest agent's messages in protobuf, for callers that do not ask for JSON.

Owns: the encoding.

Source: Protocol Buffers, "Encoding"; texts of errors as the prost crate has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .messages import Field, Rejected, Values, defaults

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
ERROR = (Field(1, "message", "text"),)


def read(fields: Sequence[Field], body: bytes) -> Values:
    """
    Read a protobuf request.

    Raises:
        Rejected: no protobuf, or a field of another type.
    """
    values = defaults(fields)
    by_number = {field.number: field for field in fields}
    try:
        for number, wire_type, content in _fields(body):
            if (field := by_number.get(number)) is None:
                continue
            if (field.kind in ("flag", "time")) != (wire_type == VARINT):
                raise ValueError("invalid wire type")
            if field.kind == "text":
                values[field.name] = content.decode()
            elif field.kind == "texts":
                values[field.name] = (*values[field.name], content.decode())
            else:
                values[field.name] = bool(content) if field.kind == "flag" else content
    except ValueError as exc:
        raise Rejected(f"failed to decode Protobuf message: {exc}") from exc
    return values


def write(fields: Sequence[Field] | None, values: Values | None) -> bytes:
    """Write a reply as protobuf, which leaves out what is empty."""
    output = b""
    for field in fields or ():
        value: Any = (values or {}).get(field.name)
        for item in value if isinstance(value, list | tuple) else [value] if value else []:
            if isinstance(item, bool):
                output += _varint(field.number << 3 | VARINT) + b"\x01"
            else:
                content: bytes = item.encode() if isinstance(item, str) else item
                output += _varint(field.number << 3 | DELIMITED) + _varint(len(content)) + content
    return output


def error(text: str) -> bytes:
    """An error for a caller that speaks protobuf."""
    return write(ERROR, {"message": text})


def _fields(body: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and content (an int or bytes) of every field."""
    position = 0

    def varint() -> int:
        nonlocal position
        number = shift = 0
        while position < len(body) and shift < 70:
            byte = body[position]
            position += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number & (1 << 64) - 1
            shift += 7
        raise ValueError("invalid varint")

    def take(size: int) -> bytes:
        nonlocal position
        if size > len(body) - position:
            raise ValueError("buffer underflow")
        position += size
        return body[position - size : position]

    while position < len(body):
        key = varint()
        wire_type = key & 7
        if wire_type == VARINT:
            yield key >> 3, wire_type, varint()
        elif wire_type == DELIMITED:
            yield key >> 3, wire_type, take(varint())
        elif wire_type in (FIXED64, FIXED32):
            yield key >> 3, wire_type, take(8 if wire_type == FIXED64 else 4)
        else:
            raise ValueError("invalid wire type")


def _varint(number: int) -> bytes:
    output = bytearray()
    while number >= 0x80:
        output.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*output, number])
