"""
The cgroup that systemd has delegated to the daemon, and a group of its own for each run.

Only the kernel can bound what all processes of a run hold together, files in memory included; without a delegated
group the runner looks now and then, and each process has its limits. Nothing is done to a group that is not marked as
delegated, for whoever runs as root may write to all of them.

Owns: the groups below the delegated one: ``daemon``, where the daemon moves, since a group with children may hold no
process itself, and one ``run-...`` a run.

Source: cgroups(7); the kernel's "Control Group v2", "No Internal Process Constraint"; systemd's "Control Group APIs and
Delegation", ``user.delegate``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence

from skilld.scripts.runner import to_the_end

log = logging.getLogger(__name__)

ROOT = "/sys/fs/cgroup"
CONTROLLERS = ("memory", "pids")
_OWN = "daemon"
_RUN = "run-"
# The kernel lets go of a group's last process a moment after its end.
_REMOVE_TRIES, _REMOVE_PAUSE_S = 200, 0.005


class Delegation:
    """
    A delegated group, ready for runs. Made by :func:`take_delegation`.

    Args:
        path: Its directory.
        controllers: Those of :data:`CONTROLLERS` that its children have.
    """

    def __init__(self, path: str, controllers: tuple[str, ...]) -> None:
        self.path = path
        self.controllers = controllers

    @contextlib.asynccontextmanager
    async def group(self, limits: Sequence[tuple[str, str]]) -> AsyncIterator[Group]:
        """
        Make a group for one run; kill what is left in it at the end, and remove it.

        Args:
            limits: What is written to which of its files, such as ("memory.max", "1048576").

        Raises:
            OSError: It cannot be made.
        """
        path = f"{self.path}/{_RUN}{secrets.token_hex(8)}"
        os.mkdir(path)
        try:
            for name, value in limits:
                _write(f"{path}/{name}", value)
            group = Group(path)
            try:
                yield group
            finally:
                group.close()
        finally:
            await to_the_end(_remove(path))


class Group:
    """The group of one run."""

    def __init__(self, path: str) -> None:
        self._path = path
        #: What a process is added to the group by: its id, or "0" for the writer, is written there.
        self.procs_fd = os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def add(self, pid: int) -> None:
        """Put a process, and all that it will start, into the group. Raises OSError."""
        os.write(self.procs_fd, b"%d" % pid)

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed anything in it for want of memory."""
        with contextlib.suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", _read(f"{self._path}/memory.events"), re.MULTILINE)
            return found is not None and found[1] != "0"
        return False

    def close(self) -> None:
        """Let go of its descriptor."""
        os.close(self.procs_fd)


def take_delegation() -> Delegation | None:
    """
    Return the group that was delegated to this process, with the daemon moved out of the way of its runs. Blocks.

    Returns:
        None where none is delegated, or it can bound nothing, or it is not ours to change; the log says why.
    """
    try:
        path = _delegated_path()
        if path is None:
            return None
        given = _read(f"{path}/cgroup.controllers").split()
        controllers = tuple(name for name in CONTROLLERS if name in given)
        if not controllers:
            log.info("the delegated cgroup has none of the controllers %s", ", ".join(CONTROLLERS))
            return None
        os.makedirs(f"{path}/{_OWN}", exist_ok=True)
        for pid in _read(f"{path}/cgroup.procs").split():
            _write(f"{path}/{_OWN}/cgroup.procs", pid)
        _write(f"{path}/cgroup.subtree_control", " ".join(f"+{name}" for name in controllers))
        for name in os.listdir(path):
            if name.startswith(_RUN):  # of a daemon that was killed
                _remove_now(f"{path}/{name}")
    except OSError as exc:
        log.warning("the delegated cgroup is of no use: %s: %s", exc.filename, exc.strerror)
        return None
    return Delegation(path, controllers)


def _delegated_path() -> str | None:
    """The directory of our group, or of its parent where we have moved already, if it is delegated."""
    found = re.search(r"^0::(/.*)$", _read("/proc/self/cgroup"), re.MULTILINE)
    if found is None:
        return None
    path = ROOT + found[1].rstrip("/")
    for candidate in (path, path.removesuffix(f"/{_OWN}")):
        with contextlib.suppress(OSError):
            if os.getxattr(candidate, "user.delegate") == b"1":
                return candidate
    return None


async def _remove(path: str) -> None:
    """Kill what is in a group and remove it."""
    for is_gone in _removal(path):
        if is_gone:
            return
        await asyncio.sleep(_REMOVE_PAUSE_S)


def _remove_now(path: str) -> None:
    """As :func:`_remove`, but blocks."""
    for is_gone in _removal(path):
        if is_gone:
            return
        time.sleep(_REMOVE_PAUSE_S)


def _removal(path: str) -> Iterator[bool]:
    """Kill what is in a group, and try to remove it; yield whether it is gone, and try again."""
    with contextlib.suppress(OSError):
        _write(f"{path}/cgroup.kill", "1")
    for _ in range(_REMOVE_TRIES):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError as exc:
            if exc.errno != errno.EBUSY:
                break
            yield False
            continue
        yield True
    log.warning("the cgroup of a run cannot be removed: %s", path)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, text: str) -> None:
    # Unbuffered, so that the error is that of the write, with the file's name.
    try:
        with open(path, "wb", buffering=0) as file:
            file.write(text.encode())
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, path) from exc
