"""The event log of a CVM and the registers that it leads to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from dstack_simulator.events import Event as Emitted
from dstack_simulator.events import runtime_event, stripped
from dstack_simulator.machine import Machine

from skilld.tee.event_log import BadEventLog, boot_facts, parse_event_log, replay, runtime_digest


def log_of(*events: Emitted) -> str:
    return json.dumps([event.to_json() for event in events])


@pytest.mark.parametrize("version", [1, 2])
def test_every_register_follows_from_a_log_without_digests(version: int) -> None:
    """As the guest agent sends it since dstack OS 0.5.6: runtime events have no digest."""
    machine = Machine(b"seed", event_version=version)
    machine.emit("app-event", b"\0\xff")
    events = parse_event_log(log_of(*(stripped(event, keeps_acpi=False) for event in machine.events)))
    assert [replay(events, imr) for imr in range(4)] == machine.registers


def test_the_digest_of_an_event_is_that_of_its_parts() -> None:
    """Little-endian type, colon, name, colon, payload; or canonical JSON."""
    assert runtime_digest("n", b"p") == hashlib.sha384(b"\x01\x00\x00\x08:n:p").digest()
    second = b'{"name":"n","payload":"70","type":134217729}'
    assert runtime_digest("n", b"p", version=2) == hashlib.sha384(second).digest()


def test_what_the_app_says_is_no_fact_of_the_boot() -> None:
    """Any container may emit an event that is called app-id."""
    machine = Machine(b"seed")
    machine.emit("app-id", b"mine")
    machine.emit("mine", b"mine")
    facts = boot_facts(parse_event_log(log_of(*machine.events)))
    assert facts["app-id"] == machine.app_id
    assert facts["compose-hash"] == machine.compose_hash
    assert "mine" not in facts


def test_only_runtime_events_of_their_register_are_facts() -> None:
    """The firmware's events may be called anything, too."""
    fake = runtime_event("app-id", b"x", 1)
    events = parse_event_log(log_of(replace(fake, imr=2), replace(fake, type=1)))
    assert boot_facts(events) == {}


GOOD = runtime_event("n", b"p", 1).to_json()


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("{", "it is no JSON"),
        ("{}", "it is no array"),
        ([1], "event 0 is no object"),
        ([{**GOOD, "digest": "00" * 48}], r"event 0 \('n'\): its digest is not that of its name and payload"),
        ([{**GOOD, "event_payload": "0"}], "event 0: "),
        ([{**GOOD, "event_payload": None}], "event 0: "),
        ([{**GOOD, "imr": "3"}], "event 0 has a member of the wrong type"),
        ([{**GOOD, "version": True}], "event 0 has a member of the wrong type"),
        ([{**GOOD, "event": "\ud800"}], "event 0: its name is no text"),
        ([{**GOOD, "version": 3}], "event 'n' is of the unknown version 3"),
        ([GOOD, {**GOOD, "event_type": 1, "digest": ""}], r"event 1 \('n'\) has no digest of 48 bytes"),
        ([{"imr": 3}], "event 0: 'event_type'"),
    ],
)
def test_what_is_no_log_is_refused(log: Any, expected: str) -> None:
    """The message names the event."""
    with pytest.raises(BadEventLog, match=expected):
        parse_event_log(log if isinstance(log, str) else json.dumps(log))
