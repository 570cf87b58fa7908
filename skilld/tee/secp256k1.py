"""
Recovery of the public key from an ECDSA signature over secp256k1, by which dstack links its keys.

A recovered key always fits its signature; it proves something only where it is a key that is known already. All values
are public, so that nothing need run in constant time.

Owns: nothing; values only.

Source: SEC 1 2.0, section 4.1.6; SEC 2, section 2.4.1 for the curve.
"""

from __future__ import annotations

P = 2**256 - 2**32 - 977
ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
GENERATOR = (
    0x79BE667E_F9DCBBAC_55A06295_CE870B07_029BFCDB_2DCE28D9_59F2815B_16F81798,
    0x483ADA77_26A3C465_5DA4FBFC_0E1108A8_FD17B448_A6855419_9C47D08F_FB10D4B8,
)

RECOVERABLE_BYTES = 65

# Affine, or None for the point at infinity.
Point = tuple[int, int] | None


class BadPoint(ValueError):
    """Bytes are no point of the curve, or a signature fits no key."""


def recover(signature: bytes, digest: bytes) -> bytes:
    """
    Return the compressed public key (33 bytes) that made a signature.

    Args:
        signature: r, s and the recovery id: 65 bytes; the id is 0 to 3.
        digest: What was signed, 32 bytes.

    Raises:
        BadPoint: No key can have made it.
    """
    if len(signature) != RECOVERABLE_BYTES or signature[64] > 3:
        raise BadPoint("a recoverable signature has 65 bytes, the last one 0 to 3")
    r, s, recovery_id = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big"), signature[64]
    if not (0 < r < ORDER and 0 < s < ORDER):
        raise BadPoint("r or s is out of range")
    nonce_point = _lift(r + (ORDER if recovery_id & 2 else 0), is_odd=bool(recovery_id & 1))
    inverse = pow(r, -1, ORDER)
    number = int.from_bytes(digest, "big")
    key = _add(_multiply(-number * inverse % ORDER, GENERATOR), _multiply(s * inverse % ORDER, nonce_point))
    if key is None:
        raise BadPoint("the signature fits no key")
    return compress(key)


def compress(point: tuple[int, int]) -> bytes:
    """Return the compressed form, 33 bytes."""
    return bytes([2 + (point[1] & 1)]) + point[0].to_bytes(32, "big")


def normalise(key: bytes) -> bytes:
    """
    Return a public key in its compressed form.

    Args:
        key: Compressed (33 bytes), uncompressed (65), or uncompressed without its first byte (64).

    Raises:
        BadPoint: It is no point of the curve.
    """
    if len(key) == 33 and key[0] in (2, 3):
        return compress(_lift(int.from_bytes(key[1:], "big"), is_odd=key[0] == 3))
    if len(key) == 65 and key[0] == 4:
        key = key[1:]
    if len(key) != 64:
        raise BadPoint("a public key has 33, 64 or 65 bytes")
    x, y = int.from_bytes(key[:32], "big"), int.from_bytes(key[32:], "big")
    if _lift(x, is_odd=bool(y & 1)) != (x, y):
        raise BadPoint("the public key is no point of the curve")
    return compress((x, y))


def _lift(x: int, *, is_odd: bool) -> tuple[int, int]:
    """The point of an x coordinate."""
    square = (pow(x, 3, P) + 7) % P
    y = pow(square, (P + 1) // 4, P)
    if x >= P or y * y % P != square:
        raise BadPoint("x is that of no point of the curve")
    return x, y if bool(y & 1) == is_odd else P - y


def _add(a: Point, b: Point) -> Point:
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def _multiply(factor: int, point: tuple[int, int]) -> Point:
    total: Point = None
    doubled: Point = point
    while factor:
        if factor & 1:
            total = _add(total, doubled)
        doubled = _add(doubled, doubled)
        factor >>= 1
    return total
