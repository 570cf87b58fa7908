"""
What is kept of a script's output: the beginning and the end, a hash of all of it, and how it is written as JSON.

Owns: each capture owns the bytes that it keeps, at most its limit.

Source: API, ``RunResult``; RFC 3629 for where a character may be cut.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Captured:
    """
    One stream, whole or cut.

    Attributes:
        head: The beginning; all of it where nothing was cut.
        tail: The end, of what was cut.
        bytes_count: All bytes that were written.
        sha256: Of all of them, bare hex.
    """

    head: bytes
    tail: bytes
    bytes_count: int
    sha256: str

    @property
    def is_truncated(self) -> bool:
        """Whether bytes between head and tail are missing."""
        return len(self.head) + len(self.tail) < self.bytes_count

    def to_json(self) -> tuple[str, Literal["utf-8", "base64"]]:
        """
        The content and its encoding: text where it is UTF-8, with a line where something was cut out; else base64.
        """
        if not self.is_truncated:
            content = self.head + self.tail
            try:
                return content.decode(), "utf-8"
            except UnicodeDecodeError:
                return base64.b64encode(content).decode(), "base64"
        head, tail = _without_half_end(self.head), _without_half_start(self.tail)
        try:
            missing = self.bytes_count - len(head) - len(tail)
            return f"{head.decode()}\n[... {missing} bytes cut ...]\n{tail.decode()}", "utf-8"
        except UnicodeDecodeError:
            return base64.b64encode(self.head + self.tail).decode(), "base64"


class Capture:
    """
    Takes in a stream of any length.

    Args:
        limit_bytes: How much is kept: three quarters of it from the beginning, the rest from the end.
    """

    def __init__(self, limit_bytes: int) -> None:
        # settings
        self._head_limit = limit_bytes - limit_bytes // 4
        self._tail_limit = limit_bytes // 4
        # state
        self._head = bytearray()
        self._tail = bytearray()
        self._count = 0
        self._sha256 = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Take in what comes next."""
        self._sha256.update(data)
        self._count += len(data)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail += data
            # Twice the limit, so that cutting costs a copy now and then, not one a chunk.
            if len(self._tail) > 2 * self._tail_limit:
                del self._tail[: len(self._tail) - self._tail_limit]

    def result(self) -> Captured:
        """What was taken in so far."""
        tail = bytes(self._tail[max(0, len(self._tail) - self._tail_limit) :])
        return Captured(bytes(self._head), tail, self._count, self._sha256.hexdigest())


class TextChunks:
    """Cuts a stream into chunks of JSON text as it comes: no character of UTF-8 is torn apart."""

    def __init__(self) -> None:
        self._held = b""

    def add(self, data: bytes) -> tuple[str, Literal["utf-8", "base64"]] | None:
        """The content and encoding of what can be said now; None where a character is not complete."""
        data = self._held + data
        whole = _without_half_end(data)
        self._held = data[len(whole) :]
        return _content(whole) if whole else None

    def rest(self) -> tuple[str, Literal["utf-8", "base64"]] | None:
        """What is left at the end of the stream: bytes that never became a character."""
        held, self._held = self._held, b""
        return _content(held) if held else None


def _content(data: bytes) -> tuple[str, Literal["utf-8", "base64"]]:
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), "base64"


def _without_half_end(data: bytes) -> bytes:
    """Cut off a last character that is not complete, as far as it may still become one."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 2 if byte >> 5 == 6 else 3 if byte >> 4 == 14 else 4 if byte >> 3 == 30 else 1
        return data[:-back] if length > back else data
    return data


def _without_half_start(data: bytes) -> bytes:
    """Cut off the rest of a character at the beginning."""
    for skip in range(min(4, len(data))):
        if data[skip] & 0xC0 != 0x80:
            return data[skip:]
    # Four in a row are no part of any character.
    return data if len(data) > 3 else b""
