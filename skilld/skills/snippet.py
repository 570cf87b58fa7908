"""
The passage of a text that shows best why it was found.

Owns: nothing; values only.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

from skilld.skills.tokens import TERMS, WORD, has_foreign_letters, term_set

PASSAGE_CHARS = 200
# Words before the first match that are kept for context.
_LEAD_CHARS = 40
_LETTERS = frozenset("0123456789abcdefghijklmnopqrstuvwxyz")


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
    matches = sorted(_in_any(text, asked) if has_foreign_letters(text) else _in_plain(text, asked))
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


def _in_any(text: str, asked: Set[str]) -> Iterator[tuple[int, int, str]]:
    """Yield start, end and a term that was asked for of every word that stands for one."""
    for match in WORD.finditer(text):
        for term in TERMS[match[0]]:
            if term in asked:
                yield match.start(), match.end(), term
                break


def _in_plain(text: str, asked: Set[str]) -> Iterator[tuple[int, int, str]]:
    """Do what :func:`_in_any` does where all words are ASCII, several times faster: a stem stands in all its forms."""
    lower = text.lower()
    found: dict[int, tuple[int, int, str]] = {}
    for term in asked:
        position = lower.find(term)
        while position >= 0:
            start = position
            while start and lower[start - 1] in _LETTERS:
                start -= 1
            match = WORD.match(text, start)
            end = match.end() if match else position + 1
            if match and start not in found and term in TERMS[match[0]]:
                found[start] = (start, end, term)
            position = lower.find(term, max(end, position + 1))
    return iter(found.values())


def beginning(text: str) -> str:
    """Return the beginning of a text as a passage without marks."""
    end = _word_end(text, PASSAGE_CHARS)
    return " ".join(_plain(text[:end]).split()) + ("…" if end < len(text.rstrip()) else "")


def _densest(matches: list[tuple[int, int, str]]) -> tuple[int, int]:
    """Return the first and last match of the passage that shows the most different terms, then the earliest."""
    best, best_count = (0, 0), 0
    first = 0
    counts: dict[str, int] = {}
    for last, (_, end, term) in enumerate(matches):
        counts[term] = counts.get(term, 0) + 1
        while end - matches[first][0] > PASSAGE_CHARS - _LEAD_CHARS and first < last:
            gone = matches[first][2]
            counts[gone] -= 1
            if not counts[gone]:
                del counts[gone]
            first += 1
        if len(counts) > best_count:
            best, best_count = (first, last), len(counts)
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
