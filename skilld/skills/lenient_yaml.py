"""
YAML frontmatter, read leniently and safely.

Values that YAML refuses (an unquoted ``: `` above all) and tabs are read as their author meant them, each with a
warning that names line and parser message. What comes out is JSON-safe: dates are ISO text, NaN and infinity stay as
written, keys are text, tags make no objects, and neither aliases nor nesting can blow it up.

Owns: nothing; values only. The one reader of PyYAML's events.

Source: YAML 1.1 as PyYAML's safe loader resolves it.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import yaml

from skilld.skills.model import Finding, Json

# A hand-written frontmatter has some dozens of values. The limits only have to stop alias and nesting bombs. A text
# counts once more for every so many characters: an alias to a long one is a bomb too, and so is a key made of keys.
VALUE_LIMIT = 20_000
CHARS_PER_VALUE = 100
DEPTH_LIMIT = 64
# No number that a double or 64 bits can hold needs more; longer ones take quadratic time to read.
NUMBER_LIMIT_CHARS = 400
# Each rescued value is one more run of the parser.
RESCUE_LIMIT = 32

# "key: value", perhaps as the first key of a list item; group "value" is None where nothing follows the colon. Each
# part ends in a character that the next cannot start with, or a line of a million blanks would take hours.
_KEY_LINE = re.compile(
    r"""^(?P<indent>[ ]*(?:-[ ]+)?)
    (?P<key>[^\s#:'"\[\]{},&*!|>%@`](?:[^:]*[^\s:])?|"[^"]*"|'[^']*')
    [ ]*:(?:[ \t]+(?P<value>[^ \t\r](?:.*[^ \t\r])?))?[ \t\r]*$""",
    re.VERBOSE,
)
# What YAML's reader refuses anywhere, and what YAML 1.1 takes for a line break although no editor does.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ODD_BREAK = re.compile("\r(?!\n)|[\x85\u2028\u2029]")
_CONSTRUCTOR = yaml.constructor.SafeConstructor()


class FrontmatterError(Exception):
    """A SKILL.md that cannot be read; ``finding`` says why and where."""

    def __init__(self, message: str, line: int | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.finding = Finding("error", message, field, line)


def parse_yaml(text: str, first_line: int = 1) -> tuple[dict[str, Json], dict[str, str], list[Finding]]:
    """
    Read a frontmatter, rescuing values that YAML refuses.

    Args:
        text: What stands between the two ``---`` lines.
        first_line: Number of its first line in the file.

    Returns:
        Every field, JSON-safe; the top-level plain and quoted scalars as written; warnings.

    Raises:
        FrontmatterError: Not a mapping, or beyond rescue; carries the parser's own message about the text as written.
    """
    findings: list[Finding] = []
    first_error: yaml.YAMLError | None = None
    rescued: set[int] = set()
    for _ in range(RESCUE_LIMIT):
        try:
            fields, written, more = _Builder(first_line).build(text)
        except yaml.YAMLError as exc:
            first_error = first_error or exc
            repaired = _rescue(text, exc, rescued)
            if repaired is None:
                break
            text, line, field = repaired
            findings.append(
                Finding(
                    "warning",
                    f"{_message(exc)}; the value was read as plain text",
                    field,
                    first_line + line,
                )
            )
        else:
            return fields, written, findings + more
    assert first_error is not None
    mark = _mark(first_error)
    raise FrontmatterError(_message(first_error), first_line + mark.line if mark else first_line)


class _Builder:
    """Builds JSON-safe values from PyYAML's events with a stack of its own, so that no input can exhaust ours."""

    def __init__(self, first_line: int) -> None:
        self.first_line = first_line
        self.values = 0
        self.anchors: dict[str, tuple[Json, int]] = {}
        self.findings: list[Finding] = []
        self.strict: set[str] = set()

    def build(self, text: str) -> tuple[dict[str, Json], dict[str, str], list[Finding]]:
        written: dict[str, str] = {}
        root: Json = None
        # A frame: the container, its pending key (mappings), the anchor, the value count at its start.
        stack: list[tuple[Any, list[Any], str | None, int]] = []
        open_anchors: set[str] = set()
        event: Any
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            kind = type(event)
            if kind is yaml.ScalarEvent:
                self._count(event)
                value: Json = self._scalar(event)
                raw = event.value
                if event.anchor:
                    self._note(event, "an anchor")
                    self.anchors[event.anchor] = (value, 1)
            elif kind is yaml.AliasEvent:
                if event.anchor in open_anchors:
                    raise FrontmatterError(f"alias *{event.anchor} refers to itself", self._line(event))
                if event.anchor not in self.anchors:
                    raise FrontmatterError(f"undefined alias *{event.anchor}", self._line(event))
                value, size = self.anchors[event.anchor]
                self._count(event, size)
                raw = value if isinstance(value, str) else None
            elif kind in (yaml.MappingStartEvent, yaml.SequenceStartEvent):
                self._count(event)
                if len(stack) >= DEPTH_LIMIT:
                    raise FrontmatterError(f"nested deeper than {DEPTH_LIMIT}", self._line(event))
                if event.flow_style:
                    self._note(event, "flow style ([...] or {...})")
                if event.tag and not event.tag.startswith("tag:yaml.org,2002:"):
                    self._tag(event)
                if event.anchor:
                    self._note(event, "an anchor")
                    open_anchors.add(event.anchor)
                empty: Json = {} if kind is yaml.MappingStartEvent else []
                stack.append((empty, [], event.anchor, self.values))
                continue
            elif kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent):
                value, _, anchor, before = stack.pop()
                raw = None
                if anchor:
                    open_anchors.discard(anchor)
                    self.anchors[anchor] = (value, self.values - before + 1)
            elif kind is yaml.DocumentStartEvent and root is not None:
                raise FrontmatterError("more than one YAML document", self._line(event))
            else:
                continue
            if not stack:
                root = value
                continue
            container, key, _, _ = stack[-1]
            if isinstance(container, list):
                container.append(value)
            elif not key:
                key.append(raw if raw is not None else json.dumps(value, ensure_ascii=False))
                key.append(event)
            else:
                self._set(container, key, value)
                if len(stack) == 1 and raw is not None:
                    written[key[0]] = raw
                elif len(stack) == 1:
                    written.pop(key[0], None)
                key.clear()
        if not isinstance(root, dict):
            raise FrontmatterError(f"the frontmatter must be a mapping, not {kind_of(root)}", self.first_line)
        return root, written, self.findings

    def _set(self, container: dict[str, Json], key: list[Any], value: Json) -> None:
        name, event = key
        if name == "<<" and getattr(event, "implicit", (False,))[0]:
            # YAML 1.1's merge key: earlier mappings win over later ones, own keys over both.
            for source in value if isinstance(value, list) else [value]:
                if isinstance(source, dict):
                    for inner, inner_value in source.items():
                        container.setdefault(inner, inner_value)
            return
        if name in container:
            self.findings.append(
                Finding("warning", f"{name!r} is given twice; the last counts", name, self._line(event))
            )
        container[name] = value

    def _scalar(self, event: Any) -> Json:
        text: str = event.value
        if event.implicit[0]:
            tag = _plain_tag(text)
        elif event.implicit[1] or event.tag == "!":
            return text
        elif event.tag.startswith("tag:yaml.org,2002:") and not event.tag.startswith("tag:yaml.org,2002:python/"):
            tag = event.tag
        else:
            self._tag(event)
            return text
        return _construct(tag, text)

    def _tag(self, event: Any) -> None:
        self.findings.append(Finding("warning", f"the tag {event.tag!r} is ignored", line=self._line(event)))

    def _note(self, event: Any, what: str) -> None:
        if what not in self.strict:
            self.strict.add(what)
            self.findings.append(
                Finding("warning", f"{what} is refused by strict parsers (skills-ref)", line=self._line(event))
            )

    def _count(self, event: Any, size: int = 1) -> None:
        self.values += size
        if self.values > VALUE_LIMIT:
            raise FrontmatterError(f"more than {VALUE_LIMIT:,} values", self._line(event))

    def _line(self, event: Any) -> int:
        return self.first_line + int(event.start_mark.line)


def _plain_tag(text: str) -> str:
    """Return the YAML 1.1 tag of a plain scalar, as PyYAML's safe loader resolves it."""
    candidates = yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], ())
    for tag, pattern in candidates:
        if pattern.match(text):
            return str(tag)
    return "tag:yaml.org,2002:str"


