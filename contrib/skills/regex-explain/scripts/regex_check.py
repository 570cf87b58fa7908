#!/usr/bin/env python3
"""
Explain a regular expression piece by piece, run it against examples, and look for catastrophic backtracking.

    regex_check.py '^([0-9]{4})-([0-9]{2})$' --match 2026-03 --no-match 2026-3
    regex_check.py < case.json

A case is {"pattern": "...", "flags": "ix", "match": [...], "no_match": [...], "full": false}. The dialect is
that of Python's re module. Examples are searched for; with --full the whole text must match. For the
backtracking test, pieces of the examples are repeated and then spoilt at the end: the time must not explode
with the length.

Exit codes: 0 all examples behave, 1 one does not or matching explodes, 2 the pattern or the call is wrong.
"""

import argparse
import json
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

LIMIT_PATTERN_CHARS = 10_000
# One match that takes longer than this, on a text of a few kilobytes, is a trap.
LIMIT_MATCH_S = 0.5
COMMON_SEEDS = ("a", "0", " ", "a ", "a.", "a,", "-", "\n", "aA0", "a@")
PUMP_SIZES = (16, 24, 32, 64, 256, 1024, 4096)

ESCAPES = {
    "d": "a digit", "D": "not a digit", "w": "a letter, digit or _", "W": "not a letter, digit or _",
    "s": "white space", "S": "not white space", "b": "a word boundary", "B": "not a word boundary",
    "A": "the start of the text", "Z": "the end of the text",
    "n": "a line feed", "r": "a carriage return", "t": "a tab", "f": "a form feed", "v": "a vertical tab",
}  # fmt: skip
GROUPS = [
    (re.compile(r"\(\?:"), "a group, not captured"),
    (re.compile(r"\(\?>"), "an atomic group: what it matched is never given back"),
    (re.compile(r"\(\?=" ), "followed by (not consumed)"),
    (re.compile(r"\(\?!"), "not followed by"),
    (re.compile(r"\(\?<="), "preceded by (not consumed)"),
    (re.compile(r"\(\?<!"), "not preceded by"),
    (re.compile(r"\(\?P<(\w+)>"), "group {number}, named {name}"),
    (re.compile(r"\(\?([aiLmsux]*(?:-[imsx]+)?):"), "a group with the flags {name}, not captured"),
]  # fmt: skip
FLAG_WORDS = {
    "i": "case does not matter", "m": "^ and $ match at every line", "s": ". matches a line feed, too",
    "x": "white space and # comments in the pattern are ignored", "a": "\\d \\w \\s mean ASCII only",
}  # fmt: skip
QUANTIFIER = re.compile(r"(\*|\+|\?|\{(\d*)(,?)(\d*)\})([?+]?)")


class InputError(Exception):
    """The pattern or the call is wrong; the message says where."""


# --- explaining ---------------------------------------------------------------------------------------


@dataclass
class Piece:
    """One token of the pattern: where it stands, how deep, what it says. ``closes`` ends a group."""

    source: str
    depth: int
    text: str


def explain_quantifier(match: re.Match[str]) -> str:
    low, comma, high, mode = match[2], match[3], match[4], match[5]
    if match[1] in ("*", "+", "?"):
        words = {"*": "any number of times, or none", "+": "once or more", "?": "once or not at all"}[
            match[1]
        ]
    elif not comma:
        words = f"exactly {low} times"
    elif high:
        words = f"{low or 0} to {high} times"
    else:
        words = f"{low or 0} times or more"
    return words + {"": "", "?": ", as few as possible", "+": ", never given back"}[mode]


def explain_class(source: str) -> str:
    inner = source[1:-1]
    negated = inner.startswith("^")
    inner = inner[negated:]
    parts, at = [], 0
    while at < len(inner):
        step = 2 if inner[at] == "\\" and at + 1 < len(inner) else 1
        first = inner[at : at + step]
        if inner[at + step : at + step + 1] == "-" and at + step + 1 < len(inner):
            start = at + step + 1
            last = inner[start : start + (2 if inner[start] == "\\" else 1)]
            parts.append(f"{show(first)} to {show(last)}")
            at = start + len(last)
            continue
        parts.append(ESCAPES.get(first[1], show(first)) if step == 2 else show(first))
        at += step
    return ("any character except: " if negated else "one of: ") + ", ".join(parts)


