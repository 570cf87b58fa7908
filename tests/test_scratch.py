"""Directories of a run, and their removal."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skilld.scripts.scratch import remove_left_over, scratch
from tests.isolation import as_nobody


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where scratch directories are made, by whatever user."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        os.chmod(directory, 0o777)
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def litter(work_dir: str) -> None:
    """What a script may leave."""
    os.symlink("/", f"{work_dir}/link")
    os.mkfifo(f"{work_dir}/fifo")
    Path(f"{work_dir}/file").write_text("x")
    here = os.open(work_dir, os.O_RDONLY)
    current = os.dup(here)
    for _ in range(300):
        os.mkdir("deep", dir_fd=current)
        below = os.open("deep", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    os.close(current)
    os.close(here)
    os.mkdir(f"{work_dir}/closed")
    Path(f"{work_dir}/closed/file").write_text("x")
    os.chmod(f"{work_dir}/closed", 0)
    os.chmod(work_dir, 0)


def test_nothing_is_left(base: Path) -> None:
    """Links, pipes, directories that are deep or closed: all of it goes, and nothing outside, for any user."""

    def use() -> list[str]:
        with scratch() as place:
            litter(place.work_dir)
        return os.listdir(base)

    assert use() == []
    assert as_nobody(use) == []


def test_what_is_empty_goes_at_once(base: Path) -> None:
    """And what is not, does not."""
    with scratch() as place:
        assert os.stat(place.work_dir).st_mode & 0o777 == 0o700
        assert place.remove_empty()
        assert os.listdir(base) == []
    with scratch() as place:
        Path(place.tmp_dir, "x").write_text("")
        assert not place.remove_empty()
    assert os.listdir(base) == []


def test_what_a_killed_daemon_left(base: Path) -> None:
    """Is removed by the next one; what another uses is left alone."""
    left = base / "skilld-run-left"
    (left / "work/a").mkdir(parents=True)
    (base / "skilld-run-file").write_text("")
    with scratch() as place:
        remove_left_over()
        assert os.path.isdir(place.work_dir)
        assert sorted(os.listdir(base)) == sorted([Path(place.work_dir).parent.name, "skilld-run-file"])
