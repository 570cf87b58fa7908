"""HTTP/1.1 over the real socket: the protocol itself, streams of events, and real clients."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from skilld.rpc import http as http_module
from tests.serving import (
    PATIENCE_S,
    Lines,
    Serving,
    connected,
    exchange,
    fetch,
    hung_up,
    raw_request,
    read_chunk,
    read_head,
    read_reply,
    request,
    result,
    serving,
    small,
)

PING = json.dumps(request("skilld.ping")).encode()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path, small(message_bytes=100_000)) as running:
        yield running


def post(text: bytes, **headers: str) -> bytes:
    return raw_request("POST", "/", text, **headers)


async def test_keep_alive_and_pipelining(served: Serving) -> None:
    """Requests sent in one piece on one connection are answered in order, the slow one first."""
    async with connected(served.path) as client:
        client.writer.write(raw_request("GET", "/slow/a") + post(PING) + raw_request("GET", "/nothing") + post(PING))
        await served.services.wait_begun(1)
        served.services.gate("a").set()
        replies = [await read_reply(client.reader) for _ in range(4)]
    assert [(reply.status, reply.json) for reply in replies[:2]] == [(200, "a"), (200, result({}))]
    assert [reply.status for reply in replies[2:]] == [404, 200]
    assert all("connection" not in reply.headers for reply in replies)
    assert replies[0].headers["content-type"] == "application/json"
    assert replies[0].headers["date"].endswith(" GMT")


async def test_many_pipelined_requests(served: Serving) -> None:
    """Thousands of requests in one burst are all answered."""
    async with connected(served.path) as client:
        client.writer.write(post(PING) * 2_000)
        for _ in range(2_000):
            assert (await read_reply(client.reader)).json == result({})


async def test_request_may_come_in_pieces(served: Serving) -> None:
    """Where the bytes are cut does not matter."""
    async with connected(served.path) as client, connected(served.path) as other:
        for byte in post(PING):
            client.writer.write(bytes([byte]))
            await other.call("skilld.ping")
        assert (await read_reply(client.reader)).json == result({})


@pytest.mark.parametrize("sizes", [[1], [7, 3], [1_000]])
@pytest.mark.parametrize("trailer", [b"", b"X-Check: 1\r\n"])
async def test_chunked_body(served: Serving, sizes: list[int], trailer: bytes) -> None:
    """A body in chunks of any size is one body; extensions and trailers mean nothing."""
    chunks, rest, turn = b"", PING, 0
    while rest:
        piece, rest = rest[: sizes[turn % len(sizes)]], rest[sizes[turn % len(sizes)] :]
        chunks += b"%X;name=value\r\n%b\r\n" % (len(piece), piece)
        turn += 1
    text = raw_request("POST", "/", Transfer_Encoding="chunked") + chunks + b"0\r\n" + trailer + b"\r\n"
    first, second = await exchange(served.path, text, post(PING))
    assert first.json == second.json == result({})


async def test_expect_100_continue(served: Serving) -> None:
    """A client that asks first is told to go on, when its turn has come."""
    async with connected(served.path) as client:
        head = raw_request("POST", "/", Content_Length=str(len(PING)), Expect="100-continue")
        client.writer.write(head)
        assert (await read_reply(client.reader)).status == 100
        client.writer.write(PING)
        assert (await read_reply(client.reader)).json == result({})
        # Behind a request in flight, the answer to that one comes first.
        client.writer.write(raw_request("GET", "/slow/a") + head)
        await served.services.wait_begun(1)
        served.services.gate("a").set()
        assert (await read_reply(client.reader)).json == "a"
        assert (await read_reply(client.reader)).status == 100
        client.writer.write(PING)
        assert (await read_reply(client.reader)).json == result({})


async def test_body_that_does_not_wait_is_not_told_to_go_on(served: Serving) -> None:
    """Whoever sends the body at once needs no 100."""
    assert (await exchange(served.path, post(PING, Expect="100-continue")))[0].json == result({})


async def test_head_is_get_without_its_body(served: Serving) -> None:
    """HEAD has the headers of GET and no body; the connection goes on."""
    async with connected(served.path) as client:
        client.writer.write(raw_request("HEAD", "/health") + raw_request("GET", "/health"))
        head = await read_reply(client.reader, is_head=True)
        get = await read_reply(client.reader)
    assert (head.status, head.headers["content-length"]) == (200, str(len(get.body)))
    assert (await fetch(served.path, "HEAD", "/nothing")).status == 404


async def test_http_1_0(served: Serving) -> None:
    """An older client gets one reply and the end, or keeps the connection if it asks to."""
    async with connected(served.path) as client:
        client.writer.write(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        reply = await read_reply(client.reader)
        assert (reply.json, reply.headers["connection"]) == ({"status": "ok"}, "keep-alive")
        client.writer.write(b"GET /health HTTP/1.0\r\n\r\n")
        reply = await read_reply(client.reader)
        assert (reply.json, reply.headers["connection"]) == ({"status": "ok"}, "close")
        assert await client.reader.read() == b""


async def test_connection_close(served: Serving) -> None:
    """A client that wants to end gets its reply and the end; what it sends after that is nobody's request."""
    async with connected(served.path) as client:
        client.writer.write(post(b'{"jsonrpc":"2.0","method":"update"}', Connection="close") + post(PING) * 3)
        reply = await read_reply(client.reader)
        assert (reply.status, reply.headers["connection"]) == (204, "close")
        assert await client.reader.read() == b""
        assert served.services.notified == [[]]


