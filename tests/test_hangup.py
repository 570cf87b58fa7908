"""Who is told that a peer has gone."""

from __future__ import annotations

import asyncio

import pytest

from skilld.rpc.hangup import Hangup


async def wait(hangup: Hangup, begun: asyncio.Event) -> None:
    with hangup.cancels_this():
        begun.set()
        await asyncio.Event().wait()


async def test_it_cancels_who_asked_for_it() -> None:
    """Nobody else, and nobody who is done."""
    hangup, begun = Hangup(), asyncio.Event()
    task = asyncio.create_task(wait(hangup, begun))
    other = asyncio.create_task(asyncio.Event().wait())
    await begun.wait()
    assert hangup.is_awaited
    hangup.tell()
    hangup.tell()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not other.done()
    other.cancel()


async def test_who_asks_too_late() -> None:
    """Is cancelled at its first wait."""
    hangup = Hangup()
    hangup.tell()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(wait(hangup, asyncio.Event()))
