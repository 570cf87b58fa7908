"""Reading single files of a skill: slices, and that nothing outside can be had."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.errors import FileNotFound
from skilld.skills import reading
from skilld.skills.model import Skill
from skilld.skills.reading import check_path, read_slice
from skilld.skills.scanner import ScanLimits, scan
from tests.conftest import WriteSkill, age, as_nobody, skill_md

LIMITS = ScanLimits(1 << 20, 1_000, 1 << 26, 6, frozenset())
ALL = 1 << 20


def skill_of(directory: Path) -> Skill:
    (entry,) = scan(str(directory.parent), directory.name, {}, LIMITS)
    assert entry.skill is not None
    return entry.skill


def refused(skill: Skill, path: str) -> bool:
    """Whether a file is said not to be there, with the names the caller knows."""
    with pytest.raises(FileNotFound) as caught:
        read_slice(skill, path, 0, ALL)
    return caught.value.facts == {"name": skill.id, "path": path}


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("a", None),
        ("scripts/run.py", None),
        ("a b/é/\n", None),
        ("...", None),
        ("..a/b..", None),
        ("-", None),
        ("a\\b", None),
        ("", "must not hold empty, '.' or '..' parts: ''"),
        (".", "must not hold empty, '.' or '..' parts: '.'"),
        ("..", "must not hold empty, '.' or '..' parts: '..'"),
        ("a/../b", "must not hold empty, '.' or '..' parts: 'a/../b'"),
        ("a//b", "must not hold empty, '.' or '..' parts: 'a//b'"),
        ("a/", "must not hold empty, '.' or '..' parts: 'a/'"),
        ("./a", "must not hold empty, '.' or '..' parts: './a'"),
        ("/etc/passwd", "must be relative to the skill directory, not '/etc/passwd'"),
        ("a\0b", "must not hold NUL: 'a\\x00b'"),
    ],
)
def test_a_path_stays_below_the_skill(path: str, rule: str | None) -> None:
    """Relative, without empty parts, dots or NUL; everything else may name a file."""
    if rule is None:
        check_path(path)
        return
    with pytest.raises(ValueError) as caught:
        check_path(path)
    assert str(caught.value) == rule


@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [
        (0, 100, b"0123456789"),
        (0, 10, b"0123456789"),
        (0, 3, b"012"),
        (3, 4, b"3456"),
        (9, 100, b"9"),
        (10, 1, b""),
        (11, 1, b""),
        (0, 0, b""),
        (2**63, 1, b""),
        (2**64, 1, b""),
    ],
)
def test_a_slice_is_cut_by_bytes(write_skill: WriteSkill, offset: int, limit: int, expected: bytes) -> None:
    """What lies beyond the end is empty, and the size is the file's."""
    skill = skill_of(write_skill("pdf", files={"data": "0123456789"}))
    assert read_slice(skill, "data", offset, limit) == (expected, 10)


@pytest.mark.parametrize(
    ("content", "limit", "expected"),
    [
        ("aé", 2, "a"),
        ("aé", 3, "aé"),
        ("a技", 2, "a"),
        ("a技", 3, "a"),
        ("a技b", 4, "a技"),
        ("a😀", 2, "a"),
        ("a😀", 4, "a"),
        ("a😀b", 5, "a😀"),
        ("ab", 1, "a"),
    ],
)
def test_a_slice_of_text_ends_at_a_whole_character(
    write_skill: WriteSkill, content: str, limit: int, expected: str
) -> None:
    """A character that the limit cuts is left to the next slice."""
    skill = skill_of(write_skill("pdf", files={"text": content}))
    assert read_slice(skill, "text", 0, limit) == (expected.encode(), len(content.encode()))


@pytest.mark.parametrize(
    ("content", "offset", "limit", "expected"),
    [
        ("é", 0, 1, b"\xc3"),
        ("é", 1, 1, b"\xa9"),
        ("😀", 0, 3, b"\xf0\x9f\x98"),
        (b"a\xff\xc3", 0, 3, b"a\xff\xc3"),
        (b"a\xc3", 0, 2, b"a\xc3"),
        (b"\x00\xff\xe2\x82\x00", 0, 4, b"\x00\xff\xe2\x82"),
        (b"\xa9a\xc3\xa9", 0, 3, b"\xa9a\xc3"),
    ],
)
def test_a_slice_of_bytes_is_as_long_as_asked(
    write_skill: WriteSkill, content: str | bytes, offset: int, limit: int, expected: bytes
) -> None:
    """Nothing is cut off what is no text, off less than a character, or off the file's end."""
    skill = skill_of(write_skill("pdf", files={"data": content}))
    assert read_slice(skill, "data", offset, limit)[0] == expected


