"""
Keccak with the padding that Ethereum uses, which hashlib lacks.

Owns: the permutation and the sponge.
"""

from __future__ import annotations

from collections.abc import Iterator

LANE = (1 << 64) - 1
ROUND_COUNT = 24


def keccak256(data: bytes) -> bytes:
    """Hash as Ethereum does."""
    return keccak(data, 32)


def keccak(data: bytes, size_bytes: int) -> bytes:
    """
    Hash with Keccak as it was before FIPS 202 changed the padding.

    Args:
        data: What to hash.
        size_bytes: Size of the digest: 32, 48 or 64.

    Source: "The Keccak reference", version 3.0, sections 1.2 and 2.1.
    """
    rate = 200 - 2 * size_bytes
    padded = bytearray(data) + bytearray(rate - len(data) % rate)
    padded[len(data)] ^= 0x01
    padded[-1] ^= 0x80
    lanes = [0] * 25
    for start in range(0, len(padded), rate):
        for index in range(rate // 8):
            offset = start + 8 * index
            lanes[index] ^= int.from_bytes(padded[offset : offset + 8], "little")
        _permute(lanes)
    return b"".join(lane.to_bytes(8, "little") for lane in lanes)[:size_bytes]


def _round_constants() -> Iterator[int]:
    """The constants of iota, out of the linear feedback shift register that defines them."""
    state = 1
    for _ in range(ROUND_COUNT):
        constant = 0
        for bit in range(7):
            if state & 1:
                constant |= 1 << ((1 << bit) - 1)
            state = (state << 1) ^ (0x171 if state & 0x80 else 0)
        yield constant


def _rotations() -> tuple[tuple[int, int, int], ...]:
    """For each lane: where it comes from, by how many bits it turns, and how far the rest turns."""
    steps: dict[int, tuple[int, int]] = {0: (0, 0)}
    x, y = 1, 0
    for step in range(24):
        target = y, (2 * x + 3 * y) % 5
        steps[target[0] + 5 * target[1]] = x + 5 * y, (step + 1) * (step + 2) // 2 % 64
        x, y = target
    return tuple((steps[lane][0], steps[lane][1], 64 - steps[lane][1]) for lane in range(25))


ROUND_CONSTANTS = tuple(_round_constants())
ROTATIONS = _rotations()


def _permute(lanes: list[int]) -> None:
    for constant in ROUND_CONSTANTS:
        columns = [lanes[x] ^ lanes[x + 5] ^ lanes[x + 10] ^ lanes[x + 15] ^ lanes[x + 20] for x in range(5)]
        mixes = [columns[x - 1] ^ ((columns[(x + 1) % 5] << 1 | columns[(x + 1) % 5] >> 63) & LANE) for x in range(5)]
        mixed = [lane ^ mixes[index % 5] for index, lane in enumerate(lanes)]
        turned = [(mixed[source] << left | mixed[source] >> right) & LANE for source, left, right in ROTATIONS]
        for row in range(0, 25, 5):
            a, b, c, d, e = turned[row : row + 5]
            lanes[row : row + 5] = a ^ (~b & c), b ^ (~c & d), c ^ (~d & e), d ^ (~e & a), e ^ (~a & b)
        lanes[0] ^= constant
