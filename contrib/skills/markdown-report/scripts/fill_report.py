#!/usr/bin/env python3
"""
Fill a Markdown template with JSON data.

    fill_report.py data.json                          the skill's own template, assets/report.md
    fill_report.py --template other.md - < data.json
    fill_report.py --fields                           the data that the template asks for

The template language is a part of Mustache:
    {{name}} {{a.b}}          a value; a tag or a table bar in it is escaped
    {{{name}}}                a value as it is, for text that is Markdown already and inside code spans
    {{#list}} ... {{/list}}   once for each item; {{.}} is the item, {{@number}} counts from 1
    {{#flag}} ... {{/flag}}   only if the value is there and not false, zero or empty
    {{^list}} ... {{/list}}   only if it is not
    {{! comment}}

A value that the template asks for and the data lack is an error, never a blank. All are listed at once.

Exit codes: 0 printed, 1 the data do not fit the template, 2 the input, the template or the call is wrong.

Source: mustache(5), as far as listed here.
"""

import argparse
import json
import os
import re
import signal
import sys
from dataclasses import dataclass, field

DEFAULT_TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "assets", "report.md")
TAG = re.compile(r"\{\{\{\s*(?P<raw>[^{}]+?)\s*\}\}\}|\{\{(?P<kind>[#^/!]?)\s*(?P<name>[^{}]*?)\s*\}\}")
NAME = re.compile(r"\.|@number|[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*")
MISSING = object()
# No report nests so deep; without a limit a bad template would exhaust the stack.
LIMIT_DEPTH = 20


class InputError(Exception):
    """The template or the data cannot be read; the message says where."""


@dataclass
class Node:
    """A piece of the template. ``kind`` is text, value, raw, # or ^; ``text`` is the text or the name."""

    kind: str
    text: str
    line: int
    in_table: bool = False
    children: list["Node"] = field(default_factory=list)


def parse_template(template: str) -> Node:
    """The template as a tree. Raises InputError, which names the line."""
    root = Node("#", "", 1)
    open_nodes = [root]
    at = 0
    for match in TAG.finditer(template):
        line = template.count("\n", 0, match.start()) + 1
        kind, name = match["kind"] or "", match["raw"] or match["name"]
        line_start = template.rfind("\n", 0, match.start()) + 1
        before = template[line_start : match.start()]
        text_end, next_start = match.start(), match.end()
        rest = re.compile(r"[ \t]*(\r?\n|\Z)").match(template, match.end())
        if kind and rest and not before.strip():
            # A section tag or a comment that has a line to itself takes the line with it.
            text_end, next_start = line_start, rest.end()
        if text_end > at:
            open_nodes[-1].children.append(Node("text", template[at:text_end], line))
        at = next_start
        if kind == "!":
            continue
        if not NAME.fullmatch(name):
            raise InputError(f"template line {line}: {match[0]} is not a name")
        if kind == "/":
            if len(open_nodes) == 1 or open_nodes[-1].text != name:
                raise InputError(f"template line {line}: {match[0]} closes nothing that is open")
            open_nodes.pop()
            continue
        is_table = TAG.sub("", before).lstrip().startswith("|")
        node = Node(kind or ("raw" if match["raw"] else "value"), name, line, is_table)
        open_nodes[-1].children.append(node)
        if kind:
            if len(open_nodes) > LIMIT_DEPTH:
                raise InputError(f"template line {line}: sections nested more than {LIMIT_DEPTH} deep")
            open_nodes.append(node)
    if len(open_nodes) > 1:
        left = open_nodes[-1]
        raise InputError(f"template line {left.line}: section {left.text!r} is never closed")
    root.children.append(Node("text", template[at:], 0))
    return root


