"""
What a subscriber was told, and when it has to ask so that no change is lost.

The daemon sends one notification a revision, in order. A gap between two of them, the word that some were left out,
and a new connection mean that ``skills.changes`` has to be asked for the rest.

Owns: the revision up to which the subscriber was told.

Source: the interface of skilld, sections 3 ("revision") and 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from skilld.client.errors import BadReply
from skilld.client.parse import parse
from skilld.client.results import Changes


class Tracker:
    """
    Follows the revisions that a subscriber sees.

    Attributes:
        revision: Up to here the subscriber was told everything; None before the first subscription.
        must_ask: ``skills.changes`` must be asked for what came after it, and :meth:`caught_up` told the reply.
    """

    def __init__(self, since: str | None) -> None:
        self.revision = since
        self.must_ask = False

    def subscribed(self, revision: str) -> None:
        """Take the reply of ``skills.subscribe``."""
        if self.revision is None:
            self.revision = revision
        self.must_ask = revision != self.revision

    def notified(self, params: Mapping[str, Any]) -> Changes | None:
        """Take the params of a notification; what to tell, or None if it was told already or has to be asked for."""
        if params.get("complete") is False:
            self.must_ask = True
            return None
        changes = parse(Changes, params)
        steps = _steps(self.revision, changes.revision)
        if steps is None or steps > 1:
            self.must_ask = True
            return None
        if steps < 1:
            return None
        self.revision = changes.revision
        return changes

    def caught_up(self, changes: Changes) -> Changes | None:
        """Take the reply of ``skills.changes``; what to tell, or None if nothing changed."""
        self.revision = changes.revision
        self.must_ask = False
        is_news = changes.added or changes.updated or changes.removed or not changes.complete
        return changes if is_news else None


def _steps(before: str | None, after: str) -> int | None:
    """Revisions from one to another; None if they are of different runs of the daemon."""
    run_before, _, counter_before = (before or "").rpartition(":")
    run_after, _, counter_after = after.rpartition(":")
    if run_before != run_after:
        return None
    try:
        return int(counter_after) - int(counter_before)
    except ValueError as exc:
        raise BadReply(f"not a revision: {after!r}") from exc
