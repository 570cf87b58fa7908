"""Starting a coroutine at once: it ends at once, or goes on as an ordinary task."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from skilld.rpc import eager

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def start_in_callback(make: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None] | None:
    """Start from a callback of the loop, as a protocol does."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[asyncio.Task[None] | None] = loop.create_future()

    def callback() -> None:
        try:
            outcome.set_result(eager.start(make(), loop))
        except Exception as exc:
            outcome.set_exception(exc)

    loop.call_soon(callback)
    task = await outcome
    # The task of a coroutine that ended at once has a last turn of its own.
    await asyncio.sleep(0)
    return task


async def test_ends_at_once() -> None:
    """A coroutine that waits for nothing has run when start returns, and leaves no task."""
    done: list[int] = []

    async def quick() -> None:
        done.append(1)

    assert await start_in_callback(quick) is None
    assert done == [1]
    assert len(asyncio.all_tasks()) == 1


async def test_goes_on_as_a_task() -> None:
    """A coroutine that waits is a task that ends when the wait does, the same one inside and out."""
    gate = asyncio.Event()
    seen: list[asyncio.Task[Any] | None] = []

    async def slow() -> None:
        seen.append(asyncio.current_task())
        await gate.wait()
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    task = await start_in_callback(slow)
    assert task is not None and not task.done()
    gate.set()
    await task
    assert seen == [task, task, task]


async def test_timeouts_and_task_groups_work_from_the_first_line() -> None:
    """What asks for the current task finds one before the first wait."""
    ended: list[str] = []

    async def child() -> None:
        ended.append("child")

    async def work() -> None:
        try:
            async with asyncio.timeout(0.001), asyncio.TaskGroup() as group:
                group.create_task(child())
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append("timeout")

    task = await start_in_callback(work)
    assert task is not None
    await task
    assert ended == ["child", "timeout"]


async def test_context_variables_stay_with_the_coroutine() -> None:
    """A variable set before the first wait is set after it, and nowhere else."""
    seen: list[str] = []

    async def work() -> None:
        variable.set("inside")
        await asyncio.sleep(0)
        seen.append(variable.get())

    task = await start_in_callback(work)
    assert task is not None
    await task
    assert (seen, variable.get()) == (["inside"], "unset")


async def test_failure_at_once_is_the_callers() -> None:
    """What is raised before the first wait is raised by start."""

    async def fail() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        await start_in_callback(fail)


async def test_failure_later_is_the_tasks() -> None:
    """What is raised after the first wait is the task's."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("x")

    task = await start_in_callback(fail)
    assert task is not None
    with pytest.raises(LookupError):
        await task


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_cancellation_reaches_the_coroutine(turns: int) -> None:
    """A cancelled task runs the coroutine's clean-up, be it cancelled before its own first turn or later."""
    seen: list[str] = []
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0)
            seen.append("cleaned up")
            raise

    def callback() -> None:
        task = eager.start(work(), loop)
        assert task is not None
        tasks.append(task)
        if not turns:
            task.cancel()

    loop.call_soon(callback)
    for _ in range(turns + 1):
        await asyncio.sleep(0)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert seen == ["cancelled", "cleaned up"]
