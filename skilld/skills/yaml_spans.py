"""
Where the keys and values of a frontmatter stand in its text, and how a text is written as a YAML scalar.

Positions come from the marks of the parser's events. They count characters, a CRLF as two, and a block scalar's end
lies behind the blank lines that follow it.

Owns: nothing; values only.

Source: YAML 1.1; libyaml's marks as measured through PyYAML 6.0; strictyaml for what to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

# Deeper nesting is refused before anything is edited; the limit only bounds the memory of this reader.
_DEPTH_LIMIT = 64

# Begins with a letter and has nothing that YAML, or a reader that cuts at "---", could take for more than text.
_PLAIN = re.compile(r"""[A-Za-z](?:(?:(?!---)[A-Za-z0-9 ,.;()'"/+_-])*[A-Za-z0-9.)"])?""")
_WORDS = frozenset(("y", "yes", "n", "no", "true", "false", "on", "off", "null"))


class Unlocatable(Exception):
    """The parser refuses the text, or it is no mapping; nothing can be located in it."""


@dataclass(slots=True)
class Node:
    """
    One value or key and where it stands: ``text[start:end]``, its anchor and tag included.

    ``end`` lies behind the last character that belongs to it; ``tail`` behind the blank lines that a block scalar
    takes in. ``style`` is "plain", a quote, "|", ">", "alias", "block" or "flow"; ``value`` a scalar's text;
    ``pairs`` the keys and values of a mapping.
    """

    start: int
    end: int
    tail: int
    column: int
    style: str
    value: str | None = None
    is_mapping: bool = False
    pairs: list[tuple[Node, Node]] = field(default_factory=list)


def locate(text: str) -> Node:
    """
    Return the mapping that a frontmatter is.

    Raises:
        Unlocatable: The parser refuses it without rescue, or it is no mapping.
    """
    try:
        nodes = list(_nodes(text))
    except yaml.YAMLError as exc:
        raise Unlocatable from exc
    if len(nodes) != 1 or not nodes[0].is_mapping:
        raise Unlocatable
    return nodes[0]


def _nodes(text: str) -> Iterator[Node]:
    """Yield the root node of every document."""
    stack: list[Node] = []
    children: list[list[Node]] = []
    event: Any
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        start, end, column = event.start_mark.index, event.end_mark.index, event.start_mark.column
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if len(stack) == _DEPTH_LIMIT:
                raise Unlocatable
            style = "flow" if event.flow_style else "block"
            stack.append(Node(start, end, end, column, style, is_mapping=isinstance(event, yaml.MappingStartEvent)))
            children.append([])
            continue
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            node, below = stack.pop(), children.pop()
            if node.style == "flow":
                node.end = node.tail = end
            elif below:
                # The event that ends a block stands where the next thing begins, behind all comments.
                node.end, node.tail = below[-1].end, below[-1].tail
            if node.is_mapping:
                node.pairs = list(zip(below[::2], below[1::2], strict=True))
        elif isinstance(event, yaml.ScalarEvent):
            node = Node(start, end, end, column, event.style or "plain", event.value)
            if event.style in ("|", ">"):
                node.end = start + len(text[start:end].rstrip(" \t\r\n"))
        elif isinstance(event, yaml.AliasEvent):
            node = Node(start, end, end, column, "alias")
        else:
            continue
        if stack:
            children[-1].append(node)
        else:
            yield node


def write_scalar(text: str, quotes: str = "", *, in_flow: bool = False) -> str:
    """
    Write a text as a YAML scalar on one line that reads back as the same text, for strict parsers too.

    Args:
        text: Any text without lone surrogates.
        quotes: The author's habit: ``'`` or ``"`` where there is one; kept where the text allows it.
        in_flow: Between braces, where a comma would end it.
    """
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS and not (quotes or in_flow):
        return text
    if quotes != '"' and text.isprintable() and "---" not in text:
        return "'" + text.replace("'", "''") + "'"
    escaped = "".join(_escape(char) for char in text)
    # Readers that split a file at "---", the reference one among them, would end the frontmatter here.
    escaped = escaped.replace("--", r"-\x2d") if "---" in escaped else escaped
    return f'"{escaped}"'


def _escape(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char == "\n":
        return r"\n"
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
