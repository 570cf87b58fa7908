"""
Replacing, adding and removing keys in the text of a SKILL.md, everything else byte for byte as it was.

There are two ways. The first goes by the parser's marks and touches single values. The second goes by lines, for
frontmatters that only a rescue made readable: it replaces the lines of the value. Neither is trusted: the caller reads
the result again.

Owns: nothing; values only.

Source: YAML 1.1, chapters 7 to 9.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from skilld.skills.frontmatter import split
from skilld.skills.model import Json
from skilld.skills.yaml_spans import Node, Unlocatable, locate, write_scalar

Wanted: TypeAlias = str | Mapping[str, str] | None
# Replace what stands between two offsets by a text.
Edit: TypeAlias = tuple[int, int, str]

# A key with the blanks before it. Each part ends in a character that the next cannot start with.
_KEY_LINE = re.compile(
    r"""(?P<indent>[ ]*)(?P<key>[^\s#:'"\[\]{},&*!|>%@`](?:[^:\n]*[^ :\n])?|"[^"\n]*"|'[^'\n]*')[ ]*:(?=\s)"""
)
# "|" or ">" with its indicators, and the comment that may follow them.
_BLOCK_HEADER_COMMENT = re.compile(r"[|>][0-9+-]*([ \t]+#[^\r\n]*)")
_ESCAPED_BYTES = re.compile("[\udc80-\udcff]")


def readable(text: str) -> str:
    """Return a text with each byte that was not UTF-8 as U+FFFD; offsets stay."""
    return _ESCAPED_BYTES.sub("\ufffd", text)


def line_end(text: str) -> str:
    r"""Return the line end that a text uses in its first line: ``\r\n`` or ``\n``."""
    return "\r\n" if text.partition("\n")[0].endswith("\r") else "\n"


def write_entry(key: str, value: Wanted, column: int, eol: str) -> str:
    """Write a key and its value in block style, indented by ``column`` blanks; without the last line end."""
    indent = " " * column
    if isinstance(value, Mapping):
        return f"{indent}{write_scalar(key)}:" + "".join(
            eol + write_entry(name, text, column + 2, eol) for name, text in value.items()
        )
    assert value is not None
    return f"{indent}{write_scalar(key)}: {write_scalar(value)}"


def splice_values(text: str, wanted: Mapping[str, Wanted], shown: Mapping[str, Json]) -> str | None:
    """
    Change single values by the parser's marks.

    Args:
        text: A SKILL.md; bytes that are not UTF-8 as lone surrogates.
        wanted: The values by their keys; None takes a key away. Of a map, only the entries that differ are touched.
        shown: The frontmatter as it is read.

    Returns:
        The text; None where the parser refuses the frontmatter or it is written in a way that is not understood.
    """
    start, yaml = _frontmatter(text)
    try:
        edits = list(_edits(yaml, locate(yaml), wanted, shown, line_end(text)))
    except Unlocatable:
        return None
    pieces, position = [], 0
    for first, last, new in sorted(edits, key=lambda edit: edit[:2]):
        pieces += [text[position : start + first], new]
        position = start + last
    return "".join([*pieces, text[position:]])


def splice_lines(text: str, wanted: Mapping[str, Wanted], shown: Mapping[str, Json]) -> str | None:  # noqa: ARG001
    """Change whole lines, going by the keys that begin a line; args and result as of :func:`splice_values`."""
    start, yaml = _frontmatter(text)
    eol = line_end(text)
    lines = re.findall(r"[^\n]*\n", yaml)
    keys = {number: match for number, match in enumerate(map(_KEY_LINE.match, lines)) if match}
    if not keys:
        return None
    indent = len(next(iter(keys.values()))["indent"])
    owners = [number for number, match in keys.items() if len(match["indent"]) == indent]
    ends = {
        owner: _value_end(lines, owner, below, indent)
        for owner, below in zip(owners, [*owners[1:], len(lines)], strict=True)
    }
    last = ends[owners[-1]] - 1
    added = ""
    for key, value in wanted.items():
        places = [owner for owner in owners if keys[owner]["key"].strip("'\"") == key]
        for owner in places if value is None else places[-1:]:
            lines[owner : ends[owner]] = [""] * (ends[owner] - owner)
            if value is not None:
                lines[owner] = write_entry(key, value, indent, eol) + eol
        if value is not None and not places:
            added += write_entry(key, value, indent, eol) + eol
    lines[last] += added
    return text[:start] + "".join(lines) + text[start + len(yaml) :]


# In the order of trust.
WAYS = (splice_values, splice_lines)


def _frontmatter(text: str) -> tuple[int, str]:
    """Return where the YAML begins, and the YAML."""
    parts = split(readable(text))
    start = 0
    for _ in range(parts.first_line):
        start = text.index("\n", start) + 1
    return start, readable(text)[start : start + len(parts.yaml)]


def _edits(
    text: str, mapping: Node, wanted: Mapping[str, Wanted], shown: Mapping[str, Json], eol: str
) -> Iterator[Edit]:
    """Yield what changes a mapping's entries; those of one offset in their order."""
    for key, value in wanted.items():
        pairs = [pair for pair in mapping.pairs if pair[0].value == key]
        if value is None:
            yield from (_removal(text, mapping, pair) for pair in pairs)
        elif not pairs:
            yield _addition(text, mapping, key, value, eol)
        elif isinstance(value, Mapping) and pairs[-1][1].style == "block" and pairs[-1][1].is_mapping:
            there = shown[key] if isinstance(shown[key], dict) else {}
            differing = {name: entry for name, entry in value.items() if there.get(name) != entry}
            gone = dict.fromkeys(name for name in there if name not in value)
            yield from _edits(text, pairs[-1][1], {**gone, **differing}, {}, eol)
        else:
            # Of keys that are given twice the last one counts.
            yield from _replacement(text, mapping, pairs[-1], value, eol)


def _replacement(
    text: str, mapping: Node, pair: tuple[Node, Node], value: str | Mapping[str, str], eol: str
) -> Iterator[Edit]:
    key, old = pair
    if mapping.style == "flow":
        yield old.start, old.end, " " + _in_flow(value)
        return
    colon = _colon(text, key)
    if isinstance(value, str):
        written = " " + write_scalar(value, old.style if old.style in "'\"" else "")
        header = _BLOCK_HEADER_COMMENT.match(text, old.start, old.end)
        written += header[1] if header and old.style in "|>" else ""
    else:
        written = "".join(eol + write_entry(name, entry, key.column + 2, eol) for name, entry in value.items())
    line_start = text.rfind("\n", 0, old.start) + 1
    if line_start > colon:
        # It stands below its key. What is between them, comments, stays.
        yield colon, colon, written
        yield line_start - (2 if text[:line_start].endswith("\r\n") else 1), old.end, ""
    elif isinstance(value, str) and old.start > colon:
        yield old.start, old.end, written[1:]
    else:
        yield colon, old.end, written


def _addition(text: str, mapping: Node, key: str, value: str | Mapping[str, str], eol: str) -> Edit:
    if mapping.style == "flow":
        position = mapping.end - 1
        comma = "" if not mapping.pairs or text[:position].rstrip().endswith(",") else ", "
        return position, position, f"{comma}{write_scalar(key, in_flow=True)}: {_in_flow(value)}"
    position = mapping.pairs[-1][1].tail
    if text[position - 1] != "\n":
        position = text.index("\n", position) + 1
    return position, position, write_entry(key, value, mapping.pairs[0][0].column, eol) + eol


def _removal(text: str, mapping: Node, pair: tuple[Node, Node]) -> Edit:
    """Remove an entry with the lines that it stands in, and the comment behind it."""
    key, value = pair
    if mapping.style == "flow":
        number = mapping.pairs.index(pair)
        if number + 1 < len(mapping.pairs):
            return key.start, mapping.pairs[number + 1][0].start, ""
        return (mapping.pairs[number - 1][1].end if number else key.start), value.end, ""
    start = text.rfind("\n", 0, key.start) + 1
    if text[start : key.start].strip(" "):
        raise Unlocatable
    return start, text.index("\n", value.end) + 1, ""


def _colon(text: str, key: Node) -> int:
    """Return the offset behind the colon of a key."""
    found = re.compile(r"[ \t]*:").match(text, key.end)
    if found is None:
        raise Unlocatable
    return found.end()


def _in_flow(value: str | Mapping[str, str]) -> str:
    if isinstance(value, str):
        return write_scalar(value, in_flow=True)
    pairs = (f"{write_scalar(key, in_flow=True)}: {write_scalar(text, in_flow=True)}" for key, text in value.items())
    return "{" + ", ".join(pairs) + "}"


def _value_end(lines: list[str], owner: int, below: int, indent: int) -> int:
    """Return the number of the line behind a value: blank lines and comments below it are not its own."""
    end = below
    while end > owner + 1:
        line = lines[end - 1]
        is_comment = line.lstrip(" ").startswith("#") and len(line) - len(line.lstrip(" ")) <= indent
        if line.strip() and not is_comment:
            break
        end -= 1
    return end
