#!/usr/bin/env python3
"""
Find secrets in a directory, a file, a tar stream or a text such as a diff. Never prints a secret.

    find_secrets.py DIR                       every text file below DIR
    tar c . | find_secrets.py --tar -         a tree, where only standard input is at hand
    git diff --cached | find_secrets.py -     any text; in a diff only added lines count

Prints ``path:line: rule: published prefix (length) fingerprint``. To accept a finding, put
``secrets-hygiene: allow`` on its line, or its fingerprint into the file given by --allow (one a line, #
comments). The fingerprint is the first 16 hex digits of the secret's sha256; a secret of fewer than 20
characters has none, because it could be guessed from it.

Exit codes: 0 nothing found, 1 secrets found, 2 wrong call or nothing could be read.
"""

import argparse
import hashlib
import io
import math
import os
import re
import signal
import stat
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator

SKIPPED_DIRS = {".git", ".hg", ".svn", "node_modules", ".venv", "venv", "__pycache__", ".tox", ".mypy_cache"}
# Bigger files are data, not something a person typed a secret into; they are named in the summary.
LIMIT_BYTES = 5 * 1024 * 1024
# Minified code is full of "token:" and costs time: on such a line only the published prefixes count.
LIMIT_LINE = 20_000

# Rule name, pattern. The secret is group 1, or the whole match. Each prefix is published by its issuer.
RULES = [
    ("private-key", re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")),
    ("aws-access-key", re.compile(r"\b((?:AKIA|ASIA)[A-Z2-7]{16})\b")),
    ("github-token", re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{60,255})\b")),
    ("gitlab-token", re.compile(r"\b(glpat-[A-Za-z0-9_-]{20,})")),
    ("slack-token", re.compile(r"\b(xox[abprs]-[A-Za-z0-9-]{10,})")),
    ("slack-webhook", re.compile(r"(https://hooks\.slack\.com/services/T\w+/B\w+/\w{20,})")),
    ("google-api-key", re.compile(r"\b(AIza[A-Za-z0-9_-]{35})\b")),
    ("stripe-key", re.compile(r"\b((?:sk|rk)_live_[A-Za-z0-9]{20,})\b")),
    ("openai-key", re.compile(r"\b(sk-(?:proj-)?[A-Za-z0-9_-]{32,})")),
    ("npm-token", re.compile(r"\b(npm_[A-Za-z0-9]{36})\b")),
    ("pypi-token", re.compile(r"\b(pypi-AgEI[A-Za-z0-9_-]{50,})")),
    ("huggingface-token", re.compile(r"\b(hf_[A-Za-z0-9]{30,})\b")),
    ("json-web-token", re.compile(r"\b(eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})")),
    (
        "url-password",
        re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@'\"<>]{1,100}:([^\s@/'\"<>]{3,200})@[\w.-]+"),
    ),
    (
        "assigned-secret",
        re.compile(
            r"""(?ix)
            \b (?!next|request|continuation|page) [\w.-]{0,40}
            (?:passw(?:or)?d|passphrase|secret|token|api_?key|private_?key|access_?key|mnemonic)
            [\w.-]{0,20} ["']? \s{0,3} (?: =(?!=) | : | := | => ) \s{0,3}
            (?: "([^"\\\s]{8,300})" | '([^'\\\s]{8,300})'
              | ([^\s"',;(){}\[\]<>=][^\s"',;(){}\[\]<>]{7,300})(?![(\[]) )
            """
        ),
    ),
    (
        "mnemonic",
        re.compile(
            r"""(?i)\bmnemonic\w{0,20}["']?\s{0,3}[=:]\s{0,3}["']((?:[a-z]{3,8} ){11,23}[a-z]{3,8})["']"""
        ),
    ),
]

GUESSES = ("assigned-secret", "mnemonic")
PREFIX_RULES = [rule for rule in RULES if rule[0] not in GUESSES]
# Their first four characters are the issuer's and tell nothing; of any other secret no character is shown.
PUBLISHED_PREFIX = {name for name, _ in PREFIX_RULES} - {"private-key", "url-password", "slack-webhook"}

# What stands where a secret would: references to one, and words that are obviously not one.
REFERENCE = re.compile(
    r"^(\$|%\(|\{\{|<|\*{3}|x{4,}|\.{3}|/|\./|~/|env[.:(]|os\.|process\.env|vault:|file:|arn:|https?://)",
    re.I,
)
PLACEHOLDER = re.compile(
    r"(example|placeholder|change.?me|your[_-]|dummy|redacted|sample|todo|fixme|not.?a.?secret|insert|replace)",
    re.I,
)
# Code and numbers: "type.Name2", "get_token", "1556312220.1", "#ff8800".
NOT_A_VALUE = re.compile(r"^([A-Za-z_]+([._:-][A-Za-z_]+)*|[A-Za-z_]\w*(\.[A-Za-z_]\w*)+:?|[\d.]+|#.*)$")


def entropy_bits(text: str) -> float:
    """Shannon entropy in bits a character: words stay below 3, random base64 lies above 4."""
    counts = Counter(text)
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())


def is_likely_secret(rule: str, value: str) -> bool:
    """Sorts the guesses; the rules with a published prefix need no guess beyond the placeholders."""
    if rule == "private-key":
        return True
    if PLACEHOLDER.search(value) or REFERENCE.match(value) or len(set(value)) < 4:
        return False
    if rule == "assigned-secret":
        # "token: expected_type" and "password=getpass()" are code; a password has digits, or looks random.
        return not NOT_A_VALUE.match(value) and (entropy_bits(value) > 3.0 or any(c.isdigit() for c in value))
    return True


