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
from dataclasses import dataclass
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
# Each rescued value is one more run of the parser over the whole frontmatter: so many runs, over so many characters.
RESCUE_LIMIT = 32
RESCUE_LIMIT_CHARS = 1 << 20

# "key: value", perhaps as the first key of a list item; group "value" is None where nothing follows the colon. Each
# part ends in a character that the next cannot start with, or a line of a million blanks would take hours.
_KEY_LINE = re.compile(
    r"""^(?P<indent>[ ]*(?:-[ ]+)?)
    (?P<key>[^\s#:'"\[\]{},&*!|>%@`](?:[^:]*[^ :])?|"[^"]*"|'[^']*')
    [ ]*:(?:[ \t]+(?P<value>[^ \t\r](?:.*[^ \t\r])?))?[ \t\r]*$""",
    re.VERBOSE,
)
# What YAML's reader refuses anywhere, and what YAML 1.1 takes for a line break although no editor does.
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ODD_BREAK = re.compile(r"\r(?!\n)|[\x85\u2028\u2029]")
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
    refused: FrontmatterError | None = None
    rescued: set[int] = set()
    for _ in range(min(RESCUE_LIMIT, 2 + RESCUE_LIMIT_CHARS // (len(text) + 1))):
        try:
            fields, written, more = _Builder(first_line).build(text)
        except yaml.YAMLError as exc:
            refused = refused or FrontmatterError(_message(exc), first_line + _line_of(text, exc))
            repair = _rescue(text, exc, rescued)
            if repair is None:
                break
            text = repair.text
            findings.append(
                Finding("warning", f"{_message(exc)}; {repair.how}", repair.field, first_line + repair.line)
            )
        else:
            return fields, written, findings + more
    assert refused is not None
    raise refused


class _Frame:
    """A container that is not closed yet: its pending key (mappings), and what its anchor needs at the end."""

    __slots__ = ("anchor", "before", "container", "key", "merged")

    def __init__(self, container: Any, anchor: str | None, before: int) -> None:
        self.container = container
        self.anchor = anchor
        self.before = before  # the count of values at its start
        self.key: tuple[str, Any] | None = None  # with its event
        self.merged: set[str] = set()  # keys that came by "<<"


class _Builder:
    """Builds JSON-safe values from PyYAML's events with a stack of its own, so that no input can exhaust ours."""

    def __init__(self, first_line: int) -> None:
        self.first_line = first_line
        self.values = 0
        # An anchor's value, the value as written if it is a scalar, and what it counts.
        self.anchors: dict[str, tuple[Json, str | None, int]] = {}
        self.findings: list[Finding] = []
        self.strict: set[str] = set()

    def build(self, text: str) -> tuple[dict[str, Json], dict[str, str], list[Finding]]:
        written: dict[str, str] = {}
        root: Json = None
        stack: list[_Frame] = []
        open_anchors: set[str] = set()
        has_tabs = "\t" in text
        seen_until = 0
        value: Json
        raw: str | None
        event: Any
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            kind = type(event)
            if has_tabs:
                # Quoted texts and blocks may hold tabs; nothing else may.
                is_text = kind is yaml.ScalarEvent and event.style
                if "\t" in text[seen_until : (event.start_mark if is_text else event.end_mark).index]:
                    self._note(event, "a tab")
                seen_until = event.end_mark.index
            if kind is yaml.ScalarEvent:
                before = self.values
                raw = event.value
                self._count(event, 1 + len(raw) // CHARS_PER_VALUE)
                value = self._scalar(event)
                if event.anchor:
                    self._note(event, "an anchor")
                    self.anchors[event.anchor] = (value, raw, self.values - before)
            elif kind is yaml.AliasEvent:
                if event.anchor in open_anchors:
                    raise FrontmatterError(f"alias *{event.anchor} refers to itself", self._line(event))
                if event.anchor not in self.anchors:
                    # Such as "*emphasis* at the start", which can be rescued.
                    raise yaml.composer.ComposerError(
                        None, None, f"found undefined alias {event.anchor!r}", event.start_mark
                    )
                value, raw, size = self.anchors[event.anchor]
                self._count(event, size)
            elif kind in (yaml.MappingStartEvent, yaml.SequenceStartEvent):
                stack.append(self._open(event, len(stack)))
                if event.anchor:
                    open_anchors.add(event.anchor)
                continue
            elif kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent):
                frame = stack.pop()
                value, raw = frame.container, None
                if frame.anchor:
                    open_anchors.discard(frame.anchor)
                    self.anchors[frame.anchor] = (value, None, self.values - frame.before + 1)
            elif kind is yaml.DocumentStartEvent and root is not None:
                raise FrontmatterError("more than one YAML document", self._line(event))
            else:
                continue
            if not stack:
                root = value
                continue
            frame = stack[-1]
            if isinstance(frame.container, list):
                frame.container.append(value)
            elif frame.key is None:
                if raw is None:
                    raw = json.dumps(value, ensure_ascii=False)
                    self._count(event, len(raw) // CHARS_PER_VALUE)
                frame.key = (raw, event)
            else:
                self._set(frame, value, raw, written if len(stack) == 1 else {})
                frame.key = None
        if not isinstance(root, dict):
            raise FrontmatterError(f"the frontmatter must be a mapping, not {kind_of(root)}", self.first_line)
        return root, written, self.findings

    def _open(self, event: Any, depth: int) -> _Frame:
        self._count(event)
        if depth >= DEPTH_LIMIT:
            raise FrontmatterError(f"nested deeper than {DEPTH_LIMIT}", self._line(event))
        if event.flow_style:
            self._note(event, "flow style ([...] or {...})")
        if event.tag:
            self._tag(event, is_known=_is_plain_yaml(event.tag))
        if event.anchor:
            self._note(event, "an anchor")
        return _Frame({} if type(event) is yaml.MappingStartEvent else [], event.anchor, self.values)

    def _set(self, frame: _Frame, value: Json, raw: str | None, written: dict[str, str]) -> None:
        """Give a mapping a value under its pending key; ``written`` gets it as written, if it is a scalar."""
        assert frame.key is not None
        (name, event), container = frame.key, frame.container
        sources = value if isinstance(value, list) else [value]
        if name == "<<" and getattr(event, "implicit", (False,))[0] and all(isinstance(item, dict) for item in sources):
            # YAML 1.1's merge key: earlier mappings win over later ones, own keys over both.
            for inner, inner_value in ((key, source[key]) for source in sources for key in source):
                if inner not in container:
                    container[inner] = inner_value
                    frame.merged.add(inner)
                    if isinstance(inner_value, str):
                        written[inner] = inner_value
            return
        if name in container and name not in frame.merged:
            self.findings.append(
                Finding("warning", f"{name!r} is given twice; the last counts", name, self._line(event))
            )
        frame.merged.discard(name)
        container[name] = value
        if raw is None:
            written.pop(name, None)
        else:
            written[name] = raw

    def _scalar(self, event: Any) -> Json:
        text: str = event.value
        if event.implicit[0]:
            tag = _plain_tag(text)
        elif event.implicit[1] or event.tag == "!":
            return text
        else:
            tag = event.tag
            self._tag(event, is_known=_is_plain_yaml(tag))
        return _construct(tag, text)

    def _tag(self, event: Any, *, is_known: bool) -> None:
        if is_known:
            self._note(event, "a tag")
        else:
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
            raise FrontmatterError(
                f"more than {VALUE_LIMIT:,} values, or too long ones with the aliases expanded", self._line(event)
            )

    def _line(self, event: Any) -> int:
        return self.first_line + int(event.start_mark.line)


def _plain_tag(text: str) -> str:
    """Return the YAML 1.1 tag of a plain scalar, as PyYAML's safe loader resolves it."""
    candidates = yaml.SafeLoader.yaml_implicit_resolvers.get(text[:1], ())
    for tag, pattern in candidates:
        if pattern.match(text):
            return str(tag)
    return "tag:yaml.org,2002:str"


def _is_plain_yaml(tag: str) -> bool:
    return tag.startswith("tag:yaml.org,2002:") and not tag.startswith("tag:yaml.org,2002:python/")


def _construct(tag: str, text: str) -> Json:
    """Make the JSON-safe value of a scalar; what its type, or JSON, refuses stays as written."""
    kind = tag.removeprefix("tag:yaml.org,2002:")
    if kind in ("int", "float") and len(text) > NUMBER_LIMIT_CHARS:
        return text
    node = yaml.ScalarNode(tag, text)
    try:
        if kind == "null":
            return None
        if kind == "bool":
            return _CONSTRUCTOR.construct_yaml_bool(node)
        if kind == "int":
            number = int(_CONSTRUCTOR.construct_yaml_int(node))
            # What 64 bits cannot hold, few readers of JSON can.
            return number if -(1 << 63) <= number < 1 << 64 else text
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


def _line_of(text: str, error: yaml.YAMLError) -> int:
    """Return the line of an error, from 0, as an editor counts; the parser counts more kinds of line breaks."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return text.count("\n", 0, mark.index) if mark else 0


def _message(error: yaml.YAMLError) -> str:
    """The parser's own words on one line: its problem, and its context where there is one."""
    parts = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    text = ", ".join(" ".join(str(part).split()) for part in parts if part)
    return f"YAML: {text or type(error).__name__}"


@dataclass(frozen=True, slots=True)
class _Repair:
    """A frontmatter made readable: the line (from 0) and the key that it is about, and what was done, for a message."""

    text: str
    line: int
    field: str | None
    how: str


def _rescue(text: str, error: yaml.YAMLError, rescued: set[int]) -> _Repair | None:
    """
    Quote the value that the parser stumbled over, or replace the characters that it stumbled over.

    Args:
        text: The frontmatter; not changed.
        error: What the parser said about it.
        rescued: Lines quoted before; the line quoted now is added.

    Returns:
        The repair; None where nothing more can be tried.
    """
    if isinstance(error, yaml.reader.ReaderError) and (found := _UNPRINTABLE.search(text)):
        line = text.count("\n", 0, found.start())
        return _Repair(_UNPRINTABLE.sub("\ufffd", text), line, None, "such characters were replaced by U+FFFD")
    if found := _ODD_BREAK.search(text):
        # They end a line for the parser alone; all that follows would be looked for in the wrong line.
        line = text.count("\n", 0, found.start())
        return _Repair(_ODD_BREAK.sub(" ", text), line, None, "line separators were read as blanks")
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
            return _Repair("\n".join(lines), start, None, "tabs were read as blanks")
        number = _owner(lines, start)
        key_line = None if number is None else _KEY_LINE.match(lines[number])
        if number is not None and key_line and key_line["value"] and number not in rescued:
            rescued.add(number)
            text = _quote_value(lines, number, key_line)
            return _Repair(text, number, key_line["key"].strip(), "the value was read as plain text")
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
    for below in range(number + 1, len(lines)):
        if lines[below].strip():
            if len(lines[below]) - len(lines[below].lstrip()) <= depth:
                break
            end = below + 1
    continued = (line.strip() for line in lines[number + 1 : end])
    value = " ".join([key_line["value"].strip(), *filter(None, continued)])
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    # "> text" on one line is no block scalar; the author meant the text.
    value = re.sub(r"^[>|][+-]?\s+", "", value)
    quoted = f"{key_line['indent']}{key_line['key']}: '" + value.replace("'", "''") + "'"
    # Blank lines keep the numbers of those below.
    return "\n".join([*lines[:number], quoted, *[""] * (end - number - 1), *lines[end:]])