def show(text: str) -> str:
    plain = text[1:] if len(text) == 2 and text[0] == "\\" and text[1] not in ESCAPES else text
    return {" ": "a space", "\t": "a tab", "\n": "a line feed"}.get(
        plain, plain if plain.isprintable() else repr(plain)
    )


def read_class(pattern: str, at: int) -> int:
    """Index behind the character class that opens at ``at``."""
    end = at + 1 + (pattern[at + 1 : at + 2] == "^")
    # A ] that comes first is an ordinary character.
    end += pattern[end : end + 1] == "]"
    while end < len(pattern) and pattern[end] != "]":
        end += 2 if pattern[end] == "\\" else 1
    return end + 1


def explain(pattern: str, is_verbose: bool) -> Iterator[Piece]:
    """Tokens of a pattern that ``re`` has already accepted."""
    at, depth, number = 0, 0, 0
    literal = ""
    while at < len(pattern):
        char, start = pattern[at], at
        text, change = "", 0
        if is_verbose and char in " \t\r\n":
            at += 1
            continue
        if is_verbose and char == "#":
            end = pattern.find("\n", at)
            at = len(pattern) if end < 0 else end
            continue
        if char == "\\":
            at += 2
            text, at = explain_escape(pattern, start, at)
        elif char == "[":
            at = read_class(pattern, at)
            text = explain_class(pattern[start:at])
        elif char == "(":
            if comment := re.compile(r"\(\?#[^)]*\)").match(pattern, at):
                at = comment.end()
                text = "a comment"
            elif flags := re.compile(r"\(\?[aiLmsux]+\)").match(pattern, at):
                at = flags.end()
                text = "flags: " + ", ".join(FLAG_WORDS.get(flag, flag) for flag in flags[0][2:-1])
            elif back := re.compile(r"\(\?P=(\w+)\)").match(pattern, at):
                at = back.end()
                text = f"the same text as group {back[1]} matched"
            elif test := re.compile(r"\(\?\((\w+)\)").match(pattern, at):
                at, change = test.end(), 1
                text = f"if group {test[1]} took part (| separates the else branch)"
            else:
                at, text, number = explain_group(pattern, at, number)
                change = 1
        elif char == ")":
            at += 1
            depth -= 1
            text = "end of the group"
        elif char == "|":
            at += 1
            text = "or"
        elif char in ".^$":
            at += 1
            text = {
                ".": "any character but a line feed",
                "^": "the start",
                "$": "the end, or before a last line feed",
            }[char]
        else:
            at += 1
            # Ordinary characters in a row are shown as one piece, unless a quantifier takes the last of them.
            if not QUANTIFIER.match(pattern, at):
                literal += char
                continue
            text = f"the character {show(char)}"
        if literal:
            yield Piece(literal, depth + (char == ")"), f"the text {literal!r}")
            literal = ""
        if quantifier := QUANTIFIER.match(pattern, at):
            at = quantifier.end()
            text += f": {explain_quantifier(quantifier)}"
        yield Piece(pattern[start:at], depth, text)
        depth += change
    if literal:
        yield Piece(literal, depth, f"the text {literal!r}")


def explain_escape(pattern: str, start: int, at: int) -> tuple[str, int]:
    kind = pattern[start + 1 : start + 2]
    if number := re.compile(r"\\([1-9]\d?)").match(pattern, start):
        return f"the same text as group {number[1]} matched", number.end()
    for form in (
        r"\\x[0-9a-fA-F]{2}",
        r"\\u[0-9a-fA-F]{4}",
        r"\\U[0-9a-fA-F]{8}",
        r"\\N\{[^}]*\}",
        r"\\0[0-7]{0,2}",
    ):
        if code := re.compile(form).match(pattern, start):
            return "one character by its code", code.end()
    return ESCAPES.get(kind, f"the character {show(pattern[start:at])}"), at


def explain_group(pattern: str, at: int, number: int) -> tuple[int, str, int]:
    for form, words in GROUPS:
        if match := form.match(pattern, at):
            is_capture = "{number}" in words
            number += is_capture
            name = match[1] if match.groups() else ""
            return match.end(), words.format(number=number, name=name), number
    return at + 1, f"group {number + 1}", number + 1


