"""Keccak-256."""

from __future__ import annotations

import pytest
from dstack_simulator import keccak as other

from skilld.tee.keccak import keccak256


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        (b"abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
        (b"testing", "5f16f4c7f149ac4f9510d9cf8cf384038ad348b3bcdc01915f95de12df9d1b02"),
    ],
)
def test_the_digest_is_that_of_published_vectors(data: bytes, expected: str) -> None:
    """The padding is the one of before FIPS 202."""
    assert keccak256(data).hex() == expected


@pytest.mark.parametrize("size", [1, 134, 135, 136, 137, 271, 272, 273])
def test_blocks_end_where_they_should(size: int) -> None:
    """Two implementations that were written apart agree around the block's 136 bytes."""
    data = bytes(number % 251 for number in range(size))
    assert keccak256(data) == other.keccak256(data)
