"""The command line of bubblewrap, and what of it others can see."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from skilld.scripts import bubblewrap
from skilld.scripts.host import read_host
from skilld.scripts.plan import Allowance, Mount, Plan, Target, make_plan
from skilld.scripts.runner import Bounds, Ended, run
from skilld.scripts.started import SetupFailed, Stdio

BWRAP = "/usr/bin/bwrap"
ALLOWANCE = Allowance(128 << 20, 64, 1 << 20, 64, 1 << 20, 1 << 20)
BOUNDS = Bounds(20, 10_000, 128 << 20, 64)

needs_bubblewrap = pytest.mark.skipif(not os.path.exists(BWRAP), reason="MISSING RUNG bubblewrap: not installed")


def test_a_plan_as_options() -> None:
    """Every element of the plan is an option, and nothing else is."""
    plan = Plan(
        "bubblewrap",
        argv=("/x",),
        cwd="/skill",
        environment=(("A", "b c"),),
        mounts=(
            Mount("bind", "/usr", "/usr"),
            Mount("bind", "/etc/x", "/etc/x", is_optional=True),
            Mount("symlink", "/bin", "usr/bin"),
            Mount("data", "/etc/passwd", "text"),
            Mount("proc", "/proc"),
            Mount("dev", "/dev"),
            Mount("tmpfs", "/tmp", size_bytes=5, is_writable=True),
            Mount("bind", "/skill", "@skill"),
            Mount("remount-ro", "/"),
        ),
        rlimits=(),
        namespaces=("user", "net", "cgroup"),
        hardening=("new-session", "cap-drop"),
    )
    assert " ".join(bubblewrap.options(plan, {"@skill": 7, "/etc/passwd": 8})) == (
        "--unshare-user --unshare-net --unshare-cgroup-try --uid 1000 --gid 1000 --new-session --cap-drop ALL "
        "--ro-bind /usr /usr --ro-bind-try /etc/x /etc/x --symlink usr/bin /bin --perms 0444 --file 8 /etc/passwd "
        "--proc /proc --dev /dev --size 5 --perms 0700 --tmpfs /tmp --ro-bind-fd 7 /skill --remount-ro / "
        "--chdir /skill --clearenv --setenv A b c"
    )


async def run_script(directory: Path, text: str, *args: str, **environment: str) -> Ended:
    """Run a shell script of a skill under bubblewrap."""
    (directory / "a.sh").write_text(text)
    target = Target("demo", "a.sh", ("/bin/sh",), args=args, environment=environment)
    plan = make_plan("bubblewrap", target, ALLOWANCE, read_host())
    skill_fd = os.open(directory, os.O_PATH)

    async def start(stdio: Stdio) -> bubblewrap.Bubblewrap:
        return await bubblewrap.start(BWRAP, plan, stdio, skill_fd)

    try:
        return await run(start, BOUNDS)
    finally:
        os.close(skill_fd)


@needs_bubblewrap
@pytest.mark.parametrize("args", [("--",), ("--bind", "/", "/"), ("--args", "0"), ("", "a\nb", "é", "$(id)")])
async def test_arguments_are_the_scripts(tmp_path: Path, args: tuple[str, ...]) -> None:
    """None of them reaches bubblewrap's own parser, or a shell."""
    ended = await run_script(tmp_path, 'printf "%s|" "$@"\n', *args)
    assert ended.stdout.head.decode() == "".join(f"{arg}|" for arg in args)


@needs_bubblewrap
async def test_no_option_can_be_smuggled_in(tmp_path: Path) -> None:
    """A NUL in a text would begin another option: nothing is started."""
    with pytest.raises(SetupFailed):
        await run_script(tmp_path, "exit 0\n", A="x\0--bind\0/\0/host")
    with pytest.raises(SetupFailed):
        await run_script(tmp_path, "exit 0\n", "a\0b")


@needs_bubblewrap
async def test_who_goes_away_during_the_set_up_leaves_no_process(tmp_path: Path) -> None:
    """Whenever that is: the sandbox's first process waits for its limits, and nothing but its end ends it."""

    async def cancelled(number: int) -> None:
        running = asyncio.ensure_future(run_script(tmp_path, f"sleep 60 # {number}\n"))
        # From before bubblewrap's own first step to about when the script runs.
        await asyncio.wait({running}, timeout=number % 25 / 2_000)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    for first in range(0, 100, 4):
        await asyncio.gather(*map(cancelled, range(first, first + 4)))
    # The kernel takes a moment to end what is killed.
    async with asyncio.timeout(20):
        while started_in(tmp_path):
            await asyncio.sleep(0.01)


def started_in(directory: Path) -> list[str]:
    """The processes of sandboxes that have a skill directory open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if link.parts[2] != str(os.getpid()) and os.readlink(link) == str(directory):
                found.append(link.parts[2])
    return found


@needs_bubblewrap
async def test_the_callers_variables_reach_the_script_alone(tmp_path: Path) -> None:
    """Not bubblewrap, whose loader would run a library outside the sandbox; and no command line on the host."""
    (tmp_path / "evil.so").write_text("no library")
    seen: list[str] = []

    async def look() -> None:
        while True:
            for name in os.listdir("/proc"):
                if name.isdigit():
                    try:
                        seen.append(Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace"))
                    except OSError:
                        continue
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    ended = await run_script(
        tmp_path, 'echo "$LD_PRELOAD $SECRET"\n', LD_PRELOAD=str(tmp_path / "evil.so"), SECRET="s3cr3t"
    )
    looking.cancel()
    assert ended.stdout.head == f"{tmp_path}/evil.so s3cr3t\n".encode()
    # The loader complains inside, of a path that is not there; bubblewrap's own would have named it as well.
    assert b"bwrap" not in ended.stderr.head
    assert not [one for one in seen if "s3cr3t" in one]


def test_programs_that_are_trusted() -> None:
    """bubblewrap as packages install it."""
    assert bubblewrap.check_program("bwrap") == "bwrap: No such file or directory"
    assert bubblewrap.check_program("/usr/bin") == "/usr/bin is no absolute path of a program"
    if os.path.exists(BWRAP):
        assert bubblewrap.check_program(BWRAP) is None
        assert "bubblewrap" in (bubblewrap.version_of(BWRAP) or "")
    assert bubblewrap.version_of("/nowhere") is None
