#!/usr/bin/env python3
"""
Replace personal data and credentials in a text by placeholders, the same one for the same value each time.

    redact.py < support-mail.txt
    redact.py --word 'Ada Lovelace' --word ACME --skip ip app.log > clean.log
    REDACT_KEY=... redact.py --keyed a.log          the same placeholder in every file and run
    redact.py --check clean.log                     only counts; exit code 1 if something is left

Placeholders look like ``<email-1>``, numbered as they are found; with --keyed, ``<email-4be9a1c2f7d0>``, from
an HMAC-SHA256 of the value under REDACT_KEY. Kinds: email, url-login, token, jwt, private-key, iban, card,
ssn, phone, ip, mac, word, and uuid if asked for by --also uuid. Counts go to standard error.

Everything that is not replaced passes through byte for byte. UTF-16 is refused: nothing would be found in it.

Exit codes: 0 done, 1 --check found something, 2 the input or the call is wrong.

Source: ISO/IEC 7812 (card numbers, Luhn), ISO 13616 (IBAN, mod 97), RFC 5321 and 4291 as far as needed here.
"""

import argparse
import hashlib
import hmac
import ipaddress
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

LIMIT_LINE_BYTES = 1024 * 1024
MIN_KEY_CHARS = 16


class InputError(Exception):
    """The input cannot be searched; the message says why."""


# --- what counts as personal --------------------------------------------------------------------------


def is_card(text: str) -> bool:
    """13 to 19 digits of a card issuer that pass Luhn's check; a time stamp begins with 1 and is none."""
    digits = [int(char) for char in text if char.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) < 2 or digits[0] not in (2, 3, 4, 5, 6):
        return False
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    compact = text.replace(" ", "").upper()
    if not 15 <= len(compact) <= 34:
        return False
    number = "".join(str(int(char, 36)) for char in compact[4:] + compact[:4])
    return int(number) % 97 == 1


def is_ip(text: str) -> bool:
    """An address of a host; loopback says nothing about a person, and "a::b" is C++."""
    if not any(char.isdigit() for char in text):
        return False
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_loopback or address.is_multicast)


def is_phone(text: str) -> bool:
    digits = sum(char.isdigit() for char in text)
    return 8 <= digits <= 15


def always(text: str) -> bool:
    return True


@dataclass(frozen=True)
class Rule:
    """``pattern``'s group 1, or all of it, is replaced if ``holds`` says so."""

    kind: str
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] = always
    # Makes different spellings of one value equal, so that they get one placeholder.
    normal: Callable[[str], str] = str.strip


def only_digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def only_hex(text: str) -> str:
    return re.sub(r"[:-]", "", text).lower()


def no_space(text: str) -> str:
    return text.replace(" ", "")


def folded(text: str) -> str:
    return " ".join(text.lower().split())


SECRET_NAMES = (
    r"password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|authorization|cookie|session[_-]?id"
)

PREFIXED_TOKEN = (
    r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[A-Z2-7]{16}|sk[-_][A-Za-z0-9_-]{20,}"
    r"|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,})\b"
)
NAMED_TOKEN = rf"(?i)\b(?:{SECRET_NAMES})[\"']?\s?[=:]\s?[\"']?(?!bearer\b|basic\b|<)([^\s\"',;&<>]{{4,}})"
# Not across another BEGIN: a text full of them would take quadratic time.
PRIVATE_KEY = (
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----BEGIN)[\s\S])*?-----END [A-Z ]{0,40}PRIVATE KEY-----"
)
IPV6 = r"(?<![\w:.])[0-9A-Fa-f:]{2,39}:[0-9A-Fa-f:]{0,39}(?:(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])"
# International, with the area code in brackets, and North American.
PHONES = [
    r"(?<![\w.+-])(?:\+|00 ?)\d{1,3}(?:[ ./-]?\(?\d{1,5}\)?){2,6}(?![\w-])",
    r"(?<![\w.+/-])\(\d{2,5}\) ?\d{3,4}[ -]?\d{3,5}(?![\w-])",
    r"(?<![\w.+/-])[2-9]\d{2}[-.][2-9]\d{2}[-.]\d{4}(?![\w-])",
]

