"""
What runs a script: by its extension first, then by its first line.

Seven scripts in ten lack the execute bit and still are meant to be run, so the bit does not matter. A first line is
never handed to the kernel: its program must be one of those that the configuration allows, and is then looked up anew.

Owns: nothing; values only.

Source: PEP 723 (inline script metadata); execve(2), "Interpreter scripts"; env(1), ``-S``; measured on 351 Python and
26 shell scripts of eight public repositories.
"""

from __future__ import annotations

import posixpath
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

# Names that are the same program's.
_ALIASES = {"python": "python3", "nodejs": "node"}
# A shell script may name another shell than its extension's.
_SHELLS = frozenset({"sh", "bash", "dash"})
_LONGEST_LINE = 256

# A block's first line and its last one.
_OPENING = re.compile(r"# /// ([a-zA-Z0-9-]+)")
_CLOSING = "# ///"
# What is read of untrusted metadata: a key of n parts costs tomllib n * n / 2 words. Dots are in versions, too.
_METADATA_CHARS, _DOTS_A_LINE = 8_192, 256


@dataclass(frozen=True)
class Interpreter:
    """A program, by a name to look up or an absolute path, and the options that the script's first line gives it."""

    program: str
    options: tuple[str, ...] = ()


def parse_interpreters(entries: tuple[str, ...]) -> dict[str, str]:
    """
    Turn ``.py=python3`` into a mapping from extension to program.

    Raises:
        ValueError: An entry is none; names it.
    """
    found = {}
    for entry in entries:
        extension, equals, program = entry.partition("=")
        if not equals or not re.fullmatch(r"\.[A-Za-z0-9_]+", extension) or not program.strip():
            raise ValueError(f"must be like .py=python3, not {entry!r}")
        if "/" in program and not program.startswith("/"):
            raise ValueError(f"a program is a name or an absolute path, not {program!r}")
        found[extension] = program.strip()
    return found


def choose_interpreter(script: str, head: bytes, known: Mapping[str, str]) -> Interpreter | str | None:
    """
    Choose what runs a script.

    Args:
        script: Its path.
        head: Its first bytes.
        known: Programs by extension.

    Returns:
        The interpreter; or what the script asks for and may not have; None where it asks for nothing.
    """
    asked = _first_line(head)
    extension = posixpath.splitext(script)[1].lower()
    by_extension = known.get(extension)
    if by_extension is not None:
        name = _name(by_extension)
        if asked and (asked.program == name or {asked.program, name} <= _SHELLS):
            program = by_extension if asked.program == name else asked.program
            return Interpreter(program, asked.options)
        return Interpreter(by_extension)
    if asked is None:
        return None
    for program in known.values():
        if _name(program) == asked.program:
            return Interpreter(program, asked.options)
    return asked.program


def dependencies_of(script: str, text: str) -> tuple[str, ...]:
    """
    The dependencies that a Python script declares in a ``# /// script`` block; empty without one.

    A block that cannot be read counts as one that depends on something unknown, for nobody can tell.
    """
    if posixpath.splitext(script)[1].lower() not in (".py", ""):
        return ()
    blocks = [content for kind, content in _metadata(text.replace("\r\n", "\n").split("\n")) if kind == "script"]
    if not blocks:
        return ()
    if len(blocks) > 1:
        return ("(it has several blocks of metadata)",)
    (lines,) = blocks
    if sum(map(len, lines)) > _METADATA_CHARS or any(line.count(".") > _DOTS_A_LINE for line in lines):
        return ("(its metadata is too long)",)
    try:
        named = tomllib.loads("\n".join(line[2:] for line in lines) + "\n").get("dependencies", [])
        # Within, too: a number may be too long to be written, and a list too deep.
        return tuple(map(str, named)) if isinstance(named, list) else ("(its dependencies are no list)",)
    except (ValueError, RecursionError):
        return ("(its metadata is not TOML)",)


def _metadata(lines: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """
    The type and the comments of each block.

    PEP 723's expression, in one pass: of lines of comments without a gap, the block begins at the first line that can
    begin one, and ends at the last that can end it.
    """
    kind, begin, end = "", 0, 0
    for number, line in enumerate((*lines, "")):
        if line != "#" and not line.startswith("# "):
            if end:
                yield kind, lines[begin:end]
            kind, end = "", 0
        elif not kind:
            opening = _OPENING.fullmatch(line)
            kind, begin = (opening[1], number + 1) if opening else ("", 0)
        elif line == _CLOSING and number > begin:
            end = number


def _name(program: str) -> str:
    name = posixpath.basename(program)
    return _ALIASES.get(name, name)


def _first_line(head: bytes) -> Interpreter | None:
    """What ``#!`` names: the program's bare name and its options; ``env`` is looked through."""
    if not head.startswith(b"#!"):
        return None
    line = re.split(rb"[\n\0]", head[2:], maxsplit=1)[0][:_LONGEST_LINE].decode(errors="replace").strip()
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    if words and posixpath.basename(words[0]) == "env":
        words = [word for word in words[1:] if word != "-S" and "=" not in word]
        if words and words[0].startswith("-S"):
            words[0] = words[0][2:]
    if not words or words[0].startswith("-"):
        return None
    return Interpreter(_name(words[0]), tuple(words[1:]))
