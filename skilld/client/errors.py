"""
What can go wrong between a client and the daemon.

The daemon's own answers are the classes of :mod:`skilld.errors`. These are subclasses of what Python raises in such
places anyway, so that ``except OSError`` or ``except TimeoutError`` catches them too.

Owns: nothing; values only.
"""

from __future__ import annotations

from collections.abc import Mapping


class NoDaemon(ConnectionError):
    """
    No daemon answers.

    Attributes:
        tried: Why each endpoint did not do, in the order they were tried.
    """

    def __init__(self, tried: Mapping[str, str]) -> None:
        self.tried = dict(tried)
        super().__init__("no daemon answers: " + "; ".join(f"{path}: {why}" for path, why in self.tried.items()))


class ConnectionLost(ConnectionError):
    """
    The connection broke before the reply came.

    Attributes:
        method: The method that was called.
        is_unsent: The daemon cannot have seen the request; else it may or may not have been executed.
    """

    def __init__(self, method: str, why: str, *, is_unsent: bool = False) -> None:
        self.method = method
        self.is_unsent = is_unsent
        outcome = "it was not executed" if is_unsent else "it may have been executed"
        super().__init__(f"{method}: the connection broke ({why}); {outcome}")


class RequestTimeout(TimeoutError):
    """
    No reply in time; the request may still be executed.

    Attributes:
        method: The method that was called.
        timeout_s: Seconds that were waited.
    """

    def __init__(self, method: str, timeout_s: float) -> None:
        self.method = method
        self.timeout_s = timeout_s
        super().__init__(f"{method}: no reply within {timeout_s:g} s")


class BadReply(ConnectionError):
    """What came back is no reply of skilld; the text says what is wrong with it."""
