"""
The files that a complex skill starts with: a script that fills a template, and the template.

The script is the same in every skill, so nothing that a person said is ever code. The template is the example's
output with the values of its input's fields replaced by their names, so that the script, fed the example's input,
writes the example's output.

Owns: nothing; values only.
"""

from __future__ import annotations

import json
import re

from skilld.factory.answers import Example

SCRIPT_PATH = "run.py"
TEMPLATE_PATH = "template.md"

SCRIPT = r'''#!/usr/bin/env python3
"""
Fill the template of this skill with the fields of an input.

The input is a file or, without one, standard input. It is a JSON object, or text in which each line such as
"Client name: ACME" gives a field. In the template ${client_name} stands for that field, ${input} for the
whole input, and $$ for a dollar sign. The result goes to standard output.

This is a starter: put the work that must come out the same every time (sums, dates, look-ups) into
compute_fields(), and write the form of the result into assets/template.md.

Exit codes: 0 done; 1 the input or the template is at fault, and standard error says how; 2 wrong usage.
"""

import argparse
import json
import re
import string
import sys
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent.parent / "assets" / "template.md"
FIELD = re.compile(r"[ \t]*([A-Za-z][A-Za-z0-9 _-]*):[ \t]+(\S.*)")


class InputError(Exception):
    """The input or the template cannot be used; the text says why."""


def read_fields(text):
    """Return the fields of an input as {name: value}; spaces and hyphens in a name become "_"."""
    if text.lstrip().startswith("{"):
        try:
            pairs = json.loads(text).items()
        except (ValueError, RecursionError) as error:
            raise InputError(f"the input looks like JSON but is not: {error}")
    else:
        pairs = [match.groups() for match in map(FIELD.fullmatch, text.split("\n")) if match]
    return {re.sub(r"[^a-z0-9]+", "_", key.strip().lower()): str(value).strip() for key, value in pairs}


def compute_fields(fields):
    """Return all fields of the result. Add those here that follow from the input."""
    return fields


def fill(template, fields):
    """Return the template with its ${fields} filled in; raise InputError naming those that are missing."""
    found = string.Template.pattern.finditer(template)
    wanted = {match["named"] or match["braced"] for match in found} - {None}
    missing = sorted(wanted - set(fields))
    if missing:
        raise InputError(f"the input lacks what the template needs: {', '.join(missing)}")
    try:
        return string.Template(template).substitute(fields)
    except ValueError as error:
        raise InputError(f"the template is broken: {error} (write $$ for a dollar sign)")


def read_text(path):
    """Return the text of a file, or of standard input where path is None."""
    try:
        data = Path(path).read_bytes() if path else sys.stdin.buffer.read()
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise InputError(f"cannot read {path or 'standard input'}: {error.strerror}")
    except UnicodeDecodeError:
        raise InputError(f"{path or 'standard input'} is not UTF-8 text")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", nargs="?", help="file with the input (default: standard input)")
    parser.add_argument("--template", default=TEMPLATE, help="file with the template (default: assets/template.md)")
    args = parser.parse_args()
    try:
        text = read_text(args.input).strip()
        if not text:
            raise InputError("the input is empty")
        fields = compute_fields({**read_fields(text), "input": text})
        result = fill(read_text(args.template), fields)
    except InputError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    # JSON can name half a character, which no text file holds.
    sys.stdout.buffer.write(result.encode(errors="replace"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
'''

# The same rule as in SCRIPT.
_FIELD = re.compile(r"[ \t]*([A-Za-z][A-Za-z0-9 _-]*):[ \t]+(\S.*)")


def make_template(title: str, example: Example) -> str:
    """
    Return the template: the example's output with the fields of its input in place.

    Where input and output share no field it is the title and the whole input, because an output that repeats the
    example whatever the input says would be wrong.
    """
    names: dict[str, str] = {}
    for name, value in _read_fields(example.input).items():
        if value and name != "input" and re.fullmatch(r"[a-z_][a-z0-9_]*", name):
            names.setdefault(value, name)
    # Of two values that begin alike the longer one is meant.
    values = "|".join(re.escape(value) for value in sorted(names, key=len, reverse=True))
    pieces = re.split(rf"(?<!\w)({values})(?!\w)", example.output) if names else []
    if len(pieces) < 3:
        return f"# {title}\n\n${{input}}\n"
    filled = "".join(
        f"${{{names[piece]}}}" if index % 2 else piece.replace("$", "$$") for index, piece in enumerate(pieces)
    )
    return f"{filled}\n"


def _read_fields(text: str) -> dict[str, str]:
    pairs: list[tuple[str, str]] = []
    if text.lstrip().startswith("{"):
        try:
            pairs = [(key, str(value)) for key, value in json.loads(text).items()]
        except (ValueError, RecursionError):
            pass
    else:
        pairs = [(match[1], match[2]) for match in map(_FIELD.fullmatch, text.split("\n")) if match]
    return {re.sub(r"[^a-z0-9]+", "_", key.strip().lower()): value.strip() for key, value in pairs}
