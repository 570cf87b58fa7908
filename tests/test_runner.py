"""The life of one run, over a rung that confines nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from skilld.scripts import runner
from skilld.scripts.landlock import Kept, Launcher
from skilld.scripts.plan import GRACE_S, Allowance, Host, Target, make_plan
from skilld.scripts.processes import descendants, usage_below
from skilld.scripts.runner import Bounds, Ended, OnOutput, run, to_the_end
from skilld.scripts.started import SetupFailed, Stdio

BOUNDS = Bounds(20, 1_000, 1 << 30, 64)
ALLOWANCE = Allowance(1 << 30, 1_000, 1 << 30, 256, 1, 1)


@pytest.fixture
async def launcher() -> AsyncIterator[Launcher]:
    """A fork server."""
    one = Launcher()
    yield one
    await one.close()


class Runs:
    """Runs shell scripts, and keeps what was started."""

    def __init__(self, launcher: Launcher, directory: Path) -> None:
        self.launcher = launcher
        self.directory = directory
        self.started: list[Kept] = []

    async def __call__(
        self,
        text: str,
        bounds: Bounds = BOUNDS,
        *,
        stdin: bytes | None = None,
        on_output: OnOutput | None = None,
        program: str = "/bin/sh",
    ) -> Ended:
        (self.directory / "a.sh").write_text(text)
        plan = make_plan("none", Target("demo", "a.sh", (program,)), ALLOWANCE, Host(work_dir="/", tmp_dir="/"))
        skill_fd = os.open(self.directory, os.O_PATH)

        async def start(stdio: Stdio) -> Kept:
            self.started.append(await self.launcher.start(plan, stdio, {"@skill": skill_fd}))
            return self.started[-1]

        try:
            return await run(start, bounds, stdin=stdin, on_output=on_output)
        finally:
            os.close(skill_fd)


@pytest.fixture
def runs(launcher: Launcher, tmp_path: Path) -> Runs:
    return Runs(launcher, tmp_path)


async def until(claim: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not claim():
            changed = asyncio.Event()
            asyncio.get_running_loop().call_later(0.01, changed.set)
            await changed.wait()


@pytest.mark.parametrize(
    ("text", "code"),
    [("exit 0", 0), ("exit 255", 255), ("kill -SEGV $$", 139), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
async def test_exit_codes(runs: Runs, text: str, code: int) -> None:
    """The script's own, or 128 and the signal; the daemon sent none."""
    ended = await runs(text)
    assert (ended.exit_code, ended.signal, ended.timed_out) == (code, None, False)


async def test_all_streams(runs: Runs) -> None:
    """Megabytes in and out, both at once; hashes are of everything."""
    data = os.urandom(3_000_000)
    ended = await runs("cat; yes x | head -c 2000000 >&2", stdin=data)
    assert (ended.stdout.bytes_count, ended.stderr.bytes_count) == (3_000_000, 2_000_000)
    assert ended.stdout.sha256 == hashlib.sha256(data).hexdigest()
    assert ended.stdout.head + ended.stdout.tail == data[:750] + data[-250:]


@pytest.mark.parametrize("text", ["exec <&-; exit 3", "exit 3", "exec 0<&- 1>&- 2>&-; exit 3", "head -c 1; exit 3"])
async def test_streams_that_are_closed_early(runs: Runs, text: str) -> None:
    """By the script; it is its own business."""
    assert (await runs(text, stdin=b"x" * 1_000_000)).exit_code == 3


async def test_a_script_that_does_not_heed(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM at its time, SIGKILL after a moment of grace: exit code 137."""
    assert GRACE_S == 2.0
    monkeypatch.setattr(runner, "GRACE_S", 0.2)
    ended = await runs("trap '' TERM; echo up; while :; do sleep 0.05; done", Bounds(0.3, 1_000, 1 << 30, 64))
    assert (ended.exit_code, ended.signal, ended.timed_out) == (137, "SIGKILL", True)
    assert ended.stdout.head == b"up\n"
    assert ended.duration_s >= 0.5
    ended = await runs("sleep 60", Bounds(0.2, 1_000, 1 << 30, 64))
    assert (ended.exit_code, ended.signal, ended.timed_out) == (143, "SIGTERM", True)


async def test_a_cancelled_run_leaves_nothing(runs: Runs) -> None:
    """All its processes are gone when the cancellation is through, also those that it sent to the background."""
    pids: list[int] = []

    async def on_output(stream: str, data: bytes) -> None:
        pids.extend(map(int, data.split()))

    task = asyncio.create_task(
        runs("setsid sh -c 'echo $$; exec sleep 60' & sleep 61 & echo $! $$; wait", on_output=on_output)
    )
    await until(lambda: len(pids) == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []


async def test_memory_and_processes_are_watched(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that holds more than it may, over all its processes, is killed."""
    monkeypatch.setattr(runner, "WATCH_S", 0.01)
    # Not the last command: the shell would become it, and hold nothing any more.
    hog = "x=$(head -c 10000000 /dev/zero | tr '\\0' x); sleep 60; :"
    ended = await runs(f"({hog}) & ({hog}) & wait", Bounds(20, 1_000, 15_000_000, 64))
    assert (ended.exit_code, ended.signal, ended.timed_out) == (137, "SIGKILL", False)
    ended = await runs("for i in 1 2 3 4 5 6; do sleep 60 & done; wait", Bounds(20, 1_000, 1 << 30, 4))
    assert (ended.exit_code, ended.signal, ended.timed_out) == (137, "SIGKILL", False)


async def test_processes_are_found(runs: Runs) -> None:
    """All below the keeper, with what they hold."""
    seen = asyncio.Event()

    async def on_output(stream: str, data: bytes) -> None:
        seen.set()

    task = asyncio.create_task(runs("sleep 60 & (sleep 61 & echo up; wait)", on_output=on_output))
    await seen.wait()
    (kept,) = runs.started
    assert len(list(descendants(kept.pid))) == 4
    assert usage_below(kept.pid, 2).threads == 3
    usage = usage_below(kept.pid, 64)
    assert usage.threads == 4
    assert 0 < usage.memory_bytes < 100_000_000
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert list(descendants(kept.pid)) == []


async def test_what_cannot_be_started(runs: Runs, launcher: Launcher) -> None:
    """Is told apart from a script that failed."""
    with pytest.raises(SetupFailed, match="No such file"):
        await runs("exit 1", program="/no/such/program")
    await launcher.close()
    with pytest.raises(SetupFailed):
        await runs("exit 1")


async def test_a_reader_that_fails_ends_the_run(runs: Runs) -> None:
    """What goes wrong with the output is raised, and the script is gone."""

    async def on_output(stream: str, data: bytes) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await runs("echo $$; sleep 60", on_output=on_output)
    assert list(descendants(runs.started[0].pid)) == []


async def test_a_reader_that_stops_holds_no_place(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends without him, and all that was written counts."""
    monkeypatch.setattr(runner, "READER_S", 0.05)

    async def on_output(stream: str, data: bytes) -> None:
        await asyncio.Event().wait()

    ended = await runs("echo a; echo b >&2; sleep 0.2; printf c", on_output=on_output)
    assert (ended.stdout.head, ended.stderr.head) == (b"a\nc", b"b\n")


async def test_to_the_end() -> None:
    """Work that must not stay half done goes on through a cancellation, and the cancellation is not lost."""
    gate, done = asyncio.Event(), []

    async def work() -> None:
        await gate.wait()
        done.append(True)

    task = asyncio.create_task(to_the_end(work()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]
