"""
The set of skills, bound to a quote: what ``skills.attest`` answers.

Owns: nothing.

Source: API, section 7.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skilld.tee.service import Tee

REPORT_DATA_TAG = b"skilld-skillset:"
NONCE_LIMIT_BYTES = 64

# The RTMR3 event that says which skills are served from now on; its payload are the 32 bytes of the registry digest.
SKILL_SET_EVENT = "skilld-skill-set"


def report_data_of(digest: str, nonce: bytes) -> bytes:
    """
    Return the 64 bytes of report data that stand for a set of skills.

    Args:
        digest: The registry digest, ``sha256:<hex>``.
        nonce: The verifier's own bytes, which show that the quote is not an old one; may be empty.
    """
    return hashlib.sha512(REPORT_DATA_TAG + digest_bytes(digest) + nonce).digest()


def digest_bytes(digest: str) -> bytes:
    """Return the 32 bytes of ``sha256:<hex>``."""
    return bytes.fromhex(digest.removeprefix("sha256:"))


async def attest_skills(tee: Tee, manifest: str, digest: str, nonce: bytes) -> dict[str, Any]:
    """
    Have the TEE quote a skill-set manifest.

    Off TDX the quote is empty, and dstack's own attestation, which every TEE has, goes with it.

    Args:
        tee: The guest agent.
        manifest: The manifest's canonical JSON.
        digest: Its digest, ``sha256:<hex>``.
        nonce: At most 64 bytes.

    Raises:
        SkilldError: What the guest agent's service raises.
    """
    report_data = report_data_of(digest, nonce)
    quote = await tee.quote(report_data)
    reply = {
        "manifest": manifest,
        "digest": digest,
        "nonce": nonce.hex(),
        "report_data": report_data.hex(),
        "quote": quote["quote"],
        "event_log": quote["event_log"],
        "vm_config": quote["vm_config"],
    }
    if not quote["quote"]:
        reply |= await tee.attest(report_data)
    return reply
