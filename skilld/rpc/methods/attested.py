"""
The method that proves which skills are served.

Owns: nothing.

Source: API, section 7.
"""

from __future__ import annotations

from typing import Any

from skilld.rpc.dispatch import Method
from skilld.rpc.methods import schemas
from skilld.rpc.methods.services import Context
from skilld.rpc.methods.tee import TEE_ERRORS
from skilld.rpc.params import Param, hex_text
from skilld.tee.attestation import NONCE_LIMIT_BYTES, attest_skills

# Milliseconds for what was changed on the disk before the call to be indexed: the set should be that of this moment.
SYNC_TIMEOUT_MS = 10_000


async def attest(context: Context, /, *, nonce: bytes | None) -> dict[str, Any]:
    """Have the TEE quote the digests of all skills as they are served."""
    services = context.services
    await services.sync(SYNC_TIMEOUT_MS)
    # One value: what is edited from here on belongs to the next.
    snapshot = services.registry.snapshot
    return await attest_skills(services.tee, snapshot.manifest, snapshot.digest, nonce or b"")


METHODS = (
    Method(
        "skills.attest",
        "tee",
        (
            Param(
                "nonce",
                hex_text(max_bytes=NONCE_LIMIT_BYTES),
                required=False,
                doc="At most 64 bytes of the verifier's own, hexadecimal; they show that the quote is fresh.",
            ),
        ),
        attest,
        schemas.obj(
            dict.fromkeys(
                ("manifest", "digest", "nonce", "report_data", "quote", "event_log", "vm_config"), schemas.TEXT
            ),
            {"attestation": schemas.TEXT},
        ),
        ("POST", "/skills/attest"),
        errors=TEE_ERRORS,
    ),
)
