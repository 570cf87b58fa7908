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
_THREADS = re.compile(rb"^Threads:\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Usage:
    """How many threads in all processes, and how much memory they hold that is not a file's: bytes."""

    threads: int = 0
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
    threads = held_bytes = 0
    for one in descendants(pid):
        try:
            with open(f"/proc/{one}/status", "rb") as file:
                text = file.read()
        except OSError:  # it ended meanwhile
            continue
        threads += sum(map(int, _THREADS.findall(text)))
        held_bytes += 1024 * sum(map(int, _HELD.findall(text)))
    return Usage(threads, held_bytes)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except (OSError, ValueError):
        pass
    return found
