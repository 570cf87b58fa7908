"""
ECDSA over secp256k1 as dstack signs and verifies: deterministic, low-S, recoverable.

Owns: the choice of the nonce and the recovery id. The curve itself is the cryptography package's.

Source: RFC 6979, section 3.2; SEC 1, section 4.1; dstack's source, guest-agent/src/rpc_service.rs.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from collections.abc import Iterator

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .keccak import keccak256

CURVE = ec.SECP256K1()
ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
HALF = ORDER // 2


def public_key(secret: bytes) -> bytes:
    """The compressed public key (33 bytes) of a secret of 32 bytes."""
    return _point(int.from_bytes(secret, "big"))


def sign(secret: bytes, digest: bytes) -> bytes:
    """Sign a digest of 32 bytes: r and s, 64 bytes."""
    return _sign(secret, digest)[:64]


@functools.lru_cache(maxsize=1_024)
def sign_recoverable(secret: bytes, message: bytes) -> bytes:
    """
    Sign the Keccak digest of a message: r, s and the recovery id (0 or 1), 65 bytes.

    The result is remembered: the links of a chain are asked for over and over.
    """
    return _sign(secret, keccak256(message))


def verify(public: bytes, digest: bytes, signature: bytes) -> bool:
    """
    Check a signature of 64 bytes over a digest; one whose s is high does not hold.

    Raises:
        ValueError: the public key is no point of the curve, or r or s is out of range.
    """
    key = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, public)
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    if len(signature) != 64 or not (0 < r < ORDER and 0 < s < ORDER):
        raise ValueError("r or s out of range")
    if s > HALF:
        return False
    try:
        key.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    except InvalidSignature:
        return False
    return True


def _sign(secret: bytes, digest: bytes) -> bytes:
    number = int.from_bytes(digest, "big") % ORDER
    key = int.from_bytes(secret, "big")
    for nonce in _nonces(secret, number.to_bytes(32, "big")):
        point = _point(nonce)
        r = int.from_bytes(point[1:], "big") % ORDER
        s = pow(nonce, -1, ORDER) * (number + r * key) % ORDER
        if r and s:
            break
    # The recovery id says whether y of the nonce's point is odd; for -s it is the other one's.
    # (That x is above the order, its second bit, happens once in 2^127 signatures.)
    is_odd = point[0] - 2
    if s > HALF:
        s, is_odd = ORDER - s, 1 - is_odd
    return r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([is_odd])


def _nonces(secret: bytes, digest: bytes) -> Iterator[int]:
    """The candidates for k, in order."""
    value, key = b"\x01" * 32, b"\x00" * 32
    for mark in (b"\x00", b"\x01"):
        key = _hmac(key, value + mark + secret + digest)
        value = _hmac(key, value)
    while True:
        value = _hmac(key, value)
        if 0 < (nonce := int.from_bytes(value, "big")) < ORDER:
            yield nonce
        key = _hmac(key, value + b"\x00")
        value = _hmac(key, value)


def _point(scalar: int) -> bytes:
    """The compressed multiple of the curve's generator."""
    public = ec.derive_private_key(scalar, CURVE).public_key()
    return public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hashlib.sha256)
