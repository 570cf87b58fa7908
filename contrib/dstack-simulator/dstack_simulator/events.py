"""
The event log of a boot, the digests of its events, and the registers that they extend.

Owns: event digests, both versions; replay; the log's JSON.

Source: dstack's source, cc-eventlog/src/{tdx,runtime_events}.rs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

RUNTIME_EVENT_TYPE = 0x0800_0001
RUNTIME_REGISTER = 3
ACPI_DATA_TYPE = 10
ACPI_DATA = b"ACPI DATA"


@dataclass(frozen=True)
class Event:
    """
    One entry of the log.

    ``digest`` is what extended the register ``imr`` (0 to 3). For an event of dstack (register 3) it follows from name
    and payload; ``version`` says how.
    """

    imr: int
    type: int
    digest: bytes
    name: str
    payload: bytes
    version: int = 1
    preimage: bytes | None = None

    @property
    def is_runtime(self) -> bool:
        return self.type == RUNTIME_EVENT_TYPE

    @property
    def is_acpi(self) -> bool:
        return self.imr == 0 and self.type == ACPI_DATA_TYPE and self.payload == ACPI_DATA

    def to_json(self) -> dict[str, Any]:
        """The event as it stands in a JSON log; what version 1 has not is left out."""
        value: dict[str, Any] = {
            "imr": self.imr,
            "event_type": self.type,
            "digest": self.digest.hex(),
            "event": self.name,
            "event_payload": self.payload.hex(),
        }
        if self.version != 1:
            value["version"] = self.version
        if self.preimage is not None:
            value["preimage"] = self.preimage.hex()
        return value


def runtime_event(name: str, payload: bytes, version: int) -> Event:
    """An event that dstack or an app emits."""
    digest = hashlib.sha384(preimage(name, payload, version)).digest()
    return Event(RUNTIME_REGISTER, RUNTIME_EVENT_TYPE, digest, name, payload, version)


def boot_event(imr: int, type: int, payload: bytes) -> Event:
    """An event of the firmware or the kernel's stub, whose digest is simply that of its payload here."""
    return Event(imr, type, hashlib.sha384(payload).digest(), "", payload)


def preimage(name: str, payload: bytes, version: int) -> bytes:
    """What is hashed into the digest of a runtime event."""
    if version == 1:
        return RUNTIME_EVENT_TYPE.to_bytes(4, "little") + b":" + name.encode() + b":" + payload
    # RFC 8785: keys in order, no blanks, strings as short as JSON allows.
    content = {"name": name, "payload": payload.hex(), "type": RUNTIME_EVENT_TYPE}
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def stripped(event: Event, *, keeps_acpi: bool) -> Event:
    """
    The event as GetQuote shows it.

    A runtime event loses its digest, which can be computed; a boot event loses its payload.
    """
    if event.is_runtime:
        shown = preimage(event.name, event.payload, event.version) if event.version != 1 else None
        return replace(event, digest=b"", preimage=shown)
    return event if keeps_acpi and event.is_acpi else replace(event, payload=b"")


def replayed(events: Iterable[Event], imr: int) -> bytes:
    """The register that the events lead to, 48 bytes."""
    register = bytes(48)
    for event in events:
        if event.imr == imr:
            register = hashlib.sha384(register + event.digest).digest()
    return register
