"""
Waiting for descriptors, with the event loop's own selector and no transport.

Owns: nothing; each wait owns its place in the selector while it lasts.
"""

from __future__ import annotations

import asyncio


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read from without blocking, or has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def writable(descriptor: int) -> None:
    """Wait until a descriptor can be written to without blocking, or nobody reads it any more."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, _set, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
