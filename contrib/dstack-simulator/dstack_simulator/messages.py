"""
The requests and replies of the guest agent, in JSON and in query strings.

Owns: which fields a message has, and how each encoding writes them.

Source: dstack's source, guest-agent/rpc/proto/agent_rpc.proto; the prpc crate, version 0.6.0, src/serde_helpers.rs.
What a wrong value answers was read off dstack's own simulator; the place in the text
("at line 1 column 9") is left out here.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "bytes", "flag", "time", "texts", "blobs"]
Values = Mapping[str, Any]

DEFAULTS: Mapping[Kind, Any] = {"text": "", "bytes": b"", "flag": False, "time": None, "texts": (), "blobs": ()}


class Rejected(Exception):
    """What the agent answers with 400: an error and its causes, the outermost first."""

    def text(self, *, on_lines: bool) -> str:
        """The causes after colons, or on lines as anyhow's Debug writes them."""
        first, *causes = self.args
        if not on_lines or not causes:
            return ": ".join(self.args)
        if len(causes) > 1:
            causes = [f"{index}: {cause}" for index, cause in enumerate(causes)]
        return "\n    ".join([f"{first}\n\nCaused by:", *causes])


@dataclass(frozen=True)
class Field:
    """One field: its number in protobuf, its name and its kind."""

    number: int
    name: str
    kind: Kind


def _message(text: str) -> tuple[Field, ...]:
    """A message out of "number name kind" triples."""
    words = text.split()
    return tuple(
        Field(int(number), name, kind)  # type: ignore[arg-type]
        for number, name, kind in zip(words[::3], words[1::3], words[2::3], strict=True)
    )


_KEY = _message("1 path text 2 purpose text 3 algorithm text")
_REPORT_DATA = _message("1 report_data bytes")
_TLS = "1 subject text 2 alt_names texts 3 usage_ra_tls flag 4 usage_server_auth flag 5 usage_client_auth flag"
_TLS_REPLY = _message("1 key text 2 certificate_chain texts")
_QUOTE = "1 quote bytes 2 event_log text"
_INFO = _message(
    "1 app_id bytes 2 instance_id bytes 3 app_cert text 4 tcb_info text 5 app_name text 8 device_id bytes "
    "9 mr_aggregated bytes 10 os_image_hash bytes 12 key_provider_info text 13 compose_hash bytes 14 vm_config text "
    "15 cloud_vendor text 16 cloud_product text"
)
_VERSION = _message("1 version text 2 rev text")
_DERIVE_KEY = (
    "1 path text 2 subject text 3 alt_names texts 4 usage_ra_tls flag 5 usage_server_auth flag "
    "6 usage_client_auth flag 7 random_seed flag"
)
_TDX_QUOTE = _message(f"{_QUOTE} 3 hash_algorithm text 4 prefix text")

# A method without a request message never looks at what it is sent.
REQUESTS: Mapping[str, tuple[Field, ...] | None] = {
    "GetTlsKey": _message(f"{_TLS} 6 not_before time 7 not_after time 8 with_app_info flag"),
    "GetKey": _KEY,
    "GetQuote": _REPORT_DATA,
    "Attest": _REPORT_DATA,
    "EmitEvent": _message("1 event text 2 payload bytes"),
    "Info": None,
    "GpuInfo": None,
    "Sign": _message("1 algorithm text 2 data bytes"),
    "Verify": _message("1 algorithm text 2 data bytes 3 signature bytes 4 public_key bytes"),
    "Version": None,
    "Tappd.DeriveKey": _message(_DERIVE_KEY),
    "Tappd.DeriveK256Key": _KEY,
    "Tappd.TdxQuote": _message("1 report_data bytes 2 hash_algorithm text 3 prefix text"),
    "Tappd.RawQuote": _REPORT_DATA,
    "Tappd.Info": None,
    "Tappd.Version": None,
}
REPLIES: Mapping[str, tuple[Field, ...] | None] = {
    "GetTlsKey": _TLS_REPLY,
    "GetKey": _message("1 key bytes 2 signature_chain blobs"),
    "GetQuote": _message(f"{_QUOTE} 3 report_data bytes 4 vm_config text 5 attestation bytes"),
    "Attest": _message("1 attestation bytes"),
    "EmitEvent": None,
    "Info": _INFO,
    "GpuInfo": _message("1 attestation text"),
    "Sign": _message("1 signature bytes 2 signature_chain blobs 3 public_key bytes"),
    "Verify": _message("1 valid flag"),
    "Version": _VERSION,
    "Tappd.DeriveKey": _TLS_REPLY,
    "Tappd.DeriveK256Key": _message("1 k256_key bytes 2 k256_signature_chain blobs"),
    "Tappd.TdxQuote": _TDX_QUOTE,
    "Tappd.RawQuote": _TDX_QUOTE,
    "Tappd.Info": _INFO,
    "Tappd.Version": _VERSION,
}


