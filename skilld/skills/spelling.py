"""
The nearest known words to one that nobody knows.

Words are kept by first letter and length, since a typo seldom hits the first letter; a bit mask of the letters tells
most of the rest apart before any distance is computed.

Owns: the words, each counted as often as it was added.

Source: optimal string alignment distance (Damerau, 1964: one wrong, missing, extra or swapped letter counts one).
"""

from __future__ import annotations

from collections.abc import Iterable

LEAST_CHARS = 4
# From so many letters on, two mistakes are forgiven.
LONG_CHARS = 6
# What a word counts for at distance one and two.
SHARES = {1: 0.8, 2: 0.5}
NEAREST = 2


class Spelling:
    """A set of words to correct towards."""

    def __init__(self) -> None:
        # By first letter and length: how often each word was added, and its letters as bits.
        self._words: dict[tuple[str, int], dict[str, list[int]]] = {}

    def add(self, word: str) -> None:
        """Add a word, or add it once more; short words and words with digits or other scripts are passed over."""
        if not _is_eligible(word):
            return
        words = self._words.setdefault((word[0], len(word)), {})
        if word in words:
            words[word][0] += 1
        else:
            words[word] = [1, _letters(word)]

    def remove(self, word: str) -> None:
        """Take back one addition."""
        if not _is_eligible(word):
            return
        words = self._words[word[0], len(word)]
        words[word][0] -= 1
        if not words[word][0]:
            del words[word]

    def dump(self) -> tuple[tuple[str, int], ...]:
        """Return every word with its count, for :meth:`load`."""
        return tuple((word, entry[0]) for words in self._words.values() for word, entry in words.items())

    @classmethod
    def load(cls, counts: Iterable[tuple[str, int]]) -> Spelling:
        """Return the words as they were dumped."""
        spelling = cls()
        for word, count in counts:
            spelling._words.setdefault((word[0], len(word)), {})[word] = [count, _letters(word)]
        return spelling

    def nearest(self, word: str) -> list[tuple[str, float]]:
        """Return up to two words that ``word`` may be meant as, the nearest and most frequent first, with shares."""
        if not _is_eligible(word):
            return []
        limit = 1 if len(word) < LONG_CHARS else 2
        letters = _letters(word)
        found = []
        for length in range(len(word) - limit, len(word) + limit + 1):
            for other, (count, mask) in self._words.get((word[0], length), {}).items():
                # Each mistake changes at most two letters of the set.
                if (letters ^ mask).bit_count() <= 2 * limit:
                    mistakes = distance(word, other, limit)
                    if mistakes <= limit:
                        found.append((mistakes, -count, other))
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
