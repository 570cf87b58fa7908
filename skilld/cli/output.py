"""
Printing for people and for machines.

Owns: nothing. rich is imported where a table meets a terminal, and nowhere else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click


def clean(text: str) -> str:
    """Make text safe for a terminal: what is not printable, an escape sequence above all, shows as U+FFFD."""
    return "".join(char if char.isprintable() else " " if char in "\n\t\r" else "\ufffd" for char in text)


def clean_lines(text: str) -> str:
    """Like :func:`clean`, for text of several lines, whose line ends and tabs are kept."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


def print_json(value: Any) -> None:
    """Print a value as JSON on one line, for machines."""
    click.echo(json.dumps(value, ensure_ascii=True, separators=(",", ":")))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows: as wide as the terminal with titles, or plain aligned columns into a pipe."""
    cells = [[clean(str(cell)) for cell in row] for row in rows]
    if not cells:
        return
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for number, title in enumerate(columns):
            is_last = number == len(columns) - 1
            table.add_column(title, overflow="ellipsis" if is_last else "fold", no_wrap=is_last)
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(len(row[number]) for row in cells) for number in range(len(columns))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