@given(st.one_of(st.text(), st.binary()), st.integers(1, 9))
def test_slices_put_together_are_the_file(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes, limit: int
) -> None:
    """Whoever asks on from where the last slice ended gets every byte once."""
    raw = content.encode(errors="replace") if isinstance(content, str) else content
    directory = tmp_path_factory.getbasetemp() / "slices"
    directory.mkdir(exist_ok=True)
    (directory / "SKILL.md").write_text(skill_md("slices"))
    (directory / "data").write_bytes(raw)
    skill = skill_of(directory)
    read = b""
    while True:
        piece, size = read_slice(skill, "data", len(read), limit)
        read += piece
        if len(read) >= size:
            break
        assert piece
    assert read == raw


@pytest.mark.parametrize("name", ["a b", "é", "new\nline", ".hidden", "-n", "a\\b", "sub/deep/file", "SKILL.md"])
def test_every_file_can_be_read_by_its_path(write_skill: WriteSkill, name: str) -> None:
    """Whatever its name."""
    directory = write_skill("pdf", files={name: skill_md("pdf")})
    assert read_slice(skill_of(directory), name, 0, ALL)[0] == skill_md("pdf").encode()


@pytest.mark.parametrize(
    "path",
    [
        "missing",
        "sub",
        "sub/missing",
        "SKILL.md/x",
        "pipe",
        "socket",
        "x" * 300,
        "x/" * 3_000 + "x",
        "a\0b",
        "\ud800",
        "skill.md",
    ],
)
def test_what_is_no_file_is_not_found(write_skill: WriteSkill, path: str) -> None:
    """A directory, a pipe and a name that no file can have are answered alike."""
    directory = write_skill("pdf", files={"sub/file": ""})
    os.mkfifo(directory / "pipe")
    os.mknod(directory / "socket", 0o140600)
    assert refused(skill_of(directory), path)


@pytest.mark.parametrize(
    ("link", "target", "path", "expected"),
    [
        ("link", "sub/file", "link", "inside"),
        ("link", "{skill}/sub/file", "link", "inside"),
        ("link", "sub", "link/file", "inside"),
        ("sub/up", "..", "sub/up/sub/file", "inside"),
        ("link", "../pdf/sub/file", "link", "inside"),
        ("link", "SKILL.md", "link", None),
        ("link", "{secret}", "link", None),
        ("link", "../secret", "link", None),
        ("link", "..", "link/secret", None),
        ("link", "/", "link/etc/passwd", None),
        ("link", "link", "link", None),
        ("link", "nowhere", "link", None),
        ("link", "/dev/zero", "link", None),
        ("link", "/proc/self/environ", "link", None),
        ("link", "../pdf-other/file", "link", None),
        ("link", ".", "link", None),
        ("skill.md", "{secret}", "skill.md", None),
    ],
)
def test_a_link_is_read_if_it_stays_inside(
    root: Path, write_skill: WriteSkill, link: str, target: str, path: str, expected: str | None
) -> None:
    """A way out is no way, in whatever part of the path it lies, and under whatever name."""
    directory = write_skill("pdf", files={"sub/file": "inside"})
    write_skill("pdf-other", files={"file": "other"})
    (root / "secret").write_text("secret")
    skill = skill_of(directory)
    (directory / link).symlink_to(target.format(skill=directory, secret=root / "secret"))
    if target == "SKILL.md":
        expected = skill_md("pdf")
    if expected is None:
        assert refused(skill, path)
    else:
        assert read_slice(skill, path, 0, ALL) == (expected.encode(), len(expected))


def test_a_skill_behind_a_link_is_read_like_another(root: Path, tmp_path: Path, write_skill: WriteSkill) -> None:
    """Inside means below the directory that the link leads to."""
    directory = write_skill("pdf", files={"a": "a", "sub/b": "b"}, into=tmp_path / "elsewhere")
    (directory / "sub" / "link").symlink_to("../a")
    (directory / "out").symlink_to("../../outside")
    (tmp_path / "outside").write_text("secret")
    (root / "pdf").symlink_to(directory)
    skill = skill_of(root / "pdf")
    assert [read_slice(skill, path, 0, ALL)[0] for path in ("a", "sub/b", "sub/link")] == [b"a", b"b", b"a"]
    assert refused(skill, "out")


