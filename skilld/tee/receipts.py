"""
Receipts: a statement of what ran with what outcome, signed by the TEE.

Owns: nothing.

Source: API, section 7, "Execution receipts".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from skilld.tee.canonical import canonical_json

if TYPE_CHECKING:
    from skilld.tee.service import Tee

RECEIPT_SCHEMA = "skilld.receipt.v1"

# Every container of the CVM signs with the same key: no other message of theirs may be taken for a receipt.
RECEIPT_TAG = b"skilld/v1/receipt\0"


def make_statement(
    *,
    skill: str,
    skill_digest: str | None,
    registry_digest: str,
    script: str,
    args: Iterable[str],
    env: Iterable[str],
    stdin_sha256: str,
    stdout_sha256: str,
    stderr_sha256: str,
    exit_code: int,
    timed_out: bool,
    started_at: datetime,
    ended_at: datetime,
) -> str:
    """
    Return the canonical JSON text that says what ran.

    Args:
        skill: The skill's id.
        skill_digest: Of the files that ran, ``sha256:<hex>``; None where the skill has no digest.
        registry_digest: Of the set that the skill was of.
        script: Path relative to the skill directory, such as "scripts/run.py".
        args: As given; the statement holds the sha256 of each, for they may be confidential.
        env: Names of the variables that were given.
        stdin_sha256: Bare hex, of all bytes; those of stdout and stderr also of bytes that were cut from the reply.
        exit_code: The script's own.
        timed_out: Whether it was ended because its time was over.
        started_at: Aware, as is ``ended_at``.
    """
    return canonical_json(
        {
            "schema": RECEIPT_SCHEMA,
            "skill": skill,
            "skill_digest": skill_digest,
            "registry_digest": registry_digest,
            "script": script,
            "args": [hashlib.sha256(arg.encode("utf-8", "surrogateescape")).hexdigest() for arg in args],
            "env": sorted(env),
            "stdin": stdin_sha256,
            "stdout": stdout_sha256,
            "stderr": stderr_sha256,
            "exit_code": exit_code,
            "timed_out": timed_out,
            "started": _rfc3339(started_at),
            "ended": _rfc3339(ended_at),
        }
    )


def signed_message(statement: str) -> bytes:
    """Return the bytes that a receipt's signature is over."""
    return RECEIPT_TAG + statement.encode()


async def sign_statement(tee: Tee, statement: str, algorithm: str) -> dict[str, Any]:
    """
    Return the receipt of a statement.

    Args:
        tee: The guest agent.
        statement: What :func:`make_statement` returned.
        algorithm: "ed25519" or "secp256k1".

    Raises:
        SkilldError: What the guest agent's service raises.
    """
    signed = await tee.sign(algorithm, signed_message(statement))
    return {
        "statement": statement,
        "signature": signed["signature"],
        "algorithm": algorithm,
        "public_key": signed["public_key"],
        "signature_chain": signed["signature_chain"],
    }


def _rfc3339(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
