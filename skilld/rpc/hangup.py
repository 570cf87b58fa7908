"""
Who is to be told when the peer has gone: what is worth doing only for somebody who waits for it.

Most requests are carried out to their end, whether or not anybody reads the reply. A script that runs for a caller who
has gone would hold a place that others wait for.

Owns: the tasks that are cancelled when the peer goes.

Source: poll(2), POLLHUP; API, ``skills.execute_script``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class Hangup:
    """Whether a peer has gone; each connection has one."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()
        self._is_over = False

    @property
    def is_awaited(self) -> bool:
        """Whether anybody wants to know."""
        return bool(self._tasks)

    @contextlib.contextmanager
    def cancels_this(self) -> Iterator[None]:
        """Cancel the current task when the peer goes, for as long as the context lasts."""
        task = asyncio.current_task()
        assert task is not None
        if self._is_over:
            task.cancel()
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    def tell(self) -> None:
        """The peer has gone. Idempotent."""
        self._is_over = True
        for task in tuple(self._tasks):
            task.cancel()
        self._tasks.clear()
