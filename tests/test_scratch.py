"""Directories of a run, and their removal."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skilld.scripts.canary import prove
from skilld.scripts.plan import Target
from skilld.scripts.runner import Bounds, Ended
from skilld.scripts.scratch import CANARY, fresh_directory, remove_left_over, scratch
from skilld.scripts.started import SetupFailed
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
    canary = base / "skilld-canary-left"
    (canary / "skill").mkdir(parents=True)
    (canary / "secret").write_text("secret")
    (canary / "link").symlink_to(base / "skilld-run-file")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(canary / "s"))
    with scratch() as place, fresh_directory(CANARY) as directory:
        remove_left_over()
        assert os.path.isdir(place.work_dir)
        expected = [Path(place.work_dir).parent.name, Path(directory).name, "skilld-run-file"]
        assert sorted(os.listdir(base)) == sorted(expected)


async def test_the_canary_s_directory_is_one_of_them(base: Path) -> None:
    """It is in use while the canary is, and gone afterwards."""

    async def run(target: Target, skill_dir: str, bounds: Bounds, shown: tuple[str, ...]) -> Ended:
        remove_left_over()
        assert os.path.isdir(skill_dir)
        assert os.listdir(base) == [Path(skill_dir).parent.name]
        raise SetupFailed("seen")

    assert (await prove(run, 1 << 28)).reason == "seen"
    assert os.listdir(base) == []
