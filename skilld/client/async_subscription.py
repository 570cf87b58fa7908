"""
Changes as they happen, for asyncio.

Owns: a connection of its own, which it opens again when it breaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from skilld.client.async_connection import AsyncConnection, open_connection
from skilld.client.calls import given
from skilld.client.errors import RequestTimeout
from skilld.client.parse import parse
from skilld.client.results import Changes, Revision
from skilld.client.subscription import FIRST_RETRY_S, LONGEST_RETRY_S, PASSING
from skilld.client.tracker import Tracker


class AsyncSubscription(AsyncIterator[Changes]):
    """
    Iterates over changes, waiting for each: see :class:`skilld.client.subscription.Subscription`.

    Use it as an ``async with`` block: changes are told from its beginning on. Cancelling the wait for a change loses
    nothing.
    """

    def __init__(self, paths: tuple[str, ...], timeout_s: float | None, since: str | None, reconnect_s: float) -> None:
        # settings
        self._paths = paths
        self._timeout_s = timeout_s
        self._reconnect_s = reconnect_s
        # state
        self._tracker = Tracker(since)
        self._in_use = asyncio.Lock()
        self._closed = asyncio.Event()
        self._connection: AsyncConnection | None = None
        self._was_connected = False

    @property
    def revision(self) -> str | None:
        """Everything up to this revision was told."""
        return self._tracker.revision

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Changes:
        async with self._in_use:
            while not self._closed.is_set():
                if self._connection is None:
                    self._connection = await (self._connect_again() if self._was_connected else self._connect())
                elif changes := await self._receive(self._connection):
                    return changes
            raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        async with self._in_use:
            if self._connection is None:
                self._connection = await self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the subscription; idempotent."""
        self._closed.set()
        if self._connection is not None:
            await self._connection.close()
        async with self._in_use:
            await self._drop()

    async def _connect(self) -> AsyncConnection:
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await open_connection(self._paths, keeps_notifications=True)
                try:
                    reply = parse(Revision, await connection.call("skills.subscribe", {}))
                except BaseException:
                    await connection.close()
                    raise
        except TimeoutError as exc:
            raise RequestTimeout("skills.subscribe", self._timeout_s or 0) from exc
        self._tracker.subscribed(reply.revision)
        self._was_connected = True
        return connection

    async def _connect_again(self) -> AsyncConnection | None:
        """Get back to the daemon; None if the subscription is closed meanwhile."""
        loop = asyncio.get_running_loop()
        give_up_at_s = loop.time() + self._reconnect_s
        delay_s = FIRST_RETRY_S
        while not await self._is_closed_within(delay_s):
            try:
                return await self._connect()
            except PASSING:
                delay_s = min(2 * delay_s, LONGEST_RETRY_S)
                if loop.time() + delay_s > give_up_at_s:
                    raise
        return None

    async def _is_closed_within(self, delay_s: float) -> bool:
        try:
            async with asyncio.timeout(delay_s):
                return await self._closed.wait()
        except TimeoutError:
            return False

    async def _receive(self, connection: AsyncConnection) -> Changes | None:
        """Wait for one message; the changes that it tells, or None."""
        try:
            if self._tracker.must_ask:
                async with asyncio.timeout(self._timeout_s):
                    reply = await connection.call("skills.changes", given(since=self._tracker.revision))
                return self._tracker.caught_up(parse(Changes, reply))
            notification = await connection.next_notification()
            return self._tracker.notified(notification.params) if notification.method == "skills.changed" else None
        except (*PASSING, TimeoutError):
            # What was lost with the connection is asked for on the next.
            await self._drop()
            return None
        except Exception:
            await self._drop()
            raise

    async def _drop(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
