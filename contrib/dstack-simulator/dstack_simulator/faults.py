"""
Everything that can go wrong with a guest agent, on request.

Owns: the faults that are switched on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

# What each kind does instead of, or before, answering.
KINDS = {
    "latency": "answer after `seconds`",
    "hang": "read the request and never answer",
    "cut": "send half of the answer and close the connection",
    "drop": "close the connection without a byte",
    "reject": 'answer 400 and {"error": `text`}',
    "html": "answer 404 with a page of HTML, as a wrong socket does",
    "garbage": "answer 200 with what is no JSON",
    "shape": "answer 200 with JSON of another shape",
}
EVERY_METHOD = "*"


@dataclass(frozen=True)
class Fault:
    """
    One fault.

    Args:
        kind: One of :data:`KINDS`.
        method: The method that it strikes ("GetQuote"), or "*".
        seconds: For "latency".
        text: For "reject".
        times: How often it strikes; None is for ever.

    Raises:
        ValueError: an unknown kind, or a number out of range.
    """

    kind: str
    method: str = EVERY_METHOD
    seconds: float = 0.0
    text: str = "simulated failure"
    times: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no such fault: {self.kind!r}; there are {', '.join(KINDS)}")
        if not (math.isfinite(self.seconds) and self.seconds >= 0) or (self.times is not None and self.times < 1):
            raise ValueError("seconds must be at least 0, times at least 1")


class Faults:
    """The faults that are on; several may strike one request, latency first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)

    def clear(self) -> None:
        self._faults.clear()

    def __iter__(self) -> Iterator[Fault]:
        return iter(tuple(self._faults))

    def strike(self, method: str) -> list[Fault]:
        """The faults that strike this request, in order; each counts down."""
        struck = [fault for fault in self._faults if fault.method in (method, EVERY_METHOD)]
        kept = []
        for fault in self._faults:
            if fault in struck and fault.times is not None:
                if fault.times > 1:
                    kept.append(replace(fault, times=fault.times - 1))
            else:
                kept.append(fault)
        self._faults = kept
        return sorted(struck, key=lambda fault: fault.kind != "latency")


def parse_fault(text: str) -> Fault:
    """
    Read "kind", "kind:method" or "kind:method:argument", as the command line takes them.

    The argument is the seconds of a latency and the text of a rejection.

    Raises:
        ValueError: it says no such thing.
    """
    kind, _, rest = text.partition(":")
    method, _, argument = rest.partition(":")
    given: dict[str, Any] = {}
    if argument:
        given = {"seconds": float(argument)} if kind == "latency" else {"text": argument}
    return Fault(kind, method or EVERY_METHOD, **given)


def read_faults(body: bytes) -> list[Fault]:
    """
    Read a JSON list of faults, each an object with the fields of :class:`Fault`.

    Raises:
        ValueError: it says no such thing.
    """
    value = json.loads(body)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("a list of objects is wanted")
    try:
        return [Fault(**item) for item in value]
    except TypeError as exc:
        raise ValueError(str(exc)) from exc
