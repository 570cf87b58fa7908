#!/usr/bin/env python3
"""
Profile a CSV file: for every column its type, missing and distinct values, range, and what looks wrong.

    csv_profile.py data.csv
    csv_profile.py --delimiter ';' --json < data.csv

Reads FILE or standard input once, line by line, in bounded memory. Delimiter, encoding and header are guessed
and printed; the options overrule each guess.

Types: integer, decimal, boolean, date, datetime, text, and "empty". A column has the type that at least 95 %
of its values share, else text; odd values are reported with a row number. Row 1 is the first row after the
header; blank rows do not count. The deviation is that of the whole population.

Exit codes: 0 profiled, 1 profiled and something looks wrong, 2 the input or the call is wrong.

Source: RFC 4180; ISO 8601 for dates.
"""

import argparse
import codecs
import csv
import io
import json
import math
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date

MISSING = {"", "na", "n/a", "nan", "null", "none", "nil", "-", "--", "?", "#n/a", "\\n"}
# Distinct values kept for each column; above, the count is a lower bound.
LIMIT_DISTINCT = 10_000
LIMIT_FIELD_CHARS = 1_000_000
SAMPLE_BYTES = 64 * 1024
DELIMITERS = ",;\t|"
DOMINANT = 0.95

INTEGER = re.compile(r"[+-]?\d{1,3}(,\d{3})+|[+-]?\d+")
DECIMAL = re.compile(r"[+-]?(\d{1,3}(,\d{3})+\.\d*|\d+\.\d*|\.\d+|\d+(\.\d*)?[eE][+-]?\d+)")
DECIMAL_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})*|\d+),\d+")
BOOLEANS = {"true", "false", "yes", "no", "t", "f", "y", "n"}
ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")
ISO_DATETIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d{1,6})?)?\s?(Z|[+-]\d\d:?\d\d)?")
SLASH_DATE = re.compile(r"(\d{1,2})[/.](\d{1,2})[/.](\d{4})")


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class InputError(Exception):
    """The input cannot be read as CSV; the message says why."""


# --- reading ------------------------------------------------------------------------------------------


