"""
Puts other people's text into Markdown so that it stays what it is.

Text is either *plain*, which is to say that Markdown sees nothing but words and list items in it, and stands as it
is; or it is data, and is quoted by a fence or a code span longer than any run of backticks inside. Both ways the raw
text is in the document character for character, and neither can begin a heading, a table, HTML or a link.

Owns: nothing; values only. Source: CommonMark 0.31.2, sections 4.5 (fenced code blocks) and 6.1 (code spans).
"""

from __future__ import annotations

import re
import unicodedata

# ASCII that has no meaning inside a line, with the exceptions that _ACTIVE names. Beyond ASCII, Markdown has no marks.
_PLAIN_ASCII = frozenset(" .,;:!?'\"()/%+=-$#&_>")
_BULLET = re.compile(r"(?:[-+*]|\d{1,9}[.)])(?: |\Z)")
# Emphasis by underscores (only within a word are they letters), and entities.
_ACTIVE = re.compile(r"(?<!\w)_|_(?!\w)|&#?\w+;")


def is_plain_line(text: str) -> bool:
    """Tell whether a text is one line of words that mean nothing to Markdown, wherever in a line they stand."""
    return (
        text != ""
        and (text[0].isalnum() or text[0] in "\"'($" or not text[0].isascii())
        and not _BULLET.match(text)
        and not _ACTIVE.search(text)
        and all(_is_plain_char(char) for char in text)
    )


def is_plain(text: str) -> bool:
    """Tell whether each line of a text is blank, a plain line, or a list item that holds one."""
    return all(not line or is_plain_line(_BULLET.sub("", line, count=1)) for line in text.split("\n"))


def _is_plain_char(char: str) -> bool:
    if char.isascii():
        return char.isalnum() or char in _PLAIN_ASCII
    # Letters, marks, numbers, punctuation and symbols; no separators, and nothing invisible.
    return unicodedata.category(char)[0] in "LMNPS"


def block(text: str) -> str:
    """Return text as a block of its own: as it is if plain, else fenced."""
    return text if is_plain(text) else fence(text)


def fence(text: str) -> str:
    """Return text as a fenced code block."""
    ticks = "`" * max(3, _longest_run(text) + 1)
    return f"{ticks}text\n{text}\n{ticks}"


def inline(text: str) -> str:
    """Return one line of text, without white space around it, for use inside a line: as it is if plain, else code."""
    if is_plain_line(text):
        return text
    ticks = "`" * (_longest_run(text) + 1)
    # Backticks at the edge would join the delimiter; CommonMark takes one space off each side.
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
