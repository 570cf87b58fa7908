"""
The processes of a run, as /proc shows them.

Owns: nothing.

Source: proc_pid_task(5), ``children``; proc_pid_status(5).
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

_HELD = re.compile(rb"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB", re.MULTILINE)
_THREADS = re.compile(rb"^Threads:\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Usage:
    """How many threads in all processes, and how much memory they hold that is not a file's: bytes."""

    threads: int = 0
    memory_bytes: int = 0


def descendants(pid: int) -> Iterator[int]:
    """All processes below one, nearest first; none where the kernel does not tell (CONFIG_PROC_CHILDREN)."""
    pending = deque(_children(pid))
    while pending:
        child = pending.popleft()
        yield child
        pending += _children(child)


def usage_below(pid: int, most_threads: int) -> Usage:
    """What the descendants of a process use together; a bomb of processes is counted only until there are too many."""
    threads = held_bytes = 0
    for one in descendants(pid):
        if threads > most_threads:
            break
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