def _construct(tag: str, text: str) -> Json:
    """Make the JSON-safe value of a scalar; what its type refuses stays as written."""
    kind = tag.rpartition(":")[2]
    node = yaml.ScalarNode(tag, text)
    try:
        if kind == "null":
            return None
        if kind == "bool":
            return _CONSTRUCTOR.construct_yaml_bool(node)
        if kind == "int":
            return _CONSTRUCTOR.construct_yaml_int(node)
        if kind == "float":
            value = float(_CONSTRUCTOR.construct_yaml_float(node))
            return value if math.isfinite(value) else text
        if kind == "timestamp":
            return _CONSTRUCTOR.construct_yaml_timestamp(node).isoformat()
    except (ValueError, KeyError, IndexError, OverflowError, yaml.YAMLError, AttributeError):
        pass
    return text


def kind_of(value: Json) -> str:
    if value is None:
        return "empty"
    return {dict: "a mapping", list: "a list", bool: "a bool"}.get(type(value), "a scalar")


def _mark(error: yaml.YAMLError) -> Any:
    return getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)


def _message(error: yaml.YAMLError) -> str:
    """The parser's own words on one line: its problem, and its context where there is one."""
    parts = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    text = ", ".join(" ".join(str(part).split()) for part in parts if part)
    return f"YAML: {text or type(error).__name__}"


