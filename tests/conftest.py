"""Fixtures for all tests: skills on a disk, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import json
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import hypothesis
import pytest

# Here, and not beside what it speaks of: where several processes run the tests, their leader knows no other conftest.
from tests.summary import pytest_terminal_summary as pytest_terminal_summary

# The machine may be busy with other things; what matters is that an example passes.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# Unix seconds, long ago: a file so old is never taken for one that is being written.
OLD_S = 1_700_000_000
NOBODY_UID = 65_534
# Threads and processes that are ending have so long to end, in seconds.
PATIENCE_S = 5.0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a file to one process, and to one process all that attack the machine, or boot one, beside each other."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):  # type: ignore[misc] # no types
        def _split_scope(self, nodeid: str) -> str:
            folder, _, _ = nodeid.rpartition("::")[0].rpartition("/")
            return folder if folder in ("tests/redteam", "tests/systemd") else super()._split_scope(nodeid)

    return ByFile(config, log)


class WriteSkill(Protocol):
    """What the fixture ``write_skill`` is."""

    def __call__(
        self,
        id: str,
        skill_md: str | bytes | None = None,
        /,
        *,
        files: Mapping[str, str | bytes] | None = None,
        into: Path | None = None,
    ) -> Path: ...


def skill_md(name: str, description: str = "Does things.", body: str = "Steps.\n") -> str:
    """The text of a SKILL.md without a fault."""
    return f"---\nname: {name}\ndescription: {description}\n---\n\n{body}"


def age(path: Path) -> None:
    """Make a file look as if it had been written long ago."""
    os.utime(path, (OLD_S, OLD_S), follow_symlinks=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty directory to put skills in."""
    path = tmp_path / "skills"
    path.mkdir()
    return path


@pytest.fixture
def write_skill(root: Path) -> WriteSkill:
    """
    Write a skill below ``root`` (or the directory ``into``) and return its directory.

    Without a text, its SKILL.md has no fault; ``files`` are written beside it. All look as if written long ago.
    """

    def write(
        id: str,
        text: str | bytes | None = None,
        /,
        *,
        files: Mapping[str, str | bytes] | None = None,
        into: Path | None = None,
    ) -> Path:
        directory = (into or root) / id
        # Quotes for what is no plain YAML: blanks, line breaks, bytes that are not UTF-8.
        name = directory.name if re.fullmatch(r"[a-z][a-z0-9-]*", directory.name) else json.dumps(directory.name)
        contents = {"SKILL.md": skill_md(name) if text is None else text, **(files or {})}
        for name, content in contents.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            age(path)
        return directory

    return write


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Be an ordinary user for a while: modes say nothing to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY_UID)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_root() -> Iterator[Path]:
    """An empty directory that an ordinary user can reach, too."""
    with tempfile.TemporaryDirectory(prefix="skilld-test-") as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Fail a test that leaves a child process or a file descriptor behind."""
    before = _children() | _descriptors()
    yield
    give_up = time.monotonic() + PATIENCE_S
    while left := {**_children(), **_descriptors()}.items() - before.items():
        # What only the garbage collector closes has its own warning, which is an error.
        gc.collect()
        if time.monotonic() > give_up:
            pytest.fail(f"left behind: {', '.join(sorted(f'{what} {name}' for what, name in left))}")
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def _no_task_left(request: pytest.FixtureRequest, _nothing_left: None) -> None:
    """Fail a test that leaves an asyncio task behind."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_watched_tasks")


@pytest.fixture
async def _watched_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        pytest.fail(f"left behind: {', '.join(sorted(task.get_name() for task in left if task))}")


def _children() -> dict[str, str]:
    """Child processes of this one, ended ones that nobody waited for included: "process" by id."""
    found: dict[str, str] = {}
    for task in os.listdir("/proc/self/task"):
        try:
            text = Path(f"/proc/self/task/{task}/children").read_text()
        except OSError:  # the thread ended, or the kernel was built without this file
            continue
        found.update({f"process {pid}": "" for pid in text.split()})
    return found


def _descriptors() -> dict[str, str]:
    """Open file descriptors: what each leads to, by number."""
    found: dict[str, str] = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[f"descriptor {number}"] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # the one that lists them
            continue
    return found
