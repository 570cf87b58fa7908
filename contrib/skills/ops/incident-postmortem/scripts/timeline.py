#!/usr/bin/env python3
"""
Merge notes from chat, logs, pagers and deploys into one timeline in UTC, as a Markdown table with durations.

    timeline.py notes.txt deploys.txt
    timeline.py --date 2026-03-02 --zone Europe/Berlin < chat.txt

A line is ``TIME text``. TIME is ISO 8601 (2026-03-02T10:04:05Z, 2026-03-02 11:04), syslog (Mar  2 10:04:05),
seconds since 1970, or a time of day (11:04, 11:04:05), which needs a date. A line without a time continues
the one above. Lines that begin with # set what holds from there on, in any combination:

    # source: chat  zone: +01:00  date: 2026-03-02

Words in the text mark the milestones: !start (harm begins), !detected, !mitigated (harm ends), !resolved.

Exit codes: 0 printed, 1 printed, but something does not fit (named on standard error), 2 no timeline.
"""

import argparse
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MILESTONES = ("start", "detected", "mitigated", "resolved")
SPANS = (
    ("start", "detected", "until somebody knew"),
    ("detected", "mitigated", "from knowing to the end of the harm"),
    ("start", "mitigated", "harm in all"),
    ("mitigated", "resolved", "until the cause was gone"),
)
MONTHS = {
    name: number for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)
}

ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,]\d+)?)?\s?(Z|UTC|[+-]\d\d:?\d\d)?(?=\s|$)"
)
SYSLOG = re.compile(r"([A-Z][a-z]{2})\s+(\d{1,2})\s(\d\d):(\d\d):(\d\d)(?=\s|$)")
EPOCH = re.compile(r"(\d{10})(?:\.\d+)?(?=\s|$)")
CLOCK = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?(?=\s|$)")
DIRECTIVE = re.compile(r"\b(source|zone|date):\s*(\S+)")
MARK = re.compile(r"!(\w+)\b")


class InputError(Exception):
    """Nothing can be made of the call or the input; the message says why."""


@dataclass
class Event:
    """Something that happened. ``at`` is an aware UTC datetime."""

    at: datetime
    source: str
    text: str
    place: str


def parse_zone(text: str) -> tzinfo:
    """A time zone from UTC, an offset such as +01:00, or a name such as Europe/Berlin. Raises InputError."""
    if text.upper() in ("UTC", "Z"):
        return UTC
    if match := re.fullmatch(r"([+-])(\d\d):?(\d\d)", text):
        hours, minutes = int(match[2]), int(match[3])
        if hours > 14 or minutes > 59:
            raise InputError(f"zone {text}: no such offset")
        return timezone((1 if match[1] == "+" else -1) * timedelta(hours=hours, minutes=minutes))
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(f"zone {text}: not known here; give an offset such as +01:00") from None


def parse_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"date {text}: expected YYYY-MM-DD") from None


class Reader:
    """Reads one input after the other; collects what does not fit in ``problems``."""

    def __init__(self, zone: tzinfo, day: date | None) -> None:
        self.default_zone, self.default_day = zone, day
        self.problems: list[str] = []

    def read(self, text: str, name: str) -> Iterator[Event]:
        zone, day, source = self.default_zone, self.default_day, name
        event: Event | None = None
        previous: datetime | None = None
        for number, line in enumerate(text.splitlines(), 1):
            place = f"{name}:{number}"
            if not line.strip():
                continue
            if line.startswith("#"):
                if event is not None:
                    yield event
                    event = None
                settings = dict(DIRECTIVE.findall(line))
                try:
                    zone = parse_zone(settings["zone"]) if "zone" in settings else zone
                    day = parse_date(settings["date"]) if "date" in settings else day
                except InputError as exc:
                    # Everything below would be placed wrongly.
                    raise InputError(f"{place}: {exc}") from None
                source = settings.get("source", source)
                previous = None
                continue
            try:
                parsed = self.parse_time(line.lstrip(), zone, day, previous)
            except (ValueError, OverflowError, InputError) as exc:
                self.problems.append(f"{place}: {exc}")
                continue
            if parsed is None:
                if event is None:
                    self.problems.append(f"{place}: no time: {line.strip()[:50]!r}")
                else:
                    event.text = f"{event.text} {line.strip()}"
                continue
            if event is not None:
                yield event
            previous, rest = parsed
            event = Event(previous.astimezone(UTC), source, rest, place)
        if event is not None:
            yield event

    def parse_time(
        self, line: str, zone: tzinfo, day: date | None, previous: datetime | None
    ) -> tuple[datetime, str] | None:
        """The time at the front of a line and what follows; None without one. Raises ValueError."""
        if match := ISO.match(line):
            parts = [int(part or 0) for part in match.groups()[:6]]
            given = parse_zone(match[7]) if match[7] else zone
            at = datetime(*parts, tzinfo=given)
        elif match := EPOCH.match(line):
            at = datetime.fromtimestamp(int(match[1]), UTC)
        elif match := SYSLOG.match(line):
            if match[1] not in MONTHS:
                return None
            if day is None:
                raise ValueError("a syslog time has no year: give --date, or '# date: ...' above")
            hour, minute, second = int(match[3]), int(match[4]), int(match[5])
            at = datetime(day.year, MONTHS[match[1]], int(match[2]), hour, minute, second, tzinfo=zone)
        elif match := CLOCK.match(line):
            if day is None:
                raise ValueError("a time of day needs a date: give --date, or '# date: ...' above")
            at = datetime(
                day.year, day.month, day.day, int(match[1]), int(match[2]), int(match[3] or 0), tzinfo=zone
            )
            # Notes run forward: a time that jumps back by half a day and more belongs to the next day.
            while previous is not None and previous - at > timedelta(hours=12):
                at += timedelta(days=1)
        else:
            return None
        return at, line[match.end() :].strip(" -\t|")


