"""
Reads the answer to "Does this capture what you want?": a yes, a no, or the name of a question.

A yes must be a yes and nothing else, because it writes to disk.

Owns: nothing; values only.
"""

from __future__ import annotations

import re

from skilld.factory.answers import Question
from skilld.factory.phrases import word_set

_YES_PHRASE = re.compile(r"\b(?:(?:it|this|that) (?:does|captures it)|do (?:it|that)|go(?: ahead| for it)?)\b")
_YES = word_set(
    "yes y yep yeah yup ok okay sure correct right exactly perfect great good fine confirm confirmed agreed "
    "absolutely definitely lgtm create alright 👍 ✅ 👌"
)
_YES_FILLERS = word_set(
    "please thanks thank you it that this is s the a skill looks sounds all very much to me now and just"
)
_NO = word_set("no n nope nah not wrong incorrect change edit wait stop don isn doesn fix")

_QUESTIONS: dict[str, Question] = {
    "goal": "goal",
    "trigger": "trigger",
    "triggers": "trigger",
    "example": "example",
    "examples": "example",
    "complexity": "complexity",
    "edge cases": "edge_cases",
    "edge case": "edge_cases",
}
_QUESTION_FILLERS = word_set(
    "no nope please go back to change edit fix redo update revise the my step again is are s wrong i want need let "
    "me answer"
)


def is_yes(text: str) -> bool:
    """Tell whether a text is a yes and nothing else: "yes, please create it", but not "yes, but ..." or "yes?"."""
    words = _words(_YES_PHRASE.sub("yes", text.casefold()))
    return "?" not in text and not _YES.isdisjoint(words) and _YES.union(_YES_FILLERS).issuperset(words)


def is_no(text: str) -> bool:
    """Tell whether a text has a no in it."""
    return not _NO.isdisjoint(_words(text))


def question_named(text: str) -> Question | None:
    """Return the question that a text names and says nothing else about: "no, change the goal"."""
    return _QUESTIONS.get(" ".join(word for word in _words(text) if word not in _QUESTION_FILLERS))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+|[👍✅👌]", text.casefold())
