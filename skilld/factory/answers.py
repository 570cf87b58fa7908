"""
The answers of a dialogue as values, and how a person's words become them.

Each ``read_*`` function takes checked text and returns the value of one answer, or raises :class:`AnswerRefused`.

Owns: nothing; values only.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Literal

Question = Literal["goal", "trigger", "example", "complexity", "edge_cases"]
Complexity = Literal["simple", "complex"]

# An agent reads the whole SKILL.md each time the skill is activated; five answers of this size stay below 100 KiB.
ANSWER_LIMIT_BYTES = 16 * 1024


class AnswerRefused(Exception):
    """An answer breaks a rule; the text tells the person which, in one or two sentences."""


@dataclass(frozen=True)
class Example:
    """A worked example as it was told; ``input`` and ``output`` are empty where it could not be split."""

    text: str
    input: str = ""
    output: str = ""

    @property
    def is_split(self) -> bool:
        """Input and output are known apart."""
        return bool(self.input and self.output)


@dataclass(frozen=True)
class Answers:
    """
    All that the dialogue has learned; an empty value is a question not answered yet.

    ``name`` is the name that the person chose; empty lets the goal decide.
    """

    goal: str = ""
    triggers: tuple[str, ...] = ()
    example: Example = field(default_factory=lambda: Example(""))
    complexity: Complexity | None = None
    edge_cases: str = ""
    name: str = ""


NO_ANSWERS = Answers()


def read_text(raw: str) -> str:
    r"""
    Return an answer as it is kept: ``\r\n`` and ``\r`` become ``\n``, blank lines and white space around it go.

    A first line keeps its indentation if others follow it, because an example may be code.

    Raises:
        AnswerRefused: Empty, over 16 KiB of UTF-8, or with characters that no text file should hold.
    """
    text = re.sub(r"\A\s*\n", "", raw.replace("\r\n", "\n").replace("\r", "\n").rstrip())
    if "\n" not in text:
        text = text.strip()
    size_bytes = len(text.encode(errors="surrogatepass"))
    if size_bytes > ANSWER_LIMIT_BYTES:
        raise AnswerRefused(
            f"The answer is {size_bytes:,} bytes long and at most {ANSWER_LIMIT_BYTES:,} fit, because an agent "
            "reads the whole skill each time it uses it. Give the essence; long material goes into a file of the "
            "skill later."
        )
    for char in text:
        # Cc: a terminal obeys it and YAML refuses it. Cs: half a character, which UTF-8 cannot carry.
        if char not in "\t\n" and unicodedata.category(char) in ("Cc", "Cs"):
            raise AnswerRefused(
                f"The answer holds the control character U+{ord(char):04X}, which a skill cannot carry; "
                "please leave it out."
            )
    # A zero-width character alone is as empty as a space.
    if not any(char.isprintable() and not char.isspace() for char in text):
        raise AnswerRefused("The answer is empty.")
    return text


_TRIGGER_TOKEN = re.compile(
    r"""(?P<quoted>(?<!\w)"[^"\n]*"|“[^“”\n]*”)|(?P<separator>[,;，；、،؛\n]|(?<!\S)or(?!\S))|.""",
    re.IGNORECASE | re.DOTALL,
)
_BULLET = re.compile(r"\A(?:[-*+•]|\d{1,3}[.)])\s+")
_AND = re.compile(r"\Aand\s+", re.IGNORECASE)
_WHEN_I_SAY = re.compile(
    r"\A(?:when(?:ever)?|if|any\s?time|every time)\s(?:i|you|we|they|someone|the user)\s"
    r"(?:says?|types?|writes?|mentions?|asks?\s(?:for|about)|talks?\sabout)\s+",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"""\A(?:"([^"]+)"|“([^”]+)”|'([^']+)'|‘([^’]+)’)\Z""")


def read_triggers(text: str) -> tuple[str, ...]:
    """
    Split a list of trigger words or situations.

    Commas, semicolons, lines and the word "or" separate; a part in double quotes stays whole. Bullets, the quotes,
    a final full stop and "when I say" are taken off, white space within a trigger counts as one space, and a trigger
    said twice counts once.

    Raises:
        AnswerRefused: Nothing but separators.
    """
    parts = [""]
    for token in _TRIGGER_TOKEN.finditer(text):
        if token["separator"]:
            parts.append("")
        else:
            parts[-1] += token[0]
    triggers: dict[str, str] = {}
    for index, part in enumerate(parts):
        trigger = _BULLET.sub("", " ".join(part.split()))
        if index:
            trigger = _AND.sub("", trigger)
        trigger = re.sub(r"(?<![.…])\.\Z", "", _WHEN_I_SAY.sub("", trigger))
        if quoted := _QUOTED.match(trigger):
            trigger = " ".join(quoted[quoted.lastindex or 0].split())
        if trigger:
            triggers.setdefault(trigger.casefold(), trigger)
    if not triggers:
        raise AnswerRefused("The answer names no word or situation.")
    return tuple(triggers.values())


_LABEL = r"(?:^|(?<=[\s.,;]))[*_#]* ?{} ?[*_]* ?:[*_]*[ \t]*"
_INPUT = re.compile(_LABEL.format("input"), re.IGNORECASE | re.MULTILINE)
_OUTPUT = re.compile(_LABEL.format("output"), re.IGNORECASE | re.MULTILINE)
# "gives me" has a person for its subject, and then what follows is the input, not the output.
_SEPARATORS = (
    re.compile(r"→"),
    re.compile(r"(?<!\S)->(?!\S)"),
    re.compile(r"(?<!\w)gives(?!\w)(?!\s+(?:me|you|us|him|her|them)\b)", re.IGNORECASE),
    re.compile(r"\n[ \t]*\n\s*"),
)


def read_example(text: str) -> Example:
    """
    Split a worked example into input and output where the text says clearly which is which.

    "Input: ... Output: ..." comes first, then "→", "->", the word "gives" and a blank line. A separator that is
    there twice, or with nothing on one side, decides nothing; then the text stays whole.
    """
    inputs, outputs = list(_INPUT.finditer(text)), list(_OUTPUT.finditer(text))
    if inputs or outputs:
        if len(inputs) != 1 or len(outputs) != 1 or text[: inputs[0].start()].strip():
            return Example(text)
        return _split(text, inputs[0].end(), outputs[0].start(), outputs[0].end())
    for separator in _SEPARATORS:
        found = list(separator.finditer(text))
        if len(found) == 1:
            return _split(text, 0, found[0].start(), found[0].end())
        if found:
            return Example(text)
    return Example(text)


def _split(text: str, start: int, end: int, output_start: int) -> Example:
    """Cut ``text[start:end]`` and ``text[output_start:]`` out; whole where one of them says nothing."""
    try:
        return Example(text, read_text(text[start:end]), read_text(text[output_start:]))
    except AnswerRefused:
        return Example(text)