async def test_half_closed_client_gets_its_replies(served: Serving) -> None:
    """A client that stops writing gets all its replies, then the end."""
    async with connected(served.path) as client:
        client.writer.write(raw_request("GET", "/slow/a") + post(PING))
        client.writer.write_eof()
        await served.services.wait_begun(1)
        served.services.gate("a").set()
        assert (await read_reply(client.reader)).json == "a"
        reply = await read_reply(client.reader)
        assert (reply.json, reply.headers["connection"]) == (result({}), "close")
        assert await client.reader.read() == b""


async def test_upgrade_is_ignored(served: Serving) -> None:
    """A client that offers another protocol is answered in this one."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    bare = b"GET /health HTTP/1.1\r\n" + upgrade + b"\r\n"
    body = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n%b\r\n%b" % (len(PING), upgrade, PING)
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (
        upgrade,
        len(PING),
        PING,
    )
    replies = await exchange(served.path, bare, body, chunked, raw_request("GET", "/health"))
    assert [reply.json for reply in replies] == [{"status": "ok"}, result({}), result({}), {"status": "ok"}]


async def test_target_may_be_absolute(served: Serving) -> None:
    """The whole URL is another way to write the target."""
    reply = await fetch(served.path, "GET", "http://skilld/things/a%2Fb?")
    assert reply.json == {"name": "a/b"}
    assert (await fetch(served.path, "POST", "http://skilld", PING)).json == result({})


HEAD = b"POST / HTTP/1.1\r\nHost: skilld\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

# What is not a request; the status that says so.
BROKEN = [
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01", 400, id="TLS"),
    pytest.param(b"hello\r\n\r\n", 400, id="no HTTP"),
    pytest.param(b"BREW / HTTP/1.1\r\n\r\n", 400, id="unknown method"),
    pytest.param(b"GET / HTTP/9.9\r\n\r\n", 400, id="unknown version"),
    pytest.param(b"GET / HTTP/2.0\r\n\r\n", 505, id="HTTP/2.0"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="HTTP/2's preface"),
    pytest.param(b"GET /a b HTTP/1.1\r\n\r\n", 400, id="space in the target"),
    pytest.param(b"GET /\xff HTTP/1.1\r\n\r\n", 400, id="raw byte in the target"),
    pytest.param(HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="both lengths"),
    pytest.param(HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", 400, id="both, turned"),
    pytest.param(HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400, id="a length twice"),
    pytest.param(HEAD + b"Content-Length: 2, 2\r\n\r\n{}", 400, id="a list of lengths"),
    pytest.param(HEAD + b"Content-Length: +2\r\n\r\n{}", 400, id="a signed length"),
    pytest.param(HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n{}", 400, id="a length beyond 64 bits"),
    pytest.param(HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, id="unknown coding"),
    pytest.param(HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, id="a coding more"),
    pytest.param(HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="twice"),
    pytest.param(HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, id="space before the colon"),
    pytest.param(HEAD + b"X: a\r\n b\r\n\r\n", 400, id="a folded header"),
    pytest.param(HEAD + b"X: a\x00b\r\n\r\n", 400, id="NUL in a header"),
    pytest.param(HEAD + b"Host: other\r\n\r\n", 400, id="two hosts"),
    pytest.param(b"CONNECT skilld:80 HTTP/1.1\r\nHost: skilld\r\n\r\n", 501, id="CONNECT"),
    pytest.param(HEAD + b"Expect: miracles\r\n\r\n", 417, id="an unknown expectation"),
    pytest.param(b"GET / HTTP/1.1\nHost: x\n\n", 400, id="bare newlines"),
    pytest.param(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="chunks in HTTP/1.0"),
    pytest.param(CHUNKS + b"z\r\n\r\n", 400, id="a chunk of no size"),
    pytest.param(CHUNKS + b"2\r\n{}x\r\n0\r\n\r\n", 400, id="a chunk too long"),
    pytest.param(HEAD + b"Content-Length: 100001\r\n\r\n", 413, id="a body over the limit"),
    pytest.param(CHUNKS + (b"FFFF\r\n" + b"x" * 65_535 + b"\r\n") * 2, 413, id="chunks over the limit"),
    pytest.param(CHUNKS + b"1;" + b"x" * 1_000_000, 413, id="a chunk that is all frame"),
    pytest.param(CHUNKS + b"0\r\nX: " + b"x" * 1_000_000, 413, id="an endless trailer"),
    pytest.param(b"GET /" + b"x" * 70_000, 431, id="a long target"),
    pytest.param(HEAD + b"X: " + b"x" * 70_000, 431, id="a header without end"),
    pytest.param(HEAD + b"X: y\r\n" * 20_000, 431, id="headers without end"),
    pytest.param(HEAD + b"X: " + b"x" * 70_000 + b"\r\n\r\n", 431, id="a long header"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "status"), BROKEN)
async def test_broken_http(served: Serving, text: bytes, status: int) -> None:
    """What is no request is answered after the requests before it, with JSON, and ends the connection."""
    async with connected(served.path) as client:
        client.writer.write(post(PING) + text + post(PING))
        assert (await read_reply(client.reader)).json == result({})
        reply = await read_reply(client.reader)
        assert (reply.status, reply.headers["connection"]) == (status, "close")
        error = reply.json["error"]
        assert error["data"]["reason"] in ("invalid-request", "too-large")
        assert await client.reader.read() == b""
    await served.wait_connections(0)


async def test_refused_body_may_be_sent_to_its_end(served: Serving) -> None:
    """A client that reads only after it has sent its too large body still finds the answer."""
    async with connected(served.path) as client:
        client.writer.write(post(b"x" * 3_000_000))
        await client.writer.drain()
        reply = await read_reply(client.reader)
        assert (reply.status, reply.json["error"]["data"]) == (413, {"reason": "too-large", "limit_bytes": 100_000})


async def test_body_at_the_limit_is_taken(served: Serving) -> None:
    """A body of exactly the limit is read, by length and by chunks."""
    text = PING + b" " * (100_000 - len(PING))
    chunked = raw_request("POST", "/", Transfer_Encoding="chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(text), text)
    for reply in await exchange(served.path, post(text), chunked, post(text)):
        assert reply.json == result({})


async def test_request_that_never_ends_times_out(tmp_path: Path) -> None:
    """A request that was begun must arrive in time, or the answer is 408; an idle connection just ends."""
    async with serving(tmp_path, small(header_timeout_s=0.1, idle_timeout_s=0.3)) as running:
        for text in (
            b"GET / HT",
            HEAD + b"Content-Length: 10\r\n\r\n{",
            CHUNKS + b"5\r\n",
        ):
            async with connected(running.path) as client:
                client.writer.write(post(PING) + text)
                assert (await read_reply(client.reader)).status == 200
                reply = await read_reply(client.reader)
                assert (reply.status, reply.headers["connection"]) == (408, "close")
                assert await client.reader.read() == b""
        async with connected(running.path) as client:
            client.writer.write(post(PING))
            assert (await read_reply(client.reader)).status == 200
            assert await client.reader.read() == b""


async def test_client_that_does_not_read_is_dropped(tmp_path: Path) -> None:
    """Replies that nobody takes end the connection after a while, and hold up no one else."""
    async with serving(tmp_path, small(send_timeout_s=0.2)) as running:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(running.path)
            sock.sendall(raw_request("GET", "/big/1000000") * 20)
            assert (await fetch(running.path, "GET", "/health")).status == 200
            assert sum(connection.unread_bytes for connection in running.connections) < 3_000_000
            await hung_up(sock)


async def read_event(client: Lines) -> dict[str, str]:
    """The next Server-Sent Event (or comment) of a chunked stream, a chunk each."""
    async with asyncio.timeout(PATIENCE_S):
        chunk = await read_chunk(client.reader)
        assert chunk.endswith(b"\n\n")
        return dict(line.split(": ", 1) for line in chunk.decode().splitlines() if line)


async def open_events(client: Lines, last_event_id: str = "") -> None:
    client.writer.write(raw_request("GET", "/events", Last_Event_ID=last_event_id))
    async with asyncio.timeout(PATIENCE_S):
        status, got = await read_head(client.reader)
    assert (status, got["content-type"], got["transfer-encoding"]) == (200, "text/event-stream", "chunked")


def event(number: int, *added: str) -> dict[str, Any]:
    params = {"revision": f"run:{number}", "added": list(added), "updated": [], "removed": []}
    return {"event": "skills.changed", "id": f"run:{number}", "data": json.dumps(params, separators=(",", ":"))}


async def test_events(served: Serving) -> None:
    """Every change is an event, in order, for every listener; the first id says where a reader can resume."""
    served.events.change("early")
    async with connected(served.path) as first, connected(served.path) as second:
        for client in (first, second):
            await open_events(client)
            assert await read_event(client) == {"id": "run:1"}
        served.events.change("a")
        served.events.change("b", "c")
        for client in (first, second):
            assert [await read_event(client), await read_event(client)] == [event(2, "a"), event(3, "b", "c")]


async def test_events_resume(served: Serving) -> None:
    """``Last-Event-ID`` brings what was missed in one event; an id that cannot be told from is told so."""
    for name in "abc":
        served.events.change(name)
    async with connected(served.path) as client:
        await open_events(client, "run:1")
        assert await read_event(client) == {"id": "run:3"}
        assert await read_event(client) == event(3, "b", "c")
        served.events.change("d")
        assert await read_event(client) == event(4, "d")
    async with connected(served.path) as client:
        await open_events(client, "run:4")
        assert await read_event(client) == {"id": "run:4"}
        served.events.change("e")
        assert await read_event(client) == event(5, "e")
    async with connected(served.path) as client:
        await open_events(client, "another run:4")
        assert await read_event(client) == {"id": "run:5"}
        assert await read_event(client) == {"event": "skills.changed", "id": "run:5", "data": '{"complete":false}'}


async def test_events_are_kept_alive(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without news carries a comment now and then, and a listener that is gone is noticed by it."""
    monkeypatch.setattr(http_module, "KEEP_ALIVE_S", 0.05)
    async with connected(served.path) as client:
        await open_events(client)
        assert await read_event(client) == {"id": "run:0"}
        for _ in range(2):
            assert await read_chunk(client.reader) == b": keep-alive\n\n"
        served.events.change("a")
        while (got := await read_event(client)) != event(1, "a"):
            assert got == {"": "keep-alive"}
    await served.wait_connections(0)