def guess_encoding(sample: bytes) -> str:
    """From a byte-order mark, else UTF-8 if the sample is valid UTF-8, else Windows-1252, else Latin-1."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if sample.startswith(mark):
            return name
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
        return "utf-8"
    except UnicodeDecodeError:
        pass
    try:
        sample.decode("cp1252")
        return "cp1252"
    except UnicodeDecodeError:
        return "latin-1"


def guess_delimiter(sample: str) -> str:
    """The candidate that splits the first rows into the same number (above 1) of fields most often."""
    # The last line of the sample may be cut in two.
    lines = sample.splitlines()[:200]
    lines = lines[:-1] if len(lines) > 1 else lines
    best, best_score = ",", 0.0
    for delimiter in DELIMITERS:
        try:
            widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter) if row)
        except csv.Error:
            continue
        if not widths:
            continue
        width, rows = widths.most_common(1)[0]
        score = rows / sum(widths.values()) * (1 + width / 1000) if width > 1 else 0.0
        if score > best_score:
            best, best_score = delimiter, score
    return best


def guess_header(first: list[str], second: list[str]) -> bool:
    """A header holds no number and no date; names all different, or figures in the row below, settle it."""

    def has_figures(row: list[str]) -> bool:
        return any(classify(cell.strip()) not in ("text", "boolean") for cell in row)

    names = [name.strip().lower() for name in first]
    are_good_names = len(set(names)) == len(names) and not MISSING.intersection(names)
    return not has_figures(first) and (are_good_names or has_figures(second))


# --- one column ---------------------------------------------------------------------------------------


def classify(value: str) -> str:
    """Type of one value that is not missing."""
    # Beyond this length a number overflows a float.
    if len(value) > 300:
        return "text"
    if INTEGER.fullmatch(value):
        return "integer"
    if DECIMAL.fullmatch(value):
        return "decimal" if math.isfinite(to_number(value)) else "text"
    if value.lower() in BOOLEANS:
        return "boolean"
    try:
        if ISO_DATE.fullmatch(value):
            date.fromisoformat(value)
            return "date"
        if ISO_DATETIME.fullmatch(value):
            return "datetime"
    except ValueError:
        return "text"
    return "text"


def to_number(value: str) -> float:
    return float(value.replace(",", ""))


class Column:
    """Running figures of one column."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.missing = 0
        self.types: Counter[str] = Counter()
        self.first_row: dict[str, int] = {}
        self.distinct: Counter[str] = Counter()
        self.is_distinct_exact = True
        self.low: dict[str, str] = {}
        self.high: dict[str, str] = {}
        self.number_count = 0
        self.mean = 0.0
        self.squares = 0.0
        self.shortest: int | None = None
        self.longest = 0
        self.padded = 0
        self.multiline = 0
        self.undecodable = 0
        self.comma_decimals = 0
        self.slash_dates = [0, 0, 0]
        self.leading_zeros = 0

    def add(self, raw: str, row: int) -> None:
        self.count += 1
        value = raw.strip()
        self.padded += value != raw
        self.multiline += "\n" in value
        self.undecodable += "\N{REPLACEMENT CHARACTER}" in raw
        if value.lower() in MISSING:
            self.missing += 1
            return
        kind = classify(value)
        self.types[kind] += 1
        self.first_row.setdefault(kind, row)
        if value in self.distinct or len(self.distinct) < LIMIT_DISTINCT:
            self.distinct[value] += 1
        else:
            self.is_distinct_exact = False
        self.shortest = len(value) if self.shortest is None else min(self.shortest, len(value))
        self.longest = max(self.longest, len(value))
        if kind in ("integer", "decimal"):
            self.add_number(value)
        else:
            self.low[kind] = min(self.low.get(kind, value), value)
            self.high[kind] = max(self.high.get(kind, value), value)
        if kind == "integer" and len(value) > 1 and value[0] == "0":
            self.leading_zeros += 1
        if kind == "text":
            self.comma_decimals += bool(DECIMAL_COMMA.fullmatch(value))
            if match := SLASH_DATE.fullmatch(value):
                first, second = int(match[1]), int(match[2])
                self.slash_dates[0] += 1
                self.slash_dates[1] += first > 12
                self.slash_dates[2] += second > 12

    def add_number(self, value: str) -> None:
        """Welford's running mean and variance; low and high keep the text: big integers stay exact."""
        number = to_number(value)
        self.number_count += 1
        delta = number - self.mean
        self.mean += delta / self.number_count
        self.squares += delta * (number - self.mean)
        if "number" not in self.low or number < to_number(self.low["number"]):
            self.low["number"] = value
        if "number" not in self.high or number > to_number(self.high["number"]):
            self.high["number"] = value

    @property
    def type(self) -> str:
        present = self.count - self.missing
        if not present:
            return "empty"
        kind, count = self.types.most_common(1)[0]
        numbers = self.types["integer"] + self.types["decimal"]
        if self.types["decimal"] and numbers >= DOMINANT * present:
            return "decimal"
        dates = self.types["date"] + self.types["datetime"]
        if self.types["datetime"] and dates >= DOMINANT * present:
            return "datetime"
        return kind if count >= DOMINANT * present else "text"

    def range(self) -> str:
        if self.type in ("integer", "decimal"):
            deviation = math.sqrt(self.squares / self.number_count)
            low, high = self.low["number"], self.high["number"]
            return f"{low} to {high}, mean {self.mean:.6g}, deviation {deviation:.6g}"
        if self.type in ("date", "datetime"):
            lows = [self.low[kind] for kind in ("date", "datetime") if kind in self.low]
            highs = [self.high[kind] for kind in ("date", "datetime") if kind in self.high]
            return f"{min(lows)} to {max(highs)}"
        if self.type in ("boolean", "empty"):
            return ""
        if self.shortest == self.longest:
            return f"{self.longest} characters"
        return f"{self.shortest} to {self.longest} characters"

    def top(self) -> list[tuple[str, int]]:
        """The most frequent values, unless nearly all differ."""
        common = self.distinct.most_common(3)
        return common if common and common[0][1] > 1 else []

    def warnings(self) -> Iterator[str]:
        present = self.count - self.missing
        kind = self.type
        if kind == "empty":
            yield "no value at all"
            return
        family = {"decimal": ("integer", "decimal"), "datetime": ("date", "datetime")}.get(kind, (kind,))
        for odd in sorted(set(self.types) - set(family)) if kind != "text" else ():
            yield f"{plural(self.types[odd], 'value')} of type {odd}, the first in row {self.first_row[odd]}"
        if kind == "text":
            families = {
                "numbers": ("integer", "decimal"),
                "dates": ("date", "datetime"),
                "booleans": ("boolean",),
            }
            for name, kinds in families.items():
                count = sum(self.types[member] for member in kinds)
                if present > count >= 0.5 * present:
                    row = min(self.first_row[member] for member in self.types if member not in kinds)
                    yield f"{count} of {present} values are {name}; the first other one is in row {row}"
        if self.comma_decimals > 0.5 * present:
            yield "decimal comma: numbers like 1,5 are read as text"
        days, first_high, second_high = self.slash_dates
        if days > 0.5 * present:
            order = (
                "day first"
                if first_high and not second_high
                else "month first"
                if second_high and not first_high
                else "order of day and month unclear"
            )
            yield f"dates not in ISO form ({order})"
        if self.leading_zeros:
            yield f"{plural(self.leading_zeros, 'integer')} with leading zeros: probably codes, keep as text"
        if self.padded:
            yield f"{plural(self.padded, 'value')} with white space around"
        if self.multiline:
            yield f"{plural(self.multiline, 'value')} with line breaks inside: wanted, or an unclosed quote?"
        if self.undecodable:
            yield f"{plural(self.undecodable, 'value')} with characters that are not in the file's encoding"
        if self.is_distinct_exact and len(self.distinct) == 1 and self.count > 1:
            yield "constant" if not self.missing else "constant where present"


