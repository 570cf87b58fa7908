"""The nearest known words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.skills.spelling import Spelling, distance


def naive(one: str, other: str) -> int:
    """Optimal string alignment by its definition."""
    table = {(i, 0): i for i in range(len(one) + 1)} | {(0, j): j for j in range(len(other) + 1)}
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            table[i, j] = min(
                table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (one[i - 1] != other[j - 1])
            )
            if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return table[len(one), len(other)]


@given(st.text("abc", max_size=7), st.text("abc", max_size=7), st.integers(1, 3))
def test_distance_within_the_limit_is_exact(one: str, other: str, limit: int) -> None:
    """Up to the limit it is the true distance; beyond, anything greater."""
    assert min(distance(one, other, limit), limit + 1) == min(naive(one, other), limit + 1)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("kuberntes", [("kubernetes", 0.8)]),
        ("pyhton", [("python", 0.8), ("pythons", 0.5)]),
        ("tets", [("test", 0.8)]),
        ("tex", []),
        ("xython", []),
        ("k8sss", []),
        ("\u043f\u0440\u0438\u0432\u0435\u0442", []),
    ],
)
def test_nearest_words(word: str, expected: list[tuple[str, float]]) -> None:
    """One mistake in a short word, two in a long one; the first letter and words with digits are not guessed."""
    spelling = Spelling()
    spelling.add(["kubernetes", "python", "python", "pythons", "test", "jython", "k8ss"])
    assert spelling.nearest(word) == expected


def test_words_go_when_taken_back_as_often_as_added() -> None:
    """Only words that somebody still uses are suggested."""
    spelling = Spelling()
    spelling.add(["python", "python"])
    spelling.remove(["python"])
    assert spelling.nearest("pyton") == [("python", 0.8)]
    spelling.remove(["python"])
    assert spelling.nearest("pyton") == []
