"""
The methods that speak of the daemon itself.

Owns: nothing.

Source: API, section 3, "the daemon".
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from datetime import datetime
from typing import Any

import skilld
from skilld.rpc.dispatch import Method
from skilld.rpc.methods import schemas
from skilld.rpc.methods.services import Context
from skilld.rpc.openrpc import document


async def ping(context: Context, /) -> dict[str, Any]:
    """Answer, to show that the daemon is there."""
    return {}


async def status(context: Context, /) -> dict[str, Any]:
    """Tell how the daemon is doing."""
    services = context.services
    registry, watcher = services.registry, services.watcher
    snapshot = registry.snapshot
    counts = dict.fromkeys(registry.roots, 0)
    for skill in snapshot.skills.values():
        counts[skill.root] += 1
    writable = await asyncio.to_thread(lambda: [_is_writable(root) for root in registry.roots])
    state = watcher.state
    return {
        "version": skilld.__version__,
        "uptime_s": round(time.monotonic() - services.started_at_s, 3),
        "pid": os.getpid(),
        "roots": [
            {"path": root, "skills": counts[root], "writable": is_writable}
            for root, is_writable in zip(registry.roots, writable, strict=True)
        ],
        "revision": snapshot.revision,
        "digest": snapshot.digest,
        "problems": len(snapshot.problems),
        "watcher": {
            "mode": state.mode,
            "alive": watcher.is_alive,
            "last_event": _time(state.last_event),
            "last_full_scan": _time(watcher.rescanner.last_full_scan),
            "reason": state.reason,
            "missed_events": state.missed_events,
        },
        "index": {
            "documents": len(registry.index),
            "bytes": registry.index.bytes_used,
            "complete": watcher.ready.is_set() and not registry.unindexed,
        },
        "connections": services.connection_count(),
        "sandbox": services.executor.status(),
        "tee": {"available": services.tee.is_available, "endpoint": services.tee.endpoint},
        "limits": dataclasses.asdict(services.settings.limits),
    }


async def discover(context: Context, /) -> dict[str, Any]:
    """Describe every method, as an OpenRPC document."""
    return document(context.services.methods)


def _is_writable(root: str) -> bool:
    """Whether a skill could be made in a root; one that is missing is made first."""
    path = root
    if os.path.islink(root):
        return False  # nothing is written through a link
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


METHODS = (
    Method("skilld.ping", "read", (), ping, {"type": "object", "maxProperties": 0}),
    Method("skilld.status", "read", (), status, schemas.STATUS),
    Method("rpc.discover", "read", (), discover, {"type": "object"}, ("GET", "/openrpc.json")),
)