def scan_line(line: str) -> Iterator[tuple[str, str]]:
    """(rule, secret) for each secret of one line, the most specific rule only."""
    taken: list[tuple[int, int]] = []
    for rule, pattern in RULES if len(line) <= LIMIT_LINE else PREFIX_RULES:
        for match in pattern.finditer(line):
            group = next((index for index, value in enumerate(match.groups(), 1) if value), 0)
            start, end = match.span(group)
            if any(start < stop and begin < end for begin, stop in taken):
                continue
            if is_likely_secret(rule, match[group]):
                taken.append((start, end))
                yield rule, match[group]


class Scanner:
    """Collects findings; ``skipped`` counts what was not read, by reason."""

    def __init__(self, allowed: set[str]) -> None:
        self.allowed = allowed
        self.found = 0
        self.files = 0
        self.skipped: Counter[str] = Counter()

    def scan(self, path: str, data: bytes) -> None:
        if b"\0" in data[:8192] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
            self.skipped["binary"] += 1
            return
        self.files += 1
        codec = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
        text = data.decode(codec, "replace")
        is_diff = bool(re.match(r"(diff --git |--- \S.*\n\+\+\+ )", text))
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            if is_diff and not (line.startswith("+") and not line.startswith("+++")):
                continue
            if "secrets-hygiene: allow" in line:
                continue
            for rule, secret in scan_line(line):
                # All private keys begin alike; the line after the header tells them apart.
                identity = secret + (lines[number] if rule == "private-key" and number < len(lines) else "")
                mark = hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()[:16]
                if mark in self.allowed:
                    continue
                self.found += 1
                shown = secret[:4] if rule in PUBLISHED_PREFIX else ""
                if len(identity) < 20:
                    mark = "no fingerprint"
                print(f"{printable(path)}:{number}: {rule}: {shown}... ({len(secret)} characters) {mark}")

    def scan_tree(self, root: str) -> None:
        for directory, names, files in os.walk(root):
            names[:] = sorted(name for name in names if name not in SKIPPED_DIRS)
            for name in sorted(files):
                self.scan_path(os.path.join(directory, name))

    def scan_path(self, path: str) -> None:
        try:
            info = os.lstat(path)
            if not stat.S_ISREG(info.st_mode):
                self.skipped["not a regular file"] += 1
            elif info.st_size > LIMIT_BYTES:
                self.skipped[f"over {LIMIT_BYTES // 2**20} MiB"] += 1
            else:
                with open(path, "rb") as file:
                    self.scan(path, file.read(LIMIT_BYTES))
        except OSError as exc:
            self.skipped["unreadable"] += 1
            print(f"find_secrets.py: {path}: {exc.strerror}", file=sys.stderr)

    def scan_tar(self, stream: io.BufferedIOBase) -> None:
        """Members of a tar stream, compressed or not; nothing is extracted. Raises tarfile.TarError."""
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                if SKIPPED_DIRS & set(member.name.split("/")[:-1]):
                    continue
                if not member.isfile():
                    continue
                if member.size > LIMIT_BYTES:
                    self.skipped[f"over {LIMIT_BYTES // 2**20} MiB"] += 1
                    continue
                file = archive.extractfile(member)
                if file is not None:
                    self.scan(member.name.removeprefix("./"), file.read())


def printable(text: str) -> str:
    """Names come from the input: none may start a line of its own or reach the terminal as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def read_allowed(path: str) -> set[str]:
    with open(path, encoding="utf-8") as file:
        words = (line.partition("#")[0].strip().lower() for line in file)
        return {word for word in words if word}


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Find secrets; never print one.")
    parser.add_argument(
        "paths", nargs="*", default=["-"], help="directories or files; - is a text on standard input"
    )
    parser.add_argument("--tar", action="store_true", help="the paths (or -) are tar archives")
    parser.add_argument("--allow", metavar="FILE", help="fingerprints of accepted findings")
    args = parser.parse_args()
    try:
        scanner = Scanner(read_allowed(args.allow) if args.allow else set())
        for path in args.paths:
            if args.tar and path == "-":
                scanner.scan_tar(sys.stdin.buffer)
            elif args.tar:
                with open(path, "rb") as file:
                    scanner.scan_tar(file)
            elif path == "-":
                data = sys.stdin.buffer.read()
                if not data.strip():
                    print("find_secrets.py: standard input is empty", file=sys.stderr)
                    return 2
                scanner.scan("<stdin>", data)
            elif os.path.isdir(path):
                scanner.scan_tree(path)
            elif os.path.exists(path):
                scanner.scan_path(path)
            else:
                print(f"find_secrets.py: {path}: No such file or directory", file=sys.stderr)
                return 2
    except (OSError, UnicodeDecodeError) as exc:
        print(f"find_secrets.py: {exc}", file=sys.stderr)
        return 2
    except (tarfile.TarError, EOFError) as exc:
        print(f"find_secrets.py: not a readable tar archive: {exc}", file=sys.stderr)
        return 2
    skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(scanner.skipped.items()))
    print(f"{scanner.found} findings in {scanner.files} files" + (f"; skipped: {skipped}" if skipped else ""))
    if scanner.files == 0:
        print("find_secrets.py: nothing was read", file=sys.stderr)
        return 2
    return 1 if scanner.found else 0


if __name__ == "__main__":
    sys.exit(main())
