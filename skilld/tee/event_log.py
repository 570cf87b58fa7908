"""
The event log of a CVM, and the registers that it leads to.

The guest agent leaves out the digest of its own events, so that it is computed from name and payload here; where it is
given, it must be that one.

Owns: nothing; values only.

Source: dstack's ``cc-eventlog`` (``tdx.rs``, ``runtime_events.rs``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from skilld.tee.canonical import canonical_json

RUNTIME_EVENT = 0x08000001
RUNTIME_IMR = 3
DIGEST_BYTES = 48

# What comes after is said by the app itself: it might call an event anything.
LAST_BOOT_EVENT = "system-ready"


class BadEventLog(ValueError):
    """A text is no event log; the text says why."""


@dataclass(frozen=True)
class Event:
    """One event. ``imr`` is the number of the register that it extended with ``digest``, 48 bytes."""

    imr: int
    event_type: int
    name: str
    payload: bytes
    digest: bytes


def parse_event_log(text: str) -> tuple[Event, ...]:
    """
    Read the log that goes with a quote.

    Raises:
        BadEventLog: It is no JSON array of events, or an event's digest is not that of its name and payload.
    """
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise BadEventLog(f"it is no JSON: {exc}") from None
    if not isinstance(entries, list):
        raise BadEventLog("it is no array")
    return tuple(_parse_event(number, entry) for number, entry in enumerate(entries))


def _parse_event(number: int, entry: object) -> Event:
    if not isinstance(entry, Mapping):
        raise BadEventLog(f"event {number} is no object")
    try:
        imr, event_type, name = entry["imr"], entry["event_type"], entry["event"]
        digest, payload = bytes.fromhex(entry["digest"]), bytes.fromhex(entry["event_payload"])
        version = entry.get("version", 1)
    except (KeyError, TypeError, ValueError) as exc:
        raise BadEventLog(f"event {number}: {exc}") from None
    if not (type(imr) is type(event_type) is type(version) is int and isinstance(name, str)):
        raise BadEventLog(f"event {number} has a member of the wrong type")
    if event_type == RUNTIME_EVENT:
        try:
            computed = runtime_digest(name, payload, version=version)
        except UnicodeEncodeError as exc:
            raise BadEventLog(f"event {number}: its name is no text: {exc}") from None
        if digest and digest != computed:
            raise BadEventLog(f"event {number} ({name!r}): its digest is not that of its name and payload")
        digest = computed
    elif len(digest) != DIGEST_BYTES:
        raise BadEventLog(f"event {number} ({name!r}) has no digest of {DIGEST_BYTES} bytes")
    return Event(imr, event_type, name, payload, digest)


def runtime_digest(name: str, payload: bytes, *, version: int = 1) -> bytes:
    """
    Return the digest of an event of dstack's own: sha384, in one of two versions.

    Raises:
        BadEventLog: The version is unknown.
    """
    if version == 1:
        content = RUNTIME_EVENT.to_bytes(4, "little") + b":" + name.encode() + b":" + payload
    elif version == 2:
        content = canonical_json({"name": name, "payload": payload.hex(), "type": RUNTIME_EVENT}).encode()
    else:
        raise BadEventLog(f"event {name!r} is of the unknown version {version!r}")
    return hashlib.sha384(content).digest()


def replay(events: Iterable[Event], imr: int) -> bytes:
    """Return the value that a register has after the events that extend it."""
    register = bytes(DIGEST_BYTES)
    for event in events:
        if event.imr == imr:
            register = hashlib.sha384(register + event.digest).digest()
    return register


def boot_facts(events: Iterable[Event]) -> dict[str, bytes]:
    """Return what the system measured into RTMR3 before the app could: payloads by name, the first of each."""
    facts: dict[str, bytes] = {}
    for event in events:
        if event.imr != RUNTIME_IMR or event.event_type != RUNTIME_EVENT:
            continue
        if event.name == LAST_BOOT_EVENT:
            break
        facts.setdefault(event.name, event.payload)
    return facts
