"""
Makes the name of a skill from its goal, and says what is wrong with a name.

Owns: nothing; values only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator

from skilld.config import IGNORED_DIRS
from skilld.factory.phrases import bare_task, word_set
from skilld.skills.model import RESERVED_NAMES, check_name

# What a Linux file system takes as a directory's name.
_DIR_NAME_LIMIT_BYTES = 255

# Leaves room for "-2", "-3" and so on.
_MADE_NAME_LIMIT_CHARS = 56
_MADE_NAME_LIMIT_WORDS = 4
_NAME_OF_LAST_RESORT = "custom-skill"

# A preposition ends the name once it has a verb, an attribute and a noun.
_PREPOSITIONS = word_set(
    "about after as at before by for from if in into like of on onto out over per so than that then through to under "
    "until using via when where which while who with without"
)
_STOP_WORDS = _PREPOSITIONS | word_set(
    "a all also an and any are be but can could do does each every give given has have help how i is it its just let "
    "lets make me my need new or our please should some something the their them these they this those us want we "
    "will would you your"
)

# How letters that are no accented a to z are spelled, script by script: Latin, Greek, Cyrillic.
_SPELLED = """
    ß=ss æ=ae œ=oe ø=o đ=d ð=d þ=th ł=l ı=i ŋ=n
    α=a β=v γ=g δ=d ε=e ζ=z η=i θ=th ι=i κ=k λ=l μ=m ν=n ξ=x ο=o π=p ρ=r σ=s ς=s τ=t υ=y φ=f χ=ch ψ=ps ω=o
    а=a б=b в=v г=g д=d е=e ж=zh з=z и=i й=y к=k л=l м=m н=n о=o п=p р=r с=s т=t у=u ф=f х=kh ц=ts ч=ch ш=sh щ=shch
    ъ= ы=y ь= э=e ю=yu я=ya і=i ї=yi є=ye ґ=g ј=j љ=lj њ=nj ћ=c џ=dz ђ=dj ў=u
"""
_ASCII = dict(pair.split("=") for pair in word_set(_SPELLED))


def name_problem(name: str) -> str | None:
    """Say why a new skill, whose directory bears its name, cannot be called so; None if it can."""
    for problem in check_name(name):
        return problem
    if name != unicodedata.normalize("NFKC", name.strip()):
        return "its letters are not in the normal form NFKC"
    if len(name.encode()) > _DIR_NAME_LIMIT_BYTES:
        return f"it takes more than {_DIR_NAME_LIMIT_BYTES} bytes"
    if name in RESERVED_NAMES:
        return "skilld itself uses this word"
    if name in IGNORED_DIRS:
        return "directories of this name are never searched for skills"
    return None


def make_name(goal: str, triggers: tuple[str, ...], chosen: str, *, taken: Callable[[str], bool]) -> str:
    """
    Make a valid name that is not taken: the chosen one, else verb and noun of the goal, else of a trigger.

    Args:
        goal: What the skill does.
        triggers: Asked where the goal has no letter or digit.
        chosen: The name that the person asked for, or "".
        taken: Tells whether a skill of this name is there already.
    """
    made = (_name_from(task) for task in (bare_task(goal), *triggers))
    # A goal of one word may be a reserved one: "search" becomes "search-skill".
    candidates = (chosen, *(name for word in made for name in (word, f"{word}-skill")), _NAME_OF_LAST_RESORT)
    base = next(name for name in candidates if not name_problem(name))
    if not taken(base):
        return base
    # Names differ in their numbers only, so that they sort together.
    stem = base[:_MADE_NAME_LIMIT_CHARS].rstrip("-")
    number = 2
    while taken(f"{stem}-{number}"):
        number += 1
    return f"{stem}-{number}"


def suggest_name(text: str) -> str:
    """Return the valid name that looks most like a text; "" if there is none."""
    name = _join(list(_words(text)))
    return "" if name_problem(name) else name


def make_title(name: str, goal: str) -> str:
    """Return a name as the title of a document: "convert-pdf" is "Convert PDF" if the goal writes PDF so."""
    acronyms = {word.lower(): word for word in re.findall(r"[^\W_]+", goal) if word.isupper() and len(word) > 1}
    words = [acronyms.get(word, word) for word in name.split("-")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def _name_from(task: str) -> str:
    words: list[str] = []
    for word in _words(task):
        if word in _PREPOSITIONS and len(words) >= 3:
            break
        if word not in _STOP_WORDS:
            words.append(word)
        if len(words) == _MADE_NAME_LIMIT_WORDS:
            break
    return _join(words or list(_words(task))[:_MADE_NAME_LIMIT_WORDS])


def _join(words: list[str]) -> str:
    name = ""
    for word in words:
        longer = f"{name}-{word}" if name else word[:_MADE_NAME_LIMIT_CHARS]
        if len(longer) > _MADE_NAME_LIMIT_CHARS:
            break
        name = longer
    return name


def _words(text: str) -> Iterator[str]:
    """Yield the words of a text in lower case and, where there is a usual spelling, in ASCII."""
    normal = unicodedata.normalize("NFKC", text).lower()
    # Marks belong to the letter before them, an apostrophe to its word.
    spaced = "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" or c in "'’" else " " for c in normal)
    for word in spaced.split():
        spelled = "".join(_to_ascii(char) for char in word if char not in "'’")
        # A mark that no name may hold (a vowel of Thai or Hindi, say) would leave a word that nobody can read.
        if spelled.isalnum():
            yield spelled


def _to_ascii(char: str) -> str:
    """Spell one lower-case character in ASCII; itself where its script has no usual spelling here."""
    if char in _ASCII:
        return _ASCII[char]
    # An accented letter is a letter and accents, which are the block U+0300 to U+036F.
    letters = [part for part in unicodedata.normalize("NFKD", char) if not "\u0300" <= part <= "\u036f"]
    spelled = "".join(_ASCII.get(letter, letter) for letter in letters)
    return spelled if spelled.isascii() else char
