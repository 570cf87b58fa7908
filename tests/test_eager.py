"""Starting a coroutine at once: it ends at once, or goes on as an ordinary task."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from skilld.rpc.eager import Starter

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
async def starter() -> AsyncIterator[Starter]:
    starter = Starter()
    yield starter
    await starter.close()
    await starter.close()


async def start(starter: Starter, make: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None] | None:
    """Start from a callback of the loop, as a protocol does."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[asyncio.Task[None] | None] = loop.create_future()

    def callback() -> None:
        try:
            outcome.set_result(starter.start(make(), loop))
        except Exception as exc:
            outcome.set_exception(exc)

    loop.call_soon(callback)
    return await outcome


async def test_ends_at_once(starter: Starter) -> None:
    """A coroutine that waits for nothing has run when start returns; all such have one task between them."""
    tasks: list[asyncio.Task[Any] | None] = []

    async def quick() -> None:
        tasks.append(asyncio.current_task())

    for _ in range(3):
        assert await start(starter, quick) is None
    assert tasks[0] is not None and tasks == [tasks[0]] * 3
    assert asyncio.all_tasks() == {asyncio.current_task(), tasks[0]}
    await starter.close()
    assert tasks[0].cancelled()


async def test_goes_on_as_a_task(starter: Starter) -> None:
    """A coroutine that waits is a task that ends when the wait does, the same one inside and out."""
    gate = asyncio.Event()
    seen: list[asyncio.Task[Any] | None] = []

    async def slow() -> None:
        seen.append(asyncio.current_task())
        await gate.wait()
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    task = await start(starter, slow)
    assert task is not None and not task.done()
    gate.set()
    await task
    assert seen == [task, task, task]


async def test_timeouts_and_task_groups_work_from_the_first_line(starter: Starter) -> None:
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

    task = await start(starter, work)
    assert task is not None
    await task
    assert ended == ["child", "timeout"]


async def test_context_variables_stay_with_the_coroutine(starter: Starter) -> None:
    """A variable set before the first wait is set after it, and nowhere else."""
    seen: list[str] = []

    async def work() -> None:
        variable.set("inside")
        await asyncio.sleep(0)
        seen.append(variable.get())

    task = await start(starter, work)
    assert task is not None
    await task
    assert (seen, variable.get()) == (["inside"], "unset")


async def test_context_variables_do_not_leak_into_the_next(starter: Starter) -> None:
    """A coroutine that ends at once leaves no variable set for the next one."""
    seen: list[str] = []

    async def work() -> None:
        seen.append(variable.get())
        variable.set("inside")

    for _ in range(2):
        await start(starter, work)
    assert seen == ["unset", "unset"]


async def test_self_cancelled_coroutine_harms_no_other(starter: Starter) -> None:
    """A coroutine may cancel its own task and end, or be cancelled at its first wait; the next is not."""
    ended: list[str] = []

    async def quick() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        ended.append("quick")

    async def slow() -> None:
        await quick()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def innocent() -> None:
        await asyncio.sleep(0)
        ended.append("innocent")

    assert await start(starter, quick) is None
    task = await start(starter, slow)
    assert task is not None
    with pytest.raises(asyncio.CancelledError):
        await task
    task = await start(starter, innocent)
    assert task is not None
    await task
    assert ended == ["quick", "quick", "cancelled", "innocent"]


async def test_many_may_wait_at_once(starter: Starter) -> None:
    """Each coroutine that waits has a task of its own, whether the spare one had its first turn or not."""
    loop = asyncio.get_running_loop()
    gate = asyncio.Event()
    tasks: list[asyncio.Task[None] | None] = []
    done: list[int] = []

    async def wait(number: int) -> None:
        await gate.wait()
        done.append(number)

    async def quick() -> None:
        pass

    def burst() -> None:
        for number in range(5):
            tasks.append(starter.start(wait(number), loop))
            assert starter.start(quick(), loop) is None

    loop.call_soon(burst)
    for _ in range(3):
        await asyncio.sleep(0)
    loop.call_soon(burst)
    await asyncio.sleep(0)
    gate.set()
    for task in tasks:
        assert task is not None
        await task
    assert len(set(tasks)) == 10
    assert sorted(done) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


async def test_failure_at_once_is_the_callers(starter: Starter) -> None:
    """What is raised before the first wait is raised by start."""

    async def fail() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError):
        await start(starter, fail)


async def test_failure_later_is_the_tasks(starter: Starter) -> None:
    """What is raised after the first wait is the task's."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("x")

    task = await start(starter, fail)
    assert task is not None
    with pytest.raises(LookupError):
        await task


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_cancellation_reaches_the_coroutine(starter: Starter, turns: int) -> None:
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
        task = starter.start(work(), loop)
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
