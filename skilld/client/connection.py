"""
One blocking connection to the daemon: one call at a time.

Owns: the socket, and the notifications that arrived and were not yet taken.
"""

from __future__ import annotations

import math
import socket
import time
from collections import deque
from typing import Any

from skilld.client.endpoint import RETRY_INTERVAL_S, connect
from skilld.client.errors import ConnectionLost, RequestTimeout
from skilld.client.protocol import ClientProtocol, Notification, OnNotification, Params, Reply

READ_BYTES = 256 * 1024


class Deadline:
    """The moment until which a call waits; None is for ever."""

    def __init__(self, method: str, timeout_s: float | None) -> None:
        self.method = method
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self._at_s = time.monotonic() + self._timeout_s

    def remaining_s(self) -> float | None:
        """
        Seconds left, as a socket's timeout.

        Raises:
            RequestTimeout: There are none.
        """
        remaining_s = self._at_s - time.monotonic()
        if remaining_s <= 0:
            raise self.error()
        return None if remaining_s == math.inf else remaining_s

    def error(self) -> RequestTimeout:
        """What is raised when it has passed."""
        return RequestTimeout(self.method, self._timeout_s)


class Connection:
    """
    A connection to the first of several endpoints where a daemon listens.

    After any exception but an error of the daemon's it is of no more use and must be closed.

    Raises:
        NoDaemon: Nobody listens.
        RequestTimeout: Somebody does, but takes no connection in time.
    """

    def __init__(self, paths: tuple[str, ...], deadline: Deadline) -> None:
        # settings
        self._socket, self.endpoint = _connect(paths, deadline)
        # state
        self._protocol = ClientProtocol()
        self.notifications: deque[Notification] = deque()
        self.is_usable = True

    def close(self) -> None:
        """Close it; idempotent."""
        self._socket.close()

    def shut_down(self) -> None:
        """End it from another thread: whoever waits in it is told that it broke."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # it is not connected any more
            pass

    def is_fresh(self) -> bool:
        """Whether it is still open after a while of disuse, with nothing unexpected to read."""
        try:
            self._socket.settimeout(0)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def call(
        self, method: str, params: Params, deadline: Deadline, on_notification: OnNotification | None = None
    ) -> Any:
        """
        Send a request and wait for its reply.

        Args:
            method: Its name.
            params: By name or by position.
            deadline: When to give up.
            on_notification: Gets the notifications that come before the reply; without it they are kept.

        Raises:
            SkilldError: The daemon's answer; the connection is of further use if ``is_usable`` says so.
            ConnectionLost, RequestTimeout, BadReply: No answer.
        """
        id, line = self._protocol.request(method, params)
        self._send(line, deadline)
        while True:
            replies = self._receive(deadline)
            while on_notification and self.notifications:
                on_notification(self.notifications.popleft())
            for reply in replies:
                if reply.is_last:
                    self.is_usable = False
                if reply.error is not None:
                    raise reply.error
                if reply.id == id:
                    return reply.result

    def next_notification(self) -> Notification:
        """
        Wait for ever for a notification.

        Raises:
            ConnectionLost, BadReply, SkilldError: There will be none.
        """
        forever = Deadline("skills.subscribe", None)
        while not self.notifications:
            for reply in self._receive(forever):
                if reply.error is not None:
                    raise reply.error
        return self.notifications.popleft()

    def _send(self, line: bytes, deadline: Deadline) -> None:
        rest = memoryview(line)
        try:
            while rest:
                self._socket.settimeout(deadline.remaining_s())
                rest = rest[self._socket.send(rest) :]
        except TimeoutError:
            raise deadline.error() from None
        except OSError as exc:
            # A daemon that refuses says why before it closes.
            for reply in self._read_last_words(deadline):
                if reply.error is not None:
                    raise reply.error from exc
            # All but the end of the line may be a whole request.
            raise ConnectionLost(deadline.method, _reason(exc), is_unsent=len(rest) > 1) from exc

    def _read_last_words(self, deadline: Deadline) -> list[Reply]:
        try:
            return self._receive(deadline)
        except OSError:
            return []

    def _receive(self, deadline: Deadline) -> list[Reply]:
        """Wait for bytes; return the replies that they complete, and keep the notifications."""
        try:
            self._socket.settimeout(deadline.remaining_s())
            data = self._socket.recv(READ_BYTES)
        except TimeoutError:
            raise deadline.error() from None
        except OSError as exc:
            raise ConnectionLost(deadline.method, _reason(exc)) from exc
        if not data:
            raise ConnectionLost(deadline.method, "closed by the daemon")
        messages = self._protocol.receive(data)
        self.notifications += [message for message in messages if isinstance(message, Notification)]
        return [message for message in messages if isinstance(message, Reply)]


def _connect(paths: tuple[str, ...], deadline: Deadline) -> tuple[socket.socket, str]:
    while True:
        deadline.remaining_s()
        try:
            return connect(paths)
        except BlockingIOError:
            time.sleep(RETRY_INTERVAL_S)


def _reason(exc: OSError) -> str:
    return exc.strerror or str(exc)