# --- static traps -------------------------------------------------------------------------------------


def find_traps(pattern: str, flags: int) -> Iterator[str]:
    """Shapes that are legal and seldom meant."""
    if re.search(r"(?<!\\)[.](com|org|net|io|de|txt|csv|json|log|py|html?)\b", pattern):
        yield "an unescaped . before a file ending or domain matches any character"
    if re.search(r"\[[^\]]*[A-Z]-[a-z][^\]]*\]", pattern):
        yield "[A-z] also contains [ \\ ] ^ _ and `"
    if "^" in pattern.lstrip("^(?:") and "|" in pattern and not flags & re.MULTILINE:
        top = list(split_top(pattern))
        anchored = [part.startswith("^") for part in top]
        if len(top) > 1 and any(anchored) and not all(anchored):
            yield "^ holds for one branch of | only: put the branches in a group"
    top = list(split_top(pattern))
    ends = [part.endswith("$") and not part.endswith("\\$") for part in top]
    if len(top) > 1 and any(ends) and not all(ends):
        yield "$ holds for one branch of | only: put the branches in a group"
    if any(ends) and not flags & re.MULTILINE:
        yield "$ also matches before a final line feed: use \\Z or fullmatch() to check input"
    if re.search(r"\\d", pattern) and not flags & re.ASCII:
        yield "\\d matches every script's digits, such as Arabic ones: use [0-9] or the flag a to check input"


def split_top(pattern: str) -> Iterator[str]:
    """The branches of the outermost |."""
    depth, start, at = 0, 0, 0
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 2
            continue
        if pattern[at] == "[":
            at = read_class(pattern, at)
            continue
        depth += (pattern[at] == "(") - (pattern[at] == ")")
        if pattern[at] == "|" and depth == 0:
            yield pattern[start:at]
            start = at + 1
        at += 1
    yield pattern[start:]


# --- examples and backtracking ------------------------------------------------------------------------


class OutOfTime(Exception):
    """A match took longer than its limit."""


def timed(
    compiled: re.Pattern[str], text: str, is_full: bool, limit_s: float
) -> tuple[re.Match[str] | None, float]:
    """The match and its seconds. Raises OutOfTime; re looks for signals while it backtracks."""

    def stop(*_: object) -> None:
        raise OutOfTime

    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    start = time.perf_counter()
    try:
        match = compiled.fullmatch(text) if is_full else compiled.search(text)
        return match, time.perf_counter() - start
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def check_examples(
    compiled: re.Pattern[str], examples: list[str], is_wanted: bool, is_full: bool
) -> Iterator[tuple[bool, str]]:
    for text in examples:
        try:
            match, _ = timed(compiled, text, is_full, 5.0)
        except OutOfTime:
            yield False, f"{text[:60]!r}: no answer within 5 s"
            continue
        if match is None:
            yield not is_wanted, f"{text!r}: no match"
            continue
        groups = {**{str(index): value for index, value in enumerate(match.groups(), 1)}, **match.groupdict()}
        named = ", ".join(f"{name}={value!r}" for name, value in groups.items())
        yield (
            is_wanted,
            f"{text!r}: matches {match[0]!r} at {match.start()}" + (f" with {named}" if named else ""),
        )


def pump_seeds(pattern: str, examples: list[str]) -> list[str]:
    """Short texts to repeat: pieces of the examples, and characters that the pattern itself names."""
    seeds: list[str] = []
    for text in examples[:20]:
        middle = len(text) // 2
        seeds += [text[:40], text[:1], text[-1:], text[middle : middle + 1], text[:2], text[-2:]]
    seeds += re.findall(r"[A-Za-z0-9]", pattern)[:5]
    seeds += COMMON_SEEDS
    return [seed for seed in dict.fromkeys(seeds) if seed]


