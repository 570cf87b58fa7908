"""
Who is told of changes of the registry, and what becomes of one who reads too slowly.

Owns: the set of feeds, and its own subscription to the registry's changes.

Source: API, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from skilld.rpc import jsontext

METHOD = "skills.changed"


class Change(Protocol):
    """What one revision of the registry changed, or several; ``is_complete`` is false where that cannot be told."""

    @property
    def revision(self) -> str: ...
    @property
    def added(self) -> Sequence[str]: ...
    @property
    def updated(self) -> Sequence[str]: ...
    @property
    def removed(self) -> Sequence[str]: ...
    @property
    def is_complete(self) -> bool: ...


class Events(Protocol):
    """The registry, as far as notifications need it. It calls back in the event loop's thread."""

    def subscribe(self, callback: Callable[[Any], None], /) -> Callable[[], None]:
        """Call back with the :class:`Change` of every revision from now on, in order, until told to stop."""

    def changes_since(self, revision: str | None, /) -> Change:
        """Everything that changed after a revision; None is the beginning."""


@dataclass(frozen=True)
class Note:
    """The params of one notification, written as JSON once for all who get them."""

    revision: str
    params: bytes

    @property
    def line(self) -> bytes:
        """The notification as a line."""
        return notification_line(METHOD, self.params)

    @property
    def event(self) -> bytes:
        """The notification as a Server-Sent Event. Source: HTML Living Standard, section 9.2."""
        return b"event: %s\nid: %s\ndata: %s\n\n" % (METHOD.encode(), self.revision.encode(), self.params)


def notification_line(method: str, params: bytes) -> bytes:
    """A JSON-RPC notification as a line; ``params`` is JSON already."""
    return b'{"jsonrpc":"2.0","method":%s,"params":%s}\n' % (jsontext.serialise(method), params)


def note_of(change: Change) -> Note:
    """The notification of a change; of one that cannot be told, that the subscriber must catch up."""
    if not change.is_complete:
        return catch_up(change.revision)
    params = {
        "revision": change.revision,
        "added": list(change.added),
        "updated": list(change.updated),
        "removed": list(change.removed),
    }
    return Note(change.revision, jsontext.serialise(params))


def catch_up(revision: str) -> Note:
    """The notification that tells a subscriber to ask ``skills.changes``."""
    return Note(revision, b'{"complete":false}')


class Feed:
    """
    The notifications of one subscriber: every revision, in order, until it piles up too much unread.

    Then it gets nothing more until it reads again, is told so with ``{"complete": false}``, and goes on from there.

    Args:
        send: Writes one notification to the subscriber.
        unread_bytes: How much was written that it has not read.
        limit_bytes: How much of that is too much.
    """

    def __init__(self, send: Callable[[Note], None], unread_bytes: Callable[[], int], limit_bytes: int) -> None:
        # settings
        self._send = send
        self._unread_bytes = unread_bytes
        self._limit_bytes = limit_bytes
        # state: notes held back; the revision of the last note that was dropped
        self._held: list[Note] | None = None
        self._held_bytes = 0
        self._missed: str | None = None

    def hold(self) -> None:
        """Keep notes back until :meth:`release`: the reply to the subscription goes first."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Send what was held back."""
        held, self._held, self._held_bytes = self._held or (), None, 0
        missed, self._missed = self._missed, None
        for note in held:
            self.offer(note)
        if missed is not None:
            self._send(catch_up(missed))

    def offer(self, note: Note) -> None:
        """Send one note, or hold it, or drop it and remember that the subscriber must catch up."""
        unread_bytes = self._unread_bytes() if self._held is None else self._held_bytes
        if self._missed is not None or unread_bytes > self._limit_bytes:
            self._missed = note.revision
        elif self._held is None:
            self._send(note)
        else:
            self._held.append(note)
            self._held_bytes += len(note.params)

    def resume(self) -> None:
        """The subscriber reads again: tell it to catch up if it missed anything."""
        if self._missed is not None and self._held is None:
            missed, self._missed = self._missed, None
            self._send(catch_up(missed))


class Subscribers:
    """
    Tells every feed of every change.

    Attributes:
        revision: The registry's revision, as the feeds know it.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._feeds: set[Feed] = set()
        self.revision = events.changes_since(None).revision
        self._stop: Callable[[], None] | None = events.subscribe(self._publish)

    def __len__(self) -> int:
        return len(self._feeds)

    def add(self, feed: Feed) -> None:
        """Tell this feed of every change from now on."""
        self._feeds.add(feed)

    def discard(self, feed: Feed) -> None:
        """Tell this feed no more."""
        self._feeds.discard(feed)

    def missed_since(self, revision: str) -> Note | None:
        """One note of all that happened since a revision, or that it cannot be told; None if nothing happened."""
        change = self._events.changes_since(revision)
        is_news = change.added or change.updated or change.removed or not change.is_complete
        return note_of(change) if is_news else None

    def close(self) -> None:
        """Stop listening to the registry; idempotent."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        self._feeds.clear()

    def _publish(self, change: Change) -> None:
        self.revision = change.revision
        note = note_of(change)
        # A feed may go while it is written to.
        for feed in tuple(self._feeds):
            feed.offer(note)
