"""
The legacy service of the guest agent, which has a socket of its own.

Owns: what its methods answer, beside those that it shares with the newer service.

Source: dstack's source, guest-agent/src/rpc_service.rs and dstack-attest/src/attestation.rs.
"""

from __future__ import annotations

import hashlib

from .keccak import keccak
from .messages import Rejected

REPORT_DATA_BYTES = 64
KECCAKS = {"keccak256": 32, "keccak384": 48, "keccak512": 64}
HASHES = {
    "sha256": "sha256",
    "sha384": "sha384",
    "sha512": "sha512",
    "sha3-256": "sha3_256",
    "sha3-384": "sha3_384",
    "sha3-512": "sha3_512",
}


def hashed_report_data(name: str, prefix: str, content: bytes) -> bytes:
    """
    The report data of TdxQuote: a hash over prefix, colon and content, or the content itself.

    Raises:
        Rejected: an unknown hash, or raw content that has not 64 bytes.
    """
    if name == "raw":
        if len(content) != REPORT_DATA_BYTES:
            raise Rejected("invalid content length")
        return content
    tagged = prefix.encode() + b":" + content
    if name in KECCAKS:
        return keccak(tagged, KECCAKS[name]).ljust(REPORT_DATA_BYTES, b"\0")
    if name in HASHES:
        return hashlib.new(HASHES[name], tagged).digest().ljust(REPORT_DATA_BYTES, b"\0")
    raise Rejected("invalid hash algorithm")
