"""
From text to the terms that search compares: words, lower-cased, without stop words, cut to their stem.

Any text is fine: other scripts, pasted logs, emoji, lone surrogates. Words of scripts that write without spaces
(Chinese, Japanese, Korean, Thai, ...) become overlapping pairs of characters; accents do not matter; ``MyName``
stands for itself and for its parts.

Owns: a bounded memory of the terms of words it has seen, which is only a matter of speed.

Source: measured on 19,215 real skills and 110 graded queries: dropping stop words, stemming and cutting camel case
each help both halves of the queries; heavier stemmers (Porter, Snowball) do not.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator
from itertools import chain

# Letters and digits of all scripts beyond ASCII, in ranges, which are faster than \w. Left out are the surrogates,
# punctuation and pictures: in most texts that are not ASCII the one foreign thing is a dash or an emoji.
_FOREIGN = (
    r"\u00c0-\u1fff\u2c00-\u2fff\u3040-\ud7ff\uf900-\ufdff\ufe70-\ufeff\uff10-\uffef"
    r"\U00010000-\U0001efff\U00020000-\U0010ffff"
)
_FOREIGN_LETTER = re.compile(f"[{_FOREIGN}]")
# And what may end a word such as "c++" and "c#".
WORD = re.compile(f"[0-9A-Za-z{_FOREIGN}]+[+#]*")

# Scripts without spaces between words | Latin letters and digits | any other script's letters.
_UNSPACED = (
    r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    r"\U00020000-\U0003ffff"
)
_SEGMENT = re.compile(rf"([{_UNSPACED}]+)|([0-9a-z]+[+#]*)|([^\W_]+)")
_CAMEL = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_VOWEL = re.compile("[aeiouy]")
# No other letter ends a word that stem() changes: most words are told apart by this look.
_STEM_ENDS = frozenset("sgdeyi")

# A word beyond this is base64 or a hash, and tells nothing.
WORD_LIMIT_CHARS = 64

STOP_WORDS = frozenset(
    """a about above after again against all also am an and any are aren as at be because been before being below
    between both but by can cannot could couldn d did didn do does doesn doing don down during each few for from
    further get go got had hadn has hasn have haven having he her here hers him his how i if in into is isn it its
    itself just ll let like m make may me might more most must my need needs no nor not of off on once one only or
    other our ours out over own please re s same she should shouldn so some such t than that the their theirs them
    then there these they this those through to too up us use used user users uses using ve very via want wants was
    wasn way we were weren what when where which while who whom why will with within without won would wouldn you
    your yours yourself etc eg ie skill skills""".split()
)


_ASCII = bytes(range(128))
# Every byte to itself where it is part of an ASCII word, else to a space.
_TO_SPACES = bytes(
    code if code in (string.ascii_letters + string.digits + "+#").encode() else 32 for code in range(256)
)

# Words remembered at a time; then all are forgotten. Measured: 15,000 to 40,000 take the same time, and 250 bytes each.
_MEMORY_WORDS = 20_000


class _Terms(dict[str, tuple[str, ...]]):
    """The terms of the words seen lately; to index it is the fastest way to ask."""

    def __missing__(self, word: str) -> tuple[str, ...]:
        if len(self) >= _MEMORY_WORDS:
            self.clear()
        if word.isalnum() and word.isascii():
            found = _terms(word)
        else:
            # What words() leaves together may be several words, such as "a+b" and "#1".
            found = tuple(term for part in WORD.findall(word) for term in _terms(part))
        self[word] = found
        return found


#: Terms by word: ``TERMS[word]`` is what one word stands for, nothing for a stop word.
TERMS = _Terms()


def words(text: str) -> list[str]:
    """Cut a text into what :data:`TERMS` has terms for; most texts without a regular expression."""
    raw = text.encode("utf-8", "surrogatepass")
    return WORD.findall(text) if _is_foreign(raw) else raw.translate(_TO_SPACES).decode("ascii").split()


def has_foreign_letters(text: str) -> bool:
    """Tell whether any word of a text holds a letter that is not ASCII; an emoji or a dash is no part of a word."""
    return not text.isascii() and _is_foreign(text.encode("utf-8", "surrogatepass"))


def _is_foreign(raw: bytes) -> bool:
    # Few characters of most texts are left when the ASCII ones are gone.
    return not raw.isascii() and bool(
        _FOREIGN_LETTER.search(raw.translate(None, _ASCII).decode("utf-8", "surrogatepass"))
    )


def tokenise(text: str) -> list[str]:
    """Return the terms of a text, in order, repeated as often as they occur."""
    return list(chain.from_iterable(map(TERMS.__getitem__, words(text))))


def term_set(text: str) -> set[str]:
    """Return the distinct terms of a text; faster than :func:`tokenise`."""
    return set(chain.from_iterable(map(TERMS.__getitem__, set(words(text)))))


def stem(word: str) -> str:
    """
    Cut plural, -ed, -ing and a last e or y off a lower-case English word.

    The result need not be a word; it only has to be the same for the forms of one.
    """
    if len(word) < 4 or word[-1] not in _STEM_ENDS or not word.isalpha():
        return word
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us")) and (len(word) == 4 or not word.endswith("is")):
        word = word[:-1]
    for suffix in ("ing", "ed"):
        left = word[: -len(suffix)]
        if word.endswith(suffix) and len(left) >= 3 and left[-1] != "e" and _VOWEL.search(left):
            word = left
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":
                word = word[:-1]  # "running"
            break
    if len(word) > 3 and word[-1] == "e":
        word = word[:-1]
    if len(word) > 4 and word[-1] in "yi":
        word = word[:-1]  # "query", "queries"
    return word


def _terms(word: str) -> tuple[str, ...]:
    if len(word) > WORD_LIMIT_CHARS:
        return ()
    if not word.isascii():
        return tuple(_foreign_terms(word))
    lower = word.lower()
    if lower in STOP_WORDS:
        return ()
    if lower == word or word[1:].islower() or word.isupper():
        return (stem(lower),)
    parts = [part.lower() for part in _CAMEL.findall(word)]
    kept = [part for part in parts if len(part) > 1 and part not in STOP_WORDS] if len(parts) > 1 else []
    return (stem(lower), *map(stem, kept))


def _foreign_terms(word: str) -> Iterator[str]:
    # Compatibility forms and accents are taken away: "Ｃａｆé" is "cafe".
    plain = "".join(char for char in unicodedata.normalize("NFKD", word.casefold()) if not unicodedata.combining(char))
    for unspaced, latin, other in _SEGMENT.findall(unicodedata.normalize("NFKC", plain)):
        if unspaced:
            yield from (unspaced[at : at + 2] for at in range(max(1, len(unspaced) - 1)))
        elif latin and latin not in STOP_WORDS:
            yield stem(latin)
        elif other:
            yield other
