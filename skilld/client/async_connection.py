"""
One connection to the daemon for asyncio: any number of calls at a time, their replies told apart by id.

Owns: the transport, the calls that wait, and the notifications that were not yet taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from skilld.client.endpoint import RETRY_INTERVAL_S, connect
from skilld.client.errors import BadReply, ConnectionLost
from skilld.client.protocol import ClientProtocol, Notification, OnNotification, Params, Reply

# Notifications that may wait to be taken; then the daemon is not read from, and leaves some out and says so.
NOTIFICATION_LIMIT = 1_000


class AsyncConnection(asyncio.Protocol):
    """
    A connection; :func:`open_connection` makes one.

    Attributes:
        is_open: Calls can be made.
    """

    def __init__(self, *, keeps_notifications: bool) -> None:
        # settings
        self._keeps_notifications = keeps_notifications
        # state
        self.is_open = True
        self._protocol = ClientProtocol()
        self._transport: asyncio.Transport
        self._waiting: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        self._listeners: dict[Any, OnNotification] = {}
        self._notifications: deque[Notification] = deque()
        self._arrived = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._lost = asyncio.Event()
        self._error: Exception | None = None

    async def close(self) -> None:
        """Close it and wait until it is closed; calls that wait are told that it broke. Idempotent."""
        self._abort()
        await self._lost.wait()

    async def call(self, method: str, params: Params, on_notification: OnNotification | None = None) -> Any:
        """
        Send a request and wait for its reply.

        Args:
            method: Its name.
            params: By name or by position.
            on_notification: Gets the notifications that name this request.

        Raises:
            SkilldError: The daemon's answer.
            ConnectionLost, BadReply: No answer.
        """
        await self._may_write.wait()
        if not self.is_open:
            raise ConnectionLost(method, "closed by the daemon", is_unsent=True)
        id, line = self._protocol.request(method, params)
        self._transport.write(line)
        if self._transport.is_closing():
            # The write failed at once, so that not a byte of it was sent.
            self.is_open = False
            raise ConnectionLost(method, "closed by the daemon", is_unsent=True)
        reply = asyncio.get_running_loop().create_future()
        self._waiting[id] = method, reply
        if on_notification is not None:
            self._listeners[id] = on_notification
        self._pace()
        try:
            return await reply
        except asyncio.CancelledError:
            if len(self._waiting) == 1:
                # Nobody waits for anything else here: the daemon is told to leave it, and the next call begins anew.
                self._abort()
            raise
        finally:
            del self._waiting[id]
            self._listeners.pop(id, None)
            if not reply.cancelled():
                reply.exception()  # has been seen, even where the caller was cancelled in the same moment

    async def next_notification(self) -> Notification:
        """
        Wait for ever for a notification.

        Raises:
            ConnectionLost, BadReply, SkilldError: There will be none.
        """
        while not self._notifications:
            if not self.is_open:
                raise self._error or ConnectionLost("skills.subscribe", "closed by the daemon")
            self._arrived.clear()
            await self._arrived.wait()
        notification = self._notifications.popleft()
        self._pace()
        return notification

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            messages = self._protocol.receive(data)
        except BadReply as exc:
            self._fail(exc)
            self._abort()
            return
        for message in messages:
            if isinstance(message, Reply):
                self._take(message)
            elif (listener := self._listeners.get(message.params.get("request_id"))) is not None:
                listener(message)
            elif self._keeps_notifications:
                self._notifications.append(message)
                self._arrived.set()
        self._pace()

    def eof_received(self) -> None:
        self._abort()  # nothing that waits will be answered

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        why = "closed by the daemon" if exc is None else str(exc)
        for method, reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(ConnectionLost(method, why))
        self._arrived.set()
        self._may_write.set()
        self._lost.set()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    # Helpers.

    def _take(self, message: Reply) -> None:
        if message.is_last:
            self.is_open = False
        if message.id is None:
            assert message.error is not None
            self._fail(message.error)
        elif message.id in self._waiting:
            _, reply = self._waiting[message.id]
            if reply.done():
                return
            if message.error is None:
                reply.set_result(message.result)
            else:
                reply.set_exception(message.error)

    def _fail(self, error: Exception) -> None:
        """Tell everyone who waits."""
        self._error = error
        for _, reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(error)
        self._arrived.set()

    def _abort(self) -> None:
        self.is_open = False
        self._transport.abort()

    def _pace(self) -> None:
        """Read, unless notifications pile up and nobody waits for a reply behind them."""
        if self.is_open:
            if self._waiting or len(self._notifications) < NOTIFICATION_LIMIT:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


async def open_connection(paths: tuple[str, ...], *, keeps_notifications: bool = False) -> AsyncConnection:
    """
    Connect to the first of several endpoints where a daemon listens.

    Args:
        paths: The endpoints.
        keeps_notifications: For :meth:`AsyncConnection.next_notification`; else they are thrown away.

    Raises:
        NoDaemon: Nobody listens.
    """
    while True:
        try:
            connected, _ = connect(paths)
            break
        except BlockingIOError:
            await asyncio.sleep(RETRY_INTERVAL_S)
    try:
        _, connection = await asyncio.get_running_loop().create_unix_connection(
            lambda: AsyncConnection(keeps_notifications=keeps_notifications), sock=connected
        )
    except BaseException:
        connected.close()
        raise
    return connection
