"""The server: framing by the first byte, limits on connections, peers, and a clean end."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from skilld.config import Access, Limits
from skilld.rpc import server as server_module
from skilld.rpc.access import AccessPolicy, Grant
from skilld.rpc.dispatch import Dispatcher
from skilld.rpc.server import Server
from skilld.watchdog import answers
from tests.serving import (
    METHODS,
    PATIENCE_S,
    Services,
    connected,
    fetch,
    raw_request,
    read_head,
    read_reply,
    request,
    result,
    serving,
    small,
)


@pytest.mark.parametrize(
    ("first", "is_json"),
    [(b"{", True), (b"[", True), (b" ", False), (b"\n", False), (b"G", False), (b"\x00", False), (b'"', False)],
)
async def test_first_byte_decides(tmp_path: Path, first: bytes, is_json: bool) -> None:
    """A brace or a bracket begins JSON lines, anything else HTTP; the connection keeps its framing."""
    async with serving(tmp_path) as running, connected(running.path) as client:
        client.writer.write(first)
        client.writer.write(b"\n\r\nx\r\n\r\n")
        client.writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            start = await client.reader.read(10)
        assert start == (b'{"jsonrpc"' if is_json else b"HTTP/1.1 4")


async def test_late_first_byte_ends_the_connection(tmp_path: Path) -> None:
    """A connection that asks nothing in time is closed without a word."""
    async with serving(tmp_path, small(header_timeout_s=0.1)) as running, connected(running.path) as client:
        assert await client.receive_line() == b""


async def test_connections_are_counted(tmp_path: Path) -> None:
    """The server knows how many connections are open, asked or not."""
    async with serving(tmp_path) as running:
        assert running.server.connections == 0
        async with connected(running.path) as lines, connected(running.path):
            await lines.call("skilld.ping")
            await running.wait_connections(2)
        await running.wait_connections(0)


async def test_one_connection_too_many_is_told_so(tmp_path: Path) -> None:
    """Over the limit a connection is answered ``busy`` in its own framing and closed; others stay served."""
    async with (
        serving(tmp_path, small(connections=2)) as running,
        connected(running.path) as first,
        connected(running.path) as second,
    ):
        assert await first.call("skilld.ping") == result({})
        assert await second.call("skilld.ping") == result({})
        async with connected(running.path) as third:
            refused = await third.call("skilld.ping")
            assert (refused["id"], refused["error"]["code"]) == (None, -32040)
            assert refused["error"]["data"] == {"reason": "busy", "retry_after_s": 1.0}
            assert await third.receive_line() == b""
        reply = await fetch(running.path, "GET", "/health")
        assert (reply.status, reply.json["error"]["code"], reply.headers["connection"]) == (503, -32040, "close")
        assert await first.call("skilld.ping") == result({})
        second.writer.transport.abort()
        await running.wait_connections(1)
        async with connected(running.path) as fourth:
            assert await fourth.call("skilld.ping") == result({})


async def test_very_many_connections_are_closed_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals are limited too: beyond them a connection is closed as it comes."""
    monkeypatch.setattr(server_module, "REFUSALS", 1)
    async with (
        serving(tmp_path, small(connections=1)) as running,
        connected(running.path),
        connected(running.path),
        connected(running.path) as third,
    ):
        assert await third.receive_line() == b""
        await running.wait_connections(2)


async def test_the_daemon_can_always_look_at_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many peers there are, the watchdog's probe is answered."""
    monkeypatch.setattr(server_module, "REFUSALS", 1)
    async with (
        serving(tmp_path, small(connections=1)) as running,
        connected(running.path) as first,
        connected(running.path),
        connected(running.path) as third,
    ):
        assert await third.receive_line() == b""
        assert await answers(running.path, 10) is False
        running.server.own_pid = os.getpid()
        assert await answers(running.path, 10) is True
        assert await first.call("skilld.ping") == result({})


async def test_peer_is_who_it_is(tmp_path: Path) -> None:
    """A handler learns the peer's user, group, process and roles."""
    async with serving(tmp_path) as running, connected(running.path) as client:
        me = {"uid": os.geteuid(), "gid": os.getegid(), "pid": os.getpid(), "roles": ["read", "run", "tee", "write"]}
        assert await client.call("whoami") == result(me)
        assert (await fetch(running.path, "GET", "/whoami")).json == me