# --- the table ----------------------------------------------------------------------------------------


class Profile:
    """What is known of the whole table."""

    def __init__(self) -> None:
        self.columns: list[Column] = []
        self.rows = 0
        self.blank_rows = 0
        self.ragged: Counter[int] = Counter()
        self.first_ragged = 0
        self.duplicates = 0
        self.is_duplicates_exact = True
        self.has_header = True
        self.encoding = ""
        self.delimiter = ""

    def warnings(self) -> Iterator[str]:
        names = Counter(column.name for column in self.columns)
        for name, count in names.items():
            if count > 1:
                yield f"{count} columns are named {name!r}"
            if not name.strip():
                yield f"columns without a name: {count}"
        if self.ragged:
            widths = ", ".join(f"{rows} with {width}" for width, rows in sorted(self.ragged.items())[:5])
            yield f"rows without {len(self.columns)} fields: {widths}; the first is row {self.first_ragged}"
        if self.duplicates:
            bound = "" if self.is_duplicates_exact else "at least "
            yield f"rows that repeat an earlier one: {bound}{self.duplicates}"
        for column in self.columns:
            for warning in column.warnings():
                yield f"{column.name}: {warning}"


def profile(
    stream: io.BufferedIOBase, encoding: str | None, delimiter: str | None, header: bool | None
) -> Profile:
    """Read the whole stream. Raises InputError."""
    sample = stream.read(SAMPLE_BYTES)
    if not sample.strip():
        raise InputError("the input is empty")
    result = Profile()
    result.encoding = encoding or guess_encoding(sample)
    if encoding is None and b"\0" in sample and result.encoding != "utf-16":
        raise InputError(
            "NUL bytes: not a text file, or UTF-16 without a byte-order mark (--encoding utf-16-le)"
        )
    try:
        decoder = codecs.getincrementaldecoder(result.encoding)()
        result.delimiter = delimiter or guess_delimiter(decoder.decode(sample))
    except (LookupError, UnicodeDecodeError) as exc:
        raise InputError(f"encoding {result.encoding}: {exc}") from None

    # What follows the sample may not be in the guessed encoding: count such characters rather than stop.
    text = io.TextIOWrapper(Chain(sample, stream), encoding=result.encoding, errors="replace", newline="")
    csv.field_size_limit(LIMIT_FIELD_CHARS)
    reader = csv.reader(text, delimiter=result.delimiter)
    seen: set[int] = set()
    try:
        first = next((row for row in reader if row), None)
        if first is None:
            raise InputError("no row with a value")
        second = next((row for row in reader if row), [])
        result.has_header = guess_header(first, second) if header is None else header
        names = first if result.has_header else [f"column {number}" for number in range(1, len(first) + 1)]
        result.columns = [Column(name.strip()) for name in names]
        if not result.has_header:
            add_row(result, first, seen)
        if second:
            add_row(result, second, seen)
        for row in reader:
            add_row(result, row, seen)
    except csv.Error as exc:
        raise InputError(f"line {reader.line_num}: {exc}") from None
    return result


