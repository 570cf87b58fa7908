"""
The parts of a TDX quote that are compared with what skilld said: registers and report data at their places.

Who signed the quote is another question, which nothing here answers.

Owns: nothing; values only.

Source: Intel TDX DCAP Quoting Library API, appendix 3 (quote of version 4, TD report of TDX 1.0).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

VERSION = 4
TEE_TDX = 0x81
HEADER_BYTES = 48
SIGNATURE_LENGTH_AT = 632

# Field of the TD report: offset in the quote and size.
_FIELDS = {
    "mrtd": (184, 48),
    "mr_config_id": (232, 48),
    "mr_owner": (280, 48),
    "mr_owner_config": (328, 48),
    "rtmr0": (376, 48),
    "rtmr1": (424, 48),
    "rtmr2": (472, 48),
    "rtmr3": (520, 48),
}
_ATTRIBUTES_AT = 168
REPORT_DATA_AT, REPORT_DATA_BYTES = 568, 64

# Bits of td_attributes that let the host look into the TD: group TUD, of which bit 0 is DEBUG.
DEBUG_MASK = 0xFF


class BadQuote(ValueError):
    """Bytes are no TDX quote of a version that is understood; the text says why."""


@dataclass(frozen=True)
class Quote:
    """What a quote states. ``registers`` holds mrtd, rtmr0 to rtmr3 and the others by name, 48 bytes each."""

    registers: Mapping[str, bytes]
    report_data: bytes
    td_attributes: int

    @property
    def is_debug(self) -> bool:
        """Whether the host can read and change what is inside."""
        return bool(self.td_attributes & DEBUG_MASK)


def parse_quote(content: bytes) -> Quote:
    """
    Read a quote.

    Raises:
        BadQuote: It is too short, of another version or TEE, or cut off.
    """
    if len(content) < SIGNATURE_LENGTH_AT + 4:
        raise BadQuote(f"{len(content)} bytes are too short for a TDX quote")
    version, _, tee_type = struct.unpack_from("<HHI", content)
    if version != VERSION:
        raise BadQuote(f"version {version} is not understood, only {VERSION}")
    if tee_type != TEE_TDX:
        raise BadQuote(f"TEE type {tee_type:#x} is not that of TDX, {TEE_TDX:#x}")
    (signature_bytes,) = struct.unpack_from("<I", content, SIGNATURE_LENGTH_AT)
    if len(content) < SIGNATURE_LENGTH_AT + 4 + signature_bytes:
        raise BadQuote("its end, with the signature, is cut off")
    return Quote(
        {name: content[offset : offset + size] for name, (offset, size) in _FIELDS.items()},
        content[REPORT_DATA_AT : REPORT_DATA_AT + REPORT_DATA_BYTES],
        int.from_bytes(content[_ATTRIBUTES_AT : _ATTRIBUTES_AT + 8], "little"),
    )
