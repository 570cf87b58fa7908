"""Whose turn it is."""

from __future__ import annotations

import asyncio

import pytest

from skilld.errors import Busy, ShuttingDown
from skilld.scripts.fairqueue import Client, FairQueue

NONE = type(None)


class Asker:
    """Takes turns, and notes when it got one."""

    def __init__(self, queue: FairQueue, order: list[str]) -> None:
        self.queue = queue
        self.order = order
        self.gate = asyncio.Event()

    async def take(self, name: str) -> None:
        """A name's first letter is the user."""
        async with self.queue.turn(Client(ord(name[0]), 1)):
            self.order.append(name)
            await self.gate.wait()


async def started(client: Asker, *names: str) -> list[asyncio.Task[None]]:
    """Ask for turns."""
    tasks = [asyncio.create_task(client.take(name)) for name in names]
    await asyncio.sleep(0)
    return tasks


async def test_clients_have_turns_one_after_the_other() -> None:
    """Who asks once waits for one run of each other client, not for all of them."""
    order: list[str] = []
    queue = FairQueue(1, 10)
    client = Asker(queue, order)
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
    client = Asker(queue, order)
    tasks = await started(client, "a0", "a1", "a2", "a3")
    greedy, modest = await started(client, "a4", "b1")
    with pytest.raises(Busy):
        await greedy
    with pytest.raises(Busy):
        await tasks[3]
    client.gate.set()
    await asyncio.gather(*tasks[:3], modest)
    assert order == ["a0", "a1", "b1", "a2"]


async def test_a_user_of_many_processes() -> None:
    """Has one turn in a round, however many ask, and cannot fill the waiting room; they have turns of that turn."""
    order: list[tuple[int, int]] = []
    queue = FairQueue(1, 5)
    gate = asyncio.Event()

    async def take(client: Client) -> None:
        async with queue.turn(client):
            order.append((client.uid, client.pid))
            await gate.wait()

    async def ask(*clients: tuple[int, int]) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(take(Client(*one))) for one in clients]
        await asyncio.sleep(0)
        return tasks

    first = await ask((1, 1), (1, 1), (1, 1), (1, 2), (1, 3), (1, 4))
    # Another user takes the last place of the greediest process, and then of the latest.
    others = await ask((2, 9), (2, 9))
    # A process of the first user has no claim on the second, and no other process waits twice.
    (refused,) = await ask((1, 5))
    # Nor has the second user on more than a half.
    (refused_too,) = await ask((2, 9))
    gate.set()
    done = await asyncio.gather(*first, *others, refused, refused_too, return_exceptions=True)
    assert [type(one) for one in done] == [NONE, NONE, Busy, NONE, NONE, Busy, NONE, NONE, Busy, Busy]
    assert order == [(1, 1), (1, 1), (2, 9), (1, 2), (2, 9), (1, 3)]
    assert (queue.running, queue.waiting) == (0, 0)


async def test_processes_of_one_user_in_a_full_room() -> None:
    """One that waits less takes the place of the one that waits most."""
    queue = FairQueue(1, 2)
    gate = asyncio.Event()

    async def take(client: Client) -> int:
        async with queue.turn(client):
            await gate.wait()
            return client.pid

    tasks = [asyncio.create_task(take(Client(1, pid))) for pid in (1, 1, 1, 2)]
    await asyncio.sleep(0)
    gate.set()
    first, second, third, other = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, second, type(third), other) == (1, 1, Busy, 2)


async def test_who_goes_away_holds_no_place() -> None:
    """Whether it waits, or is given its turn in the very moment."""
    order: list[str] = []
    queue = FairQueue(1, 3)
    client = Asker(queue, order)
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
    client = Asker(queue, order)
    first, second = await started(client, "a0", "a1")
    queue.close()
    queue.close()
    with pytest.raises(ShuttingDown):
        await second
    with pytest.raises(ShuttingDown):
        await client.take("b1")
    client.gate.set()
    await first
    assert order == ["a0"]
