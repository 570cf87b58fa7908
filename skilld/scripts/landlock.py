"""
Carrying a plan out without namespaces: through the fork server of :mod:`skilld.scripts.launcher`.

For the backends "landlock" and "none". The fork server is asked over a socket; each run then has a control socket of
its own, by which the keeper tells how the run goes, and whose end makes the keeper end the run.

Owns: the fork server's process and socket; each run owns its control socket.

Source: landlock(7); unix(7), SCM_RIGHTS.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from skilld.scripts import launcher
from skilld.scripts.cgroup import Group
from skilld.scripts.memfile import memory_file
from skilld.scripts.plan import Plan
from skilld.scripts.readiness import readable
from skilld.scripts.seccomp import Filter, assemble
from skilld.scripts.started import SetupFailed, Stdio

# LANDLOCK_SCOPE_SIGNAL, without which the keeper could not tell the script's processes from the daemon's.
LEAST_ABI = 6

# Among an order's descriptors, the file by which the script joins the cgroup of the run.
GROUP = "@cgroup"

# Seconds for a run to begin, and for the fork server to start.
SETUP_TIMEOUT_S = 5.0
_READ_BYTES = 4_096


def order_of(plan: Plan, numbers: Mapping[str, int]) -> dict[str, Any]:
    """
    What the fork server is told.

    Args:
        plan: For the backend "landlock" or "none".
        numbers: At which place among the order's descriptors the directories are that the plan calls "@skill" etc.
    """
    return {
        "argv": list(plan.argv),
        "environment": dict(plan.environment),
        "cwd": numbers[plan.cwd],
        "landlock": plan.is_scoped,
        "seccomp": "" if plan.filter is None else _program(plan.filter),
        "rlimits": dict(plan.rlimits),
        "cgroup": numbers.get(GROUP),
        "paths": [
            [numbers.get(mount.source, mount.source), mount.is_writable, mount.is_optional]
            for mount in plan.mounts
            if mount.kind == "bind"
        ],
    }


@functools.lru_cache(maxsize=8)
def _program(filter: Filter) -> str:
    return assemble(filter, platform.machine()).hex()


class Launcher:
    """
    The fork server. Started once; ended by :meth:`close`.

    Args:
        is_confined: It gives up all capabilities at its start; False for the backend "none".
    """

    def __init__(self, *, is_confined: bool = True) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders = ours
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", "-S", launcher.__file__, *([launcher.CONFINED] if is_confined else [])],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
            )

    @property
    def is_alive(self) -> bool:
        """Whether it can take orders."""
        return self._process.poll() is None

    async def start(self, plan: Plan, stdio: Stdio, directories: Mapping[str, int], group: Group | None = None) -> Kept:
        """
        Start a plan. Whether the script could be confined and executed, :meth:`Kept.wait` tells.

        Args:
            plan: For the backend "landlock" or "none".
            stdio: The script's streams.
            directories: "@skill" and, where the plan names them, "@work" and "@tmp", open.
            group: The cgroup of the run, where the daemon has one to give.

        Raises:
            SetupFailed: The fork server takes no orders.
        """
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        control.setblocking(False)
        kept = Kept(control, group)
        handed = {**directories, **({} if group is None else {GROUP: group.procs_fd})}
        try:
            numbers = {name: launcher.FIXED_FDS + index for index, name in enumerate(handed)}
            order = json.dumps(order_of(plan, numbers)).encode()
            with theirs, memory_file(order) as order_fd:
                streams = (stdio.stdin, stdio.stdout, stdio.stderr)
                socket.send_fds(self._orders, [b"o"], [theirs.fileno(), *streams, order_fd, *handed.values()])
        except OSError as exc:
            await kept.close()
            raise SetupFailed(f"the launcher does not answer: {exc.strerror}") from exc
        return kept

    async def close(self) -> None:
        """End the fork server; runs end when their control sockets do. Idempotent."""
        self._orders.close()
        if self._process.poll() is None:
            pidfd = os.pidfd_open(self._process.pid)
            try:
                async with asyncio.timeout(SETUP_TIMEOUT_S):
                    await readable(pidfd)
            except TimeoutError:
                self._process.kill()
            finally:
                os.close(pidfd)
            self._process.wait()


class Kept:
    """One script and its keeper."""

    def __init__(self, control: socket.socket, group: Group | None = None) -> None:
        self._control = control
        self._group = group
        self._pid = 0
        self._exit_code: int | None = None
        self._error = ""
        self._partial = b""

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def ran_out_of_memory(self) -> bool:
        return self._group is not None and self._group.ran_out_of_memory

    async def wait(self) -> int:
        if not self._pid:
            await self._begin()
        while self._exit_code is None and await self._listen():
            pass
        if self._exit_code is None:
            raise SetupFailed(self._error or "the keeper of the run was killed")
        code = self._exit_code
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        self._wish(b"T")

    def kill(self) -> None:
        self._wish(b"K")

    async def close(self) -> None:
        if self._control.fileno() < 0:
            return
        # The keeper ends all, and the end of its socket says that it has.
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETUP_TIMEOUT_S):
                while self._exit_code is None and await self._listen():
                    pass
        self._control.close()

    async def _begin(self) -> None:
        """Wait until the script runs. Raises SetupFailed."""
        try:
            async with asyncio.timeout(SETUP_TIMEOUT_S):
                while not self._pid and not self._error and await self._listen():
                    pass
        except TimeoutError:
            # The time of the run itself, where that is shorter, is not the sandbox's fault.
            raise SetupFailed(f"the sandbox was not made within {SETUP_TIMEOUT_S:g} s") from None
        if not self._pid:
            raise SetupFailed(self._error or "the launcher ended")

    def _wish(self, wish: bytes) -> None:
        with contextlib.suppress(OSError):
            self._control.send(wish)

    async def _listen(self) -> bool:
        """Take in what the keeper says; False at its end."""
        await readable(self._control.fileno())
        try:
            data = self._control.recv(_READ_BYTES)
        except OSError:
            return False
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            self._pid = said.get("pid", self._pid)
            self._exit_code = said.get("exit-code", self._exit_code)
            self._error = said.get("error", self._error)
        return bool(data)
