"""Scripts that will not end, leave something behind, or drown the daemon."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from skilld.scripts.plan import Plan
from tests.redteam.conftest import USERS, once
from tests.redteam.rungs import (
    BOUNDS,
    LIMITS,
    RUNGS,
    SHARED_PROC,
    Done,
    Job,
    kill_daemon,
    measure_growth,
    restart_daemon,
    run_in_sandboxes,
    why_not,
)
from tests.redteam.world import PYTHON, new_world

MIB = 1 << 20
PATIENCE_S = 20.0
# Seconds for which the processes sleep that nobody may leave behind; no other process of the machine does.
MARK = f"98765.{os.getpid()}"
BRIEF = replace(BOUNDS, timeout_s=0.7)
# For what keeps a processor busy all the while.
BRIEFER = replace(BOUNDS, timeout_s=0.2)
# Long enough for a script's own end under load, short enough for a test.
GRACE_S = 1.0


@dataclass(frozen=True)
class Case:
    """A script, and what must come of it."""

    job: Job
    claim: Callable[[Done], bool]


def shell(text: str, *, stdin: str = "", is_brief: bool = False) -> Job:
    """A job for the shell."""
    return Job(argv=("/bin/sh", "-c", text), stdin=stdin, bounds=BRIEF if is_brief else BOUNDS)


def python(text: str, *, is_brief: bool = False) -> Job:
    """A job for Python."""
    return Job(argv=(PYTHON, "-S", "-c", text, MARK), stdin="", bounds=BRIEF if is_brief else BOUNDS)


DAEMONS = f"for i in 1 2 3 4 5 6 7 8; do (setsid sh -c 'trap \"\" TERM; exec sleep {MARK}' &) ; done; "
BOMB = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for generation in range(8):
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
time.sleep(60)
"""
LITTER = """
import os, stat
os.chdir(os.environ["HOME"])
for number in range(2000):
    os.close(os.open(f"file{number}", os.O_CREAT))
os.mkfifo("fifo")
os.symlink("/usr", "link-to-usr")
os.symlink("link-to-self", "link-to-self")
for _ in range(300):
    os.mkdir("d" * 100)
    os.chdir("d" * 100)
os.mkdir("closed")
os.close(os.open("closed/in", os.O_CREAT))
os.chdir("closed")
"""

CASES: Mapping[str, Case] = {
    "daemons after the end": Case(shell(DAEMONS + "exit 3"), lambda done: done.exit_code == 3 and done.duration_s < 30),
    "daemons after the time-out": Case(
        shell(DAEMONS + "trap '' TERM; while :; do sleep 1; done", is_brief=True),
        lambda done: done.timed_out and done.exit_code == 137,
    ),
    "output held open": Case(
        shell(f"sleep {MARK} & setsid sleep {MARK} & echo done"),
        lambda done: done.stdout == "done\n" and done.exit_code == 0 and done.duration_s < 30,
    ),
    "SIGTERM handled": Case(
        shell("trap 'echo bye; exit 9' TERM; while :; do sleep 0.05; done", is_brief=True),
        lambda done: done.timed_out and done.exit_code == 9 and done.stdout == "bye\n",
    ),
    "SIGTERM ignored": Case(
        shell("trap '' TERM; while :; do sleep 1; done", is_brief=True),
        lambda done: done.timed_out and (done.exit_code, done.signal) == (137, "SIGKILL"),
    ),
    "processor spun": Case(
        replace(shell("while :; do :; done"), bounds=BRIEFER),
        lambda done: done.timed_out and (done.exit_code, done.signal) == (143, "SIGTERM"),
    ),
    "stopped itself": Case(
        shell("kill -STOP $$", is_brief=True), lambda done: done.timed_out and done.exit_code in (137, 143)
    ),
    "stopped a child": Case(
        shell("sh -c 'kill -STOP $$' & wait", is_brief=True),
        lambda done: done.timed_out and done.exit_code in (137, 143),
    ),
    "fork bomb": Case(python(BOMB, is_brief=True), lambda done: done.exit_code == 137),
    "killed itself": Case(shell("kill -SEGV $$"), lambda done: done.exit_code == 139 and not done.timed_out),
    "killed all": Case(shell("kill -9 -1"), lambda done: done.duration_s < 30),
    "closed its streams": Case(shell("exec 0<&- 1>&- 2>&-; sleep 0.2; exit 4"), lambda done: done.exit_code == 4),
    "input never read": Case(shell("exit 5", stdin="x" * 5 * MIB), lambda done: done.exit_code == 5),
    "input closed early": Case(
        shell("head -c 1; exec 0<&-; sleep 0.1", stdin="x" * 5 * MIB), lambda done: done.stdout == "x"
    ),
    "endless output": Case(
        replace(shell("exec yes"), bounds=BRIEFER), lambda done: done.timed_out and done.stdout_bytes > MIB
    ),
    "byte by byte": Case(
        python("import os\nfor _ in range(30000): os.write(1, b'x')"), lambda done: done.stdout_bytes == 30_000
    ),
    "bytes that are no text": Case(shell(r"printf 'a\0b\377'"), lambda done: done.stdout_bytes == 4),
    "no such program": Case(Job(argv=("/usr/bin/nonexistent",), stdin=""), lambda done: bool(done.failure)),
    "litter": Case(python(LITTER), lambda done: (done.exit_code, done.stderr) == (0, "")),
}

