#!/usr/bin/env python3
"""
Compare two JSON documents by structure: which values changed, where, and how to get from one to the other.

    json_diff.py old.json new.json
    cat old.json new.json | json_diff.py -           two documents, one after the other, on standard input
    json_diff.py --key id --ignore '/items/*/updated_at' old.json new.json
    json_diff.py --patch old.json new.json           RFC 6902 patch that turns old into new

Order of object members does not matter. Arrays are aligned like lines of a text; with --key, an array whose
items are objects with that member is compared by it, whatever the order. Numbers are compared by value (1
equals 1.0) and exactly, never as floats. Paths are JSON Pointers (RFC 6901); removed and changed values carry
the path in the old document, added ones the path in the new.

Exit codes: 0 equal, 1 different, 2 the input or the call is wrong.
"""

import argparse
import difflib
import json
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

# Aligning costs time with the product of the lengths; longer arrays are compared index by index.
LIMIT_ALIGN = 2_000
MISSING = object()


class InputError(Exception):
    """A document cannot be read; the message says which and why."""


@dataclass(frozen=True)
class Change:
    """
    One difference. ``old_path`` is where it happens in the old document (for an insertion, the index that the
    new item takes there), so that the changes, applied from the last to the first, form a patch.
    """

    op: str
    old_path: str
    new_path: str
    old: object = MISSING
    new: object = MISSING


def pointer(parent: str, key: object) -> str:
    return f"{parent}/{str(key).replace('~', '~0').replace('/', '~1')}"


