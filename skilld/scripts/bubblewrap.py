"""
Carrying a plan out with bubblewrap: its command line, and the life of one such sandbox.

Everything goes to ``bwrap`` through descriptors: the options through ``--args``, so that no variable of a script stands
in ``/proc/PID/cmdline`` (its arguments do, as of any program); the skill directory as it was opened, so that a swap of
paths changes nothing; the filter and made-up files through memory files. Its own environment is fixed and empty: a
caller's ``LD_PRELOAD`` would otherwise run outside.

The limits are set from outside, on the sandbox's first process, while ``--block-fd`` holds it back: set before, the
limit of processes would count all those of the daemon's user; a wrapper inside would cost a program start.

Owns: each sandbox owns its process and its status pipe.

Source: bwrap(1), 0.8.0; its ``--die-with-parent`` follows the thread that starts it, so that this is the event loop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import platform
import resource
import signal
import stat
import subprocess
from collections.abc import Mapping

from skilld.scripts.cgroup import Group
from skilld.scripts.memfile import memory_file
from skilld.scripts.plan import INNER_GID, INNER_UID, Mount, Plan
from skilld.scripts.processes import descendants
from skilld.scripts.readiness import readable
from skilld.scripts.runner import to_the_end
from skilld.scripts.seccomp import Filter, assemble
from skilld.scripts.started import SetupFailed, Stdio

# Seconds for the sandbox to be made; bwrap can hang where an inherited filter kills its helper.
SETUP_TIMEOUT_S = 5.0
_STATUS_BYTES = 4_096


def check_program(path: str) -> str | None:
    """Say why a program must not be trusted with the sandbox, or None: whoever can write it is outside it."""
    try:
        state = os.stat(path)
    except OSError as exc:
        return f"{path}: {exc.strerror}"
    if not os.path.isabs(path) or not stat.S_ISREG(state.st_mode):
        return f"{path} is no absolute path of a program"
    if state.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return f"{path} is setuid; a bubblewrap that needs no privilege is wanted"
    if state.st_uid != 0 or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} can be written by others than root"
    if not os.access(path, os.X_OK):
        return f"{path} cannot be executed"
    return None


def options(plan: Plan, descriptors: Mapping[str, int]) -> list[str]:
    """
    The options of ``bwrap`` for a plan.

    Args:
        plan: For the backend "bubblewrap".
        descriptors: "@skill" and every ``data`` mount by its target, open; "seccomp" where the plan has a filter.
    """
    listed = [f"--unshare-{name}" for name in plan.namespaces if name != "cgroup"]
    if "cgroup" in plan.namespaces:
        listed.append("--unshare-cgroup-try")
    if "user" in plan.namespaces:
        listed += ["--uid", str(INNER_UID), "--gid", str(INNER_GID)]
    if "uts" in plan.namespaces:
        listed += ["--hostname", "skill"]
    for lock in plan.hardening:
        listed += ["--cap-drop", "ALL"] if lock == "cap-drop" else [f"--{lock}"]
    for mount in plan.mounts:
        listed += _mount_options(mount, descriptors)
    listed += ["--chdir", plan.cwd, "--clearenv"]
    for name, value in plan.environment:
        listed += ["--setenv", name, value]
    if plan.filter is not None:
        listed += ["--seccomp", str(descriptors["seccomp"])]
    return listed


def _mount_options(mount: Mount, descriptors: Mapping[str, int]) -> list[str]:
    access = "" if mount.is_writable else "ro-"
    match mount.kind:
        case "bind" if mount.source.startswith("@"):
            return [f"--{access}bind-fd", str(descriptors[mount.source]), mount.target]
        case "bind":
            return [f"--{access}bind{'-try' if mount.is_optional else ''}", mount.source, mount.target]
        case "data":
            return ["--perms", "0444", "--file", str(descriptors[mount.target]), mount.target]
        case "symlink":
            return ["--symlink", mount.source, mount.target]
        case "tmpfs":
            return ["--size", str(mount.size_bytes), "--perms", "0700", "--tmpfs", mount.target]
        case kind:
            return [f"--{kind}", mount.target]


@functools.lru_cache(maxsize=8)
def _program(filter: Filter) -> bytes:
    return assemble(filter, platform.machine())


class Bubblewrap:
    """
    One sandbox under bubblewrap. Made by :func:`start`.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], status_fd: int, block_fd: int, plan: Plan, group: Group | None
    ) -> None:
        # settings
        self._plan = plan
        self._group = group
        # state
        self._process = process
        self._status_fd = status_fd
        self._block_fd: int | None = block_fd
        self._inner_pid: int | None = None
        self._exit_code: int | None = None
        self._status = bytearray()
        self._made_until_s = asyncio.get_running_loop().time() + SETUP_TIMEOUT_S

    @property
    def pid(self) -> int:
        return self._inner_pid or self._process.pid

    @property
    def ran_out_of_memory(self) -> bool:
        return self._group is not None and self._group.ran_out_of_memory

    async def begin(self) -> None:
        """Wait until the sandbox is made, limit it, and let the script run. Raises SetupFailed."""
        try:
            await self._know_inner()
        except TimeoutError:
            raise SetupFailed(f"bwrap did not make the sandbox within {SETUP_TIMEOUT_S:g} s") from None
        if self._inner_pid is None:
            raise SetupFailed("bwrap ended before the sandbox was made")
        try:
            for name, value in self._plan.rlimits:
                kind = getattr(resource, f"RLIMIT_{name}")
                # Never above what the daemon itself may do.
                hard = resource.prlimit(self._inner_pid, kind)[1]
                bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
                resource.prlimit(self._inner_pid, kind, (bound, bound))
            if self._group is not None:
                self._group.add(self._inner_pid)
        except OSError as exc:
            raise SetupFailed(f"the limits cannot be set: {exc.strerror}") from exc
        assert self._block_fd is not None
        with contextlib.suppress(BrokenPipeError):
            os.write(self._block_fd, b"x")
        self._unblock()

    async def wait(self) -> int:
        while await self._read_status():
            pass
        await self._reap()
        if self._exit_code is None:
            if self._process.returncode == -signal.SIGKILL:
                return 128 + signal.SIGKILL
            raise SetupFailed("bwrap ended without running the script")
        return self._exit_code

    def terminate(self) -> None:
        # The sandbox's first process is bwrap's own, and heeds no signal.
        if self._inner_pid is not None and self._process.poll() is None:
            for pid in list(descendants(self._inner_pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        # The end of the namespace's first process is that of all others, by the kernel. It dies with bwrap only from
        # when it has asked for that: a moment earlier it waits for bwrap, and would wait for ever.
        if self._inner_pid is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._inner_pid, signal.SIGKILL)
        self._process.kill()

    async def close(self) -> None:
        with contextlib.suppress(OSError):
            await self._know_inner()
        self.kill()
        self._unblock()
        with contextlib.suppress(OSError):
            while await self._read_status():
                pass
        await self._reap()
        if self._status_fd >= 0:
            os.close(self._status_fd)
            self._status_fd = -1

    async def _know_inner(self) -> None:
        """Wait until the sandbox's first process is known, or bwrap has ended. Raises TimeoutError."""
        async with asyncio.timeout_at(self._made_until_s):
            while self._inner_pid is None and await self._read_status():
                pass

    async def _reap(self) -> None:
        """Wait for bwrap itself; the end of its status pipe said that it ends."""
        while self._process.poll() is None:
            pidfd = os.pidfd_open(self._process.pid)
            try:
                await readable(pidfd)
            finally:
                os.close(pidfd)

    async def _read_status(self) -> bool:
        """Take in what bwrap says of itself, a JSON object a line; False at its end."""
        if self._status_fd < 0:
            return False
        await readable(self._status_fd)
        data = os.read(self._status_fd, _STATUS_BYTES)
        self._status += data
        *lines, self._status = self._status.split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if isinstance(said, dict):
                    if isinstance(said.get("child-pid"), int):
                        self._inner_pid = said["child-pid"]
                    if isinstance(said.get("exit-code"), int):
                        self._exit_code = said["exit-code"]
        return bool(data)

    def _unblock(self) -> None:
        if self._block_fd is not None:
            os.close(self._block_fd)
            self._block_fd = None


async def start(program: str, plan: Plan, stdio: Stdio, skill_fd: int, group: Group | None = None) -> Bubblewrap:
    """
    Start a plan under bubblewrap; the script runs when this returns.

    Args:
        program: The path of ``bwrap``.
        plan: For the backend "bubblewrap".
        stdio: The script's streams.
        skill_fd: The skill directory, ``O_PATH``.
        group: The cgroup of the run, where the daemon has one to give.

    Raises:
        SetupFailed: The sandbox could not be made.
    """
    with contextlib.ExitStack() as stack:
        descriptors = {"@skill": skill_fd}
        try:
            for mount in plan.mounts:
                if mount.kind == "data":
                    descriptors[mount.target] = stack.enter_context(memory_file(mount.source.encode()))
            if plan.filter is not None:
                descriptors["seccomp"] = stack.enter_context(memory_file(_program(plan.filter)))
            given = options(plan, descriptors)
            args_fd = stack.enter_context(memory_file(b"".join(_argument(one) for one in given)))
            status_fd, inner_status_fd = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, inner_status_fd)
            inner_block_fd, block_fd = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, inner_block_fd)
        except OSError as exc:
            raise SetupFailed(f"no descriptors for the sandbox: {exc.strerror}") from exc
        command = [
            program,
            "--args",
            str(args_fd),
            "--json-status-fd",
            str(inner_status_fd),
            "--block-fd",
            str(inner_block_fd),
            "--",
            *plan.argv,
        ]
        try:
            process = subprocess.Popen(  # noqa: S603, ASYNC220 - the thread that waits for it must be this one
                command,
                stdin=stdio.stdin,
                stdout=stdio.stdout,
                stderr=stdio.stderr,
                env={},
                cwd="/",
                pass_fds=(args_fd, inner_status_fd, inner_block_fd, *descriptors.values()),
                start_new_session=True,
            )
        except (OSError, ValueError) as exc:
            os.close(status_fd)
            os.close(block_fd)
            raise SetupFailed(f"{program}: {exc}") from exc
    os.set_blocking(status_fd, False)
    started = Bubblewrap(process, status_fd, block_fd, plan, group)
    try:
        await started.begin()
    except BaseException:
        await to_the_end(started.close())
        raise
    return started


def _argument(text: str) -> bytes:
    """An option as ``--args`` takes it. A NUL would end it, and what follows would be another option."""
    if "\0" in text:
        raise SetupFailed("an option of the sandbox holds NUL")
    return os.fsencode(text) + b"\0"


def version_of(program: str) -> str | None:
    """What ``bwrap --version`` says, or None."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, env={}, timeout=SETUP_TIMEOUT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip()[:100] or None
