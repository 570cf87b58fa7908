"""JSON lines over a real socket: order, limits, back-pressure, ends, subscriptions."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Serving, connected, hung_up, request, result, serving, small


async def turns(running: Serving, count: int = 5) -> None:
    """Let the server do what it can, by round trips of another connection."""
    async with connected(running.path) as other:
        for _ in range(count):
            await other.call("skilld.ping")


async def test_replies_overtake_each_other(tmp_path: Path) -> None:
    """A quick request is answered while a slow one is in flight; ids tell them apart."""
    async with serving(tmp_path) as running, connected(running.path) as client:
        client.send(request("slow", ["a"], 1), request("slow", ["b"], 2))
        await running.services.wait_begun(2)
        assert await client.call("skilld.ping", id=3) == result({}, 3)
        running.services.gate("b").set()
        assert await client.receive() == result("b", 2)
        running.services.gate("a").set()
        assert await client.receive() == result("a", 1)


async def test_requests_in_flight_are_limited(tmp_path: Path) -> None:
    """Beyond the limit nothing more is begun; when one ends, the next begins."""
    async with serving(tmp_path, small(requests_per_connection=3)) as running, connected(running.path) as client:
        client.send(*(request("slow", [f"n{n}"], n) for n in range(6)))
        await running.services.wait_begun(3)
        await turns(running)
        assert running.services.begun == ["n0", "n1", "n2"]
        running.services.gate("n1").set()
        assert await client.receive() == result("n1", 1)
        await running.services.wait_begun(4)
        assert running.services.begun[3:] == ["n3"]


async def test_bytes_in_flight_are_limited(tmp_path: Path) -> None:
    """A peer whose unanswered requests hold more bytes than one message may is not read from."""
    async with serving(tmp_path, small(message_bytes=100_000)) as running, connected(running.path) as client:
        padded = [{**request("slow", [f"n{n}"], n), "x": "y" * 90_000} for n in range(20)]
        client.send(*padded)
        await running.services.wait_begun(2)
        await turns(running)
        # What was under way to the limit, and what one read brings beyond it (256 KiB).
        assert len(running.services.begun) <= 5
        for n in range(20):
            running.services.gate(f"n{n}").set()
        assert sorted([(await client.receive())["id"] for _ in range(20)]) == list(range(20))


async def test_many_lines_at_once(tmp_path: Path) -> None:
    """Thousands of lines in one burst are all answered, each once."""
    async with serving(tmp_path) as running, connected(running.path) as client:
        client.send(*(request("echo", [n], n) for n in range(5_000)))
        for n in range(5_000):
            assert await client.receive() == result(n, n)


async def test_a_line_may_come_in_pieces(tmp_path: Path) -> None:
    """Where the bytes are cut does not matter."""
    text = json.dumps(request("echo", ["é\U0001f600"]), ensure_ascii=False).encode() + b"\n"
    async with serving(tmp_path) as running, connected(running.path) as client:
        for byte in text + text:
            client.writer.write(bytes([byte]))
            await turns(running, 1)
        assert [await client.receive(), await client.receive()] == [result("é\U0001f600")] * 2


async def test_blank_lines_and_carriage_returns_are_ignored(tmp_path: Path) -> None:
    """Blank lines mean nothing, and a line may end with CR LF."""
    async with serving(tmp_path) as running, connected(running.path) as client:
        ping = json.dumps(request("skilld.ping")).encode()
        client.writer.write(ping + b"\r\n\n  \n\r\n\t\n" + ping + b"\n")
        assert await client.receive_rest() == [result({}), result({})]


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
async def test_last_line_needs_no_end(tmp_path: Path, end: bytes) -> None:
    """The end of the stream ends a line; after it the replies still come, and then the server closes too."""
    async with serving(tmp_path) as running, connected(running.path) as client:
        client.writer.write(json.dumps(request("get_data")).encode() + end)
        assert await client.receive_rest() == [result(["hello", 5])]


async def test_half_closed_peer_gets_its_replies(tmp_path: Path) -> None:
    """Requests in flight when the peer stops writing are answered."""
    async with serving(tmp_path) as running, connected(running.path) as client:
        client.send(request("slow", ["a"], 1), request("slow", ["b"], 2))
        client.writer.write_eof()
        await running.services.wait_begun(2)
        await turns(running)
        for name in "ab":
            running.services.gate(name).set()
        assert [await client.receive(), await client.receive()] == [result("a", 1), result("b", 2)]
        assert await client.receive_line() == b""


@pytest.mark.parametrize(("excess", "code"), [(0, None), (1, -32042), (1_000_000, -32042)])
async def test_line_over_the_limit(tmp_path: Path, excess: int, code: int | None) -> None:
    """A line over the limit is answered ``too-large``, once, and the next line is answered as ever."""
    limit = 50_000
    async with serving(tmp_path, small(message_bytes=limit)) as running, connected(running.path) as client:
        text = json.dumps(request("big", [3])).encode()
        client.send(text + b" " * (limit - len(text) + excess), request("skilld.ping", id=2))
        first = await client.receive()
        if code is None:
            assert first == result("xxx")
        else:
            assert (first["id"], first["error"]["code"], first["error"]["data"]["limit_bytes"]) == (None, code, limit)
        assert await client.receive() == result({}, 2)


async def test_line_over_the_limit_without_end(tmp_path: Path) -> None:
    """A line that is too long already is answered before its end comes, and its rest is nobody's request."""
    async with serving(tmp_path, small(message_bytes=50_000)) as running, connected(running.path) as client:
        client.writer.write(b"[" + b" " * 60_000)
        assert (await client.receive())["error"]["code"] == -32042
        client.writer.write(json.dumps(request("skilld.ping", id=1)).encode())
        client.writer.write(b"\n")
        client.send(request("skilld.ping", id=2))
        assert await client.receive() == result({}, 2)


