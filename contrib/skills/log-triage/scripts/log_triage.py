#!/usr/bin/env python3
"""
Group log lines by template and show what is worth reading first.

    log_triage.py app.log worker.log
    journalctl -u skilld -o json | log_triage.py --level warning
    log_triage.py --sort rare --top 10 < app.log

Understands plain text (ISO, syslog, kernel, Apache and glog time stamps), JSON lines, logfmt and ``journalctl
-o json``. Tracebacks and indented lines belong to the entry above them. Numbers, ids, addresses, times and
quoted texts become placeholders, an HTTP status becomes 2xx to 5xx; entries that then differ in few words are
merged, with <*> where they differ.

A level in the output with a question mark was not in the line but guessed from its words.

Exit codes: 0 no entry of level error or worse, 1 there are some, 2 the input or the call is wrong.
"""

import argparse
import json
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

LEVELS = ("fatal", "error", "warning", "info", "debug")
ALIASES = {
    "fatal": "fatal", "critical": "fatal", "crit": "fatal", "panic": "fatal", "emerg": "fatal",
    "alert": "fatal",
    "error": "error", "err": "error", "severe": "error",
    "warning": "warning", "warn": "warning",
    "info": "info", "information": "info", "notice": "info",
    "debug": "debug", "trace": "debug", "verbose": "debug", "fine": "debug",
}  # fmt: skip
GLOG = {"F": "fatal", "E": "error", "W": "warning", "I": "info"}
# syslog priorities 0 to 7, as journald writes them; pino and bunyan count in tens instead.
SYSLOG = ("fatal", "fatal", "fatal", "error", "warning", "info", "info", "debug")
PINO = {"10": "debug", "20": "debug", "30": "info", "40": "warning", "50": "error", "60": "fatal"}

# Beyond these the tail of a line, or new templates, tell nothing more.
LIMIT_CHARS = 4_000
LIMIT_GROUPS = 20_000
LIMIT_TRACE_LINES = 200
# Two entries are one template if at least this share of their words is the same.
SIMILAR = 0.7

TIME = re.compile(
    r"""(?x) ^ [\[(<]? (
        \d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:\s?(?:Z|UTC|[+-]\d\d:?\d\d))?
      | (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\s+[A-Z][a-z]{2}\s+\d{1,2}\s\d\d:\d\d:\d\d(?:\.\d+)?\s\d{4}
      | [A-Z][a-z]{2}\s+\d{1,2}\s\d\d:\d\d:\d\d
      | \d{1,2}/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d(?:\s[+-]\d{4})?
      | \d\d:\d\d:\d\d(?:[.,]\d+)?
      | \s*\d{1,7}\.\d{6} | \d{10}(?:\.\d+)?
    ) [\])>]? [:,]? \s*"""
)
GLOG_LINE = re.compile(r"^([FEWI])(\d{4} \d\d:\d\d:\d\d\.\d+)\s+\d+ ([^\]]+\]) ")
APACHE_TIME = re.compile(r"\[(\d{1,2}/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d(?: [+-]\d{4})?)\] ?")
# A level is in capitals, or in brackets, or set off by colons, bars or dashes; elsewhere the word is prose.
WORDS = "|".join(ALIASES)
LEVEL_WORD = re.compile(
    rf"(?<![\w.-])({WORDS.upper()})(?![\w-])|[\[(<]((?i:{WORDS}))[\])>]|(?:^|[-|:]\s)((?i:{WORDS}))(?=\s?[:|]|\s-\s)"
)
LOGFMT = re.compile(r'(?:^|\s)([A-Za-z_][\w.@-]*)=("(?:[^"\\]|\\.)*"|\S*)')
BAD_WORDS = re.compile(
    r"\b(error|exception|traceback|panic|fatal|failed|failure|refused|denied|timed? ?out|segfault)\b", re.I
)
CONTINUES = re.compile(
    r"^(\s+\S|Traceback \(most recent call last\)|Caused by: |\.\.\. \d+ more|During handling of|The above)"
)
TRACE = re.compile(r"^(Traceback |Caused by: |\s+at \S+\(|\s+File \")")
EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Warning|Exit|Interrupt|Timeout)\b")