def from_json(fields: Sequence[Field], body: bytes) -> Values:
    """
    Read a JSON request: everything has a default, unknown members do not count.

    Raises:
        Rejected: no JSON, or a value of another type.
    """
    if not body:
        return defaults(fields)
    try:
        value = json.loads(body, object_pairs_hook=_Members)
    except (ValueError, RecursionError) as exc:
        raise Rejected(f"expected value: {exc}") from exc
    if isinstance(value, _Members):
        pairs: list[tuple[str, Any]] = value
    elif isinstance(value, list):
        pairs = [(field.name, item) for field, item in zip(fields, value, strict=False)]
    else:
        raise Rejected(f"invalid type: {_described(value)}, expected a request")
    values = _read(fields, pairs, _from_json_value)
    if isinstance(value, list) and not isinstance(value, _Members) and len(value) > len(fields):
        raise Rejected("trailing characters")
    return values


def from_query(fields: Sequence[Field], query: str) -> Values:
    """
    Read a request out of a query string, with ``name[0]=`` and ``name[]=`` for lists.

    Raises:
        Rejected: a value that its field cannot hold.
    """
    pairs: dict[str, Any] = {}
    try:
        named = urllib.parse.parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as exc:
        raise Rejected(f"invalid utf-8 sequence of 1 bytes from index {exc.start}") from exc
    for name, text in named:
        if match := re.fullmatch(r"(\w+)\[\d*\]", name):
            pairs.setdefault(match[1], []).append(text)
        else:
            pairs[name] = text
    return _read(fields, list(pairs.items()), _from_query_value)


def to_json(fields: Sequence[Field] | None, values: Values | None) -> bytes:
    """Write a reply as compact JSON; fields that have no value are left out."""
    if fields is None or values is None:
        return b"null"
    shown = {field.name: _to_json_value(values[field.name]) for field in fields if field.name in values}
    return json.dumps(shown, separators=(",", ":"), ensure_ascii=False).encode()


def error_json(text: str) -> bytes:
    """An error as the agent writes it: on several lines, unlike a reply."""
    return json.dumps({"error": text}, indent=2, ensure_ascii=False).encode()


class _Members(list[tuple[str, Any]]):
    """The members of a JSON object, those given twice too."""


def defaults(fields: Sequence[Field]) -> dict[str, Any]:
    """A request that says nothing."""
    return {field.name: DEFAULTS[field.kind] for field in fields}


def _read(fields: Sequence[Field], pairs: Sequence[tuple[str, Any]], convert: Any) -> Values:
    by_name = {field.name: field for field in fields}
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name in given:
            raise Rejected(f"duplicate field `{name}`")
        if field := by_name.get(name):
            given[name] = convert(field.kind, value)
    return {**defaults(fields), **given}


def _from_json_value(kind: Kind, value: Any) -> Any:
    expected = {"text": "a string", "bytes": "a string", "flag": "a boolean", "time": "u64", "texts": "a sequence"}[
        kind
    ]
    if kind == "text" and isinstance(value, str):
        return value
    if kind == "bytes" and isinstance(value, str):
        return unhexed(value)
    if kind == "flag" and isinstance(value, bool):
        return value
    if kind == "time" and (value is None or (_is_integer(value) and value >= 0)):
        return value
    if kind == "time" and _is_integer(value):
        raise Rejected(f"invalid value: integer `{value}`, expected u64")
    if kind == "texts" and isinstance(value, list) and not isinstance(value, _Members):
        return tuple(_from_json_value("text", item) for item in value)
    raise Rejected(f"invalid type: {_described(value)}, expected {expected}")


def _from_query_value(kind: Kind, value: Any) -> Any:
    if isinstance(value, list) != (kind == "texts"):
        raise Rejected(f"invalid type: {_described(value)}, expected {'a sequence' if kind == 'texts' else 'a string'}")
    if kind == "bytes":
        return unhexed(value)
    if kind == "flag":
        if value not in ("true", "false"):
            raise Rejected("provided string was not `true` or `false`")
        return value == "true"
    if kind == "time":
        if not re.fullmatch(r"\+?[0-9]+", value):
            raise Rejected("invalid digit found in string")
        return _from_json_value("time", int(value))
    return tuple(value) if kind == "texts" else value


def unhexed(text: str) -> bytes:
    """Bytes out of hex; any number of leading ``0x``, either case."""
    while text.startswith("0x"):
        text = text[2:]
    if len(text.encode()) % 2:
        raise Rejected("Odd number of digits")
    # The agent looks at bytes, and shows one as if it were a character.
    if bad := re.search(r"[^0-9a-fA-F]", text.encode().decode("latin-1")):
        raise Rejected(f"Invalid character {bad[0]!r} at position {bad.start()}")
    return bytes.fromhex(text)


def _is_integer(value: Any) -> bool:
    """Whether serde takes a number for an integer: larger ones are floating point to it."""
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 64


def _described(value: Any) -> str:
    """What serde calls a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"boolean `{str(value).lower()}`"
    if _is_integer(value):
        return f"integer `{value}`"
    if isinstance(value, int | float):
        return f"floating point `{float(value)}`"
    if isinstance(value, str):
        return f"string {json.dumps(value, ensure_ascii=False)}"
    return "map" if isinstance(value, _Members) else "sequence"


def _to_json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [_to_json_value(item) for item in value]
    return value
