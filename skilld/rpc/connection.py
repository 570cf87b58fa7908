"""
What both framings share: requests in flight, back-pressure, time limits and the end of a connection.

A framing turns bytes into items (a line, an HTTP request) and answers one item; everything here is about when.

Owns: each connection owns its transport, its queue of items and the tasks that answer them.

Source: API, sections 1 and 4; measured on Linux 6: who closes a Unix socket with bytes unread resets it for the other
side, so that a refusal is followed by reading on for a while.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from skilld.config import Limits
from skilld.errors import SkilldError
from skilld.rpc.access import Peer
from skilld.rpc.dispatch import Dispatcher
from skilld.rpc.eager import Starter
from skilld.rpc.hangup import Hangup
from skilld.rpc.subscribers import Subscribers

logger = logging.getLogger(__name__)

# Seconds that the items of one connection may hold the event loop before others get a turn.
SLICE_S = 0.005

# Unsent bytes from which on a peer counts as one who does not read.
HIGH_WATER_BYTES = 64 * 1024

# Seconds that a refused peer gets to take its last reply and close.
LINGER_S = 5.0


@dataclass(frozen=True)
class Shared:
    """What all connections of a server work with."""

    dispatcher: Dispatcher
    limits: Limits
    subscribers: Subscribers
    starter: Starter
    closed: Callable[[Connection], None]


class Connection(asyncio.Protocol):
    """
    One connection whose framing is known.

    Items are begun in order, as many at a time as ``at_a_time`` says; a framing reads (:meth:`feed`,
    :meth:`enqueue`), answers (:meth:`answer`) and writes (:meth:`send`). The peer is not read from while it does not
    read itself, and while too many requests or bytes of requests are unanswered.
    """

    def __init__(self, transport: asyncio.Transport, peer: Peer, shared: Shared, *, at_a_time: int) -> None:
        # settings
        self.peer = peer
        self.shared = shared
        self._limits = shared.limits
        self._at_a_time = at_a_time
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        transport.set_write_buffer_limits(high=min(HIGH_WATER_BYTES, self._limits.send_buffer_bytes))
        # state of reading: what waits to be begun, what was begun, and since when a request is arriving
        self._queue: deque[tuple[Any, int]] = deque()
        self._in_flight = 0
        self._unanswered_bytes = 0
        self._arriving_since: float | None = None
        self._active_at = self._loop.time()
        self._is_reading = True
        self._has_eof = False
        self.takes_no_more = False
        # state of writing: bytes so far, also up to the end of the last reply, and taken by the peer when last seen
        self._outbox: list[bytes] | None = None
        self._sent_bytes = 0
        self._replied_bytes = 0
        self._taken_bytes = 0
        self._taken_at = 0.0
        self._is_write_paused = False
        self._has_room = asyncio.Event()
        self._has_room.set()
        # state of ending
        self.hangup = Hangup()
        self.is_draining = False
        self._lingers_until: float | None = None
        self._is_lost = False
        # tasks
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_turn: asyncio.Handle | None = None

    # What a framing provides.

    def feed(self, data: bytes) -> None:
        """Turn bytes into items in the queue."""
        raise NotImplementedError

    async def answer(self, item: Any) -> None:
        """Answer one item; may send nothing."""
        raise NotImplementedError

    def arrival_timed_out(self) -> None:
        """A request was begun and did not arrive in time: put an item in the queue that says so."""
        raise NotImplementedError

    def refuse(self, exc: SkilldError) -> None:
        """Put an item in the queue that answers an error in place of whatever the peer asks, and :meth:`end`."""
        raise NotImplementedError

    def rest_arrived(self) -> None:
        """The peer writes no more: what arrived last is whole, or never will be."""

    @property
    def may_be_silent(self) -> bool:
        """Whether the peer is there to listen, so that its silence is no reason to close."""
        return False

    def peer_reads_again(self) -> None:
        """What was written is (almost) read."""

    # What a framing uses.

    @property
    def is_writable(self) -> bool:
        """Whether the peer may be written to."""
        return self._lingers_until is None and not self._transport.is_closing()

    @property
    def is_busy(self) -> bool:
        """Whether anything is in the queue or in flight."""
        return bool(self._in_flight or self._queue)

    @property
    def is_last_answer(self) -> bool:
        """Whether the connection ends after what is being answered."""
        return not self._queue and (self.takes_no_more or self.is_draining or self._has_eof)

    @property
    def unread_bytes(self) -> int:
        """Bytes written that the peer's side of the socket has not taken."""
        waiting = sum(map(len, self._outbox)) if self._outbox else 0
        return self._transport.get_write_buffer_size() + waiting

    def enqueue(self, item: Any, size: int) -> None:
        """Put an item of so many bytes in the queue; :meth:`pump` begins it."""
        self._queue.append((item, size))
        self._unanswered_bytes += size

    def note_arrival(self, *, is_partial: bool, is_new: bool) -> None:
        """
        Note that bytes arrived.

        Args:
            is_partial: They end inside a request.
            is_new: That request began with these bytes.
        """
        self._active_at = self._loop.time()
        if not is_partial:
            self._arriving_since = None
        elif is_new or self._arriving_since is None:
            self._arriving_since = self._active_at

    def send(self, data: bytes, *, is_reply: bool = True) -> None:
        """Write to the peer; nothing happens if the connection is gone or ends."""
        if not self.is_writable:
            return
        self._sent_bytes += len(data)
        if is_reply:
            self._replied_bytes = self._sent_bytes
        if self._outbox is None:
            self._transport.write(data)
        else:
            self._outbox.append(data)
            if len(data) > HIGH_WATER_BYTES:
                self._flush()

    async def drained(self) -> None:
        """Wait until the peer has taken most of what was written, or is gone."""
        await self._has_room.wait()

    def pump(self) -> None:
        """Begin what may begin, send what was answered at once, and decide whether to read on."""
        self._next_turn = None
        ends_at = self._loop.time() + SLICE_S
        self._outbox = []
        while self._queue and self._in_flight < self._at_a_time and not self._is_write_paused:
            item, size = self._queue.popleft()
            self._begin(item, size)
            if self._queue and self._loop.time() > ends_at:
                break
        self._flush()
        self._outbox = None
        self._settle()

    def end(self) -> None:
        """Take no more requests: answer those in the queue and in flight, then close. Idempotent."""
        self.takes_no_more = True
        self._arriving_since = None
        self._settle()

    # What the server uses.

    def drain(self) -> None:
        """Answer what is in flight, then close. Idempotent."""
        self.is_draining = True
        self._settle()

    def abort(self) -> None:
        """Close at once; what is in the queue is forgotten, what is in flight cancelled."""
        self._queue.clear()
        self._transport.abort()

    def check(self, now: float) -> None:
        """End what takes too long; the server calls this now and then with the loop's time."""
        if self._is_lost:
            return
        # A peer that is done with writing, or is not read from, goes without a word.
        if self.hangup.is_awaited and self._is_hung_up():
            self.hangup.tell()
        if self._is_stuck(now):
            logger.info("dropped a peer that does not read: %s", self.peer, extra=self.peer.fields)
            self.abort()
        elif self._lingers_until is not None:
            if self._transport.get_write_buffer_size():
                self._lingers_until = now + LINGER_S
            elif now > self._lingers_until:
                self.abort()
        elif self._arriving_since is not None and self._is_reading:
            if now > self._arriving_since + self._limits.header_timeout_s:
                self.arrival_timed_out()
                self.end()
                self.pump()
        elif self._has_eof and not self.is_busy and self._is_hung_up():
            self.abort()
        elif not self.is_busy and not self.may_be_silent and now > self._active_at + self._limits.idle_timeout_s:
            self._transport.close()

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        if not self.takes_no_more:
            self.feed(data)
            self.pump()

    def eof_received(self) -> bool:
        """The peer writes no more, but may read on: it still gets its replies."""
        self._has_eof = True
        self._arriving_since = None
        if self._lingers_until is not None:
            return False
        self.rest_arrived()
        self.pump()
        if (self.hangup.is_awaited or not self.is_busy) and self._is_hung_up():
            self.hangup.tell()
            if not self.is_busy:
                self.abort()
        return not self._transport.is_closing()

    def pause_writing(self) -> None:
        self._is_write_paused = True
        self._has_room.clear()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._has_room.set()
        self.peer_reads_again()
        self.pump()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the transport logs it
        self._is_lost = True
        self._has_room.set()
        self.hangup.tell()
        self._queue.clear()
        if self._next_turn is not None:
            self._next_turn.cancel()
        for task in self._tasks:
            task.cancel()
        if not self._tasks:
            self.shared.closed(self)

    # Helpers.

    def _begin(self, item: Any, size: int) -> None:
        self._in_flight += 1
        try:
            task = self.shared.starter.start(self.answer(item), self._loop)
        except Exception:
            logger.exception("a connection failed")
            self.abort()
            task = None
        if task is None:
            self._in_flight -= 1
            self._unanswered_bytes -= size
        else:
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, size))

    def _ended(self, size: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._in_flight -= 1
        self._unanswered_bytes -= size
        self._active_at = self._loop.time()
        if not task.cancelled() and task.exception() is not None:
            logger.error("a connection failed", exc_info=task.exception())
            self.abort()
        if self._is_lost:
            if not self._tasks:
                self.shared.closed(self)
        else:
            self.pump()

    def _flush(self) -> None:
        if self._outbox:
            data = b"".join(self._outbox)
            self._outbox.clear()
            if not self._transport.is_closing():
                self._transport.write(data)

    def _settle(self) -> None:
        """Close if nothing is left to do, or read on if the peer may go on."""
        if not self.is_writable:
            return
        if not self.is_busy:
            if self.is_draining or (self._has_eof and (self.takes_no_more or not self.may_be_silent)):
                self._transport.close()
                return
            if self.takes_no_more:
                self._linger()
                return
        if self._queue and self._in_flight < self._at_a_time and not self._is_write_paused:
            # The slice is used up: the rest has its turn after the others.
            self._next_turn = self._next_turn or self._loop.call_soon(self.pump)
        self._read(
            not self.takes_no_more
            and not self._is_write_paused
            and self._in_flight + len(self._queue) < self._limits.requests_per_connection
            and self._unanswered_bytes <= self._limits.message_bytes
        )

    def _read(self, is_reading: bool) -> None:
        if is_reading == self._is_reading or self._has_eof:
            return
        self._is_reading = is_reading
        if is_reading:
            # The time that we did not read is not the peer's.
            if self._arriving_since is not None:
                self._arriving_since = self._loop.time()
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _linger(self) -> None:
        """Let the peer take its last reply and close first; what it still sends is thrown away."""
        self._lingers_until = self._loop.time() + LINGER_S
        self._transport.write_eof()
        self._read(True)

    def _is_hung_up(self) -> bool:
        """Whether the peer is gone, and not only done with writing."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def _is_stuck(self, now: float) -> bool:
        """Whether a reply waits to be read, and the peer has taken nothing for too long."""
        taken_bytes = self._sent_bytes - self._transport.get_write_buffer_size()
        waits = taken_bytes < (self._sent_bytes if self._transport.is_closing() else self._replied_bytes)
        if not waits or taken_bytes > self._taken_bytes or not self._taken_at:
            self._taken_bytes = taken_bytes
            self._taken_at = now if waits else 0.0
            return False
        return now > self._taken_at + self._limits.send_timeout_s
