"""
The processes of a run, as /proc shows them.

Owns: nothing.

Source: proc_pid_task(5), ``children``; proc_pid_status(5).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_HELD = re.compile(rb"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class Usage:
    """How many processes, and how much memory they hold that is not a file's: bytes."""

    processes: int = 0
    memory_bytes: int = 0


def descendants(pid: int) -> list[int]:
    """All processes below one, nearest first; empty where the kernel does not tell (CONFIG_PROC_CHILDREN)."""
    found: list[int] = []
    pending = [pid]
    while pending:
        parent = pending.pop(0)
        children = _children(parent)
        found += children
        pending += children
    return found


def usage_below(pid: int) -> Usage:
    """What the descendants of a process use together."""
    held_bytes = 0
    pids = descendants(pid)
    for one in pids:
        try:
            with open(f"/proc/{one}/status", "rb") as file:
                held_bytes += 1024 * sum(map(int, _HELD.findall(file.read())))
        except OSError:  # it ended meanwhile
            continue
    return Usage(len(pids), held_bytes)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except (OSError, ValueError):
        pass
    return found
