"""The cgroup that is delegated to the daemon, and those of its runs, in the kernel's own tree."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from skilld.scripts import cgroup
from skilld.scripts.cgroup import CONTROLLERS, Delegation, take_delegation
from skilld.scripts.plan import Allowance, Host, Target, make_plan
from skilld.scripts.rungs import BubblewrapRung, LauncherRung, Rung
from skilld.scripts.runner import Bounds, run

BWRAP = "/usr/bin/bwrap"
ALLOWANCE = Allowance(1 << 29, 64, 1 << 26, 256, 1 << 26, 1 << 28)


def cgroup2_root() -> Path | None:
    """Where the kernel shows its cgroups, if this user may make some."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.startswith("cgroup2 ") and os.geteuid() == 0:
            return Path(fields.split()[4])
    return None


ROOT = cgroup2_root()


@pytest.fixture
def delegated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A delegated group with this process in it."""
    if ROOT is None:
        pytest.skip("no cgroup2, or not root")
    own = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].split("\n")[0].lstrip("/")
    directory = ROOT / f"skilld-test-{secrets.token_hex(4)}"
    monkeypatch.setattr(cgroup, "ROOT", str(ROOT))
    switched, there = ROOT / "cgroup.subtree_control", (ROOT / "cgroup.controllers").read_text().split()
    # Where older cgroups have the real controllers, another one shows all but the limits themselves.
    controllers = tuple(name for name in CONTROLLERS if name in there) or tuple(there[:1])
    monkeypatch.setattr(cgroup, "CONTROLLERS", controllers)
    added = [name for name in controllers if name not in switched.read_text().split()]
    for name in added:
        switched.write_text(f"+{name}")
    directory.mkdir()
    try:
        os.setxattr(directory, "user.delegate", b"1")
        (directory / "cgroup.procs").write_text(str(os.getpid()))
        yield directory
    finally:
        (ROOT / own / "cgroup.procs").write_text(str(os.getpid()))
        for below in (*directory.iterdir(), directory):
            if below.is_dir():
                below.rmdir()
        for name in added:
            switched.write_text(f"-{name}")


def taken() -> Delegation:
    delegation = take_delegation()
    if delegation is None:
        pytest.skip("this machine's cgroup2 has no controllers")
    return delegation


def test_the_daemon_makes_room(delegated: Path) -> None:
    """It moves into a group beside those of its runs; the second time it finds itself there, and clears up."""
    delegation = taken()
    assert (delegated / "daemon/cgroup.procs").read_text().split() == [str(os.getpid())]
    assert (delegated / "cgroup.procs").read_text() == ""
    assert (delegated / "cgroup.subtree_control").read_text().split() == list(delegation.controllers)
    (delegated / "run-left").mkdir()
    assert taken().path == delegation.path == str(delegated)
    assert not (delegated / "run-left").exists()


def test_what_a_killed_daemon_left_is_ended(delegated: Path) -> None:
    """Its groups go, with the processes in them."""
    taken()
    left = delegated / "run-left"
    left.mkdir()
    sleeper = subprocess.Popen(["sleep", "60"])
    (left / "cgroup.procs").write_text(str(sleeper.pid))
    taken()
    is_left = left.exists()
    sleeper.kill()
    sleeper.wait()
    assert not is_left


async def test_a_second_cancellation_leaves_no_group(delegated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The removal is waited for, however impatient the caller is."""
    delegation = taken()
    inside = asyncio.Event()

    async def run() -> None:
        async with delegation.group(()):
            inside.set()
            await asyncio.Event().wait()

    real, tries = os.rmdir, 0

    def busy(path: str) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            running.cancel()
            raise OSError(errno.EBUSY, "busy", path)
        real(path)

    running = asyncio.create_task(run())
    await inside.wait()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", busy)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert (list(delegated.glob("run-*")), tries) == ([], 3)


def test_what_is_not_delegated_is_left_alone(delegated: Path) -> None:
    """Root could write to every group; it changes none that nobody gave to it."""
    os.removexattr(delegated, "user.delegate")
    assert take_delegation() is None
    assert not (delegated / "daemon").exists()


async def test_a_group_takes_all_with_it(delegated: Path) -> None:
    """What is in it at the end is killed, however often it has forked, and it is gone."""
    delegation = taken()
    async with delegation.group(()) as group:
        (path,) = delegated.glob("run-*")
        sleeper = subprocess.Popen(["sh", "-c", "read go; (setsid sleep 60 &) ; sleep 60"], stdin=subprocess.PIPE)
        group.add(sleeper.pid)
        assert sleeper.stdin is not None
        sleeper.stdin.close()
        while len((path / "cgroup.procs").read_text().split()) < 2:
            await asyncio.sleep(0.001)
        assert not group.ran_out_of_memory
    assert not path.exists()
    assert sleeper.wait() == -9


async def test_a_limit_that_does_not_exist_leaves_nothing(delegated: Path) -> None:
    """The group is gone, and the error names the file."""
    delegation = taken()
    with pytest.raises(OSError, match="no-such-limit"):
        async with delegation.group((("no-such-limit", "1"),)):
            pass
    assert list(delegated.glob("run-*")) == []


@pytest.mark.parametrize("backend", ["bubblewrap", "landlock"])
async def test_a_run_is_in_its_group(delegated: Path, tmp_path: Path, backend: str) -> None:
    """All of its processes, from the first on; the sandbox's own helpers outside are not."""
    delegation = taken()
    rung: Rung = BubblewrapRung(BWRAP, delegation) if backend == "bubblewrap" else LauncherRung("landlock", delegation)
    if reason := rung.refusal():
        pytest.skip(reason)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/run.sh").write_text("sleep 60 & echo ready; wait\n")
    skill_fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    counted: list[int] = []

    async def on_output(stream: str, data: bytes) -> None:
        assert (stream, data) == ("stdout", b"ready\n")
        (path,) = delegated.glob("run-*")
        counted.append(len((path / "cgroup.procs").read_text().split()))
        (path / "cgroup.kill").write_text("1")

    target = Target("demo", "scripts/run.sh", ("/bin/sh",))
    try:
        async with rung.prepared(target, ALLOWANCE, skill_fd) as start:
            ended = await run(start, Bounds(30, 1 << 16, 1 << 29, 64), on_output=on_output)
    finally:
        await rung.close()
        os.close(skill_fd)
    assert ended.exit_code == 137
    # The shell and its child; bubblewrap's own first process, too.
    assert counted == [3 if backend == "bubblewrap" else 2]
    assert list(delegated.glob("run-*")) == []


def test_what_a_group_can_bound() -> None:
    """The plan says what is asked of the controllers that there are."""

    def limits(*controllers: str) -> dict[str, str]:
        target = Target("demo", "scripts/run.sh", ("/bin/sh",))
        return dict(make_plan("bubblewrap", target, ALLOWANCE, Host(controllers=controllers)).cgroup)

    assert limits() == {}
    assert limits("pids") == {"pids.max": "65"}
    assert limits("memory") == {"memory.max": "536870912", "memory.swap.max": "0", "memory.oom.group": "1"}
