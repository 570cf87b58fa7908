"""
What came of a run: the caller's ``RunResult``, and what a receipt has to say.

Owns: nothing; values only.

Source: API, ``RunResult`` and "Execution receipts".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from skilld.scripts.rungs import Facts
from skilld.scripts.runner import Ended


@dataclass(frozen=True)
class Outcome:
    """
    One run, whole.

    Attributes:
        skill: Its id.
        skill_digest: The skill's digest, which held from the moment of opening to the end; None where it has none, or a
            file of the skill was touched meanwhile.
        script: Path relative to the skill directory.
        args: The caller's.
        variables: The names of the caller's variables, sorted.
        stdin: What the script was given to read, or None.
        ended: What it did.
        interpreter: The path of what ran it.
        facts: What confined it.
        queued_s: How long it waited for its turn.
        started_at: When its turn came.
        ended_at: When nothing of it was left.
    """

    skill: str
    skill_digest: str | None
    script: str
    args: tuple[str, ...]
    variables: tuple[str, ...]
    stdin: bytes | None
    ended: Ended
    interpreter: str
    facts: Facts
    queued_s: float
    started_at: datetime
    ended_at: datetime

    @property
    def stdin_sha256(self) -> str:
        """Of all bytes that the script was given, bare hex. The streams that it wrote have theirs in ``ended``."""
        return hashlib.sha256(self.stdin or b"").hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The ``RunResult`` of the API, without a receipt."""
        ended = self.ended
        (stdout, stdout_encoding), (stderr, stderr_encoding) = ended.stdout.to_json(), ended.stderr.to_json()
        return {
            "stdout": stdout,
            "stderr": stderr,
            "exit_code": ended.exit_code,
            "encoding": {"stdout": stdout_encoding, "stderr": stderr_encoding},
            "truncated": {"stdout": ended.stdout.is_truncated, "stderr": ended.stderr.is_truncated},
            "bytes": {"stdout": ended.stdout.bytes_count, "stderr": ended.stderr.bytes_count},
            "timed_out": ended.timed_out,
            **({"signal": ended.signal} if ended.signal else {}),
            "duration_ms": round(ended.duration_s * 1000, 3),
            "queued_ms": round(self.queued_s * 1000, 3),
            "interpreter": self.interpreter,
            "sandbox": self.facts.to_json(),
        }
