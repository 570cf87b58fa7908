"""
The methods under ``tee``: dstack's guest agent.

Owns: nothing; each is a thin call of the service. What only asks ends when the peer goes.

Source: API, section 3, "tee"; dstack's ``rpc_service.rs`` for what the guest agent takes.
"""

from __future__ import annotations

from typing import Any

from skilld.config import MIB
from skilld.errors import (
    Busy,
    InvalidParams,
    SkilldError,
    TeeProtocol,
    TeeRejected,
    TeeTimeout,
    TeeUnavailable,
    TeeUnsupported,
)
from skilld.rpc.dispatch import Method
from skilld.rpc.methods import schemas
from skilld.rpc.methods.services import Context
from skilld.rpc.params import Param, array_of, boolean, hex_text, integer, one_of, record, secret, text, text_or

TEE_ERRORS: tuple[type[SkilldError], ...] = (
    TeeUnavailable,
    TeeTimeout,
    TeeUnsupported,
    TeeRejected,
    TeeProtocol,
    Busy,
)

REPORT_DATA_BYTES = 64
# The guest agent takes 10 MiB of JSON, and hashes what it signs.
DATA_LIMIT_BYTES = MIB
# An event stays in the log that every quote of the machine carries.
EVENT_LIMIT_BYTES = 64 * 1024
PREHASHED = "secp256k1_prehashed"
PREHASHED_BYTES = 32


async def info(context: Context, /) -> dict[str, Any]:
    """Tell which app this is and what was measured."""
    with context.hangup.cancels_this():
        return await context.services.tee.info()


async def quote(context: Context, /, *, report_data: bytes) -> dict[str, Any]:
    """Quote up to 64 bytes of one's own, padded with zeros; the quote is empty off TDX."""
    return await context.services.tee.quote(report_data)


async def derive_key(context: Context, /, *, path: str | None, purpose: str | None, algorithm: str) -> dict[str, Any]:
    """Derive the app's key of a path; use paths of their own for each algorithm."""
    return await context.services.tee.derive_key(path or "", purpose or "", algorithm)


async def sign(context: Context, /, *, algorithm: str, data: bytes) -> dict[str, Any]:
    """Sign with the app's key, which all containers of the CVM share."""
    _check_prehashed(algorithm, data)
    return await context.services.tee.sign(algorithm, data)


async def verify(
    context: Context, /, *, algorithm: str, data: bytes, signature: bytes, public_key: bytes
) -> dict[str, Any]:
    """Tell whether a signature is that of a key."""
    _check_prehashed(algorithm, data)
    with context.hangup.cancels_this():
        return await context.services.tee.verify(algorithm, data, signature, public_key)


async def emit_event(context: Context, /, *, event: str, payload: str | dict[str, bytes]) -> dict[str, Any]:
    """Log an event and extend RTMR3 with it (TDX, dstack OS 0.5)."""
    content = payload.encode() if isinstance(payload, str) else payload["hex"]
    if len(content) > EVENT_LIMIT_BYTES:
        raise InvalidParams("payload", f"must be of at most {EVENT_LIMIT_BYTES} bytes, not {len(content)}")
    await context.services.tee.emit_event(event, content)
    return {}


async def attest(context: Context, /, *, report_data: bytes) -> dict[str, Any]:
    """Attest up to 64 bytes of one's own, on any kind of TEE."""
    return await context.services.tee.attest(report_data)


async def tls_key(context: Context, /, **options: Any) -> dict[str, Any]:
    """Make a TLS key and its certificates, anew at every call."""
    before, after = options["not_before"], options["not_after"]
    if before is not None and after is not None and before >= after:
        raise InvalidParams("not_before", f"must be earlier than not_after ({after}), not {before}")
    return await context.services.tee.tls_key(**options)


async def version(context: Context, /) -> dict[str, Any]:
    """Tell the guest agent's version."""
    with context.hangup.cancels_this():
        return await context.services.tee.version()


def _check_prehashed(algorithm: str, data: bytes) -> None:
    if algorithm == PREHASHED and len(data) != PREHASHED_BYTES:
        raise InvalidParams("data", f"must be a hash of {PREHASHED_BYTES} bytes for {PREHASHED}, not {len(data)} bytes")


_REPORT_DATA = Param(
    "report_data",
    hex_text(min_bytes=1, max_bytes=REPORT_DATA_BYTES),
    required=True,
    doc="1 to 64 bytes, hexadecimal.",
)
_SIGN_ALGORITHM = Param(
    "algorithm",
    one_of("ed25519", "secp256k1", "k256", PREHASHED),
    required=True,
    doc="secp256k1 hashes with SHA-256; secp256k1_prehashed takes a hash of 32 bytes.",
)
_DATA = Param(
    "data",
    secret(hex_text(max_bytes=DATA_LIMIT_BYTES), f"hexadecimal digits of at most {DATA_LIMIT_BYTES} bytes"),
    required=True,
    doc="The bytes to be signed, hexadecimal.",
)
# To the end of the year 9999, where the dates of certificates end; dstack's agent falls over a later one.
_SECONDS = integer(0, 253_402_300_799)
_HEX_LIST = schemas.array(schemas.TEXT)