async def test_events_for_who_reads_slowly(tmp_path: Path) -> None:
    """A listener that does not read misses events, is told so when it reads again, and hears what comes next."""
    limits = small(send_buffer_bytes=20_000, send_timeout_s=0.1)
    async with serving(tmp_path, limits) as running, connected(running.path, unread_bytes=10_000) as client:
        await open_events(client)
        async with connected(running.path) as other:
            for number in range(1_000):
                running.events.change(str(number) * 300)
                await other.call("skilld.ping")
        assert sum(connection.unread_bytes for connection in running.connections) < 25_000
        ids = []
        while (got := await read_event(client)).get("data") != '{"complete":false}':
            ids.append(got["id"])
        assert ids == [f"run:{number}" for number in range(len(ids))]
        assert 20 < len(ids) < 999
        running.events.change("last")
        assert await read_event(client) == event(1_001, "last")


async def test_events_in_http_1_0_end_with_the_connection(served: Serving) -> None:
    """An older client gets the bare stream."""
    async with connected(served.path) as client:
        client.writer.write(b"GET /events HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            status, headers = await read_head(client.reader)
            assert (status, headers["connection"]) == (200, "close")
            assert await client.reader.readuntil(b"\n\n") == b"id: run:0\n\n"
            served.events.change("a")
            assert (await client.reader.readuntil(b"\n\n")).startswith(b"event: skills.changed\nid: run:1\n")
            await served.server.close(PATIENCE_S)
            assert await client.reader.read() == b""


async def test_head_of_events_has_no_stream(served: Serving) -> None:
    """HEAD on the stream ends at once, and the connection goes on."""
    async with connected(served.path) as client:
        client.writer.write(raw_request("HEAD", "/events") + raw_request("GET", "/health"))
        assert (await read_reply(client.reader, is_head=True)).headers["content-type"] == "text/event-stream"
        assert (await read_reply(client.reader)).json == {"status": "ok"}


async def test_ndjson_only_method_points_to_the_events(served: Serving) -> None:
    """A subscription over HTTP is refused with a hint at the stream of events."""
    reply = await fetch(served.path, "POST", "/", json.dumps(request("skills.subscribe")).encode())
    assert (reply.status, reply.json["error"]["code"]) == (200, -32600)
    assert "GET /events" in reply.json["error"]["message"]


# Real clients.


async def run(*command: str, stdin: bytes = b"") -> str:
    """Run a program to its end and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate(stdin)
    assert process.returncode == 0, err.decode()
    return out.decode()


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")


@needs_curl
async def test_curl(served: Serving) -> None:
    """curl calls JSON-RPC and routes, with a large body (for which it asks first), chunks, HEAD, and the events."""
    curl = ("curl", "-sS", "--unix-socket", served.path)
    assert json.loads(await run(*curl, "-d", PING.decode(), "http://skilld/")) == result({})
    # Two URLs, one connection.
    assert await run(*curl, "http://skilld/health", "http://skilld/health") == '{"status":"ok"}' * 2
    assert json.loads(await run(*curl, "-G", "--data-urlencode", "query=a b&c", "http://skilld/things/search")) == {
        "query": "a b&c"
    }
    text = json.dumps(request("echo", ["x" * 90_000])).encode()
    asks_first = ("-H", "Expect: 100-continue", "--expect100-timeout", "20", "--data-binary", "@-")
    assert json.loads(await run(*curl, *asks_first, "http://skilld/", stdin=text)) == result("x" * 90_000)
    chunks = ("-H", "Transfer-Encoding: chunked", "--data-binary", "@-")
    assert json.loads(await run(*curl, *chunks, "http://skilld/", stdin=text)) == result("x" * 90_000)
    assert "HTTP/1.1 200 OK" in await run(*curl, "-I", "http://skilld/health")
    assert await run(*curl, "-o", "/dev/null", "-w", "%{http_code}", "-X", "DELETE", "http://skilld/health") == "405"
    assert (
        await run(*curl, "-w", "%{http_code}", "-d", '{"jsonrpc":"2.0","method":"update"}', "http://skilld/") == "204"
    )
    assert json.loads(await run(*curl, "--http1.0", "http://skilld/health")) == {"status": "ok"}
    assert json.loads(await run(*curl, "--http2", "http://skilld/health")) == {"status": "ok"}
    assert json.loads(await run(*curl, "--http2", "-d", PING.decode(), "http://skilld/")) == result({})
    too_large = await run(*curl, "-w", " %{http_code}", "--data-binary", "@-", "http://skilld/", stdin=b"x" * 2_000_000)
    assert too_large.endswith(" 413")


@needs_curl
async def test_curl_follows_events(served: Serving) -> None:
    """curl -N prints events as they come."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sSN", "--unix-socket", served.path, "http://skilld/events", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        assert await process.stdout.readuntil(b"\n\n") == b"id: run:0\n\n"
        served.events.change("a")
        assert (await process.stdout.readuntil(b"\n\n")).startswith(b"event: skills.changed\nid: run:1\ndata: {")
        process.terminate()
        await process.communicate()


async def test_httpx(served: Serving) -> None:
    """httpx keeps its connection, streams bodies and reads events."""
    async with httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=served.path), base_url="http://skilld"
    ) as client:
        for _ in range(3):
            assert (await client.post("/", json=request("get_data"))).json() == result(["hello", 5])
        assert served.server.connections == 1
        reply = await client.get("/things", params={"limit": 5, "deep": True, "tags": ["a", "b"]})
        assert reply.json() == {"offset": 0, "limit": 5, "deep": True, "tags": ["a", "b"]}
        assert (await client.put("/things/team%2Fa", json={"body": "é"})).json() == {"name": "team/a", "body": "é"}
        assert (await client.delete("/things/a")).status_code == 200
        reply = await client.get("/fail/nope")
        assert (reply.status_code, reply.json()["error"]["data"]["did_you_mean"]) == (404, ["pdf"])

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(PING), 10):
                yield PING[start : start + 10]

        assert (await client.post("/", content=pieces())).json() == result({})
        reply = await client.post("/", content=b"x" * 2_000_000)
        assert reply.status_code == 413
        async with client.stream("GET", "/events", headers={"Last-Event-ID": "run:0"}) as stream:
            lines = stream.aiter_lines()
            assert [await anext(lines), await anext(lines)] == ["id: run:0", ""]
            served.events.change("a")
            assert await anext(lines) == "event: skills.changed"
            closing = asyncio.create_task(served.server.close(PATIENCE_S))
            rest = [line async for line in lines]
            assert rest[0] == "id: run:1"
            await closing


