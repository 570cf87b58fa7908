"""
What a verification found: one check after another, each with its outcome and what it is about.

Owns: nothing; values only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

# "ok" held; "failed" did not; "unchecked" should have been checked and could not; "note" was not asked for.
Outcome: TypeAlias = Literal["ok", "failed", "unchecked", "note"]

# Of a value that is as expected; one that is not is shown whole.
SHOWN_CHARS = 72

_HEX = re.compile(r"(?:[0-9a-f]{2})*")


@dataclass(frozen=True)
class Check:
    """One check; ``detail`` names what held or what is wrong."""

    name: str
    outcome: Outcome
    detail: str


@dataclass
class Findings:
    """Checks as they are made, in order."""

    checks: list[Check] = field(default_factory=list)

    def ok(self, name: str, detail: str) -> None:
        """It held."""
        self.checks.append(Check(name, "ok", detail))

    def fail(self, name: str, detail: str) -> None:
        """It did not hold."""
        self.checks.append(Check(name, "failed", detail))

    def unchecked(self, name: str, detail: str) -> None:
        """It could not be checked, and nothing is proved without it."""
        self.checks.append(Check(name, "unchecked", detail))

    def note(self, name: str, detail: str) -> None:
        """Nobody asked for it, or nothing depends on it."""
        self.checks.append(Check(name, "note", detail))

    def equal(self, name: str, what: str, is_value: str, expected: str) -> bool:
        """It holds if two texts are the same."""
        if is_value == expected:
            shown = expected if len(expected) <= SHOWN_CHARS else f"{expected[:SHOWN_CHARS]}…"
            self.ok(name, f"{what} is {shown}")
            return True
        self.fail(name, f"{what} is {is_value}, not {expected}")
        return False


def parse_hex(text: object) -> bytes | None:
    """Return the bytes of bare lower-case hexadecimal digits, or None for anything else."""
    return bytes.fromhex(text) if isinstance(text, str) and _HEX.fullmatch(text) else None
