"""
Start a coroutine in this very call; only what does not end at once becomes a task of its own.

Most calls end without waiting for anything. Answering them inside ``data_received`` saves a turn of the event loop a
request: measured, 55 µs against 82 µs for a round trip over a Unix socket.

Owns: nothing; the caller owns the task that it gets.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Generator
from typing import Any


def start(coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
    """
    Run a coroutine up to its first wait, at once.

    Inside it :func:`asyncio.current_task` is the same task before and after that wait, so that ``asyncio.timeout`` and
    task groups work, and so do context variables. To be called from a callback of the loop, not from a task.

    Args:
        coroutine: Not begun yet. Ends with None, for nobody looks at a result that came at once.
        loop: The running loop.

    Returns:
        The task that waits; None if the coroutine ended.

    Raises:
        Whatever the coroutine raised before its first wait.

    Source: asyncio, "Extending": a third-party task enters and leaves by ``_enter_task`` and ``_leave_task``. Python
    3.12 has eager tasks of its own, 3.11 has not.
    """
    context = contextvars.copy_context()
    begun = _Begun(coroutine)
    task = asyncio.Task(begun, loop=loop, context=context)
    asyncio._enter_task(loop, task)
    try:
        begun.waits_for = context.run(coroutine.send, None)
    except StopIteration:
        begun.is_done = True
        return None
    except BaseException:
        begun.is_done = True
        raise
    finally:
        asyncio._leave_task(loop, task)
    return task


class _Begun(Coroutine[Any, Any, None]):
    """A coroutine whose first step is taken: to the task it shows that step's outcome first, and then itself."""

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self.is_done = False
        self.waits_for: Any = None

    def send(self, value: Any) -> Any:
        if self.is_done:
            raise StopIteration
        waits_for, self.waits_for = self.waits_for, None
        return waits_for if waits_for is not None else self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        if self.is_done:
            raise StopIteration
        # Cancelled before the task's own first step: the wait is the coroutine's to leave.
        self.waits_for = None
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        raise TypeError("only a task drives this coroutine")