class Number(str):
    """A JSON number as it was written: no digit is lost, and no exponent is too large."""

    @property
    def value_text(self) -> str:
        """Text that is the same for equal values, such as ``15e-1`` for 1.5 and 1.50."""
        match = re.fullmatch(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?", self)
        assert match is not None
        sign, whole, fraction, power = match[1], match[2], match[3] or "", match[4] or "0"
        digits = (whole + fraction).lstrip("0")
        significant = digits.rstrip("0")
        exponent = int(power) - len(fraction) + len(digits) - len(significant)
        return f"{sign}{significant}e{exponent}" if significant else "0"


def canonical(value: object) -> str:
    """Text that is the same for equal values: members sorted, numbers by value."""
    if isinstance(value, Number):
        return value.value_text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{canonical(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return json.dumps(value)


def compare(old: object, new: object, old_path: str, new_path: str, options: "Options") -> Iterator[Change]:
    """All changes below one value, in document order."""
    if options.is_ignored(old_path) or options.is_ignored(new_path):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        yield from compare_objects(old, new, old_path, new_path, options)
    elif isinstance(old, list) and isinstance(new, list):
        key = options.key
        if key and is_keyed(old, key) and is_keyed(new, key):
            yield from compare_keyed(old, new, key, old_path, new_path, options)
        else:
            yield from compare_arrays(old, new, old_path, new_path, options)
    elif canonical(old) != canonical(new):
        yield Change("replace", old_path, new_path, old, new)


def compare_objects(
    old: dict, new: dict, old_path: str, new_path: str, options: "Options"
) -> Iterator[Change]:
    for name in [*old, *(name for name in new if name not in old)]:
        here, there = pointer(old_path, name), pointer(new_path, name)
        if name not in new:
            yield from removed(old[name], here, there, options)
        elif name not in old:
            yield from added(new[name], here, there, options)
        else:
            yield from compare(old[name], new[name], here, there, options)


def removed(value: object, here: str, there: str, options: "Options") -> Iterator[Change]:
    if not options.is_ignored(here):
        yield Change("remove", here, there, old=value)


def added(value: object, here: str, there: str, options: "Options") -> Iterator[Change]:
    if not options.is_ignored(there):
        yield Change("add", here, there, new=value)


def compare_arrays(
    old: list, new: list, old_path: str, new_path: str, options: "Options"
) -> Iterator[Change]:
    """Align equal items; pair what stands between them in order."""
    if max(len(old), len(new)) > LIMIT_ALIGN:
        blocks = [(0, len(old), 0, len(new))]
    else:
        left, right = [canonical(item) for item in old], [canonical(item) for item in new]
        matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
        blocks = [block[1:] for block in matcher.get_opcodes() if block[0] != "equal"]
    for old_start, old_end, new_start, new_end in blocks:
        pairs = min(old_end - old_start, new_end - new_start)
        for offset in range(pairs):
            i, j = old_start + offset, new_start + offset
            yield from compare(old[i], new[j], pointer(old_path, i), pointer(new_path, j), options)
        for i in range(old_start + pairs, old_end):
            yield from removed(old[i], pointer(old_path, i), pointer(new_path, i), options)
        for j in range(new_start + pairs, new_end):
            yield from added(new[j], pointer(old_path, old_start + pairs), pointer(new_path, j), options)


def is_keyed(items: list, key: str) -> bool:
    """True if every item is an object whose ``key`` is a text or number that no other item has."""
    values = [item.get(key) if isinstance(item, dict) else None for item in items]
    return all(isinstance(value, str) for value in values) and len(
        {canonical(value) for value in values}
    ) == len(values)


def compare_keyed(
    old: list, new: list, key: str, old_path: str, new_path: str, options: "Options"
) -> Iterator[Change]:
    """Match items by ``key``; their order does not count, and new ones go to the end."""
    places = {canonical(item[key]): index for index, item in enumerate(new)}
    for index, item in enumerate(old):
        place = places.pop(canonical(item[key]), None)
        here = pointer(old_path, index)
        if place is None:
            yield from removed(item, here, here, options)
        else:
            yield from compare(item, new[place], here, pointer(new_path, place), options)
    for place in sorted(places.values()):
        yield from added(new[place], pointer(old_path, len(old)), pointer(new_path, place), options)


@dataclass(frozen=True)
class Options:
    """``ignore`` holds patterns of paths: ``*`` is one step, ``**`` any number of steps."""

    key: str | None = None
    ignore: tuple[re.Pattern[str], ...] = ()

    def is_ignored(self, path: str) -> bool:
        return any(pattern.fullmatch(path) for pattern in self.ignore)


def parse_ignore(text: str) -> re.Pattern[str]:
    """A path pattern as a regular expression. Raises InputError."""
    if not text.startswith("/"):
        raise InputError(f"--ignore {text}: a path begins with /")
    steps = {"**": ".*", "*": "[^/]*"}
    return re.compile("/" + "/".join(steps.get(step) or re.escape(step) for step in text[1:].split("/")))


# --- reading ------------------------------------------------------------------------------------------


def once(pairs: list[tuple[str, object]]) -> dict:
    found: dict = {}
    for name, value in pairs:
        if name in found:
            raise InputError(f"member {name!r} occurs twice in one object")
        found[name] = value
    return found


def no_constant(text: str) -> object:
    raise InputError(f"{text} is not JSON")


def to_number(text: str) -> Number:
    # int() refuses more digits than this, and no honest document has them.
    if len(text.lower().partition("e")[2]) > 1000:
        raise InputError("a number with an exponent of over 1,000 digits")
    return Number(text)


DECODER = json.JSONDecoder(
    parse_float=to_number, parse_int=to_number, parse_constant=no_constant, object_pairs_hook=once
)


def parse_documents(data: bytes, name: str, count: int) -> list[object]:
    """``count`` JSON documents that follow each other. Raises InputError, which names the file."""
    try:
        text = data.decode("utf-8-sig")
        documents, at = [], 0
        for _ in range(count):
            at = len(text) - len(text[at:].lstrip(" \t\r\n\x1e\ufeff"))
            if at == len(text):
                raise InputError(f"{count} documents expected, {len(documents)} found")
            document, at = DECODER.raw_decode(text, at)
            documents.append(document)
        if text[at:].strip(" \t\r\n\x1e\ufeff"):
            line = text.count("\n", 0, at) + 1
            raise InputError(f"more than {count} documents: text left in line {line}")
    except UnicodeDecodeError:
        raise InputError(f"{name}: not UTF-8") from None
    except RecursionError:
        raise InputError(f"{name}: nested too deep") from None
    except ValueError as exc:
        raise InputError(f"{name}: not JSON: {exc}") from None
    except InputError as exc:
        raise InputError(f"{name}: {exc}") from None
    return documents


# --- output -------------------------------------------------------------------------------------------


def write_json(value: object) -> str:
    """Compact JSON with every number as it was written."""
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(f"{json.dumps(k, ensure_ascii=False)}:{write_json(v)}" for k, v in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(write_json, value)) + "]"
    return str(value) if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def printable(text: str) -> str:
    """Paths and values come from the input: none may start a line or reach the terminal as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def show(value: object, width: int) -> str:
    text = printable(write_json(value))
    return text if len(text) <= width else f"{text[: width - 1]}… ({len(text)} characters)"


def print_changes(changes: list[Change], width: int) -> None:
    marks = {"add": "+", "remove": "-", "replace": "~"}
    for change in changes:
        path = printable(change.new_path if change.op == "add" else change.old_path) or "(whole)"
        moved = (
            f" (now {printable(change.new_path)})"
            if change.op == "replace" and change.new_path != change.old_path
            else ""
        )
        values = [show(value, width) for value in (change.old, change.new) if value is not MISSING]
        print(f"{marks[change.op]} {path}{moved}: {' -> '.join(values)}")


def print_patch(changes: list[Change]) -> None:
    operations = []
    # From the last to the first: then no change shifts the indexes that another one names.
    for change in reversed(changes):
        value = "" if change.new is MISSING else f', "value": {write_json(change.new)}'
        path = json.dumps(change.old_path, ensure_ascii=False)
        operations.append(f'  {{"op": "{change.op}", "path": {path}{value}}}')
    print("[\n" + ",\n".join(operations) + "\n]" if operations else "[]")


def read_bytes(path: str) -> bytes:
    try:
        if path == "-":
            return sys.stdin.buffer.read()
        with open(path, "rb") as file:
            return file.read()
    except OSError as exc:
        raise InputError(f"{path}: {exc.strerror}") from None


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Compare two JSON documents by structure.")
    parser.add_argument("files", nargs="*", metavar="FILE", help="OLD NEW; or - for both on standard input")
    parser.add_argument("--key", help="member that identifies the items of arrays of objects")
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="PATH",
        help="path to leave out; * and ** match steps",
    )
    parser.add_argument("--patch", action="store_true", help="print an RFC 6902 patch")
    parser.add_argument(
        "--width", type=int, default=100, metavar="N", help="characters shown of a value; default: 100"
    )
    args = parser.parse_args()
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    files = args.files or ["-"]
    try:
        options = Options(args.key, tuple(parse_ignore(text) for text in args.ignore))
        if files == ["-"]:
            old, new = parse_documents(read_bytes("-"), "<stdin>", 2)
        elif len(files) == 2:
            old, new = (parse_documents(read_bytes(path), path, 1)[0] for path in files)
        else:
            raise InputError("want OLD and NEW, or - for both on standard input")
        changes = list(compare(old, new, "", "", options))
    except InputError as exc:
        print(f"json_diff.py: {exc}", file=sys.stderr)
        return 2
    except RecursionError:
        print("json_diff.py: nested too deep", file=sys.stderr)
        return 2
    if args.patch:
        print_patch(changes)
    else:
        print_changes(changes, max(args.width, 10))
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
