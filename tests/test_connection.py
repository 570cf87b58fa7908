"""What both framings share, by a clock of the test's own: who is stuck, who lingers, who is let be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from skilld.config import Limits
from skilld.rpc.connection import LINGER_S, Connection, Shared
from skilld.rpc.dispatch import Dispatcher
from skilld.rpc.eager import Starter
from skilld.rpc.subscribers import Subscribers
from tests.serving import METHODS, PEER, Services, small


class Wire(asyncio.Transport):
    """A transport whose other side reads as much as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unread_bytes = 0
        self.events: list[str] = []

    def write(self, data: Any) -> None:
        self.written += data
        self.unread_bytes += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high

    def is_closing(self) -> bool:
        return "close" in self.events or "abort" in self.events

    def close(self) -> None:
        self.events.append("close")

    def abort(self) -> None:
        self.events.append("abort")

    def write_eof(self) -> None:
        self.events.append("eof")

    def pause_reading(self) -> None:
        self.events.append("pause")

    def resume_reading(self) -> None:
        self.events.append("resume")


class Echo(Connection):
    """A framing of bytes: every piece is a request, and ``fail`` fails."""

    def feed(self, data: bytes) -> None:
        self.enqueue(data, len(data))
        self.note_arrival(is_partial=False, is_new=True)

    async def answer(self, item: bytes) -> None:
        if item == b"fail":
            raise LookupError("x")
        if item == b"fail later":
            await asyncio.sleep(0)
            raise LookupError("x")
        self.send(item)


async def as_transport(callback: Callable[..., object], *args: object) -> None:
    """Call what a transport calls the way it does: from a callback of the loop, outside any task."""
    done = asyncio.Event()

    def call() -> None:
        callback(*args)
        done.set()

    asyncio.get_running_loop().call_soon(call)
    await done.wait()


@pytest.fixture
async def starter() -> AsyncIterator[Starter]:
    starter = Starter()
    yield starter
    await starter.close()


def connect(limits: Limits, starter: Starter) -> tuple[Echo, Wire, list[Any]]:
    """A connection, its wire, and who was reported closed."""
    services = Services()
    closed: list[Any] = []
    shared = Shared(Dispatcher(METHODS, services, limits), limits, Subscribers(services.events), starter, closed.append)
    wire = Wire()
    return Echo(wire, PEER, shared, at_a_time=1), wire, closed


async def test_peer_is_stuck_when_it_takes_nothing_of_a_reply(starter: Starter) -> None:
    """The time limit counts from the last byte that the peer took, however slowly it reads."""
    connection, wire, _ = connect(small(send_timeout_s=10), starter)
    await as_transport(connection.data_received, b"x" * 100)
    now = asyncio.get_running_loop().time()
    for _ in range(20):
        connection.check(now)
        now += 9
        wire.unread_bytes -= 1
    connection.check(now)
    connection.check(now + 9.9)
    assert wire.events == []
    connection.check(now + 10.1)
    assert wire.events == ["abort"]


async def test_unread_notifications_are_no_reason_to_drop(starter: Starter) -> None:
    """Only what the peer asked for must be read in time."""
    connection, wire, _ = connect(small(send_timeout_s=10), starter)
    now = asyncio.get_running_loop().time()
    await as_transport(connection.data_received, b"x" * 100)
    connection.send(b"y" * 50, is_reply=False)
    wire.unread_bytes = 50
    connection.check(now)
    connection.check(now + 1_000)
    assert wire.events == []
    await as_transport(connection.data_received, b"z")
    connection.check(now + 1_001)
    connection.check(now + 1_012)
    assert wire.events == ["abort"]


async def test_refused_peer_may_take_its_time_to_read(starter: Starter) -> None:
    """After the last reply the peer has a few seconds to close, counted from when it has read everything."""
    connection, wire, _ = connect(small(send_timeout_s=100), starter)
    await as_transport(connection.data_received, b"bye")
    connection.end()
    connection.end()
    assert (wire.written, wire.events) == (b"bye", ["eof"])
    now = asyncio.get_running_loop().time()
    for _ in range(5):
        now += LINGER_S + 1
        connection.check(now)
    wire.unread_bytes = 0
    connection.check(now + LINGER_S - 0.1)
    # What it still sends is thrown away, and nothing more is written.
    await as_transport(connection.data_received, b"more")
    connection.send(b"more")
    assert (wire.written, wire.events) == (b"bye", ["eof"])
    connection.check(now + LINGER_S + 0.1)
    assert wire.events == ["eof", "abort"]


async def test_reading_pauses_while_the_peer_does_not_read(starter: Starter) -> None:
    """What was not begun waits; it begins when the peer has read."""
    connection, wire, _ = connect(Limits(), starter)
    connection.pause_writing()
    await as_transport(connection.data_received, b"one")
    assert (wire.written, wire.events) == (b"", ["pause"])
    await as_transport(connection.resume_writing)
    assert (wire.written, wire.events) == (b"one", ["pause", "resume"])


@pytest.mark.parametrize("item", [b"fail", b"fail later"])
async def test_failure_ends_the_connection_and_is_logged(
    starter: Starter, item: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A framing's own failure costs its connection, nothing else."""
    connection, wire, closed = connect(Limits(), starter)
    await as_transport(connection.data_received, item)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert wire.events[-1] == "abort"
    connection.connection_lost(None)
    assert closed == [connection]
    assert "a connection failed" in caplog.text


async def test_a_slice_of_time_used_up_leaves_the_rest_for_later(
    starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst of requests does not hold the event loop for long: the rest has its turn after the others."""
    monkeypatch.setattr("skilld.rpc.connection.SLICE_S", -1.0)
    connection, wire, _ = connect(Limits(), starter)
    for number in range(5):
        connection.enqueue(b"%d" % number, 1)
    turns = []
    asyncio.get_running_loop().call_soon(connection.pump)
    while wire.written != b"01234":
        await asyncio.sleep(0)
        turns.append(wire.written)
    assert turns == [b"0", b"01", b"012", b"0123", b"01234"]