class Filler:
    """Renders a tree; collects what is missing in ``missing`` and what was used in ``used``."""

    def __init__(self) -> None:
        self.missing: dict[str, int] = {}
        self.used: set[str] = set()

    def look_up(self, name: str, contexts: list[object]) -> object:
        """The value of a name, from the innermost object that has its first part."""
        if name == ".":
            return contexts[-1]
        first, *rest = name.split(".")
        for depth in range(len(contexts) - 1, -1, -1):
            context = contexts[depth]
            if isinstance(context, dict) and first in context:
                if depth == 0:
                    self.used.add(first)
                value: object = context[first]
                for part in rest:
                    if not isinstance(value, dict) or part not in value:
                        return MISSING
                    value = value[part]
                return value
        return MISSING

    def render(self, node: Node, contexts: list[object], number: int) -> str:
        return "".join(self.render_one(child, contexts, number) for child in node.children)

    def render_one(self, node: Node, contexts: list[object], number: int) -> str:
        if node.kind == "text":
            return node.text
        value = number if node.text == "@number" else self.look_up(node.text, contexts)
        if node.kind == "^":
            return self.render(node, contexts, number) if is_empty(value) else ""
        if node.kind == "#":
            if is_empty(value):
                return ""
            items = value if isinstance(value, list) else [value]
            return "".join(self.render(node, [*contexts, item], index) for index, item in enumerate(items, 1))
        if value is MISSING or value is None:
            self.missing.setdefault(node.text, node.line)
            return ""
        if isinstance(value, (dict, list)):
            raise InputError(
                f"template line {node.line}: {node.text} is a {type(value).__name__}, not a text"
            )
        return to_text(value, node)


def is_empty(value: object) -> bool:
    return value is MISSING or value is None or value is False or value == 0 or value in ("", [], {})


def to_text(value: object, node: Node) -> str:
    text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value).strip()
    if node.kind == "value":
        # What would open a tag or an autolink becomes text.
        text = re.sub(r"<(?=[A-Za-z/!?])", r"\\<", text)
        if node.in_table:
            text = text.replace("|", "\\|")
    if node.in_table:
        text = re.sub(r"\s*\r?\n\s*", "<br>", text)
    return text


def list_fields(node: Node, depth: int = 0) -> list[str]:
    lines: list[str] = []
    for child in node.children:
        if child.kind == "text" or child.text in (".", "@number"):
            continue
        mark = {"#": " (list or flag)", "^": " (may be absent)"}.get(child.kind, "")
        line = "  " * depth + child.text + mark
        if line not in lines:
            lines.append(line)
        if child.kind in "#^":
            lines += list_fields(child, depth + 1)
    return lines


def read_text(path: str) -> str:
    """A UTF-8 text, from standard input for ``-``. Raises InputError."""
    try:
        if path == "-":
            return sys.stdin.buffer.read().decode("utf-8-sig")
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as exc:
        raise InputError(f"{path}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8") from None


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Fill a Markdown template with JSON data.")
    parser.add_argument("data", nargs="?", default="-", help="JSON file; default: standard input")
    parser.add_argument(
        "--template", default=DEFAULT_TEMPLATE, metavar="FILE", help="default: assets/report.md"
    )
    parser.add_argument("--fields", action="store_true", help="list what the template asks for, and stop")
    args = parser.parse_args()
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        root = parse_template(read_text(args.template))
        if args.fields:
            print("\n".join(list_fields(root)))
            return 0
        text = read_text(args.data)
        if not text.strip():
            raise InputError("the data are empty")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise InputError(f"the data are not JSON: {exc}") from None
        if not isinstance(data, dict):
            raise InputError("the data must be a JSON object")
        filler = Filler()
        report = filler.render(root, [data], 1)
    except InputError as exc:
        print(f"fill_report.py: {exc}", file=sys.stderr)
        return 2
    if unused := sorted(set(data) - filler.used):
        print(f"fill_report.py: note: not used by the template: {', '.join(unused)}", file=sys.stderr)
    if filler.missing:
        for name, line in filler.missing.items():
            print(f"fill_report.py: missing: {name} (template line {line})", file=sys.stderr)
        return 1
    print(re.sub(r"\n{3,}", "\n\n", report).strip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
