"""
Who may run a script now: a bounded number at a time, the users that wait in turns, and the processes of each in turns.

Where the waiting room is full, a user who waits less than others takes the place of the last one that the greediest
user put there, so that nobody can keep others out by asking often, or by many processes. So do the processes of a user
among themselves.

Owns: the number of runs, and those who wait.

Source: API, section 2, ``busy``; fair queueing, where the tail of the longest queue is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from skilld.errors import Busy, ShuttingDown

# What a caller who is sent away is told to wait.
RETRY_AFTER_S = 1.0


@dataclass(frozen=True)
class Client:
    """A process of a user."""

    uid: int
    pid: int

    def __str__(self) -> str:
        return f"uid {self.uid}, pid {self.pid}"


_Clients = dict[Client, deque[asyncio.Future[None]]]


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
        # state: the first user in the dictionary has the next turn, and of the user's clients the first
        self.running = 0
        self._waiting: dict[int, _Clients] = {}
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(_places, self._waiting.values()))

    @contextlib.asynccontextmanager
    async def turn(self, client: Client) -> AsyncIterator[None]:
        """
        Wait for a turn and have it for as long as the context lasts.

        Args:
            client: Whose turn it is.

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
        for clients in self._waiting.values():
            for place in itertools.chain(*clients.values()):
                if not place.done():
                    place.set_exception(ShuttingDown())
        self._waiting.clear()

    async def _wait(self, client: Client) -> None:
        if self.waiting >= self._max_waiting:
            self._make_room_for(client)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client.uid, {}).setdefault(client, deque()).append(place)
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

    def _make_room_for(self, client: Client) -> None:
        own = self._waiting.get(client.uid, {})
        user = max(self._waiting, key=lambda one: _places(self._waiting[one]), default=None)
        if user is None:
            raise self._refusal()
        clients = self._waiting[user]
        if _places(clients) <= _places(own) + 1:
            # No other user has more: it is between the processes of this one.
            clients = own
            if max(map(len, own.values()), default=0) <= len(own.get(client, ())) + 1:
                raise self._refusal()
        # The latest of those that wait as often.
        greediest = max(reversed(clients), key=lambda one: len(clients[one]))
        place = clients[greediest][-1]
        self._leave(greediest, place)
        if not place.done():
            place.set_exception(self._refusal())

    def _refusal(self) -> Busy:
        return Busy(f"{self.waiting} runs of scripts wait already (execution.max_queued)", RETRY_AFTER_S)

    def _leave(self, client: Client, place: asyncio.Future[None]) -> None:
        clients = self._waiting.get(client.uid, {})
        with contextlib.suppress(KeyError, ValueError):
            clients[client].remove(place)
            if not clients[client]:
                del clients[client]
            if not clients:
                del self._waiting[client.uid]

    def _admit(self) -> None:
        while self.running < self._max_running and self._waiting:
            user, clients = next(iter(self._waiting.items()))
            client, queue = next(iter(clients.items()))
            place = queue.popleft()
            # At the end of the round, the client's and the user's.
            del clients[client], self._waiting[user]
            if queue:
                clients[client] = queue
            if clients:
                self._waiting[user] = clients
            if not place.done():
                self.running += 1
                place.set_result(None)


def _places(clients: _Clients) -> int:
    return sum(map(len, clients.values()))
