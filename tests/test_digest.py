"""Digests that a shell can recompute, and the manifest of all skills."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.skills.digest import ListedFile, listing, manifest, manifest_digest, skill_digest
from skilld.skills.scanner import ScanLimits, scan
from tests.conftest import WriteSkill

README = Path(__file__).parents[1] / "README.md"
LIMITS = ScanLimits(1 << 20, 1_000, 1 << 26, 6, frozenset())
EMPTY = hashlib.sha256(b"").hexdigest()

needs_shell = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "find", "sort", "sha256sum", "readlink"))), reason="no GNU shell tools here"
)


def digest_by_shell(directory: Path) -> str:
    """Do what the README tells a user to type in a skill directory."""
    (line,) = [line for line in README.read_text().splitlines() if line.startswith("find . ") and "sha256sum" in line]
    done = subprocess.run(["bash", "-c", line], cwd=directory, check=True, capture_output=True, timeout=60)
    assert done.stderr == b""
    return "sha256:" + done.stdout.split()[0].decode()


def digest_of(root: Path, id: str) -> str | None:
    (entry,) = scan(str(root), id, {}, LIMITS)
    assert entry.skill is not None
    return entry.skill.digest


def test_a_listing_is_sorted_by_path_bytes() -> None:
    """A slash sorts among the other bytes, upper case before lower, and nothing is escaped."""
    files = [
        ListedFile(path, "00", " ")
        for path in (b"b", b"a/b", b"a-b", b"a", b"B", b"\xff", "é".encode(), b"a b", b"a\\b")
    ]
    assert listing(files).splitlines() == [
        b"00  B",
        b"00  a",
        b"00  a b",
        b"00  a-b",
        b"00  a/b",
        b"00  a\\b",
        b"00  b",
        "00  é".encode(),
        b"00  \xff",
    ]


def test_a_mark_tells_files_apart() -> None:
    """A star for an executable, a blank for another file, an at sign for a link."""
    files = [ListedFile(b"run", "aa", "*"), ListedFile(b"text", "bb", " "), ListedFile(b"link", "cc", "@")]
    assert listing(files) == b"cc @link\naa *run\nbb  text\n"
    assert skill_digest(files) == "sha256:" + hashlib.sha256(b"cc @link\naa *run\nbb  text\n").hexdigest()


def test_no_files_have_a_digest() -> None:
    """The digest of nothing is that of the empty text."""
    assert skill_digest([]) == f"sha256:{EMPTY}"


ODD_NAMES = (
    "plain",
    "with blank",
    " leading",
    "trailing ",
    "-n",
    "--help",
    "a*b",
    "a?b",
    "[x]",
    "a'b",
    'a"b',
    "a\\b",
    "$HOME",
    "`id`",
    "tab\there",
    "ret\rurn",
    "é",
    "技能",
    "a;b",
    "#x",
    "~",
    "sub/inner",
    "sub/-x",
    "sub.x",
    "sub-x",
    "S",
    "deep/er/est/file",
    ".hidden",
    ".git/config",
    "%s",
    "\x01",
    "*",
    "@x",
    "x\\ny",
)


@needs_shell
def test_a_shell_computes_the_same_digest(root: Path, write_skill: WriteSkill) -> None:
    """Files of every name, executables, links inside and empty directories: find, sort and sha256sum agree."""
    directory = write_skill(
        "pdf", files={name: f"content of {name}" for name in ODD_NAMES} | {"empty": "", "big": b"\0" * 99}
    )
    (directory / os.fsdecode(b"not-utf-8-\xff\xfe")).write_text("x")
    (directory / "empty-dir" / "inner").mkdir(parents=True)
    for number, mode in enumerate((0o755, 0o700, 0o610, 0o641, 0o644, 0o600, 0o1644, 0o4755, 0o2711)):
        (directory / f"mode-{number}").write_text("x")
        (directory / f"mode-{number}").chmod(mode)
    for name, target in {
        "link": "plain",
        "link to a link": "link",
        "link to a directory": "sub",
        "to itself": "to itself",
        "dangling": "nowhere",
        "to here": ".",
        "sub/up": "../plain",
        "sub/round": "../sub/../../pdf/plain",
        "absolute": str(directory / "plain"),
        "-l": "--help",
        "odd target": "with blank",
    }.items():
        (directory / name).symlink_to(target)
    digest = digest_of(root, "pdf")
    assert digest is not None
    assert digest_by_shell(directory) == digest


@needs_shell
def test_a_linked_skill_has_the_digest_of_its_directory(root: Path, tmp_path: Path, write_skill: WriteSkill) -> None:
    """The way to a skill is no part of its digest."""
    directory = write_skill("pdf", files={"scripts/run.py": "print()"}, into=tmp_path / "elsewhere")
    (root / "pdf").symlink_to(directory)
    (root / "copy").mkdir()
    shutil.copytree(directory, root / "copy" / "pdf")
    assert digest_of(root, "pdf") == digest_of(root, "copy/pdf") == digest_by_shell(directory)


@needs_shell
def test_sha256sum_checks_a_listing(write_skill: WriteSkill) -> None:
    """A line of a file is what `sha256sum -c` reads, whatever the mark."""
    names = [name for name in ODD_NAMES if name != "ret\rurn"]
    directory = write_skill("pdf", files={name: name for name in names})
    files = [
        ListedFile(name.encode(), hashlib.sha256(name.encode()).hexdigest(), "* "[len(name) % 2]) for name in names
    ]
    command = ["sha256sum", "--check", "--strict", "--quiet"]
    done = subprocess.run(command, input=listing(files), cwd=directory, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    wrong = [ListedFile(files[0].path, "0" * 64, files[0].mark)]
    assert subprocess.run(command, input=listing(wrong), cwd=directory, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("change", "is_seen"),
    [
        (lambda skill: (skill / "SKILL.md").write_text("---\nname: pdf\ndescription: New.\n---\n"), True),
        (lambda skill: (skill / "a").write_text("new"), True),
        (lambda skill: (skill / "a").rename(skill / "b"), True),
        (lambda skill: (skill / "a").unlink(), True),
        (lambda skill: (skill / ".hidden").write_text(""), True),
        (lambda skill: (skill / "a").chmod(0o654), True),
        (lambda skill: (skill / "a").chmod(0o600), False),
        (lambda skill: os.utime(skill / "a", (1, 1)), False),
        (lambda skill: (skill / "empty").mkdir(), False),
        (lambda skill: ((skill / "l").unlink(), (skill / "l").symlink_to("./a")), True),
        (lambda skill: ((skill / "l").unlink(), (skill / "l").write_text("a")), True),
    ],
    ids=[
        "text",
        "bytes",
        "name",
        "removal",
        "hidden",
        "executable",
        "mode",
        "time",
        "empty directory",
        "target",
        "kind",
    ],
)
def test_a_digest_covers_paths_bytes_execute_bits_and_targets(
    root: Path, write_skill: WriteSkill, change: object, is_seen: bool
) -> None:
    """And nothing else: times, other modes and empty directories are no part of it."""
    directory = write_skill("pdf", files={"a": "old"})
    (directory / "l").symlink_to("a")
    before = digest_of(root, "pdf")
    assert callable(change)
    change(directory)
    assert (digest_of(root, "pdf") != before) is is_seen


@pytest.mark.parametrize(
    ("digests", "expected"),
    [
        ([], '{"schema":"skilld.skillset.v1","skills":[]}'),
        (
            [("b", "sha256:2"), ("a", None)],
            '{"schema":"skilld.skillset.v1","skills":[{"digest":null,"id":"a"},{"digest":"sha256:2","id":"b"}]}',
        ),
        (
            [('é\n"\\/', "sha256:1")],
            '{"schema":"skilld.skillset.v1","skills":[{"digest":"sha256:1","id":"é\\n\\"\\\\/"}]}',
        ),
        (
            [("\x00\x1f\x7f\u2028", None)],
            '{"schema":"skilld.skillset.v1","skills":[{"digest":null,"id":"\\u0000\\u001f\x7f\u2028"}]}',
        ),
    ],
)
def test_a_manifest_is_canonical_json(digests: list[tuple[str, str | None]], expected: str) -> None:
    """RFC 8785: keys in order, no blanks, nothing escaped that need not be."""
    assert manifest(digests) == expected
    assert manifest_digest(expected) == "sha256:" + hashlib.sha256(expected.encode()).hexdigest()


def test_ids_are_sorted_as_rfc_8785_sorts() -> None:
    """By UTF-16 code units: a character beyond U+FFFF sorts before U+E000 to U+FFFF."""
    ids = ["z", "\ufb00", "😀", "a/b", "a", "a-b"]
    skills = json.loads(manifest((id, None) for id in ids))["skills"]
    assert [skill["id"] for skill in skills] == ["a", "a-b", "a/b", "z", "😀", "\ufb00"]


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.none() | st.just("sha256:1")))
def test_a_manifest_does_not_depend_on_the_order_of_discovery(digests: dict[str, str | None]) -> None:
    """The same skills make the same text, and the text holds them all."""
    text = manifest(digests.items())
    assert text == manifest(reversed(list(digests.items())))
    assert {skill["id"]: skill["digest"] for skill in json.loads(text)["skills"]} == digests