def find_milestones(events: list[Event], problems: list[str]) -> dict[str, datetime]:
    found: dict[str, datetime] = {}
    for event in events:
        for word in MARK.findall(event.text):
            if word not in MILESTONES:
                continue
            if word in found:
                problems.append(f"{event.place}: a second !{word}; the first counts")
            else:
                found[word] = event.at
    known = [name for name in MILESTONES if name in found]
    for earlier, later in pairwise(known):
        if found[later] < found[earlier]:
            problems.append(
                f"!{later} ({found[later]:%H:%M:%S}) comes before !{earlier} ({found[earlier]:%H:%M:%S})"
            )
    return found


def show_span(span: timedelta) -> str:
    minutes, seconds = divmod(int(abs(span).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    text = (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    )
    return f"-{text}" if span < timedelta(0) else text


def cell(text: str) -> str:
    """Text for a Markdown table: milestones bold, no bars, nothing that is not printable."""
    text = "".join(char if char.isprintable() else " " for char in text).replace("|", "\\|")
    return MARK.sub(lambda match: f"**{match[1]}**" if match[1] in MILESTONES else match[0], text)


def print_timeline(events: list[Event], milestones: dict[str, datetime], gap: timedelta) -> None:
    zero = milestones.get("start", events[0].at)
    print(
        f"Times in UTC. T+0 is {zero:%Y-%m-%d %H:%M:%S}"
        + ("" if "start" in milestones else ", the first event")
        + ".\n"
    )
    print("| time | T+ | source | event |")
    print("|---|---|---|---|")
    last: datetime | None = None
    for event in events:
        if last is not None and event.at - last >= gap:
            print(f"| | | | *nothing noted for {show_span(event.at - last)}* |")
        day = f"{event.at:%Y-%m-%d} " if last is None or event.at.date() != last.date() else ""
        since = show_span(event.at - zero)
        print(f"| {day}{event.at:%H:%M:%S} | {since} | {cell(event.source)} | {cell(event.text)} |")
        last = event.at
    if spans := [span for span in SPANS if span[0] in milestones and span[1] in milestones]:
        print("\n| duration | |\n|---|---|")
        for start, end, name in spans:
            print(f"| {name} | {show_span(milestones[end] - milestones[start])} |")


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Merge notes into one timeline in UTC.")
    parser.add_argument("files", nargs="*", default=["-"], help="notes; default: standard input")
    parser.add_argument("--zone", default="UTC", help="zone of times without one; default: UTC")
    parser.add_argument("--date", metavar="YYYY-MM-DD", help="day of times without one, year of syslog times")
    parser.add_argument(
        "--gap-min", type=float, default=15, metavar="N", help="mark silences of N minutes; default: 15"
    )
    args = parser.parse_args()
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    try:
        reader = Reader(parse_zone(args.zone), parse_date(args.date) if args.date else None)
        events: list[Event] = []
        for name in args.files:
            try:
                if name == "-":
                    data = sys.stdin.buffer.read()
                else:
                    with open(name, "rb") as file:
                        data = file.read()
            except OSError as exc:
                raise InputError(f"{name}: {exc.strerror}") from None
            label = "notes" if name == "-" else name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
            events += reader.read(data.decode("utf-8-sig", "replace"), label)
    except InputError as exc:
        print(f"timeline.py: {exc}", file=sys.stderr)
        return 2
    # Sorting is stable: events of the same second stay in the order of the notes.
    events.sort(key=lambda event: event.at)
    milestones = find_milestones(events, reader.problems)
    for problem in reader.problems:
        print(f"timeline.py: {problem}", file=sys.stderr)
    if not events:
        print("timeline.py: no line with a time in the input", file=sys.stderr)
        return 2
    print_timeline(events, milestones, timedelta(minutes=args.gap_min))
    missing = [name for name in MILESTONES if name not in milestones]
    if missing:
        print(f"timeline.py: note: no {', '.join('!' + name for name in missing)}", file=sys.stderr)
    return 1 if reader.problems else 0


if __name__ == "__main__":
    sys.exit(main())