def add_row(result: Profile, row: list[str], seen: set[int]) -> None:
    if not any(cell.strip() for cell in row):
        result.blank_rows += 1
        return
    result.rows += 1
    if len(row) != len(result.columns):
        result.ragged[len(row)] += 1
        result.first_ragged = result.first_ragged or result.rows
    key = hash(tuple(row))
    if key in seen:
        result.duplicates += 1
    elif len(seen) < 1_000_000:
        seen.add(key)
    else:
        result.is_duplicates_exact = False
    for index, column in enumerate(result.columns):
        column.add(row[index] if index < len(row) else "", result.rows)


class Chain(io.RawIOBase):
    """The sample that was read ahead, then the rest of the stream."""

    def __init__(self, head: bytes, tail: io.BufferedIOBase) -> None:
        self.head, self.tail = head, tail

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self.head[: len(buffer)] if self.head else self.tail.read(len(buffer))
        self.head = self.head[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)

    def read1(self, size: int = -1) -> bytes:
        """TextIOWrapper asks for this; without it every read would go through readinto."""
        data = self.head or self.tail.read(SAMPLE_BYTES if size < 0 else size)
        self.head = b""
        return data


# --- output -------------------------------------------------------------------------------------------


def cell(text: object) -> str:
    """Text for a Markdown table: one line, printable, no bar, at most 40 characters."""
    line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text)).replace(
        "|", "\\|"
    )
    return line if len(line) <= 40 else line[:39] + "…"


def print_markdown(result: Profile, warnings: list[str]) -> None:
    shown = {"\t": "tab"}.get(result.delimiter, result.delimiter)
    header = "first row is a header" if result.has_header else "no header"
    blank = f", {result.blank_rows} blank" if result.blank_rows else ""
    print(f"{result.rows} rows{blank}, {len(result.columns)} columns")
    print(f"{result.encoding}, delimiter {shown}, {header}\n")
    print("| column | type | missing | distinct | range | most frequent |")
    print("|---|---|---|---|---|---|")
    for column in result.columns:
        share = f"{column.missing} ({column.missing / column.count:.0%})" if column.missing else "0"
        distinct = f"{len(column.distinct)}" + ("" if column.is_distinct_exact else "+")
        top = ", ".join(f"{cell(value)} ×{count}" for value, count in column.top())
        values = column.range()
        values = values if column.type in ("integer", "decimal") else cell(values)
        print(f"| {cell(column.name)} | {column.type} | {share} | {distinct} | {values} | {top} |")
    if warnings:
        print("\nLooks wrong:\n")
        for warning in warnings:
            print(
                "- "
                + "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in warning)
            )


def print_json(result: Profile, warnings: list[str]) -> None:
    columns = [
        {
            "name": column.name,
            "type": column.type,
            "count": column.count,
            "missing": column.missing,
            "distinct": len(column.distinct),
            "distinct_exact": column.is_distinct_exact,
            "range": column.range(),
            "mean": column.mean if column.type in ("integer", "decimal") else None,
            "top": column.top(),
        }
        for column in result.columns
    ]
    facts = {
        "rows": result.rows,
        "blank_rows": result.blank_rows,
        "encoding": result.encoding,
        "delimiter": result.delimiter,
        "has_header": result.has_header,
        "columns": columns,
        "warnings": warnings,
    }
    print(json.dumps(facts, ensure_ascii=False, indent=2))


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Profile a CSV file.")
    parser.add_argument("file", nargs="?", default="-", help="CSV file; default: standard input")
    parser.add_argument("--delimiter", help="one character, or 'tab'")
    parser.add_argument("--encoding", help="such as utf-8, cp1252, utf-16-le")
    parser.add_argument(
        "--header", action=argparse.BooleanOptionalAction, default=None, help="the first row holds names"
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of Markdown")
    args = parser.parse_args()
    delimiter = {"tab": "\t", "\\t": "\t"}.get(args.delimiter, args.delimiter)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        print(f"csv_profile.py: --delimiter {args.delimiter!r}: want one character, or tab", file=sys.stderr)
        return 2
    try:
        if args.file == "-":
            result = profile(sys.stdin.buffer, args.encoding, delimiter, args.header)
        else:
            with open(args.file, "rb") as file:
                result = profile(file, args.encoding, delimiter, args.header)
    except OSError as exc:
        print(f"csv_profile.py: {args.file}: {exc.strerror}", file=sys.stderr)
        return 2
    except InputError as exc:
        print(f"csv_profile.py: {exc}", file=sys.stderr)
        return 2
    warnings = list(result.warnings())
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    if args.json:
        print_json(result, warnings)
    else:
        print_markdown(result, warnings)
    return 1 if warnings else 0


if __name__ == "__main__":
    sys.exit(main())