async def test_invalid_line_spoils_no_other(tmp_path: Path) -> None:
    """After invalid UTF-8 or broken JSON the connection goes on."""
    async with serving(tmp_path) as running, connected(running.path) as client:
        client.send(b"{\xff}", b"{", request("skilld.ping"))
        replies = [await client.receive() for _ in range(3)]
        assert [reply.get("error", {}).get("code") for reply in replies] == [-32700, -32700, None]


async def test_peer_that_does_not_read_is_dropped(tmp_path: Path) -> None:
    """Replies that nobody takes hold up the peer's own requests, and after a while end the connection."""
    async with serving(tmp_path, small(send_timeout_s=0.2)) as running:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(running.path)
            sock.sendall(json.dumps(request("big", [1_000_000])).encode().join([b""] + [b"\n"] * 40))
            async with connected(running.path) as good:
                # Answered one after the other, and only as far as the first that stays unread.
                assert await good.call("skilld.ping") == result({})
                unread = sum(connection.unread_bytes for connection in running.connections)
                assert unread < 3_000_000
                await hung_up(sock)
                assert await good.call("skilld.ping") == result({})


async def test_line_that_never_ends_times_out(tmp_path: Path) -> None:
    """A line that was begun must end in time; what is in flight is still answered."""
    async with serving(tmp_path, small(header_timeout_s=0.1)) as running, connected(running.path) as client:
        client.send(request("slow", ["a"]))
        client.writer.write(b'{"jsonrpc"')
        late = await client.receive()
        assert (late["id"], late["error"]["code"]) == (None, -32700)
        running.services.gate("a").set()
        assert await client.receive() == result("a")
        assert await client.receive_line() == b""


async def test_idle_connection_is_closed_and_a_subscriber_is_not(tmp_path: Path) -> None:
    """Silence ends a connection, unless it is there to listen or waits for a reply."""
    async with (
        serving(tmp_path, small(idle_timeout_s=0.2)) as running,
        connected(running.path) as subscriber,
        connected(running.path) as waiting,
        connected(running.path) as idle,
    ):
        await subscriber.call("skills.subscribe")
        waiting.send(request("slow", ["a"]))
        await running.services.wait_begun(1)
        await idle.call("skilld.ping")
        assert await idle.receive_line() == b""
        running.events.change("x")
        assert (await subscriber.receive())["method"] == "skills.changed"
        running.services.gate("a").set()
        assert await waiting.receive() == result("a")


def changed(number: int, *added: str) -> dict[str, Any]:
    """The notification of one change."""
    params = {"revision": f"run:{number}", "added": list(added), "updated": [], "removed": []}
    return {"jsonrpc": "2.0", "method": "skills.changed", "params": params}