NODE = """
const http = require('http');
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const call = (method, path, body, headers = {}) => new Promise((resolve, reject) => {
  const request = http.request({ socketPath: process.argv[1], agent, method, path, headers }, (reply) => {
    let text = '';
    reply.setEncoding('utf8');
    reply.on('data', (piece) => (text += piece));
    reply.on('end', () => resolve({ status: reply.statusCode, body: text ? JSON.parse(text) : null }));
  });
  request.on('error', reject);
  if (headers.Expect) request.on('continue', () => request.end(body));
  else request.end(body);
});
(async () => {
  const ping = JSON.stringify({ jsonrpc: '2.0', method: 'skilld.ping', id: 1 });
  const replies = [];
  replies.push(await call('POST', '/', ping));
  replies.push(await call('POST', '/', ping, { Expect: '100-continue', 'Content-Length': ping.length }));
  replies.push(await call('POST', '/', JSON.stringify({ jsonrpc: '2.0', method: 'update' })));
  replies.push(await call('GET', '/things/' + encodeURIComponent('team/a b')));
  replies.push(await call('POST', '/things', JSON.stringify({ name: 'x' })));
  replies.push(await call('GET', '/nothing'));
  console.log(JSON.stringify(replies));
  agent.destroy();
})();
"""


@needs_node
async def test_node(served: Serving) -> None:
    """Node's http module keeps its connection and is answered like any other client."""
    replies = json.loads(await run("node", "-e", NODE, served.path))
    assert [reply["status"] for reply in replies] == [200, 200, 204, 200, 201, 404]
    assert [reply["body"] for reply in replies[:5]] == [
        result({}),
        result({}),
        None,
        {"name": "team/a b"},
        {"name": "x", "meta": None},
    ]