# In order: an earlier rule takes its text away from the later ones.
RULES = [
    Rule("private-key", re.compile(PRIVATE_KEY)),
    Rule("jwt", re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")),
    Rule("url-login", re.compile(r"(?<=://)([^\s/@:'\"<>]{1,100}:[^\s/@'\"<>]{1,200})(?=@)")),
    Rule("token", re.compile(PREFIXED_TOKEN)),
    Rule("token", re.compile(r"(?i)\b(?:bearer|basic)\s+([A-Za-z0-9._~+/=-]{8,})")),
    Rule("token", re.compile(NAMED_TOKEN)),
    Rule("email", re.compile(r"\b[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"), normal=str.lower),
    Rule(
        "iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), is_iban, no_space
    ),
    Rule("card", re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])"), is_card, only_digits),
    Rule("ssn", re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")),
    Rule("mac", re.compile(r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b"), normal=only_hex),
    Rule("ip", re.compile(r"(?<![\w.:-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)"), is_ip),
    Rule("ip", re.compile(IPV6), is_ip, str.lower),
    *(Rule("phone", re.compile(pattern), is_phone, only_digits) for pattern in PHONES),
]
OPTIONAL = [
    Rule("uuid", re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"), normal=str.lower),
]
KINDS = sorted({rule.kind for rule in RULES} | {"word"})


def word_rules(words: Iterable[str]) -> Iterator[Rule]:
    """A rule for each given word or phrase; case does not matter, nor how much white space stands inside."""
    for word in sorted({" ".join(word.split()) for word in words}, key=len, reverse=True):
        if word:
            spaced = r"\s+".join(re.escape(part) for part in word.split())
            # Not inside a placeholder that an earlier rule has put there.
            yield Rule("word", re.compile(rf"(?<!\w){spaced}(?!\w|-[0-9a-f]+>)", re.I), normal=folded)


# --- replacing ----------------------------------------------------------------------------------------


@dataclass
class Redactor:
    """Remembers which value got which placeholder. ``key`` makes the placeholders the same in every run."""

    rules: list[Rule]
    key: bytes | None
    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    last: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def placeholder(self, kind: str, value: str) -> str:
        self.counts[kind] += 1
        if self.key is not None:
            # The kind is part of the message: one text as two kinds gives two unrelated placeholders.
            mark = hmac.new(self.key, f"{kind}:{value}".encode("utf-8", "surrogateescape"), hashlib.sha256)
            return f"<{kind}-{mark.hexdigest()[:12]}>"
        if (kind, value) not in self.numbers:
            self.last[kind] += 1
            self.numbers[kind, value] = self.last[kind]
        return f"<{kind}-{self.numbers[kind, value]}>"

    def redact(self, text: str) -> str:
        for rule in self.rules:
            text = rule.pattern.sub(lambda match, rule=rule: self.replace(match, rule), text)
        return text

    def replace(self, match: re.Match[str], rule: Rule) -> str:
        group = 1 if match.re.groups else 0
        value = match[group]
        # A placeholder of an earlier rule is not personal data.
        if not rule.holds(value) or re.fullmatch(r"<[a-z-]+-[0-9a-f]+>", value):
            return match[0]
        start, end = match.start(group) - match.start(), match.end(group) - match.start()
        return match[0][:start] + self.placeholder(rule.kind, rule.normal(value)) + match[0][end:]


def read_parts(stream: Iterable[bytes]) -> Iterator[str]:
    """
    Lines, except that a private key stays in one piece. Bytes that are not UTF-8 become lone surrogates,
    which turn back into the same bytes at the end.
    """
    held: list[bytes] = []
    for line in stream:
        if held or (b"-----BEGIN" in line and b"PRIVATE KEY-----" in line):
            held.append(line)
            if b"-----END" in line or len(held) > 500:
                yield b"".join(held).decode("utf-8", "surrogateescape")
                held = []
            continue
        yield line.decode("utf-8", "surrogateescape")
    if held:
        yield b"".join(held).decode("utf-8", "surrogateescape")


def split_long(stream: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of at most LIMIT_LINE_BYTES; a longer one is cut behind a space, comma or quote."""
    for line in stream:
        if b"\0" in line:
            raise InputError("NUL bytes: UTF-16 or binary; convert it to UTF-8 text first")
        while len(line) > LIMIT_LINE_BYTES:
            cut = (
                max(line.rfind(mark, 0, LIMIT_LINE_BYTES) for mark in (b" ", b",", b'"')) + 1
                or LIMIT_LINE_BYTES
            )
            yield line[:cut]
            line = line[cut:]
        yield line


def choose_rules(only: list[str], skip: list[str], also: list[str], words: list[str]) -> list[Rule]:
    rules = [*RULES, *(rule for rule in OPTIONAL if rule.kind in also), *word_rules(words)]
    if only:
        rules = [rule for rule in rules if rule.kind in only or rule.kind in also]
    return [rule for rule in rules if rule.kind not in skip]


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Replace personal data and credentials by placeholders.")
    parser.add_argument("file", nargs="?", default="-", help="text; default: standard input")
    parser.add_argument(
        "--only", action="append", default=[], choices=KINDS, help="replace this kind; may be repeated"
    )
    parser.add_argument(
        "--skip", action="append", default=[], choices=KINDS, help="leave this kind; may be repeated"
    )
    parser.add_argument(
        "--also", action="append", default=[], choices=["uuid"], help="replace this kind, too"
    )
    parser.add_argument(
        "--word", action="append", default=[], metavar="TEXT", help="name or phrase; may be repeated"
    )
    parser.add_argument("--words", metavar="FILE", help="names and phrases, one a line")
    parser.add_argument("--keyed", action="store_true", help="placeholders from the key in REDACT_KEY")
    parser.add_argument(
        "--check", action="store_true", help="print no text; exit code 1 if anything would be replaced"
    )
    args = parser.parse_args()
    key = None
    if args.keyed:
        text = os.environ.get("REDACT_KEY", "")
        if len(text) < MIN_KEY_CHARS:
            print(
                f"redact.py: --keyed wants at least {MIN_KEY_CHARS} characters in REDACT_KEY", file=sys.stderr
            )
            return 2
        key = text.encode("utf-8", "surrogateescape")
    try:
        words = list(args.word)
        if args.words:
            with open(args.words, encoding="utf-8") as file:
                words += [line.strip() for line in file if line.strip()]
        redactor = Redactor(choose_rules(args.only, args.skip, args.also, words), key)
        stream = sys.stdin.buffer if args.file == "-" else open(args.file, "rb")  # noqa: SIM115 - closed below
        is_empty = True
        with stream:
            for part in read_parts(split_long(stream)):
                is_empty = False
                clean = redactor.redact(part)
                if not args.check:
                    sys.stdout.buffer.write(clean.encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()
    except OSError as exc:
        print(f"redact.py: {exc.filename or args.file}: {exc.strerror}", file=sys.stderr)
        return 2
    except (InputError, UnicodeDecodeError) as exc:
        print(f"redact.py: {exc}", file=sys.stderr)
        return 2
    if is_empty:
        print("redact.py: the input is empty", file=sys.stderr)
        return 2
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(redactor.counts.items()))
    print(f"redact.py: {counts or 'nothing'} {'found' if args.check else 'replaced'}", file=sys.stderr)
    return 1 if args.check and redactor.counts else 0


if __name__ == "__main__":
    sys.exit(main())
