"""
The daemon's own look at itself, which feeds systemd's watchdog.

Owns: nothing; what asks through the real socket, as any client would.

Source: API, section 1; sd_notify(3), ``WATCHDOG=1``; systemd.service(5), ``WatchdogSec=``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable

from skilld import systemd

log = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 5.0


async def feed_watchdog(address: str, is_alive: Callable[[], bool]) -> None:
    """
    Tell systemd that the daemon lives, as long as it answers a ping through its own socket. Runs until cancelled.

    Args:
        address: The socket's path.
        is_alive: Whether the parts that no ping reaches are alive.
    """
    interval_s = systemd.watchdog_interval_s(os.environ, os.getpid())
    while interval_s is not None:
        await asyncio.sleep(interval_s)
        if is_alive() and await answers(address, min(PROBE_TIMEOUT_S, interval_s)):
            systemd.notify(os.environ, "WATCHDOG=1")
        else:
            log.error("the self-probe failed")
    await asyncio.Event().wait()


async def answers(address: str, timeout_s: float) -> bool:
    """Whether a daemon answers a ping on a socket within so many seconds."""
    request = {"jsonrpc": "2.0", "id": 1, "method": "skilld.ping"}
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(address)
            try:
                writer.write(json.dumps(request).encode() + b"\n")
                reply = json.loads(await reader.readline())
                return bool(reply.get("result") == {})
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):
        return False