REQUEST = re.compile(r'"((?:GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS) [^"]{0,2000})"')
# Which status a request ended with is the point of the line, unlike any other number in it.
HTTP_STATUS = re.compile(
    r"(\b(?:GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS)\b.{0,2000}?(?<![\w./:<-]))([1-5])\d\d(?![\w./:%-])"
)
MASKS = [
    (re.compile(r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"), "<uuid>"),
    (re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+\b"), "<email>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b"), "<ip>"),
    (re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}(?!\w)"), "<ip>"),
    (re.compile(r"(?<![\w:])[0-9a-fA-F:]{0,30}::[0-9a-fA-F:]{0,30}(?!\w)"), "<ip>"),
    (re.compile(r'"(?:[^"\\]|\\.){0,2000}"'), '"<text>"'),
    (re.compile(r"(?<!\w)'[^']{0,2000}'"), "'<text>'"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "<hex>"),
    (re.compile(r"\b(?=[0-9a-fA-F]*\d)(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{8,}\b"), "<hex>"),
    (re.compile(r"(?<!\w)[+-]?\d+(?:[.,:]\d+)+|(?<!\w)[+-]\d+|\d+(?!xx)"), "<n>"),
]  # fmt: skip


@dataclass
class Entry:
    """One log entry: its first line parsed, and the lines that belong to it."""

    line: int
    source: str
    text: str
    level: str
    time: str
    message: str
    trace: list[str] = field(default_factory=list)


@dataclass
class Group:
    """All entries of one template."""

    level: str
    words: list[str]
    first: Entry
    last: Entry
    count: int = 0

    @property
    def template(self) -> str:
        return " ".join(self.words)

    def rank(self) -> int:
        return LEVELS.index(self.level.rstrip("?")) if self.level != "-" else len(LEVELS)


# --- reading one line ---------------------------------------------------------------------------------


def to_level(value: object) -> str:
    """One of LEVELS, or "" if the value names none."""
    text = str(value).strip().lower()
    if text in ALIASES:
        return ALIASES[text]
    if len(text) == 1 and text.isdigit() and int(text) < 8:
        return SYSLOG[int(text)]
    return PINO.get(text, "")


def pick(fields: dict, *names: str) -> object:
    return next((fields[name] for name in names if fields.get(name) not in (None, "")), "")


def parse_fields(fields: dict) -> tuple[str, str, str] | None:
    """(level, time, message) of a structured entry, or None if it has no message."""
    message = pick(fields, "message", "msg", "MESSAGE", "event", "log", "error")
    if not message:
        return None
    if isinstance(message, list):
        # journald writes a message that is not UTF-8 as a list of bytes.
        message = bytes(byte for byte in message if isinstance(byte, int) and 0 <= byte < 256).decode(
            "utf-8", "replace"
        )
    level = to_level(pick(fields, "level", "severity", "levelname", "lvl", "PRIORITY", "log.level"))
    time = pick(fields, "time", "timestamp", "ts", "@timestamp", "asctime", "__REALTIME_TIMESTAMP")
    detail = pick(fields, "error", "err", "exception", "exc_info")
    if detail and detail != message:
        detail = pick(detail, "message", "msg", "type") if isinstance(detail, dict) else detail
        message = f"{message}: {str(detail).strip().splitlines()[-1] if str(detail).strip() else ''}"
    return level, str(time), str(message)


def parse_line(text: str) -> tuple[str, str, str]:
    """(level, time, message) of the first line of an entry; level and time may be empty."""
    if text.startswith("{"):
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            fields = None
        if isinstance(fields, dict) and (parsed := parse_fields(fields)):
            return parsed
    if match := GLOG_LINE.match(text):
        return GLOG[match[1]], match[2], text[match.end() :]
    time, message = "", text
    if match := TIME.match(text):
        time, message = match[1].strip(), text[match.end() :]
    elif match := APACHE_TIME.search(text[:300]):
        time, message = match[1], text[: match.start()] + text[match.end() :]
    if "=" in message:
        pairs = {key: value.strip('"') for key, value in LOGFMT.findall(message)}
        if ("msg" in pairs or "message" in pairs) and (parsed := parse_fields(pairs)):
            return parsed[0], parsed[1] or time, parsed[2]
    # The level stands near the front; further on the same word is prose.
    if match := LEVEL_WORD.search(message[:80]):
        level = ALIASES[(match[1] or match[2] or match[3]).lower()]
        before, after = message[: match.start()].strip(" |-"), message[match.end() :].lstrip(" :|-")
        return level, time, f"{before} {after}".strip()
    return "", time, message.lstrip(" -|:")


def read_entries(lines: Iterator[bytes], source: str) -> Iterator[Entry]:
    """Entries of one stream; lines that continue an entry are put into its trace."""
    entry: Entry | None = None
    in_traceback = False
    for number, raw in enumerate(lines, 1):
        text = raw[: LIMIT_CHARS * 4].decode("utf-8", "replace").rstrip("\r\n")[:LIMIT_CHARS]
        if not text.strip():
            continue
        continues = bool(CONTINUES.match(text)) or (in_traceback and bool(EXCEPTION.match(text)))
        if continues and entry is not None:
            if len(entry.trace) < LIMIT_TRACE_LINES:
                entry.trace.append(text)
            in_traceback = not EXCEPTION.match(text) and (in_traceback or "Traceback" in text)
            continue
        if entry is not None:
            yield entry
        level, time, message = parse_line(text)
        in_traceback = "Traceback (most recent call last)" in text
        entry = Entry(number, source, text, level, time, message)
    if entry is not None:
        yield entry


# --- grouping -----------------------------------------------------------------------------------------


def mask(message: str) -> str:
    message = REQUEST.sub(r"\1", message)
    message = HTTP_STATUS.sub(lambda match: f"{match[1]}{match[2]}xx", message, count=1)
    for pattern, placeholder in MASKS:
        message = pattern.sub(placeholder, message)
    return message


def words_of(entry: Entry) -> list[str]:
    """The template before merging: the masked message, and of a traceback its last line."""
    text = entry.message
    ending = next((line for line in reversed(entry.trace) if EXCEPTION.match(line)), "")
    if ending:
        text = f"{text} ⏎ {ending}"
    return mask(text).split()


class Groups:
    """Templates seen so far. ``overflow`` counts entries that came after LIMIT_GROUPS templates."""

    def __init__(self) -> None:
        self.exact: dict[tuple[str, ...], Group] = {}
        self.buckets: dict[tuple[str, int, str], list[Group]] = {}
        self.all: list[Group] = []
        self.overflow = 0

    def add(self, entry: Entry) -> None:
        words = words_of(entry)
        looks_bad = (
            any(TRACE.match(line) for line in entry.trace)
            or BAD_WORDS.search(entry.message)
            or "5xx" in words
        )
        level = entry.level or ("error?" if looks_bad else "-")
        key = (level, *words)
        group = self.exact.get(key) or self.find_similar(level, words)
        if group is None:
            if len(self.all) >= LIMIT_GROUPS:
                self.overflow += 1
                return
            group = Group(level, words, entry, entry)
            self.all.append(group)
            self.buckets.setdefault((level, len(words), words[0] if words else ""), []).append(group)
        self.exact.setdefault(key, group)
        group.count += 1
        group.last = entry

    def find_similar(self, level: str, words: list[str]) -> Group | None:
        """Merge into a group with the same length and first word, if enough words agree."""
        if len(words) < 4 or len(self.exact) > 10 * LIMIT_GROUPS:
            return None
        for group in self.buckets.get((level, len(words), words[0]), ())[:200]:
            same = sum(a == b for a, b in zip(group.words, words, strict=True))
            if same >= SIMILAR * len(words):
                group.words = [a if a == b else "<*>" for a, b in zip(group.words, words, strict=True)]
                return group
        return None


# --- output -------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Logs are untrusted: nothing in them may start a line of its own or reach the terminal as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def place(entry: Entry, with_source: bool) -> str:
    where = f"{entry.source}:{entry.line}" if with_source else f"line {entry.line}"
    return f"{where} ({entry.time})" if entry.time else where


def print_text(groups: list[Group], show_examples: bool, with_source: bool) -> None:
    for group in groups:
        print(f"\n{group.count:>6} × {group.level:<8} {printable(clip(group.template, 300))}")
        span = place(group.first, with_source)
        if group.count > 1:
            span += f" to {place(group.last, with_source)}"
        print(f"         {printable(span)}")
        if show_examples:
            print(f"         {printable(clip(group.first.text, 300))}")
            for line in group.first.trace[-3:]:
                print(f"         {printable(clip(line, 300))}")


def print_json(groups: list[Group], entry_count: int, overflow: int) -> None:
    rows = [
        {
            "count": group.count,
            "level": group.level,
            "template": group.template,
            "first": {"source": group.first.source, "line": group.first.line, "time": group.first.time},
            "last": {"source": group.last.source, "line": group.last.line, "time": group.last.time},
            "example": "\n".join([group.first.text, *group.first.trace]),
        }
        for group in groups
    ]
    print(
        json.dumps(
            {"entries": entry_count, "not_grouped": overflow, "groups": rows}, ensure_ascii=False, indent=2
        )
    )


SORTS = {
    "level": lambda group: (group.rank(), -group.count),
    "count": lambda group: (-group.count, group.rank()),
    "rare": lambda group: (group.count, group.rank()),
    "time": lambda group: (group.first.source, group.first.line),
}


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Group log lines by template.")
    parser.add_argument("files", nargs="*", default=["-"], help="log files; default: standard input")
    parser.add_argument("--level", choices=LEVELS, help="show this level and worse")
    parser.add_argument("--sort", choices=tuple(SORTS), default="level", help="default: level, then count")
    parser.add_argument(
        "--top", type=int, default=20, metavar="N", help="groups to show, 0 for all; default: 20"
    )
    parser.add_argument("--examples", action="store_true", help="show the first entry of each group")
    parser.add_argument("--json", action="store_true", help="JSON, always with examples")
    args = parser.parse_args()
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    groups = Groups()
    entry_count = 0
    for name in args.files:
        try:
            stream = sys.stdin.buffer if name == "-" else open(name, "rb")  # noqa: SIM115 - closed below
            with stream:
                for entry in read_entries(iter(stream), "<stdin>" if name == "-" else name):
                    entry_count += 1
                    groups.add(entry)
        except OSError as exc:
            print(f"log_triage.py: {name}: {exc.strerror}", file=sys.stderr)
            return 2
    if not entry_count:
        print("log_triage.py: no log lines in the input", file=sys.stderr)
        return 2
    shown = sorted(groups.all, key=SORTS[args.sort])
    if args.level:
        shown = [group for group in shown if group.rank() <= LEVELS.index(args.level)]
    total = len(shown)
    if args.top > 0:
        shown = shown[: args.top]
    if args.json:
        print_json(shown, entry_count, groups.overflow)
    else:
        print(f"{entry_count} entries, {len(groups.all)} templates; {len(shown)} of {total} shown")
        if groups.overflow:
            print(f"{groups.overflow} entries came after {LIMIT_GROUPS} templates and are not grouped")
        print_text(shown, args.examples, len(args.files) > 1)
    return 1 if any(group.rank() <= LEVELS.index("error") for group in groups.all) else 0


if __name__ == "__main__":
    sys.exit(main())
