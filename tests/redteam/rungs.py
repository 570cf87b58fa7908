"""
Running plans as the daemon does: the rungs that this machine offers, and a script in each of them.

Owns: nothing that outlives a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from skilld.scripts import bubblewrap, landlock, launcher, runner
from skilld.scripts.host import read_host
from skilld.scripts.kernel import landlock_abi
from skilld.scripts.plan import GRACE_S, SKILL, TMP, WORK, Allowance, Plan, Target, make_plan
from skilld.scripts.runner import Bounds, Ended, OnOutput
from skilld.scripts.scratch import remove_left_over, scratch
from skilld.scripts.started import SetupFailed, Started, Stdio
from tests.redteam.world import PYTHON, World, in_child

BWRAP = "/usr/bin/bwrap"
# The second is for containers where no fresh /proc can be mounted.
SHARED_PROC = "bubblewrap-shared-proc"
RUNGS = ("bubblewrap", SHARED_PROC, "landlock")

# Small enough to be exceeded in a moment.
ALLOWANCE = Allowance(
    memory_bytes=128 << 20, max_processes=64, file_bytes=32 << 20, open_files=256, tmp_bytes=32 << 20,
    work_bytes=48 << 20,
)  # fmt: skip
LIMITS = {
    "processes": ALLOWANCE.max_processes, "memory_bytes": ALLOWANCE.memory_bytes, "tmp_bytes": ALLOWANCE.tmp_bytes,
    "work_bytes": ALLOWANCE.work_bytes, "file_bytes": ALLOWANCE.file_bytes, "open_files": ALLOWANCE.open_files,
}  # fmt: skip
BOUNDS = Bounds(timeout_s=40, output_bytes=1 << 20, memory_bytes=128 << 20, max_processes=64)
# Runs at a time.
AT_A_TIME = 3

Change = Callable[[Plan], Plan]
T = TypeVar("T")


def why_not(rung: str) -> str:
    """Say why this machine does not offer a rung; empty where it does."""
    if rung != "landlock":
        return bubblewrap.check_program(BWRAP) or ""
    abi = landlock_abi()
    return "" if abi >= landlock.LEAST_ABI else f"Landlock's ABI is {abi}, not {landlock.LEAST_ABI}"


@dataclass(frozen=True)
class Job:
    """One run: attacks, or another command in place of the probe, and a change of the plan."""

    names: Sequence[str] = ()
    change: Change | None = None
    argv: tuple[str, ...] = ()
    stdin: str | None = None
    bounds: Bounds = BOUNDS


@dataclass(frozen=True)
class Done:
    """How a run went; ``failure`` says why the sandbox was not made."""

    exit_code: int = -1
    signal: str | None = None
    timed_out: bool = False
    stdout: str = ""
    stderr: str = ""
    stdout_bytes: int = 0
    duration_s: float = 0.0
    failure: str = ""


def run_in_sandboxes(
    world: World, rung: str, jobs: Sequence[Job], *, grace_s: float = GRACE_S, at_a_time: int = AT_A_TIME
) -> list[Done]:
    """Carry jobs out in sandboxes of their own, some at a time, as the world's user and in a child process."""

    def work() -> list[dict[str, Any]]:
        runner.GRACE_S = grace_s  # type: ignore[attr-defined]  # where it is asked for
        return [dataclasses.asdict(done) for done in asyncio.run(_run_all(world, rung, jobs, at_a_time))]

    return [Done(**done) for done in in_child(world.uid, world, _reachable(world, work))]


def measure_growth(world: World, rung: str, job: Job) -> tuple[Done, int]:
    """Carry a job out, and tell by how many bytes the process that did so grew at most."""

    def work() -> tuple[dict[str, Any], int]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (done,) = asyncio.run(_run_all(world, rung, [job], 1))
        return dataclasses.asdict(done), 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

    done, growth = in_child(world.uid, world, _reachable(world, work))
    return Done(**done), growth


def restart_daemon(world: World) -> None:
    """Do what a daemon does at its start about what one that was killed has left."""
    in_child(world.uid, world, _reachable(world, remove_left_over))


def kill_daemon(world: World, rung: str, job: Job) -> None:
    """Start a job, and kill the process that stands for the daemon when the script has written something."""

    async def die(stream: str, data: bytes) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        asyncio.run(_run_all(world, rung, [job], 1, die))

    in_child(world.uid, world, _reachable(world, work), dies=True)


def _reachable(world: World, work: Callable[[], T]) -> Callable[[], T]:
    """What the tests' Python and files are for, also where they are out of another user's reach."""
    shutil.copy(launcher.__file__, world.scratch / "launcher.py")

    def prepared() -> T:
        sys.executable = PYTHON
        tempfile.tempdir = str(world.scratch)
        launcher.__file__ = str(world.scratch / "launcher.py")
        return work()

    return prepared


async def _run_all(
    world: World, rung: str, jobs: Sequence[Job], at_a_time: int, on_output: OnOutput | None = None
) -> list[Done]:
    turns = asyncio.Semaphore(at_a_time)
    forks = landlock.Launcher() if rung == "landlock" else None

    async def one(job: Job) -> Done:
        async with turns:
            return await run_one(world, rung, job, forks, on_output)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(job)) for job in jobs]
        return [task.result() for task in tasks]
    finally:
        if forks is not None:
            await forks.close()


async def run_one(
    world: World, rung: str, job: Job, forks: landlock.Launcher | None, on_output: OnOutput | None
) -> Done:
    """Carry one job out, without namespaces where there is a fork server."""
    with scratch() as place, contextlib.ExitStack() as stack:
        plan = plan_for(rung, job, place.work_dir, place.tmp_dir)
        skill_fd = os.open(world.skill, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, skill_fd)
        directories = {SKILL: skill_fd, WORK: place.work_fd, TMP: place.tmp_fd}

        async def start(stdio: Stdio) -> Started:
            if forks is None:
                return await bubblewrap.start(BWRAP, plan, stdio, skill_fd)
            return await forks.start(plan, stdio, directories)

        text = world.order(plan.backend) if job.stdin is None else job.stdin
        try:
            return _done(await runner.run(start, job.bounds, stdin=text.encode(), on_output=on_output))
        except SetupFailed as exc:
            return Done(failure=str(exc))


def _done(ended: Ended) -> Done:
    stdout, stderr = (
        (one.head + one.tail).decode(errors="replace") for one in (ended.stdout, ended.stderr)
    )  # fmt: skip
    return Done(
        ended.exit_code, ended.signal, ended.timed_out, stdout, stderr, ended.stdout.bytes_count, ended.duration_s
    )


def plan_for(rung: str, job: Job, work_dir: str = "", tmp_dir: str = "") -> Plan:
    """The project's own plan for a job, and what the job changes of it."""
    target = Target("attacker", "scripts/probe.py", (PYTHON,), args=tuple(job.names))
    host = dataclasses.replace(read_host(shares_proc=rung == SHARED_PROC), work_dir=work_dir, tmp_dir=tmp_dir)
    plan = make_plan("landlock" if rung == "landlock" else "bubblewrap", target, ALLOWANCE, host)
    if job.argv:
        plan = dataclasses.replace(plan, argv=job.argv)
    return job.change(plan) if job.change else plan
