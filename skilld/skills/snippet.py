"""
The passage of a text that shows best why it was found.

Owns: nothing; values only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from skilld.skills.tokens import TERMS, WORD, term_set

PASSAGE_CHARS = 200
# Words before the first match that are kept for context.
_LEAD_CHARS = 40


def snippet(text: str, asked: Set[str] | str) -> str | None:
    """
    Return the passage of ``text`` with the most of the terms that were asked for.

    Args:
        text: Any text; white space is folded.
        asked: The terms, or the query that they come from.

    Returns:
        One line of about 200 characters, matching words between ``[`` and ``]``, cut ends marked with "…"; None where
        nothing matches.
    """
    if isinstance(asked, str):
        asked = term_set(asked)
    shown_words = [word for word in set(WORD.findall(text)) if not asked.isdisjoint(TERMS[word])]
    matches = sorted(_occurrences(text, shown_words))
    if not matches:
        return None
    first, last = _densest(matches)
    start = _word_start(text, max(0, matches[first][0] - _LEAD_CHARS))
    end = _word_end(text, max(matches[last][1], start + PASSAGE_CHARS))
    shown = [(left, right) for left, right, _ in matches if left >= start and right <= end]
    parts, position = [], start
    for left, right in shown:
        parts += [_plain(text[position:left]), "[", text[left:right], "]"]
        position = right
    parts.append(_plain(text[position:end]))
    passage = " ".join("".join(parts).split())
    return ("…" if start else "") + passage + ("…" if end < len(text.rstrip()) else "")


def _occurrences(text: str, words: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and first term of every place where one of the words stands by itself."""
    for word in words:
        term = TERMS[word][0]
        start = text.find(word)
        while start >= 0:
            end = start + len(word)
            if not text[start - 1 : start].isalnum() and not text[end : end + 1].isalnum():
                yield start, end, term
            start = text.find(word, end)


def beginning(text: str) -> str:
    """Return the beginning of a text as a passage without marks."""
    end = _word_end(text, PASSAGE_CHARS)
    return " ".join(_plain(text[:end]).split()) + ("…" if end < len(text.rstrip()) else "")


def _densest(matches: list[tuple[int, int, str]]) -> tuple[int, int]:
    """Return the first and last match of the passage that shows the most different terms, then the earliest."""
    best, best_count = (0, 0), 0
    first = 0
    for last, (_, end, _) in enumerate(matches):
        while end - matches[first][0] > PASSAGE_CHARS - _LEAD_CHARS and first < last:
            first += 1
        count = len({term for _, _, term in matches[first : last + 1]}) if last - first < 50 else 0
        if count > best_count:
            best, best_count = (first, last), count
    return best


def _word_start(text: str, position: int) -> int:
    if position == 0:
        return 0
    space = text.find(" ", position, position + _LEAD_CHARS)
    return position if space < 0 else space + 1


def _word_end(text: str, position: int) -> int:
    if position >= len(text):
        return len(text)
    space = text.rfind(" ", position - _LEAD_CHARS, position + 1)
    return position if space < 0 else space


def _plain(text: str) -> str:
    """Brackets of the text itself would look like marks."""
    return text.replace("[", "(").replace("]", ")")
