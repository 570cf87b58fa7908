"""What runs is what the digest covers, whatever is done to the skill's files meanwhile."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skilld.config import Execution
from skilld.scripts.executor import Executor, Wish
from skilld.scripts.opening import open_script
from skilld.skills.scanner import ScanLimits, scan
from tests.redteam.rungs import RUNGS, SHARED_PROC, why_not

LIMITS = ScanLimits(1 << 20, 100, 1 << 20, 6, frozenset())
FILES = {
    "SKILL.md": "---\nname: demo\ndescription: d\n---\n",
    "scripts/a.py": "import b\nprint(b.WORD, open('scripts/c').read())\n",
    "scripts/b.py": "WORD = 'old'\n",
    "scripts/c": "old",
}


@pytest.fixture
def skill_dir() -> Iterator[Path]:
    """A skill of several files, long unchanged."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        path = Path(directory, "demo")
        for name, text in FILES.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text)
            os.utime(path / name, (1_000, 1_000))
        yield path


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
@pytest.mark.parametrize("change", [overwrite, overwrite_in_secret, replace])
@pytest.mark.parametrize("name", ["scripts/b.py", "scripts/c"])
async def test_a_change_before_the_run(skill_dir: Path, rung: str, change: Callable[[Path], None], name: str) -> None:
    """A run that may have seen something else bears no digest."""
    if why := why_not(rung):
        pytest.skip(f"SANDBOX MISSING: {rung}: {why}")
    entry = next(scan(str(skill_dir.parent), "", {}, LIMITS))
    assert entry.skill is not None and entry.skill.digest is not None
    executor = Executor(Execution(backend=rung, bwrap_path="/usr/bin/bwrap"))
    try:
        for has_changed in (False, True):
            opened = open_script(entry.skill, "scripts/a.py", entry.files, 100)
            try:
                if has_changed:
                    change(skill_dir / name)
                outcome = await executor.run(opened, Wish(), client=1)
            finally:
                opened.close()
            assert (outcome.ended.stdout.head == b"old old\n") is not has_changed
            assert outcome.skill_digest == (None if has_changed else entry.skill.digest)
    finally:
        await executor.close()