def _rescue(text: str, error: yaml.YAMLError, rescued: set[int]) -> tuple[str, int, str | None] | None:
    """
    Quote the value that the parser stumbled over, or replace tabs where it stumbled over one.

    Args:
        text: The frontmatter; not changed.
        error: What the parser said about it.
        rescued: Lines quoted before; the line quoted now is added.

    Returns:
        The new text, the line (from 0) and the key; None where nothing more can be tried.
    """
    lines = text.split("\n")
    marks = [getattr(error, "problem_mark", None), getattr(error, "context_mark", None)]
    # In an unclosed quote or bracket the error is far below; what opened it is the context.
    if str(getattr(error, "context", "")).startswith(("while scanning a quoted", "while parsing a flow")):
        marks.reverse()
    for mark in marks:
        if mark is None:
            continue
        start = min(int(mark.line), len(lines) - 1)
        indent = re.match(r"[ \t]*", lines[start])
        if indent and "\t" in indent.group():
            lines = [re.sub(r"^[ \t]+", lambda blank: blank.group().expandtabs(2), line) for line in lines]
            return "\n".join(lines), start, None
        number = _owner(lines, start)
        key_line = None if number is None else _KEY_LINE.match(lines[number])
        if number is not None and key_line and key_line["value"] and number not in rescued:
            rescued.add(number)
            return _quote_value(lines, number, key_line), number, key_line["key"].strip()
    return None


def _owner(lines: list[str], start: int) -> int | None:
    """Return the line whose key owns the text of line ``start``: a line above where ``start`` continues its value."""

    def indent(line: str) -> int:
        return len(line) - len(line.lstrip())

    owner = start
    for number in range(start - 1, -1, -1):
        if lines[number].strip() and indent(lines[number]) < indent(lines[owner]):
            above = _KEY_LINE.match(lines[number])
            if above and above["value"]:
                return number
            if above:
                break
            owner = number
    return owner if _KEY_LINE.match(lines[owner]) else None


def _quote_value(lines: list[str], number: int, key_line: re.Match[str]) -> str:
    """Return the text with the value of one key, its deeper-indented continuation included, in single quotes."""
    depth = len(key_line["indent"])
    end = number + 1
    while end < len(lines) and lines[end].strip() and len(lines[end]) - len(lines[end].lstrip()) > depth:
        end += 1
    value = " ".join(line.strip() for line in [key_line["value"], *lines[number + 1 : end]])
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    # "> text" on one line is no block scalar; the author meant the text.
    value = re.sub(r"^[>|][+-]?\s+", "", value)
    quoted = f"{key_line['indent']}{key_line['key']}: '" + value.replace("'", "''") + "'"
    # Blank lines keep the numbers of those below.
    return "\n".join([*lines[:number], quoted, *[""] * (end - number - 1), *lines[end:]])
