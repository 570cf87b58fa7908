"""
The nearest known words to one that nobody knows.

Words are kept by first letter and length, since a typo seldom hits the first letter; a bit mask of the letters tells
most of the rest apart before any distance is computed.

Owns: the words, each counted as often as it was added.

Source: optimal string alignment distance (Damerau, 1964: one wrong, missing, extra or swapped letter counts one).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

LEAST_CHARS = 4
# From so many letters on, two mistakes are forgiven.
LONG_CHARS = 6
# What a word counts for at distance one and two.
SHARES = {1: 0.8, 2: 0.5}
NEAREST = 2


class Spelling:
    """A set of words to correct towards."""

    def __init__(self) -> None:
        # How often each word was added; and by first letter and length the letters of the eligible ones, as bits.
        self._counts: dict[str, int] = {}
        self._letters: dict[tuple[str, int], dict[str, int]] = {}

    def add(self, words: Iterable[str]) -> None:
        """Add words, or add them once more; short ones and those with digits or other scripts are never suggested."""
        counts = self._counts
        for word in words:
            if word in counts:
                counts[word] += 1
            else:
                counts[word] = 1
                if _is_eligible(word):
                    self._letters.setdefault((word[0], len(word)), {})[word] = _letters(word)

    def remove(self, words: Iterable[str]) -> None:
        """Take back one addition of each word."""
        for word in words:
            self._counts[word] -= 1
            if not self._counts[word]:
                del self._counts[word]
                if _is_eligible(word):
                    del self._letters[word[0], len(word)][word]

    def dump(self) -> dict[str, int]:
        """Return every word with its count, for :meth:`load`."""
        return dict(self._counts)

    @classmethod
    def load(cls, counts: Mapping[str, int]) -> Spelling:
        """Return the words as they were dumped."""
        spelling = cls()
        spelling.add(counts)
        spelling._counts = dict(counts)
        return spelling

    def nearest(self, word: str) -> list[tuple[str, float]]:
        """Return up to two words that ``word`` may be meant as, the nearest and most frequent first, with shares."""
        if not _is_eligible(word):
            return []
        limit = 1 if len(word) < LONG_CHARS else 2
        letters = _letters(word)
        found = []
        for length in range(len(word) - limit, len(word) + limit + 1):
            for other, mask in self._letters.get((word[0], length), {}).items():
                # Each mistake changes at most two letters of the set.
                if (letters ^ mask).bit_count() <= 2 * limit:
                    mistakes = distance(word, other, limit)
                    if mistakes <= limit:
                        found.append((mistakes, -self._counts[other], other))
        return [(other, SHARES[mistakes]) for mistakes, _, other in sorted(found)[:NEAREST] if mistakes]


def distance(one: str, other: str, limit: int) -> int:
    """Return the optimal string alignment distance of two words; above ``limit`` any greater number."""
    if abs(len(one) - len(other)) > limit:
        return limit + 1
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, char in enumerate(one, 1):
        current = [row] + [limit + 1] * len(other)
        # Only a band around the diagonal can stay within the limit.
        for column in range(max(1, row - limit), min(len(other), row + limit) + 1):
            best = min(last[column] + 1, current[column - 1] + 1, last[column - 1] + (char != other[column - 1]))
            if row > 1 and column > 1 and char == other[column - 2] and one[row - 2] == other[column - 1]:
                best = min(best, before[column - 2] + 1)
            current[column] = best
        if min(current) > limit:
            return limit + 1
        before, last = last, current
    return last[-1]


def _is_eligible(word: str) -> bool:
    return len(word) >= LEAST_CHARS and word.isascii() and word.isalpha()


def _letters(word: str) -> int:
    mask = 0
    for char in word:
        mask |= 1 << (ord(char) & 31)
    return mask
