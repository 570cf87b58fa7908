"""
The rungs of the ladder: ways to confine a script, best first, each with what it leaves open.

Owns: the rung without namespaces owns its fork server.

Source: bwrap(1), landlock(7); measured on Linux 6.18: which attack gets through where.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from skilld.scripts import bubblewrap, landlock
from skilld.scripts.cgroup import Delegation, Group
from skilld.scripts.host import read_host
from skilld.scripts.kernel import landlock_abi
from skilld.scripts.plan import SKILL, TMP, WORK, Allowance, Backend, Plan, Target, make_plan
from skilld.scripts.runner import Start, to_the_end
from skilld.scripts.scratch import scratch
from skilld.scripts.started import Stdio


@dataclass(frozen=True)
class Facts:
    """What a rung gives: the members of ``sandbox`` in a result. ``degraded`` names what it does not."""

    backend: Backend
    network: str
    proc: str
    unix_sockets: str
    degraded: tuple[str, ...] = ()
    memory: str = "per-process"

    def to_json(self) -> dict[str, Any]:
        """The ``sandbox`` of a result."""
        return {
            "backend": self.backend,
            "network": self.network,
            "proc": self.proc,
            "unix_sockets": self.unix_sockets,
            "memory": self.memory,
            "degraded": list(self.degraded),
        }


class Rung(Protocol):
    """A way to confine a script."""

    @property
    def facts(self) -> Facts:
        """What it gives."""

    def refusal(self) -> str | None:
        """Why it cannot work on this machine, as far as that can be told without trying; or None."""

    def explain(self, target: Target, allowance: Allowance) -> Plan:
        """The plan of a run; where it names a directory that is made for the run, a stand-in."""

    def prepared(
        self, target: Target, allowance: Allowance, skill_fd: int
    ) -> contextlib.AbstractAsyncContextManager[Start]:
        """What starts a run, with all that it needs on the disk."""

    async def close(self) -> None:
        """Let go of what is shared by all runs; idempotent."""


class BubblewrapRung:
    """
    Namespaces, an allow-list root and the filter.

    Args:
        program: The path of ``bwrap``.
        delegation: The daemon's cgroup, if it was given one.
        shares_proc: Show the host's /proc, where a container does not let a fresh one be mounted.
    """

    def __init__(self, program: str, delegation: Delegation | None = None, *, shares_proc: bool = False) -> None:
        self._program = program
        self._delegation = delegation
        self._host = replace(read_host(shares_proc=shares_proc), controllers=_controllers(delegation))
        self.facts = Facts(
            "bubblewrap",
            network="none",
            proc="shared" if shares_proc else "private",
            unix_sockets="isolated",
            degraded=("proc-shared",) if shares_proc else (),
            memory=_memory(delegation),
        )

    def refusal(self) -> str | None:
        return bubblewrap.check_program(self._program)

    def explain(self, target: Target, allowance: Allowance) -> Plan:
        return make_plan("bubblewrap", target, allowance, self._host)

    @contextlib.asynccontextmanager
    async def prepared(self, target: Target, allowance: Allowance, skill_fd: int) -> AsyncIterator[Start]:
        plan = self.explain(target, allowance)

        async with _group(self._delegation, plan) as group:

            async def start(stdio: Stdio) -> bubblewrap.Bubblewrap:
                return await bubblewrap.start(self._program, plan, stdio, skill_fd, group)

            yield start

    async def close(self) -> None:
        pass


class LauncherRung:
    """
    No namespaces: Landlock and a stricter filter, or nothing at all.

    Args:
        backend: "landlock", or "none" for a script that may do whatever the daemon may.
        delegation: The daemon's cgroup, if it was given one.
    """

    def __init__(self, backend: Backend, delegation: Delegation | None = None) -> None:
        self._backend = backend
        self._delegation = delegation
        self._host = replace(read_host(), controllers=_controllers(delegation))
        self._launcher: landlock.Launcher | None = None
        if backend == "landlock":
            gaps = (
                "file-attributes",
                "file-names",
                "host-name",
                "process-ids",
                "processes-per-user",
                "tmp-by-variable",
                "user-names",
                "work-unlimited",
            )
            self.facts = Facts(
                backend,
                network="none",
                proc="none",
                unix_sockets="denied",
                degraded=gaps,
                memory=_memory(delegation),
            )
        else:
            self.facts = Facts(
                backend,
                network="host",
                proc="shared",
                unix_sockets="host",
                degraded=("not-confined",),
                memory=_memory(delegation),
            )

    def refusal(self) -> str | None:
        abi = landlock_abi()
        if self._backend == "landlock" and abi < landlock.LEAST_ABI:
            return f"the kernel has Landlock ABI {abi or 'none'}, {landlock.LEAST_ABI} is needed (Linux 6.12)"
        return None

    def explain(self, target: Target, allowance: Allowance) -> Plan:
        host = replace(self._host, work_dir="(fresh)/work", tmp_dir="(fresh)/tmp")
        return make_plan(self._backend, target, allowance, host)

    @contextlib.asynccontextmanager
    async def prepared(self, target: Target, allowance: Allowance, skill_fd: int) -> AsyncIterator[Start]:
        if self._launcher is None or not self._launcher.is_alive:
            self._launcher = landlock.Launcher(is_confined=self._backend == "landlock")
        launcher = self._launcher
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(scratch())
            host = replace(self._host, work_dir=place.work_dir, tmp_dir=place.tmp_dir)
            plan = make_plan(self._backend, target, allowance, host)
            directories = {SKILL: skill_fd, WORK: place.work_fd, TMP: place.tmp_fd}

            try:
                async with _group(self._delegation, plan) as group:

                    async def start(stdio: Stdio) -> landlock.Kept:
                        return await launcher.start(plan, stdio, directories, group)

                    yield start
            finally:
                if not place.remove_empty():
                    await to_the_end(asyncio.to_thread(stack.pop_all().close))

    async def close(self) -> None:
        if self._launcher is not None:
            await self._launcher.close()
            self._launcher = None


def _controllers(delegation: Delegation | None) -> tuple[str, ...]:
    return () if delegation is None else delegation.controllers


def _memory(delegation: Delegation | None) -> str:
    return "cgroup" if "memory" in _controllers(delegation) else "per-process"


def _group(delegation: Delegation | None, plan: Plan) -> contextlib.AbstractAsyncContextManager[Group | None]:
    """The cgroup of a run, or none."""
    return contextlib.nullcontext() if delegation is None else delegation.group(plan.cgroup)


def ladder(backend: str, program: str, delegation: Delegation | None) -> list[Rung]:
    """The rungs that the configuration allows, best first."""
    namespaces: list[Rung] = [
        BubblewrapRung(program, delegation),
        BubblewrapRung(program, delegation, shares_proc=True),
    ]
    if backend == "bubblewrap":
        return namespaces
    if backend == "auto":
        return [*namespaces, LauncherRung("landlock", delegation)]
    return [LauncherRung("landlock" if backend == "landlock" else "none", delegation)]


def versions(program: str) -> dict[str, Any]:
    """What this machine has, for the status. Starts a program; blocks."""
    limit = "/proc/sys/user/max_user_namespaces"
    try:
        with open(limit) as file:
            namespaces: int | None = int(file.read())
    except (OSError, ValueError):
        namespaces = None
    return {
        "bubblewrap": None if bubblewrap.check_program(program) else bubblewrap.version_of(program),
        "landlock_abi": landlock_abi(),
        "user_namespaces": namespaces,
    }
