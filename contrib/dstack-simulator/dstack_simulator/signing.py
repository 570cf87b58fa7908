"""
What Sign and Verify do, for the three algorithms.

Owns: what is signed with which key, and which signature holds.

Source: dstack's source, guest-agent/src/rpc_service.rs.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from . import derivation, secp256k1
from .derivation import AppKey, PathKey
from .messages import Rejected

# The field and the constant of edwards25519.
PRIME = 2**255 - 19
D = -121665 * pow(121666, -1, PRIME) % PRIME
ALGORITHMS = ("ed25519", "secp256k1", "secp256k1_prehashed")


@dataclass(frozen=True)
class Signed:
    """A signature of 64 bytes and the key that made it."""

    signature: bytes
    key: PathKey


def sign(app: AppKey, algorithm: str, data: bytes) -> Signed:
    """
    Sign with the key that all who reach the socket share.

    Raises:
        Rejected: an unknown algorithm, or a prehash that has not 32 bytes.
    """
    _check(algorithm)
    base = algorithm.removesuffix("_prehashed")
    key = derivation.path_key(app, derivation.SIGNING_PATH, derivation.SIGNING_PURPOSE, base)
    if algorithm == "ed25519":
        return Signed(Ed25519PrivateKey.from_private_bytes(key.secret).sign(data), key)
    if algorithm == "secp256k1":
        return Signed(secp256k1.sign(key.secret, hashlib.sha256(data).digest()), key)
    if len(data) != 32:
        raise Rejected(f"Pre-hashed signing requires a 32-byte digest, but received {len(data)} bytes")
    return Signed(secp256k1.sign(key.secret, data), key)


def verify(algorithm: str, public: bytes, data: bytes, signature: bytes) -> bool:
    """
    Tell whether a signature holds.

    Raises:
        Rejected: an unknown algorithm, or a key or signature that cannot be read.
    """
    _check(algorithm)
    if algorithm == "ed25519":
        return _verify_ed25519(public, data, signature)
    # A prehash of another size than 32 bytes is no error here.
    digest = hashlib.sha256(data).digest() if algorithm == "secp256k1" else data.rjust(32, b"\0")[:32]
    try:
        return secp256k1.verify(public, digest, signature)
    except ValueError as exc:
        raise Rejected("signature error") from exc


def _check(algorithm: str) -> None:
    if algorithm not in ALGORITHMS:
        raise Rejected("Unsupported algorithm")


def _verify_ed25519(public: bytes, data: bytes, signature: bytes) -> bool:
    if len(public) != 32:
        raise Rejected("invalid public key")
    if not _is_point(public):
        raise Rejected("signature error: Cannot decompress Edwards point: Cannot decompress Edwards point")
    if len(signature) != 64:
        raise Rejected("signature error")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _is_point(public: bytes) -> bool:
    """Whether the curve has a point with this y (RFC 8032, section 5.1.3); the cryptography package does not look."""
    square = (int.from_bytes(public, "little") % (1 << 255)) ** 2
    return pow((square - 1) * (D * square + 1), (PRIME - 1) // 2, PRIME) in (0, 1)
