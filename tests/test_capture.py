"""What is kept of an output."""

from __future__ import annotations

import base64
import hashlib
import random

import pytest

from skilld.scripts.capture import Capture, Captured, TextChunks


def captured(data: bytes, limit: int, *, step: int) -> Captured:
    capture = Capture(limit)
    for start in range(0, len(data), step):
        capture.add(data[start : start + step])
    return capture.result()


@pytest.mark.parametrize("step", [1, 7, 64, 10_000])
@pytest.mark.parametrize("size", [0, 1, 75, 76, 99, 100, 101, 126, 1_000, 5_003])
def test_head_and_tail_are_kept(size: int, step: int) -> None:
    """Three quarters from the beginning, the rest from the end; count and hash are of everything."""
    data = random.Random(size).randbytes(size)
    result = captured(data, 100, step=step)
    assert result.bytes_count == size
    assert result.sha256 == hashlib.sha256(data).hexdigest()
    assert result.is_truncated == (size > 100)
    if size <= 100:
        assert result.head + result.tail == data
    else:
        assert (result.head, result.tail) == (data[:75], data[-25:])


@pytest.mark.parametrize(
    ("data", "limit", "expected"),
    [
        (b"plain", 100, ("plain", "utf-8")),
        ("é\0".encode(), 100, ("é\0", "utf-8")),
        (b"\xff", 100, (base64.b64encode(b"\xff").decode(), "base64")),
        (b"0123456789", 8, ("012345\n[... 2 bytes cut ...]\n89", "utf-8")),
        # Both cuts go through a character.
        ("é".encode() * 5, 8, ("ééé\n[... 2 bytes cut ...]\né", "utf-8")),
        (b"x" + "é".encode() * 5, 8, ("xéé\n[... 4 bytes cut ...]\né", "utf-8")),
        (b"x" + "€".encode() * 5, 8, ("x€\n[... 12 bytes cut ...]\n", "utf-8")),
        (b"\xff" * 10, 8, (base64.b64encode(b"\xff" * 8).decode(), "base64")),
    ],
)
def test_as_json(data: bytes, limit: int, expected: tuple[str, str]) -> None:
    """Text where it is UTF-8, cut between characters; else base64 of what was kept."""
    assert captured(data, limit, step=3).to_json() == expected


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_chunks_tear_no_character_apart(step: int) -> None:
    """Text of any characters comes through whole, in pieces of text."""
    text = "aé€😀\0z" * 20
    data = text.encode()
    chunks = TextChunks()
    found = [chunks.add(data[start : start + step]) for start in range(0, len(data), step)]
    assert chunks.rest() is None
    assert "".join(one[0] for one in found if one) == text
    assert {one[1] for one in found if one} == {"utf-8"}


def test_chunks_of_other_bytes_are_base64() -> None:
    """Also half a character at the end of the stream."""
    chunks = TextChunks()
    assert chunks.add(b"a\xff") == (base64.b64encode(b"a\xff").decode(), "base64")
    assert chunks.add("é".encode()[:1]) is None
    assert chunks.rest() == (base64.b64encode("é".encode()[:1]).decode(), "base64")