METHODS = (
    Method(
        "tee.info",
        "read",
        (),
        info,
        schemas.obj({"app_id": schemas.TEXT}, {"tcb_info": schemas.nullable({"type": "object"})}),
        ("GET", "/tee/info"),
        errors=TEE_ERRORS,
    ),
    Method(
        "tee.quote",
        "tee",
        (_REPORT_DATA,),
        quote,
        schemas.obj(dict.fromkeys(("quote", "event_log", "report_data", "vm_config"), schemas.TEXT)),
        ("POST", "/tee/quote"),
        errors=TEE_ERRORS,
    ),
    Method(
        "tee.derive_key",
        "tee",
        (
            Param("path", text(max_chars=1_024), required=False, doc="What the key depends on."),
            Param("purpose", text(max_chars=1_024), required=False, doc="Signed together with the key."),
            Param(
                "algorithm",
                one_of("secp256k1", "k256", "ed25519"),
                required=False,
                default="secp256k1",
                doc="One path gives every algorithm the same 32 bytes.",
            ),
        ),
        derive_key,
        schemas.obj({"key": schemas.TEXT, "signature_chain": _HEX_LIST}),
        ("POST", "/tee/derive-key"),
        errors=TEE_ERRORS,
    ),
    Method(
        "tee.sign",
        "tee",
        (_SIGN_ALGORITHM, _DATA),
        sign,
        schemas.obj({"signature": schemas.TEXT, "signature_chain": _HEX_LIST, "public_key": schemas.TEXT}),
        ("POST", "/tee/sign"),
        errors=TEE_ERRORS,
    ),
    Method(
        "tee.verify",
        "read",
        (
            _SIGN_ALGORITHM,
            _DATA,
            Param("signature", hex_text(min_bytes=64, max_bytes=64), required=True, doc="64 bytes, hexadecimal."),
            Param("public_key", hex_text(min_bytes=32, max_bytes=65), required=True, doc="Hexadecimal."),
        ),
        verify,
        schemas.obj({"valid": schemas.BOOL}),
        ("POST", "/tee/verify"),
        errors=TEE_ERRORS,
    ),
    Method(
        "tee.emit_event",
        "tee",
        (
            Param("event", text(min_chars=1, max_chars=256), required=True, doc="The event's name."),
            Param(
                "payload",
                text_or(text(max_chars=EVENT_LIMIT_BYTES), record(hex=hex_text(max_bytes=EVENT_LIMIT_BYTES))),
                required=True,
                doc='Text, or {"hex": "..."}.',
            ),
        ),
        emit_event,
        {"type": "object", "maxProperties": 0},
        ("POST", "/tee/emit-event"),
        errors=TEE_ERRORS,
    ),
    Method(
        "tee.attest",
        "tee",
        (_REPORT_DATA,),
        attest,
        schemas.obj({"attestation": schemas.TEXT}),
        ("POST", "/tee/attest"),
        errors=TEE_ERRORS,
    ),
    Method(
        "tee.tls_key",
        "tee",
        (
            Param("subject", text(max_chars=1_024), required=False, doc="The certificate's common name."),
            Param("alt_names", array_of(text(max_chars=1_024), 100), required=False, doc="Alternative names."),
            Param("usage_ra_tls", boolean(), required=False, default=False, doc="Put a quote into the certificate."),
            Param("usage_server_auth", boolean(), required=False, default=True, doc="For servers."),
            Param("usage_client_auth", boolean(), required=False, default=False, doc="For clients."),
            Param("not_before", _SECONDS, required=False, doc="Unix seconds; dstack OS 0.5.7."),
            Param("not_after", _SECONDS, required=False, doc="Unix seconds; dstack OS 0.5.7."),
            Param("with_app_info", boolean(), required=False, doc="Put the app's id into it; dstack OS 0.5.7."),
        ),
        tls_key,
        schemas.obj({"key": schemas.TEXT, "certificate_chain": _HEX_LIST}),
        ("POST", "/tee/tls-key"),
        errors=TEE_ERRORS,
    ),
    Method(
        "tee.version",
        "read",
        (),
        version,
        schemas.obj({"version": schemas.TEXT, "rev": schemas.TEXT}),
        ("GET", "/tee/version"),
        errors=TEE_ERRORS,
    ),
)
