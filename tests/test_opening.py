"""Opening a script beneath its skill."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from skilld.errors import FileNotFound, SkillNotFound
from skilld.scripts import kernel
from skilld.scripts.opening import OpenScript, Stale, open_script
from skilld.skills.scanner import Entry, ScanLimits, scan

LIMITS = ScanLimits(1 << 20, 100, 1 << 20, 6, frozenset())


@pytest.fixture
def skill_dir(tmp_path: Path) -> Path:
    """A skill with one script."""
    path = tmp_path / "demo"
    (path / "scripts/sub").mkdir(parents=True)
    (path / "SKILL.md").write_text("---\nname: demo\ndescription: d\n---\n")
    (path / "scripts/a.sh").write_text("echo a\n")
    for name in ("SKILL.md", "scripts/a.sh"):
        os.utime(path / name, (1_000, 1_000))
    return path


def indexed(skill_dir: Path) -> Entry:
    """The skill as a scan knows it."""
    return next(scan(str(skill_dir.parent), "", {}, LIMITS))


def opened(entry: Entry, script: str = "scripts/a.sh") -> OpenScript:
    assert entry.skill is not None
    return open_script(entry.skill, script, entry.files, 100, 1 << 20)


def test_what_is_opened(skill_dir: Path) -> None:
    """Its beginning, its hash, its skill's digest; the directory is locked until it is closed."""
    entry = indexed(skill_dir)
    assert entry.skill is not None
    script = opened(entry)
    assert script.head == b"echo a\n"
    assert script.sha256 == entry.skill.resources[0].sha256
    assert script.digest == entry.skill.digest is not None
    assert script.is_in_place()
    with pytest.raises(BlockingIOError):
        lock(skill_dir)
    script.close()
    lock(skill_dir)


def lock(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def test_it_stays_in_its_directory(skill_dir: Path) -> None:
    """Whatever is put in the directory's place."""
    script = opened(indexed(skill_dir))
    skill_dir.rename(skill_dir.with_name("old"))
    assert not script.is_in_place()
    skill_dir.mkdir()
    assert not script.is_in_place()
    assert os.listdir(script.skill_fd) != []
    script.close()


def test_what_changed_since_the_scan(skill_dir: Path) -> None:
    """Another script is looked at again; another file costs the digest."""
    entry = indexed(skill_dir)
    (skill_dir / "notes.md").write_text("new")
    script = opened(entry)
    assert script.digest is None
    script.close()
    (skill_dir / "scripts/a.sh").write_text("echo b\n")
    with pytest.raises(Stale):
        opened(entry)
    (skill_dir / "scripts/new.sh").write_text("")
    with pytest.raises(Stale):
        opened(entry, "scripts/new.sh")


def test_a_directory_that_is_being_removed(skill_dir: Path) -> None:
    """Is looked at again; one that has gone is no skill."""
    entry = indexed(skill_dir)
    descriptor = os.open(skill_dir, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(Stale):
        opened(entry)
    os.close(descriptor)
    skill_dir.rename(skill_dir.with_name("gone"))
    with pytest.raises(SkillNotFound):
        opened(entry)


@pytest.mark.parametrize("has_openat2", [True, False])
@pytest.mark.parametrize(
    ("make", "script"),
    [
        (lambda base: (base / "x").symlink_to("a.sh"), "scripts/x"),
        (lambda base: (base / "x").symlink_to("/bin/sh"), "scripts/x"),
        (lambda base: (base / "x").symlink_to("sub"), "scripts/x/y"),
        (lambda base: (base / "x").symlink_to("/proc/self/exe"), "scripts/x"),
        (lambda base: os.mkfifo(base / "x"), "scripts/x"),
        (lambda base: None, "scripts/sub"),
        (lambda base: None, "scripts/none"),
        (lambda base: None, "scripts/a.sh/x"),
        (lambda base: None, "../demo/scripts/a.sh"),
        (lambda base: None, "/bin/sh"),
        (lambda base: None, "scripts/a.sh\0x"),
        (lambda base: None, "scripts/" + "x" * 300),
        (lambda base: None, "scripts/\udcff"),
    ],
)
def test_what_is_no_script(
    skill_dir: Path, make: Callable[[Path], object], script: str, has_openat2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links of every kind, what is no regular file, what leads out: with the kernel's help and without it."""
    if not has_openat2:
        monkeypatch.setattr(kernel, "_OPENAT2", 10_000)
    make(skill_dir / "scripts")
    with pytest.raises(FileNotFound):
        opened(indexed(skill_dir), script)


def test_without_openat2(skill_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old kernel opens the same file."""
    monkeypatch.setattr(kernel, "_OPENAT2", 10_000)
    script = opened(indexed(skill_dir))
    assert script.head == b"echo a\n"
    script.close()