async def test_policy_may_be_replaced(tmp_path: Path) -> None:
    """A new policy holds for every call from then on, over old connections too."""
    async with serving(tmp_path, access=Access()) as running, connected(running.path) as before:
        assert await before.call("secret") == result("secret")
        running.server.reload(AccessPolicy(owners=frozenset(), grants={"read": Grant(everybody=True)}), Limits())
        async with connected(running.path) as after:
            assert (await after.call("secret"))["error"]["code"] == -32041
        assert (await before.call("secret"))["error"]["code"] == -32041


async def test_close_answers_what_is_in_flight(tmp_path: Path) -> None:
    """A draining server ends idle connections at once, the others when their last reply is out."""
    async with (
        serving(tmp_path) as running,
        connected(running.path) as idle,
        connected(running.path) as silent,
        connected(running.path) as subscriber,
        connected(running.path) as lines,
        connected(running.path) as http,
    ):
        await idle.call("skilld.ping")
        await subscriber.call("skills.subscribe")
        lines.send(request("slow", ["a"], 1))
        http.writer.write(raw_request("GET", "/slow/b"))
        await running.services.wait_begun(2)
        closing = asyncio.create_task(running.server.close(PATIENCE_S))
        assert await idle.receive_line() == b""
        assert await silent.receive_line() == b""
        assert await subscriber.receive_line() == b""
        # A request that comes now is refused; the one in flight is not.
        refused = await lines.call("skilld.ping", id=2)
        assert (refused["id"], refused["error"]["data"]) == (2, {"reason": "shutting-down"})
        for name in "ab":
            running.services.gate(name).set()
        assert await lines.receive() == result("a", 1)
        assert await lines.receive_line() == b""
        reply = await read_reply(http.reader)
        assert (reply.json, reply.headers["connection"]) == ("b", "close")
        assert await http.reader.read() == b""
        await closing
        with pytest.raises(OSError, match="refused"):
            await asyncio.open_unix_connection(running.path)
        assert os.path.exists(running.path)


async def test_close_ends_event_streams(tmp_path: Path) -> None:
    """A stream of events ends as a body should when the server drains."""
    async with serving(tmp_path) as running, connected(running.path) as client:
        client.writer.write(raw_request("GET", "/events"))
        assert (await read_head(client.reader))[0] == 200
        await running.server.close(PATIENCE_S)
        assert (await client.reader.read()).endswith(b"\r\n0\r\n\r\n")


async def test_close_cuts_off_what_takes_too_long(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is in flight after the time to drain is cancelled; a second call may shorten the first one's."""
    async with serving(tmp_path) as running, connected(running.path) as client:
        client.send(request("slow", ["a"]))
        await running.services.wait_begun(1)
        patient = asyncio.create_task(running.server.close(PATIENCE_S * 100))
        await running.server.close(0)
        await patient
        await running.server.close(0)
        assert running.services.cancelled == ["a"]
        assert await client.receive_line() == b""
    assert "1 connections did not end" in caplog.text


async def test_close_does_not_wait_for_who_does_not_read(tmp_path: Path) -> None:
    """A peer that leaves its replies unread cannot hold up the end."""
    async with serving(tmp_path) as running, connected(running.path, unread_bytes=1_000) as client:
        client.send(*(request("big", [500_000]) for _ in range(10)))
        async with connected(running.path) as other:
            await other.call("skilld.ping")
        await running.server.close(0.05)
        assert running.server.connections == 0


async def test_server_may_end_before_it_began() -> None:
    """Closing a server that was never started is no error."""
    services = Services()
    server = Server(
        Dispatcher(METHODS, services, Limits()),
        Limits(),
        policy=AccessPolicy(frozenset()),
        events=services.events,
        health=lambda: True,
    )
    await server.close()
    assert services.events.callbacks == []


async def test_inherited_socket_is_left_alone(tmp_path: Path) -> None:
    """The server closes its own descriptor only: who bound the socket can go on with it."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s"))
        bound.listen()
        for _ in range(2):
            services = Services()
            server = Server(
                Dispatcher(METHODS, services, Limits()),
                Limits(),
                policy=AccessPolicy(frozenset({os.geteuid()})),
                events=services.events,
                health=lambda: True,
            )
            await server.start(bound.dup())
            async with connected(bound.getsockname()) as client:
                assert await client.call("skilld.ping") == result({})
            await server.close()
