"""
The phrases that call the factory, and the wrapping that people put around a task.

Owns: nothing; values only.
"""

from __future__ import annotations

import re


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text; a list of words is easier to read, and to add to, as a text."""
    return frozenset(text.split())


TRIGGER_PHRASES = (
    "teach me",
    "teach you",
    "learn this",
    "learn how",
    "create a skill",
    "remember how to",
    "automate this",
)

# Straight and curly quotes count as white space.
_NO_QUOTES = str.maketrans(dict.fromkeys("\"'“”„‟‘’‚‛«»", " "))

_PHRASE = "(?:" + "|".join(r"\s+".join(phrase.split()) for phrase in TRIGGER_PHRASES) + r")(?!\w)"
_WISH = (
    r"(?:(?:(?:i|we)(?:['’]d|\s+would)?\s+(?:want|like|love|need|wish)(?:\s+you)?\s+to"
    r"|(?:i|we)(?:['’]ll|\s+will)|let\s+me|let['’]s|(?:can|could|would|will|should)\s+(?:you|i|we)"
    r"|(?:i\s+am|i['’]m|we\s+are|we['’]re)\s+going\s+to|help\s+me(?:\s+to)?)\s+(?:please\s+)?)?"
)
_HOW_TO = r"(?:(?:(?:about|on)\s+)?how\s+to|to|that|which)\s+"
# "Hey, I'd like to teach you please: how to ...". Before a trigger phrase the greeting needs no comma.
_CALL = re.compile(
    r"\A[\s\"“‘']*(?:(?:please|hey|hi|hello|okay|ok|so|now)[\s,.!:]+)*"
    + _WISH
    + _PHRASE
    + r"(?:[\s,]*(?:please|for\s+(?:me|us)|now)(?!\w))*[\s,:;.!?\"“”'‘’–—-]*"
    + rf"(?:{_HOW_TO}|(?:for|about)\s+)?",
    re.IGNORECASE,
)
# The same around a goal that was asked for, where a phrase without "to" belongs to the task: "automate this report".
_WRAPPING = re.compile(
    r"\A[\s\"“‘']*(?:please[\s,]+|(?:hey|hi|hello|okay|ok|so|now)[,.!:]\s*)*"
    + _WISH
    + rf"(?:{_PHRASE}\s+(?:for\s+(?:me|us)\s+)?{_HOW_TO}|remember\s+how\s+to\s+)?"
    + r"(?:(?:the|my|our)\s+goal\s+is\s+|goal\s*:\s*)?(?:to\s+)?",
    re.IGNORECASE,
)
_NOTHING = re.compile(
    r"(?:something|(?:a|an|some|one|new|other|another)(?: new)? (?:skills?|things?|tricks?|tasks?)|it|new)?"
    r"(?: ?(?:new|please|now))*"
)


def check_triggers(text: str) -> tuple[str, ...]:
    """
    Return the trigger phrases that a text holds, in the order of :data:`TRIGGER_PHRASES`.

    Case, white space and quotes, curly or straight, do not matter; the words must be whole.
    """
    words = " ".join(text.translate(_NO_QUOTES).casefold().split())
    return tuple(
        phrase for phrase in TRIGGER_PHRASES if phrase in words and re.search(rf"(?<!\w){phrase}(?!\w)", words)
    )


def strip_trigger(text: str) -> str:
    """
    Take a trigger phrase off the start of a text: "I want to teach you to fill forms" is "fill forms".

    Polite words before the phrase and the word that joins it to the task go with it. A text that starts otherwise
    comes back unchanged, and one that says no more than the phrase ("teach you something new") as "".
    """
    call = _CALL.match(text)
    if not call:
        return text
    rest = text[call.end() :]
    return "" if _NOTHING.fullmatch(" ".join(re.findall(r"\w+", rest.casefold()))) else rest


# Verbs that tasks begin with, and that are no nouns in the plural: "a skill that writes reports" is to write them.
_VERBS = word_set(
    "add analyze assign build calculate check clean collect compare compute convert create deploy download explain "
    "extract fetch fill find fix format generate get give handle help keep make merge monitor move organise organize "
    "parse prepare process produce publish read remove rename render run search send sort split summarise summarize "
    "take tell translate turn update upload use validate verify write"
)


def bare_task(goal: str) -> str:
    """
    Return a goal as an imperative on one line: without "please", "I want you to" and the like, "writes" as "write".

    The goal itself if nothing would be left.
    """
    line = " ".join(goal.split())
    task = _WRAPPING.sub("", line, count=1).strip() or line
    verb, space, rest = task.partition(" ")
    for ending in ("s", "es"):
        if verb.endswith(ending) and verb.removesuffix(ending).lower() in _VERBS:
            return verb.removesuffix(ending) + space + rest
    return task
