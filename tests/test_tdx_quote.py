"""The parts of a TDX quote."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from dstack_simulator.evidence import tdx_quote
from dstack_simulator.machine import Machine

from skilld.tee.event_log import RUNTIME_EVENT, Event, replay, runtime_digest
from skilld.tee.tdx_quote import BadQuote, parse_quote

MACHINE = Machine(b"seed")
QUOTE = tdx_quote(MACHINE, bytes(range(64)))


def test_every_field_is_at_its_place() -> None:
    """Registers, report data and attributes."""
    quote = parse_quote(QUOTE)
    assert [quote.registers[f"rtmr{imr}"] for imr in range(4)] == MACHINE.registers
    assert quote.registers["mrtd"] == MACHINE.mr_td
    assert quote.registers["mr_config_id"] == MACHINE.mr_config_id
    assert quote.report_data == bytes(range(64))
    assert not quote.is_debug


def test_debug_mode_is_seen() -> None:
    """Bit 0 of the attributes."""
    assert parse_quote(QUOTE[:168] + b"\1" + QUOTE[169:]).is_debug


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "0 bytes are too short"),
        (QUOTE[:635], "635 bytes are too short"),
        (QUOTE[:-1], "cut off"),
        (b"\5" + QUOTE[1:], "version 5 is not understood"),
        (QUOTE[:4] + bytes(4) + QUOTE[8:], "TEE type 0x0 is not that of TDX"),
    ],
)
def test_what_is_no_quote_is_refused(content: bytes, expected: str) -> None:
    """The message says why."""
    with pytest.raises(BadQuote, match=expected):
        parse_quote(content)


def test_a_real_quote_agrees_with_its_log() -> None:
    """Hardware, firmware and dstack filled it in; DSTACK_FIXTURES names a directory with its attestation.bin."""
    path = Path(os.environ.get("DSTACK_FIXTURES", "")) / "attestation.bin"
    if not path.is_file():
        pytest.skip("DSTACK_FIXTURES names no directory with an attestation.bin")
    content, events = decode_attestation(path.read_bytes())
    quote = parse_quote(content)
    assert [replay(events, imr) for imr in range(4)] == [quote.registers[f"rtmr{imr}"] for imr in range(4)]
    assert not quote.is_debug
    runtime = [event for event in events if event.event_type == RUNTIME_EVENT]
    assert runtime
    assert [event.digest for event in runtime] == [runtime_digest(event.name, event.payload) for event in runtime]


def decode_attestation(content: bytes) -> tuple[bytes, list[Event]]:
    """Quote and events of dstack's attestation in its first version, which is SCALE."""
    position = 2
    assert content[:2] == b"\0\0"

    def compact() -> int:
        nonlocal position
        size = 1 << (content[position] & 3)
        assert size <= 4
        value = int.from_bytes(content[position : position + size], "little") >> 2
        position += size
        return value

    def block() -> bytes:
        nonlocal position
        size = compact()
        position += size
        return content[position - size : position]

    quote = block()
    events = []
    for _ in range(compact()):
        imr, event_type = struct.unpack_from("<II", content, position)
        position += 8
        digest, name, payload = block(), block().decode(), block()
        events.append(Event(imr, event_type, name, payload, digest))
    return quote, events
