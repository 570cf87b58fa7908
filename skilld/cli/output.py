"""
Printing for people and for machines.

What skills say of themselves is not trusted: nothing in it reaches a terminal that could drive it, or make one text
look like another. Into a pipe or a file a skill's own text goes as it is.

Owns: nothing. rich is imported where a table meets a terminal, and nowhere else.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

# Controls of C0 (but tab and line feed) and C1, controls of writing direction, and halves of characters, which no
# encoding can carry. Source: ECMA-48; Unicode Standard Annex 9, table 4.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """Make text safe for a terminal and fit for one line: what could drive a terminal shows as U+FFFD."""
    return UNSAFE.sub("\ufffd", " ".join(text.split()))


def clean_lines(text: str) -> str:
    """Like :func:`clean`, for text of several lines."""
    return UNSAFE.sub("\ufffd", text.replace("\r\n", "\n"))


def print_text(text: str) -> None:
    """Print a skill's text: safe on a terminal, byte for byte elsewhere; with a line feed at its end."""
    if sys.stdout.isatty():
        text = clean_lines(text)
    click.echo(text.encode(errors="backslashreplace"), nl=not text.endswith("\n"))


def print_bytes(content: bytes) -> None:
    """
    Print a file: byte for byte, or, on a terminal, safe.

    Raises:
        click.ClickException: It is no text, and this is a terminal.
    """
    if sys.stdout.isatty():
        try:
            print_text(content.decode())
        except UnicodeDecodeError:
            raise click.ClickException(f"{len(content)} bytes that are no text; send them into a file") from None
        return
    click.echo(content, nl=False)


def print_json(value: Any) -> None:
    """Print a value as JSON: on one line of ASCII for machines, indented on a terminal."""
    if sys.stdout.isatty():
        text = json.dumps(value, ensure_ascii=False, indent=2)
        click.echo(UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))
    else:
        click.echo(json.dumps(value, separators=(",", ":")))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows: with titles and no wider than the terminal, or whole and aligned into a pipe."""
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    if not cells:
        return
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in columns[:-1]:
            table.add_column(title, no_wrap=True)
        table.add_column(columns[-1])  # the one that gives way
        for row in cells:
            table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
        Console().print(table)
        return
    widths = [max(len(row[number]) for row in cells) for number in range(len(columns))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
