"""
dstack's own envelope of an attestation, in both versions.

Owns: the SCALE text of version 0 and the MessagePack text of version 1.

Source: dstack's source, dstack-attest/src/{attestation,v1}.rs; the SCALE codec of Substrate; MessagePack's
specification.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from .events import Event, stripped
from .evidence import snp_report, tdx_quote
from .machine import Machine

SCALE_TDX, SCALE_SNP = 0, 3


class Numbers(tuple[int, ...]):
    """Bytes that are written as an array of numbers, as serde does unless it is told otherwise."""


def attestation(machine: Machine, platform: str, report_data: bytes, *, is_stripped: bool = False) -> bytes:
    """
    The attestation of a machine over 64 bytes of report data.

    Args:
        platform: "tdx" or "snp".
        is_stripped: Leave out the boot's events, as certificates do.
    """
    events: list[Event] = []
    runtime_events: list[Event] = []
    if platform == "tdx":
        events, runtime_events = machine.events, machine.runtime_events
        if is_stripped:
            events = [stripped(event, keeps_acpi=True) for event in events if event.is_runtime or event.is_acpi]
    # Version 0 has no place for an event's version.
    if any(event.version != 1 for event in runtime_events):
        return _version_1(machine, report_data, events, runtime_events)
    return _version_0(machine, platform, report_data, events, runtime_events)


def _version_0(
    machine: Machine, platform: str, report_data: bytes, events: Sequence[Event], runtime_events: Sequence[Event]
) -> bytes:
    if platform == "tdx":
        log = [
            struct.pack("<II", event.imr, event.type)
            + _scale(event.digest)
            + _scale(event.name.encode())
            + _scale(event.payload)
            for event in events
        ]
        quote = bytes([SCALE_TDX]) + _scale(tdx_quote(machine, report_data)) + _scale_all(log)
    else:
        certificates: list[bytes] = []
        quote = (
            bytes([SCALE_SNP])
            + _scale(snp_report(machine, report_data))
            + _scale_all(certificates)
            + _scale(machine.mr_config.encode())
        )
    names = [_scale(event.name.encode()) + _scale(event.payload) for event in runtime_events]
    return b"\x00" + quote + _scale_all(names) + report_data + _scale(machine.vm_config.encode())


def _version_1(machine: Machine, report_data: bytes, events: Sequence[Event], runtime_events: Sequence[Event]) -> bytes:
    log = [
        {
            "imr": event.imr,
            "event_type": event.type,
            "digest": event.digest,
            "event": event.name,
            "event_payload": event.payload,
            **({"version": event.version} if event.version != 1 else {}),
            **({"preimage": shown.preimage.hex()} if (shown := stripped(event, keeps_acpi=True)).preimage else {}),
        }
        for event in events
    ]
    return msgpack(
        {
            "version": 1,
            "platform": {
                "kind": "tdx",
                "data": {"quote": Numbers(tdx_quote(machine, report_data)), "event_log": log},
            },
            "stack": {
                "kind": "dstack",
                "data": {
                    "report_data": Numbers(report_data),
                    "runtime_events": [
                        {"event": event.name, "payload": event.payload, "version": event.version}
                        for event in runtime_events
                    ],
                    "config": machine.vm_config,
                },
            },
        }
    )


def _scale(content: bytes) -> bytes:
    """Bytes with their length in front."""
    return _compact(len(content)) + content


def _scale_all(items: Sequence[bytes]) -> bytes:
    return _compact(len(items)) + b"".join(items)


def _compact(number: int) -> bytes:
    """A number below 2^30 in the fewest bytes; the low two bits say how many."""
    for mode, (bits, size) in enumerate(((6, 1), (14, 2), (30, 4))):
        if number < 1 << bits:
            return (number << 2 | mode).to_bytes(size, "little")
    raise ValueError(f"too large for this codec: {number}")


def msgpack(value: Any) -> bytes:
    """MessagePack of what attestations hold: maps, lists, text, bytes, :class:`Numbers` and numbers below 2^32."""
    if isinstance(value, dict):
        return _size(len(value), 0x80, 0xDE) + b"".join(msgpack(key) + msgpack(item) for key, item in value.items())
    if isinstance(value, Numbers | list):
        return _size(len(value), 0x90, 0xDC) + b"".join(msgpack(item) for item in value)
    if isinstance(value, str):
        text = value.encode()
        if len(text) < 32:
            return bytes([0xA0 | len(text)]) + text
        return _sized(len(text), 0xD9) + text
    if isinstance(value, bytes):
        return _sized(len(value), 0xC4) + value
    if value < 0x80:
        return bytes([value])
    return _sized(value, 0xCC)


def _size(count: int, small: int, large: int) -> bytes:
    """The head of a map or a list."""
    if count < 16:
        return bytes([small | count])
    return struct.pack(">BH", large, count) if count < 0x1_0000 else struct.pack(">BI", large + 1, count)


def _sized(number: int, first: int) -> bytes:
    """A code and a number of one, two or four bytes, whichever suffices."""
    for offset, layout in enumerate((">BB", ">BH", ">BI")):
        if number < 1 << 8 * (1 << offset):
            return struct.pack(layout, first + offset, number)
    raise ValueError(f"too large for this codec: {number}")