@pytest.mark.parametrize("name", ["SKILL.md", "skill.md"])
def test_a_linked_skill_md_is_read_while_it_is_the_indexed_one(
    root: Path, tmp_path: Path, write_skill: WriteSkill, name: str
) -> None:
    """The one link that may lead out; led elsewhere since, it is not found before the next scan has judged it."""
    target = write_skill("pdf", into=tmp_path / "elsewhere") / "SKILL.md"
    (root / "pdf").mkdir()
    (root / "pdf" / name).symlink_to(target)
    skill = skill_of(root / "pdf")
    assert read_slice(skill, name, 4, 4) == (b"name", len(skill_md("pdf")))
    (tmp_path / "secret").write_text("secret")
    for new_target in (tmp_path / "secret", "/etc/passwd", "/dev/zero", "nowhere"):
        (root / "pdf" / name).unlink()
        (root / "pdf" / name).symlink_to(new_target)
        assert refused(skill, name)
    with open(tmp_path / "giant", "wb") as file:
        file.truncate(reading.LINKED_LIMIT_BYTES + 1)
    (root / "pdf" / name).unlink()
    (root / "pdf" / name).symlink_to(tmp_path / "giant")
    assert refused(skill, name)


def test_a_file_without_permission_is_not_found(open_root: Path, write_skill: WriteSkill) -> None:
    """The caller learns no more than that it cannot have it."""
    directory = write_skill("pdf", files={"closed": "x", "closed-dir/x": "x"}, into=open_root)
    skill = skill_of(directory)
    (directory / "closed").chmod(0)
    (directory / "closed-dir").chmod(0)
    with as_nobody():
        assert refused(skill, "closed")
        assert refused(skill, "closed-dir/x")
    (directory / "closed-dir").chmod(0o755)


def test_a_deleted_skill_has_no_files(write_skill: WriteSkill) -> None:
    """Between its end on disk and its end in the registry."""
    directory = write_skill("pdf")
    skill = skill_of(directory)
    (directory / "SKILL.md").unlink()
    assert refused(skill, "SKILL.md")
    directory.rmdir()
    assert refused(skill, "SKILL.md")
    assert refused(replace(skill, path="/"), "SKILL.md")


@pytest.mark.parametrize("step", ["open", "stat"])
def test_a_directory_swapped_for_a_link_in_mid_reading_is_no_way_out(
    root: Path, write_skill: WriteSkill, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The swap happens right after the path was resolved, before every single step that follows."""
    directory = write_skill("pdf", files={"sub/file": "inside"})
    (root / "outside").mkdir()
    (root / "outside" / "file").write_text("secret")
    skill = skill_of(directory)
    real: Callable[..., object] = getattr(os, step)
    sub = directory / "sub"
    for swap_at in range(1, 6):
        calls = 0

        def swap_and_go_on(*args: object, swap_at: int = swap_at, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == swap_at and not sub.is_symlink():
                sub.rename(root / "kept")
                sub.symlink_to(root / "outside")
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(f"skilld.skills.reading.os.{step}", swap_and_go_on)
            try:
                content, _ = read_slice(skill, "sub/file", 0, ALL)
            except FileNotFound:
                content = b"inside"
        assert content == b"inside"
        if sub.is_symlink():
            sub.unlink()
            (root / "kept").rename(sub)


def test_a_directory_swapped_again_and_again_never_leads_out(root: Path, write_skill: WriteSkill) -> None:
    """Thousands of swaps beside thousands of reads: inside, or not found."""
    directory = write_skill("pdf", files={"sub/file": "inside"})
    (root / "outside").mkdir()
    (root / "outside" / "file").write_text("secret")
    skill = skill_of(directory)
    (directory / "link").symlink_to(root / "outside")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for one, other in (("sub", "kept"), ("link", "sub"), ("sub", "link"), ("kept", "sub")):
                (directory / one).rename(directory / other)

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(3_000):
            try:
                seen.add(read_slice(skill, "sub/file", 0, ALL)[0])
            except FileNotFound:
                seen.add(b"")
    finally:
        done.set()
        swapper.join()
    assert seen <= {b"inside", b""}


def test_a_file_that_grows_meanwhile_has_the_size_that_was_read(write_skill: WriteSkill) -> None:
    """The size is never less than what the slice ends at."""
    directory = write_skill("pdf", files={"log": "x" * 10})
    skill = skill_of(directory)
    (directory / "log").write_text("y" * 20)
    age(directory / "log")
    assert read_slice(skill, "log", 5, 100) == (b"y" * 15, 20)
