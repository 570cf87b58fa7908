"""
Who may run a script now: a bounded number at a time, the clients that wait in turns.

Where the waiting room is full, a client that waits less than others takes the place of the last one that the greediest
client put there, so that nobody can keep others out by asking often.

Owns: the number of runs, and those who wait.

Source: API, section 2, ``busy``; fair queueing, where the tail of the longest queue is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Hashable

from skilld.errors import Busy, ShuttingDown

# What a caller who is sent away is told to wait.
RETRY_AFTER_S = 1.0


class FairQueue:
    """
    Lets a bounded number of runs in.

    Args:
        max_running: At a time.
        max_waiting: In all; one more is ``busy``.
    """

    def __init__(self, max_running: int, max_waiting: int) -> None:
        # settings
        self._max_running = max_running
        self._max_waiting = max_waiting
        # state: the first client in the dictionary has the next turn
        self.running = 0
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    @contextlib.asynccontextmanager
    async def turn(self, client: Hashable) -> AsyncIterator[None]:
        """
        Wait for a turn and have it for as long as the context lasts.

        Raises:
            Busy: Too many wait.
            ShuttingDown: No more turns are given.
        """
        if self._is_closed:
            raise ShuttingDown
        if self.running < self._max_running and not self._waiting:
            self.running += 1
        else:
            await self._wait(client)
        try:
            yield
        finally:
            self.running -= 1
            self._admit()

    def close(self) -> None:
        """Give no more turns; who waits is told so. Idempotent."""
        self._is_closed = True
        for queue in self._waiting.values():
            for place in queue:
                if not place.done():
                    place.set_exception(ShuttingDown())
        self._waiting.clear()

    async def _wait(self, client: Hashable) -> None:
        if self.waiting >= self._max_waiting:
            self._make_room_for(client)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(place)
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                # The turn came together with the cancellation: it goes to the next.
                self.running -= 1
                self._admit()
            else:
                self._leave(client, place)
            raise

    def _make_room_for(self, client: Hashable) -> None:
        greediest = max(self._waiting, key=lambda one: len(self._waiting[one]), default=None)
        own = len(self._waiting.get(client, ()))
        if greediest is None or len(self._waiting[greediest]) <= own + 1:
            raise self._refusal()
        self._waiting[greediest].pop().set_exception(self._refusal())

    def _refusal(self) -> Busy:
        return Busy(f"{self.waiting} runs of scripts wait already (execution.max_queued)", RETRY_AFTER_S)

    def _leave(self, client: Hashable, place: asyncio.Future[None]) -> None:
        queue = self._waiting.get(client)
        if queue is not None:
            with contextlib.suppress(ValueError):
                queue.remove(place)
            if not queue:
                del self._waiting[client]

    def _admit(self) -> None:
        while self.running < self._max_running and self._waiting:
            client, queue = next(iter(self._waiting.items()))
            place = queue.popleft()
            del self._waiting[client]
            if queue:
                self._waiting[client] = queue  # at the end of the round
            if not place.done():
                self.running += 1
                place.set_result(None)
