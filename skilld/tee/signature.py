"""
Whether a signature is that of a key: ed25519 and secp256k1, as dstack signs.

Owns: nothing.

Source: RFC 8032; SEC 1, section 4.1; dstack's ``rpc_service.rs``, which refuses a high s, too.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

from skilld.tee.secp256k1 import ORDER

SIGNATURE_BYTES = 64


def is_signed(algorithm: str, public_key: bytes, message: bytes, signature: bytes) -> bool:
    """
    Return whether a key signed a message.

    Args:
        algorithm: "ed25519", or "secp256k1" with SHA-256.
        public_key: 32 bytes, or a point of the curve as SEC 1 writes it.
        message: What was signed.
        signature: 64 bytes.

    Raises:
        ValueError: The public key is none, or the algorithm is unknown.
    """
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        if algorithm == "ed25519":
            ed25519.Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
        elif algorithm == "secp256k1":
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            if s > ORDER // 2:
                return False
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), public_key)
            key.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
        else:
            raise ValueError(f"unknown algorithm {algorithm!r}")
    except InvalidSignature:
        return False
    return True
