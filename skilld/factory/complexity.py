"""
Reads "simple" or "complex" out of ordinary words.

A skill is complex if it needs a script, a template or the like, and simple if it is instructions alone. So a thing
that is needed decides by itself; after that count the adjectives and the things said *not* to be needed, and if they
disagree the person is asked again.

Owns: nothing; values only.
"""

from __future__ import annotations

import re

from skilld.factory.answers import AnswerRefused, Complexity
from skilld.factory.phrases import word_set

_THINGS = word_set(
    "script scripts scripting template templates code coding program programs python bash shell automation "
    "executable executables tool tools tooling asset assets"
)
_COMPLEX = word_set(
    "complex complicated advanced sophisticated elaborate involved tricky difficult hard fancy second latter"
)
_SIMPLE = word_set(
    "simple easy basic plain straightforward trivial minimal uncomplicated text instruction instructions prose "
    "markdown first former"
)
_NEGATORS = word_set("no not non without never neither nor none nothing cannot cant dont doesnt isnt arent wont")
# "Not simple, it needs scripts": a verb that stands only in an affirmative clause ends the reach of the "not".
_AFFIRMATIVE = word_set("needs requires uses maybe perhaps probably")

_CLAUSE_END = re.compile(r"[,.;:!?()\n]|\s[-–—]+\s|\b(?:but|because|although|though|so)\b")
# The "not" of "I don't think it needs scripts" belongs to the clause that follows.
_NOT_THINK = re.compile(
    r"\b(?:not|don't|dont|doesn't|doesnt) (?:think|believe|suppose|expect)(?: that)?(?: it| this| we| you| they)?"
    r"(?: will| would)?(?: needs?| requires?| uses?| is)?\b"
)
_NOT_SURE = re.compile(r"\b(?:not|n't) (?:so |really |quite )?(?:sure|certain)\b")
_MORE_THAN = re.compile(r"\bmore than\b")
_LONE_NO = re.compile(r"\s*[:?]\s*(?:no|none|nope|not)(?=\W*(?:$|[,.;!\n]))")
# Said after the thing: "scripts aren't needed", "script-free", "scripts would be overkill".
_NOT_NEEDED = re.compile(
    r"(?:\bnot|n't|\bnever) (?:\w+ )?(?:needed|required|necessary|wanted|used)\b"
    r"|\b(?:unnecessary|unneeded|overkill|free)\b|\b(?:no|none)\s*$"
)


def read_complexity(text: str) -> Complexity:
    """
    Understand whether a skill is simple (text alone) or complex (scripts, templates).

    Raises:
        AnswerRefused: The words say neither, or both.
    """
    folded = " ".join(text.casefold().replace("’", "'").split())
    folded = _NOT_THINK.sub("not", _NOT_SURE.sub(" ", folded))
    folded = _LONE_NO.sub(" not needed.", _MORE_THAN.sub("not", folded))
    said: set[Complexity] = set()
    for clause in _CLAUSE_END.split(folded):
        negated_later = bool(_NOT_NEEDED.search(clause))
        negated = False
        for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", clause):
            if word in _NEGATORS or word.endswith("n't"):
                negated = True
            elif word in _AFFIRMATIVE:
                negated = False
            elif word in _THINGS:
                if not (negated or negated_later):
                    return "complex"
                said.add("simple")
            elif word in _SIMPLE:
                said.add("complex" if negated or negated_later else "simple")
            elif word in _COMPLEX:
                said.add("simple" if negated or negated_later else "complex")
    if len(said) == 1:
        return said.pop()
    if said:
        raise AnswerRefused("That sounds both simple and complex to me; please say one of the two words.")
    raise AnswerRefused(
        "I could not tell whether that means simple or complex; please say one of the two words, "
        "or say whether scripts or templates are needed."
    )