async def test_subscriber_gets_every_change_in_order(tmp_path: Path) -> None:
    """After the reply to the subscription every change is told, once, to every subscriber, until it has enough."""
    async with (
        serving(tmp_path) as running,
        connected(running.path) as first,
        connected(running.path) as second,
        connected(running.path) as other,
    ):
        running.events.change("early")
        assert await first.call("skills.subscribe") == result({"revision": "run:1"})
        assert await first.call("skills.subscribe", id=2) == result({"revision": "run:1"}, 2)
        assert await second.call("skills.subscribe") == result({"revision": "run:1"})
        assert await other.call("skilld.ping") == result({})
        for name in "abc":
            running.events.change(name)
        for client in (first, second):
            assert [await client.receive() for _ in range(3)] == [changed(2, "a"), changed(3, "b"), changed(4, "c")]
        assert await first.call("skills.unsubscribe", id=3) == result({"revision": "run:4"}, 3)
        running.events.change("d")
        assert await first.call("skilld.ping") == result({})
        assert await other.call("skilld.ping") == result({})
        assert await second.receive() == changed(5, "d")


async def test_changes_wait_for_the_reply_to_the_subscription(tmp_path: Path) -> None:
    """What changes before that reply is told after it; other replies need not wait."""
    async with serving(tmp_path) as running, connected(running.path) as client:
        client.send([request("skills.subscribe", id=1), request("slow", ["a"], 2)])
        await running.services.wait_begun(1)
        running.events.change("x")
        assert await client.call("skilld.ping", id=3) == result({}, 3)
        running.services.gate("a").set()
        assert await client.receive() == [result({"revision": "run:0"}, 1), result("a", 2)]
        assert await client.receive() == changed(1, "x")


async def test_subscription_by_notification(tmp_path: Path) -> None:
    """A subscription that wants no reply begins at once."""
    async with serving(tmp_path) as running, connected(running.path) as client:
        client.send({"jsonrpc": "2.0", "method": "skills.subscribe"})
        assert await client.call("skilld.ping") == result({})
        running.events.change("x")
        assert await client.receive() == changed(1, "x")


async def test_slow_subscriber_is_told_and_goes_on(tmp_path: Path) -> None:
    """A subscriber that does not read misses changes, is told so when it reads again, and hears what comes next."""
    limits = small(send_buffer_bytes=20_000, send_timeout_s=0.1, header_timeout_s=0.3)
    async with (
        serving(tmp_path, limits) as running,
        connected(running.path) as good,
        connected(running.path, unread_bytes=10_000) as slow,
    ):
        assert await slow.call("skills.subscribe") == result({"revision": "run:0"})
        await good.call("skills.subscribe")
        for number in range(1_000):
            running.events.change(str(number) * 300)
            assert (await good.receive())["params"]["revision"] == f"run:{number + 1}"
        assert sum(connection.unread_bytes for connection in running.connections) < 25_000
        # However long it does not read: nothing of what it asked for is unread.
        async with connected(running.path) as late:
            late.writer.write(b"[")
            assert (await late.receive())["error"]["code"] == -32700
        revisions = []
        while (note := await slow.receive())["params"] != {"complete": False}:
            revisions.append(note["params"]["revision"])
        assert revisions == [f"run:{number}" for number in range(1, len(revisions) + 1)]
        assert 20 < len(revisions) < 999
        last = running.events.change("last")
        assert (await slow.receive())["params"]["revision"] == last.revision


async def test_half_closed_subscriber_listens_on(tmp_path: Path) -> None:
    """A subscriber may stop writing and go on listening; one that is gone is noticed without anything to tell it."""
    async with serving(tmp_path, small(idle_timeout_s=0.2)) as running:
        async with connected(running.path) as client:
            client.send(request("skills.subscribe"))
            client.writer.write_eof()
            assert await client.receive() == result({"revision": "run:0"})
            await turns(running)
            for number in range(1, 4):
                running.events.change("x")
                assert await client.receive() == changed(number, "x")
        await running.wait_connections(0)


async def test_notifications_of_a_call_come_before_its_reply(tmp_path: Path) -> None:
    """A handler may send notifications of its own while it works."""
    async with serving(tmp_path) as running, connected(running.path) as client:
        client.send(request("stream", [["a", "b"]]))
        parts = [{"jsonrpc": "2.0", "method": "part", "params": {"text": text}} for text in "ab"]
        assert [await client.receive() for _ in range(3)] == [*parts, result(2)]


async def test_lost_connection_cancels_what_is_in_flight(tmp_path: Path) -> None:
    """When the server cannot write to a peer any more, what else it asked for is cancelled."""
    async with serving(tmp_path) as running:
        async with connected(running.path) as client:
            client.send(request("slow", ["a"]), request("slow", ["b"]))
            await running.services.wait_begun(2)
        running.services.gate("a").set()
        await running.wait_connections(0)
        assert running.services.cancelled == ["b"]
