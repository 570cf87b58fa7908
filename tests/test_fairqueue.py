"""Whose turn it is."""

from __future__ import annotations

import asyncio

import pytest

from skilld.errors import Busy, ShuttingDown
from skilld.scripts.fairqueue import FairQueue


class Client:
    """Takes turns, and notes when it got one."""

    def __init__(self, queue: FairQueue, order: list[str]) -> None:
        self.queue = queue
        self.order = order
        self.gate = asyncio.Event()

    async def take(self, client: str, name: str) -> None:
        async with self.queue.turn(client):
            self.order.append(name)
            await self.gate.wait()


async def started(client: Client, *names: str) -> list[asyncio.Task[None]]:
    """Ask for turns; a name's first letter is the client."""
    tasks = [asyncio.create_task(client.take(name[0], name)) for name in names]
    await asyncio.sleep(0)
    return tasks


async def test_clients_have_turns_one_after_the_other() -> None:
    """Who asks once waits for one run of each other client, not for all of them."""
    order: list[str] = []
    queue = FairQueue(1, 10)
    client = Client(queue, order)
    tasks = await started(client, "a0", "a1", "a2", "a3", "b1", "c1", "b2")
    assert (queue.running, queue.waiting) == (1, 6)
    client.gate.set()
    await asyncio.gather(*tasks)
    assert order == ["a0", "a1", "b1", "c1", "a2", "b2", "a3"]
    assert (queue.running, queue.waiting) == (0, 0)


async def test_a_full_waiting_room() -> None:
    """Who is greedy is sent away; who is not takes the place of the greediest one's last."""
    order: list[str] = []
    queue = FairQueue(1, 3)
    client = Client(queue, order)
    tasks = await started(client, "a0", "a1", "a2", "a3")
    greedy, modest = await started(client, "a4", "b1")
    with pytest.raises(Busy):
        await greedy
    with pytest.raises(Busy):
        await tasks[3]
    client.gate.set()
    await asyncio.gather(*tasks[:3], modest)
    assert order == ["a0", "a1", "b1", "a2"]


async def test_who_goes_away_holds_no_place() -> None:
    """Whether it waits, or is given its turn in the very moment."""
    order: list[str] = []
    queue = FairQueue(1, 3)
    client = Client(queue, order)
    first, second, third = await started(client, "a0", "a1", "b1")
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert queue.waiting == 1
    client.gate.set()
    await first
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    assert (queue.running, queue.waiting) == (0, 0)
    (last,) = await started(client, "c1")
    await last
    assert order[-1] == "c1"


async def test_closing() -> None:
    """Who waits is told, who runs goes on, nobody begins."""
    order: list[str] = []
    queue = FairQueue(1, 3)
    client = Client(queue, order)
    first, second = await started(client, "a0", "a1")
    queue.close()
    queue.close()
    with pytest.raises(ShuttingDown):
        await second
    with pytest.raises(ShuttingDown):
        await client.take("b", "b1")
    client.gate.set()
    await first
    assert order == ["a0"]
