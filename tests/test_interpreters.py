"""What runs a script, and what it says that it depends on."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from skilld.scripts.interpreters import Interpreter, choose_interpreter, dependencies_of, parse_interpreters

KNOWN = parse_interpreters((".py=python3", ".sh=sh", ".bash=bash", ".js=node", ".pl=/opt/perl"))


@pytest.mark.parametrize(
    ("script", "head", "expected"),
    [
        ("a.py", b"", Interpreter("python3")),
        ("a.PY", b"print()", Interpreter("python3")),
        ("a.py", b"#!/usr/bin/env python\n", Interpreter("python3")),
        ("a.py", b"#!/usr/bin/python3 -u\n", Interpreter("python3", ("-u",))),
        ("a.py", b"#!/usr/bin/env -S uv run --script\n", Interpreter("python3")),
        ("a.sh", b"#!/bin/sh -e\n", Interpreter("sh", ("-e",))),
        ("a.sh", b"#!/usr/bin/env bash\n", Interpreter("bash")),
        ("a.sh", b"#!/bin/bash -eu\r\n", Interpreter("bash", ("-eu",))),
        ("a.sh", b"#!/usr/bin/perl\n", Interpreter("sh")),
        ("a.js", b"#!/usr/bin/env nodejs\n", Interpreter("node")),
        ("a.pl", b"#!/usr/bin/perl -w\n", Interpreter("/opt/perl", ("-w",))),
        ("run", b"#!/usr/bin/env -S python3 -X utf8\n", Interpreter("python3", ("-X", "utf8"))),
        ("run", b"#!/usr/bin/env -Spython3 -u\n", Interpreter("python3", ("-u",))),
        ("run", b"#!/usr/bin/env A=b python\n", Interpreter("python3")),
        ("run.cgi", b"#! /usr/local/bin/perl\n", Interpreter("/opt/perl")),
        ("run", b"#!/usr/bin/env fish\n", "fish"),
        ("run", b"#!/bin/rm -rf\n", "rm"),
        ("run", b"#!/usr/bin/python3 -u\0-x\n", Interpreter("python3", ("-u",))),
        ("run", b"#!\n", None),
        ("run", b"#!/usr/bin/env\n", None),
        ("run", b"#!/usr/bin/env -i\n", None),
        ("run", b"#!'unclosed\n", "'unclosed"),
        ("run", b"\x7fELF", None),
        ("run", b"", None),
        ("run.txt", b"text", None),
    ],
)
def test_choose_interpreter(script: str, head: bytes, expected: Interpreter | str | None) -> None:
    """The extension decides; the first line gives options, or decides where the extension says nothing."""
    assert choose_interpreter(script, head, KNOWN) == expected


@pytest.mark.parametrize("entry", ["py=python3", ".py", ".py=", ".=x", ".py=bin/python", "=x"])
def test_what_is_no_interpreter(entry: str) -> None:
    """The entry, or the program, is named."""
    with pytest.raises(ValueError, match="not '"):
        parse_interpreters((entry,))


@pytest.mark.parametrize(
    ("script", "text", "expected"),
    [
        ("a.py", "print()\n", ()),
        ("a.py", "# /// script\n# dependencies = []\n# ///\n", ()),
        ("a.py", '# /// script\n# requires-python = ">=3.11"\n# ///\n', ()),
        ("a.py", '#!x\n# /// script\n# dependencies = [\n#   "a<3",\n#   "b",\n# ]\n# ///\n', ("a<3", "b")),
        ("a.py", '# /// script\r\n# dependencies = ["a"]\r\n# ///\r\n', ("a",)),
        ("a.py", '# /// other\n# dependencies = ["a"]\n# ///\n', ()),
        ("a.py", "# /// script\n# dependencies = [\n# ///\n", ("(its metadata is not TOML)",)),
        ("a.py", '# /// script\n# dependencies = "a"\n# ///\n', ("(its dependencies are no list)",)),
        ("a.py", '# /// script\n# ///\n# dependencies = ["a"]\n# ///', ("(its metadata is not TOML)",)),
        ("a.py", "# /// script\n# ///\n", ()),
        ("a.py", '# /// script\n# dependencies = ["a"]\n\n# ///\n', ()),
        ("a.py", '# /// x\n# /// script\n# dependencies = ["a"]\n# ///\n', ()),
        ("a.py", '# /// x\n#\n\n# /// script\n#\n# dependencies = ["a"]\n#x\n# ///\n', ()),
        ("a.py", '# a\n# /// script\n#\n# dependencies = ["a"]\n# ///\n# b\n', ("a",)),
        ("a.py", "# /// script\n# a = 1\n# ///\n\n" * 2, ("(it has several blocks of metadata)",)),
        ("run", '# /// script\n# dependencies = ["a"]\n# ///\n', ("a",)),
        ("a.sh", '# /// script\n# dependencies = ["a"]\n# ///\n', ()),
    ],
)
def test_dependencies_of(script: str, text: str, expected: tuple[str, ...]) -> None:
    """PEP 723: comments that hold TOML."""
    assert dependencies_of(script, text) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"a{'.a' * 30_000} = 1", "(its metadata is too long)"),
        (f"a{'.a' * 300} = 1", "(its metadata is too long)"),
        (f"dependencies = {'[' * 3_000}", "(its metadata is not TOML)"),
        (f"a = {'1' * 5_000}", "(its metadata is not TOML)"),
        (f"dependencies = [0x{'f' * 8_000}]", "(its metadata is not TOML)"),
    ],
    ids=["long", "many parts", "deep", "a long number", "a number too long to be written"],
)
def test_metadata_that_is_made_to_hurt(content: str, expected: str) -> None:
    """It is refused as a dependency that nobody can provide, and takes no more memory than any other."""
    tracemalloc.start()
    try:
        assert dependencies_of("a.py", f"# /// script\n# {content}\n# ///\n") == (expected,)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("line", ["# /// a\n", "# /// script\n", "# ///\n", "#\n"])
def test_lines_are_read_once(line: str) -> None:
    """However many of them could begin or end a block."""
    began_s = time.process_time()
    assert dependencies_of("a.py", line * 30_000) == ()
    assert time.process_time() - began_s < 1