def find_slow(compiled: re.Pattern[str], examples: list[str], is_full: bool, budget_s: float) -> str | None:
    """
    The first text on which matching explodes, described, or None.

    A prefix of an example, then a seed many times, then a character that spoils the match: there, nested or
    neighbouring repetitions have to try every way to share the text.
    """
    deadline = time.perf_counter() + budget_s
    prefixes = list(dict.fromkeys(["", *(text[: len(text) // 2] for text in examples[:5])]))
    for seed in pump_seeds(compiled.pattern, examples):
        for prefix in prefixes:
            for spoiler in ("!", "\0", ""):
                for size in PUMP_SIZES:
                    if time.perf_counter() > deadline:
                        return None
                    text = prefix + seed * max(1, size // len(seed)) + spoiler
                    try:
                        timed(compiled, text, is_full, LIMIT_MATCH_S)
                    except OutOfTime:
                        times = (
                            f"{len(text)} characters ({(prefix + seed)[:20]!r} repeated, then {spoiler!r})"
                        )
                        return f"over {LIMIT_MATCH_S:g} s on {times}"
    return None


# --- the command --------------------------------------------------------------------------------------


def parse_case(text: str) -> dict:
    """The JSON object of a case. Raises InputError, which names the field."""
    if not text.strip():
        raise InputError("give a pattern, or a JSON object on standard input")
    try:
        case = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InputError(f"standard input is not JSON: {exc}") from None
    if not isinstance(case, dict) or not isinstance(case.get("pattern"), str):
        raise InputError('standard input: expected an object with a text "pattern"')
    for name in ("match", "no_match"):
        values = case.setdefault(name, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise InputError(f"{name}: expected a list of texts")
    if not isinstance(case.setdefault("flags", ""), str) or not isinstance(
        case.setdefault("full", False), bool
    ):
        raise InputError("flags: expected a text; full: expected true or false")
    return case


def compile_pattern(pattern: str, flags: str) -> re.Pattern[str]:
    """The compiled pattern. Raises InputError with the place of the error."""
    value = 0
    for flag in flags:
        if flag not in "aimsx":
            raise InputError(f"flags: {flag!r} is none of a, i, m, s, x")
        value |= getattr(re, flag.upper())
    if len(pattern) > LIMIT_PATTERN_CHARS:
        raise InputError(f"the pattern has {len(pattern)} characters, at most {LIMIT_PATTERN_CHARS} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(pattern, value)
    except re.error as exc:
        near = "" if exc.pos is None else f" near {pattern[max(exc.pos - 5, 0) : exc.pos + 10]!r}"
        raise InputError(f"not a pattern: {exc.msg}{near}") from None
    except (RecursionError, OverflowError, ValueError) as exc:
        raise InputError(f"not a pattern: {exc}") from None


def printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Explain and test a regular expression.")
    parser.add_argument(
        "pattern", nargs="?", help="pattern; without it a JSON object is read from standard input"
    )
    parser.add_argument("--flags", default="", help="letters of a, i, m, s, x")
    parser.add_argument(
        "--match", action="append", default=[], metavar="TEXT", help="must match; may be repeated"
    )
    parser.add_argument(
        "--no-match", action="append", default=[], metavar="TEXT", help="must not match; may be repeated"
    )
    parser.add_argument("--full", action="store_true", help="the whole text must match")
    args = parser.parse_args()
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        if args.pattern is None:
            case = parse_case(sys.stdin.buffer.read().decode("utf-8", "replace"))
        else:
            names = ("pattern", "flags", "match", "no_match", "full")
            case = {name: getattr(args, name) for name in names}
        compiled = compile_pattern(case["pattern"], case["flags"])
    except InputError as exc:
        print(f"regex_check.py: {exc}", file=sys.stderr)
        return 2

    pieces = list(explain(compiled.pattern, bool(compiled.flags & re.VERBOSE)))
    width = min(max((len(piece.source) + 2 * piece.depth for piece in pieces), default=0), 40)
    for piece in pieces:
        print(f"{printable('  ' * piece.depth + piece.source):<{width}}  {printable(piece.text)}")

    is_bad = False
    for is_wanted in (True, False):
        for held, text in check_examples(
            compiled, case["match" if is_wanted else "no_match"], is_wanted, case["full"]
        ):
            is_bad = is_bad or not held
            print(f"{'ok  ' if held else 'FAIL'} {printable(text)}")
    for trap in find_traps(compiled.pattern, compiled.flags):
        print(f"note {trap}")
    slow = find_slow(compiled, [*case["match"], *case["no_match"]], case["full"], 5.0)
    print(f"SLOW {printable(slow)}" if slow else "ok   no catastrophic backtracking found")
    return 1 if is_bad or slow else 0


if __name__ == "__main__":
    sys.exit(main())
