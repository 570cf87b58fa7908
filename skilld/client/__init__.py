"""
The client library: ``SkilldClient`` blocks, ``AsyncSkilldClient`` is for asyncio; both have the same methods.

    with SkilldClient() as client:
        for hit in client.search("fill a PDF form"):
            print(hit.id, hit.score)
        print(client.activate("pdf"))

    async with AsyncSkilldClient() as client:
        async with client.subscribe() as changes:
            async for change in changes:
                print(change.added, change.updated, change.removed)

The daemon's errors arrive as the classes of :mod:`skilld.errors`; what goes wrong on the way to it are
:class:`NoDaemon`, :class:`ConnectionLost`, :class:`RequestTimeout` and :class:`BadReply`. Results are the frozen
dataclasses of :mod:`skilld.client.results`. Standard library only.

Owns: nothing; the names that a user of the library imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skilld.client.blocking import SkilldClient
from skilld.client.errors import BadReply, ConnectionLost, NoDaemon, RequestTimeout
from skilld.client.results import (
    Changes,
    FactoryResponse,
    FileContent,
    Hit,
    Listing,
    Problem,
    Problems,
    Resource,
    RunResult,
    SearchResult,
    Skill,
    Status,
    Summary,
    TriggerCheck,
    Validation,
)
from skilld.client.subscription import Subscription

if TYPE_CHECKING:
    from skilld.client.async_subscription import AsyncSubscription
    from skilld.client.asynchronous import AsyncSkilldClient

__all__ = [
    "AsyncSkilldClient",
    "AsyncSubscription",
    "BadReply",
    "Changes",
    "ConnectionLost",
    "FactoryResponse",
    "FileContent",
    "Hit",
    "Listing",
    "NoDaemon",
    "Problem",
    "Problems",
    "RequestTimeout",
    "Resource",
    "RunResult",
    "SearchResult",
    "Skill",
    "SkilldClient",
    "Status",
    "Subscription",
    "Summary",
    "TriggerCheck",
    "Validation",
]


def __getattr__(name: str) -> Any:
    # Importing asyncio costs more than a whole call of the blocking client; only who uses it pays.
    if name == "AsyncSkilldClient":
        from skilld.client.asynchronous import AsyncSkilldClient

        return AsyncSkilldClient
    if name == "AsyncSubscription":
        from skilld.client.async_subscription import AsyncSubscription

        return AsyncSubscription
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
