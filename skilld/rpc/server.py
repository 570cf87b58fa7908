"""
The server: accepts connections on one Unix socket, tells their framing by the first byte, and ends them all.

One connection over the limit is kept just long enough to see its first byte, is answered ``busy`` in its own framing
(an error line with id null, or status 503), and closed.

Owns: the listening socket and the set of connections.

Source: API, sections 1, 1.1 and 4.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from skilld.config import Limits
from skilld.errors import Busy
from skilld.rpc.access import AccessPolicy, Peer, roles_of
from skilld.rpc.connection import Connection, Shared
from skilld.rpc.dispatch import Dispatcher
from skilld.rpc.eager import Starter
from skilld.rpc.http import HttpConnection
from skilld.rpc.ndjson import NdjsonConnection
from skilld.rpc.peer import read_peer
from skilld.rpc.site import Site
from skilld.rpc.subscribers import Events, Subscribers

logger = logging.getLogger(__name__)

# Connections that may wait for the kernel's accept.
BACKLOG = 1_024

# Connections over the limit that may wait for their refusal at a time; one more is closed without a word.
REFUSALS = 64

# Greatest seconds between two looks at what takes too long.
SWEEP_S = 1.0

# The bytes that JSON-RPC texts begin with.
JSON_STARTS = b"{["


class Server:
    """
    Serves a dispatcher on a Unix socket.

    Args:
        dispatcher: Answers the requests; it is told when the server drains.
        limits: What one peer may ask for.
        policy: Who has which role.
        events: The registry, for notifications.
        health: Whether the daemon is ready, for ``GET /health``.
        own_pid: The process that may always connect: the daemon's own, to look at itself.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        limits: Limits,
        *,
        policy: AccessPolicy,
        events: Events,
        health: Callable[[], bool],
        own_pid: int | None = None,
    ) -> None:
        # settings
        self.own_pid = own_pid
        self.limits = limits
        self.policy = policy
        self.site = Site(dispatcher, health)
        self._dispatcher = dispatcher
        # state
        self._subscribers = Subscribers(events)
        self._starter = Starter()
        self.shared = Shared(dispatcher, limits, self._subscribers, self._starter, self.discard)
        self._connections: set[Connection | Opening] = set()
        self._listener: asyncio.Server | None = None
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def start(self, sock: socket.socket) -> None:
        """
        Accept connections.

        Args:
            sock: A bound, listening Unix stream socket. It is closed by :meth:`close`; its file is left alone.
        """
        loop = asyncio.get_running_loop()
        # From Python 3.13 on, asyncio would remove the socket's file, which may be another's by then.
        kept: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        self._listener = await loop.create_unix_server(lambda: Opening(self), sock=sock, backlog=BACKLOG, **kept)
        self._sweep()

    def reload(self, policy: AccessPolicy, limits: Limits) -> None:
        """
        Take another policy and other limits.

        The policy counts for every call from now on; a connection whose peer may not read any more ends, once what is
        in flight is answered. Limits count for connections made from now on.
        """
        self.policy = policy
        self.limits = self._dispatcher.limits = limits
        self.shared = replace(self.shared, limits=limits)
        for connection in tuple(self._connections):
            if not isinstance(connection, Connection):
                continue
            peer = connection.peer
            connection.peer = replace(peer, roles=roles_of(peer.uid, peer.gid, peer.groups, policy=policy))
            if "read" not in connection.peer.roles:
                logger.info("%s may not read any more; its connection ends", peer, extra=peer.fields)
                connection.drain()

    async def close(self, drain_s: float = 10) -> None:
        """
        Stop: accept nothing more, answer what is in flight, close every connection.

        Requests that come now, on a connection that still has one in flight, are answered ``shutting-down``.
        Idempotent; a second call may cut the first one's time short.

        Args:
            drain_s: Seconds for requests in flight; what is left then is cancelled and awaited.
        """
        if self._listener is not None:
            self._listener.close()
        self._dispatcher.is_draining = True
        for connection in tuple(self._connections):
            connection.drain()
        try:
            async with asyncio.timeout(drain_s):
                await self._is_empty.wait()
        except TimeoutError:
            logger.warning("%d connections did not end within %g s; cut off", self.connections, drain_s)
            for connection in tuple(self._connections):
                connection.abort()
            await self._is_empty.wait()
        await self._starter.close()
        self._subscribers.close()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()

    def admit(self, connection: Connection | Opening) -> None:
        """Count a connection in."""
        self._connections.add(connection)
        self._is_empty.clear()

    def discard(self, connection: Connection | Opening) -> None:
        """Count a connection out: it is closed, and nothing of it is in flight."""
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()

    def _sweep(self) -> None:
        """Let every connection look at its clocks, again and again."""
        limits = self.limits
        shortest_s = min(limits.header_timeout_s, limits.idle_timeout_s, limits.send_timeout_s)
        loop = asyncio.get_running_loop()
        self._sweep_timer = loop.call_later(min(SWEEP_S, shortest_s / 4), self._sweep)
        now = loop.time()
        for connection in tuple(self._connections):
            connection.check(now)


class Opening(asyncio.Protocol):
    """A connection whose first byte has not come yet."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._is_over_limit = False
        self._ends_at = asyncio.get_running_loop().time() + server.limits.header_timeout_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        over = self._server.connections - self._server.limits.connections
        self._is_over_limit = over >= 0
        self._server.admit(self)
        is_crowded = over >= REFUSALS and not self._is_own(self._read_peer())
        if is_crowded or self._server.shared.dispatcher.is_draining:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        server, transport = self._server, self._transport
        peer = self._read_peer()
        connection: Connection
        if data[0] in JSON_STARTS:
            connection = NdjsonConnection(transport, peer, server.shared)
        else:
            connection = HttpConnection(transport, peer, server.shared, server.site)
        transport.set_protocol(connection)
        server.admit(connection)
        server.discard(self)
        if self._is_over_limit and not self._is_own(peer):
            connection.refuse(Busy(f"{server.limits.connections} connections are open already"))
        else:
            connection.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the transport logs it
        self._server.discard(self)

    def _read_peer(self) -> Peer:
        assert self._transport is not None
        return read_peer(self._transport.get_extra_info("socket").fileno(), self._server.policy)

    def _is_own(self, peer: Peer) -> bool:
        """Whether the daemon looks at itself: a crowd of peers must not make the watchdog believe that it is dead."""
        return peer.pid == self._server.own_pid

    def check(self, now: float) -> None:
        """Close if the first byte is late."""
        if now > self._ends_at:
            self.abort()

    def drain(self) -> None:
        """Close: nothing was asked."""
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
