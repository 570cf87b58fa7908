"""
Changes as they happen, for programs that block.

Owns: a connection of its own, which it opens again when it breaks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from skilld.client.calls import given
from skilld.client.connection import Connection, Deadline
from skilld.client.errors import ConnectionLost, NoDaemon, RequestTimeout
from skilld.client.parse import parse
from skilld.client.results import Changes, Revision
from skilld.client.tracker import Tracker
from skilld.errors import Busy, ShuttingDown

# What passes by itself: the daemon stops, starts again or has too many connections.
PASSING = (NoDaemon, ConnectionLost, RequestTimeout, ShuttingDown, Busy)

# Seconds until the second try to get back; the time doubles up to the longest.
FIRST_RETRY_S = 0.02
LONGEST_RETRY_S = 1.0


class Subscription(Iterator[Changes]):
    """
    Iterates over changes, waiting for each.

    Nothing is lost in silence. Notifications that the daemon left out, or sent while the connection was broken, are
    asked for and told as one ``Changes``. Where the daemon cannot tell either, as after it started again, a
    ``Changes`` with ``complete=False`` says so: list the skills again.

    Use it as a context manager, or :meth:`close` it. One thread may iterate; any thread may close it, which ends the
    iteration.

    Raises (from the constructor and while iterating):
        NoDaemon: Nobody listens (for ``reconnect_s`` seconds, once it was connected).
        SkilldError, BadReply: The daemon refuses, or is none.
    """

    def __init__(self, paths: tuple[str, ...], timeout_s: float | None, since: str | None, reconnect_s: float) -> None:
        # settings
        self._paths = paths
        self._timeout_s = timeout_s
        self._reconnect_s = reconnect_s
        # state
        self._tracker = Tracker(since)
        self._in_use = threading.RLock()
        self._closed = threading.Event()
        self._connection: Connection | None = self._connect()

    @property
    def revision(self) -> str | None:
        """Everything up to this revision was told."""
        return self._tracker.revision

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Changes:
        with self._in_use:
            while not self._closed.is_set():
                if self._connection is None:
                    self._connection = self._connect_again()
                elif changes := self._receive(self._connection):
                    return changes
            raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the subscription; idempotent."""
        self._closed.set()
        if connection := self._connection:
            connection.shut_down()
        with self._in_use:
            self._drop()

    def _connect(self) -> Connection:
        deadline = Deadline("skills.subscribe", self._timeout_s)
        connection = Connection(self._paths, deadline)
        try:
            reply = parse(Revision, connection.call("skills.subscribe", {}, deadline))
        except BaseException:
            connection.close()
            raise
        self._tracker.subscribed(reply.revision)
        return connection

    def _connect_again(self) -> Connection | None:
        """Get back to the daemon; None if the subscription is closed meanwhile."""
        give_up_at_s = time.monotonic() + self._reconnect_s
        delay_s = FIRST_RETRY_S
        while not self._closed.wait(delay_s):
            try:
                return self._connect()
            except PASSING:
                delay_s = min(2 * delay_s, LONGEST_RETRY_S)
                if time.monotonic() + delay_s > give_up_at_s:
                    raise
        return None

    def _receive(self, connection: Connection) -> Changes | None:
        """Wait for one message; the changes that it tells, or None."""
        try:
            if self._tracker.must_ask:
                deadline = Deadline("skills.changes", self._timeout_s)
                reply = connection.call("skills.changes", given(since=self._tracker.revision), deadline)
                return self._tracker.caught_up(parse(Changes, reply))
            notification = connection.next_notification()
            return self._tracker.notified(notification.params) if notification.method == "skills.changed" else None
        except BaseException as exc:
            # What was lost with the connection is asked for on the next.
            self._drop()
            if isinstance(exc, PASSING):
                return None
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
