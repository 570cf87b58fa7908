"""
What the method handlers work on: one value that the daemon builds and every call gets.

Owns: nothing; it only names the owners.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from skilld.config import Config
from skilld.factory.sessions import Sessions
from skilld.rpc.dispatch import Context as DispatchContext
from skilld.rpc.dispatch import Method
from skilld.scripts.executor import Executor
from skilld.skills.registry import Registry
from skilld.skills.store import Store
from skilld.skills.watcher import Watcher
from skilld.tee.service import Tee


@dataclass
class Services:
    """
    The parts of a running daemon.

    ``connection_count`` asks the server, which is built last; ``draining`` is set when the daemon begins to end.
    """

    settings: Config
    registry: Registry
    watcher: Watcher
    store: Store
    sessions: Sessions
    executor: Executor
    tee: Tee
    methods: tuple[Method, ...]
    connection_count: Callable[[], int] = lambda: 0
    started_at_s: float = field(default_factory=time.monotonic)
    cached_revision: str = ""
    draining: asyncio.Event = field(default_factory=asyncio.Event)

    async def sync(self, timeout_ms: int | None) -> None:
        """Wait for the first scan; then, where a time is given, until the disk's changes are indexed (or Busy)."""
        await self.watcher.ready.wait()
        if timeout_ms:
            await self.watcher.sync(timeout_ms / 1000)

    async def wait_for_change(self, revision: str, timeout_s: float) -> None:
        """Return when the registry has left a revision, after ``timeout_s`` seconds, or when the daemon drains."""
        waits = (
            asyncio.ensure_future(self.registry.wait_for_change(revision, timeout_s)),
            asyncio.ensure_future(self.draining.wait()),
        )
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


Context = DispatchContext[Services]
