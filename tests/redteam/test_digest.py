"""What runs is what the digest covers, whatever is done to the skill's files meanwhile."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skilld.config import Execution
from skilld.scripts.executor import Executor, Wish
from skilld.scripts.fairqueue import Client
from skilld.scripts.opening import open_script
from skilld.skills.scanner import ScanLimits, scan
from tests.redteam.rungs import BWRAP, RUNGS, SHARED_PROC, why_not

LIMITS = ScanLimits(1 << 20, 100, 1 << 20, 6, frozenset())
FILES = {
    "SKILL.md": "---\nname: demo\ndescription: d\n---\n",
    "scripts/a.py": "import b\nprint(b.WORD, open('scripts/c').read())\n",
    "scripts/b.py": "WORD = 'old'\n",
    "scripts/c": "old",
}


@contextlib.contextmanager
def skill() -> Iterator[Path]:
    """A skill of several files, long unchanged."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        path = Path(directory, "demo")
        for name, text in FILES.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text)
            os.utime(path / name, (1_000, 1_000))
        yield path


def leave_alone(path: Path) -> None:
    """The control."""


def overwrite(path: Path) -> None:
    path.write_text(path.read_text().replace("old", "new"))


def overwrite_in_secret(path: Path) -> None:
    """The same size and the same time of change, as far as an ordinary user can forge it."""
    overwrite(path)
    os.utime(path, (1_000, 1_000))


def replace(path: Path) -> None:
    spare = path.with_suffix(".spare")
    spare.write_text(path.read_text().replace("old", "new"))
    os.utime(spare, (1_000, 1_000))
    spare.rename(path)


@pytest.mark.parametrize("rung", [rung for rung in RUNGS if rung != SHARED_PROC])
async def test_a_change_before_the_run(rung: str) -> None:
    """A run that may have seen something else bears no digest."""
    if why := why_not(rung):
        pytest.skip(f"SANDBOX MISSING: {rung}: {why}")
    executor = Executor(Execution(backend=rung, bwrap_path=BWRAP))
    try:
        for change in (leave_alone, overwrite, overwrite_in_secret, replace):
            for name in ("scripts/b.py", "scripts/c"):
                await _run_changed(executor, change, name)
    finally:
        await executor.close()


async def _run_changed(executor: Executor, change: Callable[[Path], None], name: str) -> None:
    with skill() as path:
        entry = next(scan(str(path.parent), "", {}, LIMITS))
        assert entry.skill is not None and entry.skill.digest is not None
        opened = open_script(entry.skill, "scripts/a.py", entry.files, 100, 1 << 20)
        try:
            change(path / name)
            outcome = await executor.run(opened, Wish(), client=Client(0, 1))
        finally:
            opened.close()
        is_old = change is leave_alone
        assert (outcome.ended.stdout.head == b"old old\n") is is_old, (change, name)
        assert outcome.skill_digest == (entry.skill.digest if is_old else None), (change, name)
