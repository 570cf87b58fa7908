"""
Keccak-256, the hash that dstack signs its keys with; hashlib has only the standardised SHA-3, which pads otherwise.

Owns: nothing; values only.

Source: the Keccak reference 3.0 (b = 1600, r = 1088, c = 512); FIPS 202, algorithms 1 to 7, with the padding of before.
"""

from __future__ import annotations

MASK = (1 << 64) - 1
RATE_BYTES = 136


def keccak256(data: bytes) -> bytes:
    """Return the 32 bytes of the digest."""
    padded = bytearray(data) + b"\x01" + bytes(RATE_BYTES - 1 - len(data) % RATE_BYTES)
    padded[-1] |= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    for start in range(0, len(padded), RATE_BYTES):
        for index in range(RATE_BYTES // 8):
            word = padded[start + 8 * index : start + 8 * index + 8]
            lanes[index % 5][index // 5] ^= int.from_bytes(word, "little")
        lanes = _permute(lanes)
    return b"".join(lanes[index][0].to_bytes(8, "little") for index in range(4))


def _permute(lanes: list[list[int]]) -> list[list[int]]:
    """Keccak-f[1600]: 24 rounds on lanes[x][y]."""
    feedback = 1
    for _ in range(24):
        # theta
        parity = [lanes[x][0] ^ lanes[x][1] ^ lanes[x][2] ^ lanes[x][3] ^ lanes[x][4] for x in range(5)]
        for x in range(5):
            mix = parity[(x - 1) % 5] ^ _rotate(parity[(x + 1) % 5], 1)
            lanes[x] = [lane ^ mix for lane in lanes[x]]
        # rho and pi
        moved = [[0] * 5 for _ in range(5)]
        moved[0][0] = lanes[0][0]
        x, y = 1, 0
        for step in range(24):
            moved[y][(2 * x + 3 * y) % 5] = _rotate(lanes[x][y], (step + 1) * (step + 2) // 2)
            x, y = y, (2 * x + 3 * y) % 5
        # chi
        lanes = [
            [moved[x][y] ^ (~moved[(x + 1) % 5][y] & moved[(x + 2) % 5][y] & MASK) for y in range(5)] for x in range(5)
        ]
        # iota: the constants are bits of a linear feedback shift register.
        for bit in range(7):
            if feedback & 1:
                lanes[0][0] ^= 1 << ((1 << bit) - 1)
            feedback = (feedback << 1) ^ (0x171 if feedback & 0x80 else 0)
    return lanes


def _rotate(lane: int, count: int) -> int:
    count %= 64
    return (lane << count | lane >> (64 - count)) & MASK
