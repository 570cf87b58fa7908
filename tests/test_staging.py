"""Staging directories, and what is made of them when a daemon was killed."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from skilld.skills.staging import NEW, OLD, clean_up, put_back, put_in_place, staged, take_away
from tests.isolation import DISKS, NOBODY, imitate, killed_at

NAME = ".skilld-staged-0123456789abcdef"


@pytest.fixture
def root_fd(root: Path) -> Iterator[int]:
    """The root, open, with a skill in it."""
    fill(root / "pdf", "old")
    descriptor = os.open(root, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(params=DISKS)
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    imitate(monkeypatch, name, lower=(b"pdf", b"scripts"))
    return name


def fill(directory: Path, text: str) -> None:
    (directory / "scripts").mkdir(parents=True)
    (directory / "SKILL.md").write_text(text)
    (directory / "scripts/a").write_text(text)


def texts(root: Path) -> dict[str, str]:
    """The text of every file below a root; the names of directories without any."""
    files = {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}
    empty = {
        str(path.relative_to(root)): "empty" for path in root.rglob("*") if path.is_dir() and not any(path.iterdir())
    }
    return {**files, **empty}


def whole(text: str) -> dict[str, str]:
    return {"pdf/SKILL.md": text, "pdf/scripts/a": text}


def replace(root: Path, root_fd: int) -> bytes | None:
    with staged(root_fd) as staging:
        fill(root / os.fsdecode(staging.name) / "new", "new")
        return put_in_place(staging, root_fd, b"pdf", "pdf")


def delete(root_fd: int) -> bytes | None:
    with staged(root_fd) as staging:
        return take_away(staging, root_fd, b"pdf", "pdf")


def test_a_directory_takes_the_place_of_another(root: Path, root_fd: int, disk: str) -> None:
    """On any disk; nothing else is left."""
    assert replace(root, root_fd) == {"swaps": NEW, "no flags": OLD, "layers": None}[disk]
    assert texts(root) == whole("new")


def test_a_directory_is_taken_away(root: Path, root_fd: int, disk: str) -> None:
    """On any disk; nothing is left."""
    assert delete(root_fd) == (None if disk == "layers" else OLD)
    assert texts(root) == {}


def test_a_directory_is_put_back(root: Path, root_fd: int, disk: str) -> None:
    """Where it was kept; what somebody removed meanwhile stays away."""
    for is_there in (True, False):
        with staged(root_fd) as staging:
            fill(root / os.fsdecode(staging.name) / "new", "new")
            old = put_in_place(staging, root_fd, b"pdf", "pdf")
            if old is None:
                return
            if not is_there:
                (root / "pdf").rename(root / "elsewhere")
            put_back(staging, root_fd, b"pdf", old)
        assert texts(root / "pdf") == ({"SKILL.md": "old", "scripts/a": "old"} if is_there else {})


def test_a_kill_at_any_step_leaves_the_old_or_the_new(root: Path, root_fd: int, disk: str) -> None:
    """Once the next start has cleaned up; and nothing but that."""
    seen = set()
    step = 1
    while killed_at(step, lambda: replace(root, root_fd)):
        clean_up(os.fsencode(root))
        now = texts(root)
        assert now in (whole("old"), whole("new")), step
        seen.add(now["pdf/SKILL.md"])
        if now != whole("old"):
            assert not killed_at(1_000_000, lambda: delete(root_fd))
            fill(root / "pdf", "old")
        step += 1
    assert seen == {"old", "new"}


def test_a_kill_at_any_step_leaves_all_or_nothing(root: Path, root_fd: int, disk: str) -> None:
    """Once the next start has cleaned up."""
    seen = set()
    step = 1
    while killed_at(step, lambda: delete(root_fd)):
        clean_up(os.fsencode(root))
        now = texts(root)
        assert now in (whole("old"), {}), step
        seen.add(len(now))
        if not now:
            fill(root / "pdf", "old")
        step += 1
    assert seen == {0, 2}


def test_what_came_after_a_kill_is_left_alone(root: Path, root_fd: int) -> None:
    """A whole skill in the place is somebody's; the note of the dead daemon counts no more."""
    fill(root / NAME / "new", "new")
    fill(root / NAME / "old", "older")
    (root / NAME / "note").write_text(json.dumps({"id": "pdf", "action": "replace"}))
    clean_up(os.fsencode(root))
    assert texts(root) == whole("old")


@pytest.mark.parametrize(
    "note",
    [
        "no JSON",
        json.dumps({"id": "../victim", "action": "delete"}),
        json.dumps({"id": "/etc", "action": "delete"}),
        json.dumps({"id": "", "action": "delete"}),
        json.dumps({"id": "link/victim", "action": "delete"}),
        json.dumps([]),
    ],
)
def test_a_note_reaches_nothing_outside(
    root: Path, root_fd: int, tmp_path: Path, note: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever wrote it; the staging directory stays for somebody to look at."""
    (tmp_path / "victim").mkdir()
    (root / "link").symlink_to(tmp_path)
    (root / NAME).mkdir()
    (root / NAME / "note").write_text(note)
    clean_up(os.fsencode(root))
    assert (tmp_path / "victim").is_dir()
    assert (root / NAME).is_dir()
    assert NAME in caplog.text


def test_the_staging_of_a_living_daemon_is_left_alone(root: Path, root_fd: int) -> None:
    """Its lock tells; so are those of other users, and everything with another name."""
    with staged(root_fd) as staging:
        (root / os.fsdecode(staging.name) / "new").mkdir()
        (root / ".skilld-staged-mine").mkdir()
        (root / NAME).symlink_to(root / "pdf")
        if os.geteuid() == 0:
            (root / NAME.replace("0", "1")).mkdir()
            os.chown(root / NAME.replace("0", "1"), NOBODY, NOBODY)
        before = texts(root)
        clean_up(os.fsencode(root))
        assert texts(root) == before


def test_a_staging_directory_that_was_cleaned_up_too_early_is_made_again(
    root: Path, root_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that starts may find it between its making and its lock."""
    real = fcntl.flock
    calls = 0

    def flock(descriptor: int, operation: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise BlockingIOError(errno.EAGAIN, "another has it")
        if calls == 2:
            clean_up(os.fsencode(root))
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with staged(root_fd) as staging:
        assert (root / os.fsdecode(staging.name)).is_dir()
    clean_up(os.fsencode(root))
    assert texts(root) == whole("old")


def test_without_locks_nothing_is_cleaned_up(root: Path, root_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS: nobody can tell whether the daemon lives."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.EBADF, "bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (root / NAME).mkdir()
    clean_up(os.fsencode(root))
    assert replace(root, root_fd) == NEW
    assert texts(root) == {**whole("new"), NAME: "empty"}


def test_a_root_that_is_missing_has_nothing_to_clean_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And nobody is told."""
    caplog.set_level(logging.DEBUG)
    clean_up(os.fsencode(tmp_path / "nothing"))
    assert caplog.text == ""