EVERYWHERE = [pytest.param(rung, user, id=f"{rung}-{user}") for rung in RUNGS if rung != SHARED_PROC for user in USERS]


@once
def results(rung: str, user: str) -> Mapping[str, Done]:
    """All cases, side by side but for the bomb; nothing is left of them."""
    # Without namespaces, processes count for all runs of a user.
    found: dict[str, Done] = {}
    with new_world(USERS[user], limits=LIMITS) as world:
        for names in ([name for name in CASES if name != "fork bomb"], ["fork bomb"]):
            jobs = [CASES[name].job for name in names]
            done = run_in_sandboxes(world, rung, jobs, grace_s=GRACE_S, at_a_time=6)
            found.update(zip(names, done, strict=True))
        assert (survivors(), world.litter()) == ([], [])
    return found


def survivors() -> list[str]:
    """Processes with the mark in their command line."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and MARK.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                found.append(name)
        except OSError:
            continue
    return found


def wait_for_none() -> None:
    """Wait until no marked process is left."""
    end = time.monotonic() + PATIENCE_S
    while left := survivors():
        assert time.monotonic() < end, left
        select.select([], [], [], 0.01)


@pytest.mark.parametrize(("rung", "user"), EVERYWHERE)
@pytest.mark.parametrize("name", CASES)
def test_a_script_ends_as_it_must(rung: str, user: str, name: str) -> None:
    """Its own way where it can, by force where it must, and never by holding the daemon up."""
    if why := why_not(rung):
        pytest.skip(f"SANDBOX MISSING: {rung}: {why}")
    done = results(rung, user)[name]
    assert CASES[name].claim(done), replace(done, stdout=done.stdout[:200])


@pytest.mark.parametrize(("rung", "user"), EVERYWHERE)
def test_scripts_die_with_the_daemon(rung: str, user: str) -> None:
    """A daemon that is killed takes them along, those that ran away included; the next one removes their files."""
    if why := why_not(rung):
        pytest.skip(f"SANDBOX MISSING: {rung}: {why}")
    with new_world(USERS[user], limits=LIMITS) as world:
        kill_daemon(world, rung, shell(DAEMONS + f"echo > $HOME/file; echo started; exec sleep {MARK}"))
        wait_for_none()
        restart_daemon(world)
        assert world.litter() == []


def test_what_ties_scripts_to_the_daemon() -> None:
    """Without die-with-parent they live on under bubblewrap, so that the test above can fail."""
    if why := why_not("bubblewrap"):
        pytest.skip(f"SANDBOX MISSING: bubblewrap: {why}")

    def untied(plan: Plan) -> Plan:
        return replace(plan, hardening=tuple(name for name in plan.hardening if name != "die-with-parent"))

    with new_world(USERS["user"], limits=LIMITS) as world:
        kill_daemon(world, "bubblewrap", replace(shell(f"echo started; exec sleep {MARK}"), change=untied))
        left = survivors()
        for pid in left:
            # The end of one may be that of another.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        wait_for_none()
        restart_daemon(world)
    assert left


@pytest.mark.parametrize("rung", [rung for rung in RUNGS if rung != SHARED_PROC])
def test_a_flood_does_not_make_the_daemon_grow(rung: str) -> None:
    """100 MB on both streams at once are read to the end, and not kept."""
    if why := why_not(rung):
        pytest.skip(f"SANDBOX MISSING: {rung}: {why}")
    flood = f"head -c {50 * MIB} /dev/zero & head -c {50 * MIB} /dev/zero >&2; wait"
    with new_world(USERS["user"], limits=LIMITS) as world:
        done, growth = measure_growth(world, rung, shell(flood))
    assert done.stdout_bytes == 50 * MIB
    assert growth < 16 * MIB
