"""
The framing of JSON lines: one JSON-RPC text a line, one reply a line, several in flight.

A line over the limit is answered ``too-large`` once, and skipped up to its end, for the next line is as good as any.

Owns: the bytes of the line that is arriving, and the connection's subscription.

Source: API, sections 1.1 and 5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skilld.errors import ParseError, SkilldError, TooLarge
from skilld.rpc import jsontext
from skilld.rpc.access import Peer
from skilld.rpc.connection import Connection, Shared
from skilld.rpc.dispatch import Context, error_reply
from skilld.rpc.subscribers import Feed, Note, notification_line


class NdjsonConnection(Connection):
    """
    A connection of JSON lines. Its items are lines, or replies to what cannot be answered.

    Attributes:
        subscription: The connection's notifications, if it asked for them.
    """

    def __init__(self, transport: asyncio.Transport, peer: Peer, shared: Shared) -> None:
        super().__init__(transport, peer, shared, at_a_time=shared.limits.requests_per_connection)
        # state
        self._partial = bytearray()
        self._is_skipping = False
        self.subscription: Feed | None = None

    @property
    def may_be_silent(self) -> bool:
        return self.subscription is not None

    def feed(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        if lines:
            self._line_ended(lines[0])
            for line in filter(None, lines[1:]):
                self._line_ended(line)
        if not self._is_skipping:
            self._partial += rest
            if len(self._partial) > self._limits.message_bytes:
                self._partial.clear()
                self._is_skipping = True
                self._refuse_line()
        self.note_arrival(is_partial=bool(self._partial) or self._is_skipping, is_new=bool(lines))

    def rest_arrived(self) -> None:
        self._line_ended(b"")

    def arrival_timed_out(self) -> None:
        self._enqueue_error(ParseError(f"Parse error: no end of line within {self._limits.header_timeout_s:g} s"))

    def refuse(self, exc: SkilldError) -> None:
        self._enqueue_error(exc)
        self.end()
        self.pump()

    async def answer(self, item: bytes | _Refusal) -> None:
        if isinstance(item, _Refusal):
            self.send(item.reply + b"\n")
            return
        exchange = Exchange(self)
        dispatcher = self.shared.dispatcher
        try:
            reply = await dispatcher.answer_text(item, Context(self.peer, dispatcher.services, exchange, self.hangup))
            if reply is not None:
                self.send(reply + b"\n")
        finally:
            exchange.end()

    def peer_reads_again(self) -> None:
        if self.subscription is not None:
            self.subscription.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        self.unsubscribe()
        super().connection_lost(exc)

    def subscribe(self) -> bool:
        """Begin the subscription, held until it is released; False if there is one."""
        if self.subscription is not None or not self.is_writable:
            return False
        self.subscription = Feed(self._send_note, lambda: self.unread_bytes, self._limits.send_buffer_bytes)
        self.subscription.hold()
        self.shared.subscribers.add(self.subscription)
        return True

    def unsubscribe(self) -> None:
        """End the subscription."""
        if self.subscription is not None:
            self.shared.subscribers.discard(self.subscription)
            self.subscription = None

    def _send_note(self, note: Note) -> None:
        self.send(note.line, is_reply=False)

    def _line_ended(self, end: bytes) -> None:
        if self._is_skipping:
            self._is_skipping = False
            return
        line = bytes(self._partial) + end if self._partial else end
        self._partial.clear()
        if len(line) > self._limits.message_bytes:
            self._refuse_line()
        elif line and not line.isspace():
            self.enqueue(line, len(line))

    def _refuse_line(self) -> None:
        limit_bytes = self._limits.message_bytes
        self._enqueue_error(TooLarge(f"the line is over the limit of {limit_bytes} bytes", limit_bytes))

    def _enqueue_error(self, exc: SkilldError) -> None:
        self.enqueue(_Refusal(error_reply(exc, None)), 0)


@dataclass(frozen=True)
class _Refusal:
    """The reply to a line that cannot be answered."""

    reply: bytes


class Exchange:
    """One line and its reply, as a handler sees the connection: see :class:`skilld.rpc.dispatch.Connection`."""

    __slots__ = ("_connection", "_held")

    def __init__(self, connection: NdjsonConnection) -> None:
        self._connection = connection
        self._held: Feed | None = None

    def subscribe(self) -> None:
        """Send ``skills.changed`` from now on, after the reply to this line."""
        if self._connection.subscribe():
            self._held = self._connection.subscription

    def unsubscribe(self) -> None:
        """Send no more of them."""
        self._connection.unsubscribe()

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Send one notification now; return when the peer has room for more."""
        self._connection.send(notification_line(method, jsontext.serialise(params)), is_reply=True)
        await self._connection.drained()

    def end(self) -> None:
        """The line is answered: let go what was held back behind its reply."""
        if self._held is not None and self._held is self._connection.subscription:
            self._held.release()
