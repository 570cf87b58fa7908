"""JSON-RPC 2.0 over the real socket, in both framings: every example of the specification, and its edges."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from skilld.errors import MethodNotFound
from skilld.rpc.access import AccessPolicy, Grant
from tests.serving import Serving, connected, fetch, request, result, serving, small

# Sends one text and returns its reply, parsed; None where there is none.
Call = Callable[[bytes], Awaitable[Any]]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(tmp_path, small(message_bytes=100_000, batch=50)) as running:
        yield running


@pytest.fixture(params=["ndjson", "http", "http /rpc"])
async def call(request: pytest.FixtureRequest, served: Serving) -> AsyncIterator[Call]:
    """One text and its reply over each framing."""
    if request.param == "ndjson":

        async def call_line(text: bytes) -> Any:
            async with connected(served.path) as client:
                # A raw newline ends a line; to JSON it is white space like any other.
                client.send(text.replace(b"\n", b" "))
                replies = await client.receive_rest()
            assert len(replies) < 2
            return replies[0] if replies else None

        yield call_line
    else:

        async def call_http(text: bytes) -> Any:
            target = "/rpc" if request.param == "http /rpc" else "/"
            reply = await fetch(served.path, "POST", target, text, Content_Type="text/plain")
            if reply.status == 204:
                assert reply.body == b""
                return None
            assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
            return reply.json

        yield call_http


def error(code: int, id: Any = None) -> dict[str, Any]:
    """An error reply, without what is ours to word."""
    return {"jsonrpc": "2.0", "error": {"code": code}, "id": id}


def strip(reply: Any) -> Any:
    """A reply, or a batch of them, with errors cut down to their code."""
    if isinstance(reply, list):
        return [strip(one) for one in reply]
    if isinstance(reply, dict) and "error" in reply:
        assert isinstance(reply["error"]["message"], str) and reply["error"]["data"]["reason"]
        return {**reply, "error": {"code": reply["error"]["code"]}}
    return reply


INVALID, PARSE, NO_METHOD = error(-32600), error(-32700), -32601

# Section 7 of the specification, word for word.
EXAMPLES = [
    pytest.param(
        b'{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}', result(19, 1),
        id="positional parameters",
    ),
    pytest.param(
        b'{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}', result(-19, 2),
        id="positional parameters, the other way round",
    ),
    pytest.param(
        b'{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        result(19, 3), id="named parameters",
    ),
    pytest.param(
        b'{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        result(19, 4), id="named parameters, the other way round",
    ),
    pytest.param(b'{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None, id="a notification"),
    pytest.param(b'{"jsonrpc": "2.0", "method": "foobar"}', None, id="a notification of no method"),
    pytest.param(
        b'{"jsonrpc": "2.0", "method": "foobar", "id": "1"}', error(NO_METHOD, "1"), id="non-existent method"
    ),
    pytest.param(b'{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', PARSE, id="invalid JSON"),
    pytest.param(b'{"jsonrpc": "2.0", "method": 1, "params": "bar"}', INVALID, id="invalid Request object"),
    pytest.param(
        b'[\n  {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},\n  {"jsonrpc": "2.0", "method"\n]',
        PARSE, id="batch, invalid JSON",
    ),
    pytest.param(b"[]", INVALID, id="empty array"),
    pytest.param(b"[1]", [INVALID], id="invalid batch, not empty"),
    pytest.param(b"[1,2,3]", [INVALID, INVALID, INVALID], id="invalid batch"),
    pytest.param(
        b"""[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
        ]""",
        [result(7, "1"), result(19, "2"), INVALID, error(NO_METHOD, "5"), result(["hello", 5], "9")],
        id="batch",
    ),
    pytest.param(
        b"""[
        {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
        ]""",
        None, id="batch, all notifications",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), EXAMPLES)
async def test_examples_of_the_specification(call: Call, text: bytes, expected: Any) -> None:
    """Every example of section 7 is answered as the specification shows it."""
    assert strip(await call(text)) == expected


async def test_notifications_are_carried_out(call: Call, served: Serving) -> None:
    """A notification does its work though nobody is told."""
    await call(b'{"jsonrpc":"2.0","method":"update","params":[1,2]}')
    await call(b'[{"jsonrpc":"2.0","method":"notify_hello","params":[7]}]')
    assert served.services.notified == [[1, 2], [7]]


async def test_messages_begin_with_the_specifications_words(call: Call) -> None:
    """The texts of the errors that JSON-RPC defines begin as its table has them."""
    assert (await call(b'{"jsonrpc":'))["error"]["message"].startswith("Parse error")
    assert (await call(b"[]"))["error"]["message"].startswith("Invalid Request")


EDGES = [
    pytest.param(b'{"jsonrpc":"2.0","method":"skilld.ping","id":null}', result({}, None), id="id null is an id"),
    pytest.param(b'{"jsonrpc":"2.0","method":"skilld.ping","id":""}', result({}, ""), id="id empty"),
    pytest.param(b'{"jsonrpc":"2.0","method":"skilld.ping","id":1.5}', result({}, 1.5), id="id fractional"),
    pytest.param(
        b'{"jsonrpc":"2.0","method":"skilld.ping","id":%d}' % (2**70 + 1), result({}, 2**70 + 1), id="id of 71 bits"
    ),
    pytest.param(b'{"jsonrpc":"2.0","method":"skilld.ping","id":1e400}', PARSE, id="id beyond a double"),
    pytest.param(b'{"jsonrpc":"2.0","method":"skilld.ping","id":true}', INVALID, id="id true"),
    pytest.param(b'{"jsonrpc":"2.0","method":"skilld.ping","id":[]}', INVALID, id="id an array"),
    pytest.param(
        b'{"jsonrpc":"2.0","method":"skilld.ping","params":null,"id":3}', error(-32600, 3), id="params null"
    ),
    pytest.param(b'{"jsonrpc":"2.0","method":"skilld.ping","params":"x","id":3}', error(-32600, 3), id="params text"),
    pytest.param(b'{"jsonrpc":"2.0","method":"skilld.ping","x":2,"id":3}', result({}, 3), id="unknown member"),
    pytest.param(b'{"jsonrpc":"2.0","method":"skilld.ping","id":1,"id":2}', result({}, 2), id="a key twice"),
    pytest.param(b'{"jsonrpc":"2.0","method":"echo","params":[NaN],"id":1}', PARSE, id="NaN"),
    pytest.param(b'{"jsonrpc":"2.0","method":"echo","params":[1e999],"id":1}', PARSE, id="params beyond a double"),
    pytest.param(
        b'{"jsonrpc":"2.0","method":"echo","params":[%d],"id":1}' % 2**99, result(2**99), id="params of 100 bits"
    ),
    pytest.param(b'{"jsonrpc":"2.0","method":"echo","params":["\xc3\xa9\\u0000"],"id":1}', result("é\0"), id="text"),
    pytest.param(b'{"jsonrpc":"2.0","method":"echo","params":["\xff"],"id":1}', PARSE, id="invalid UTF-8"),
    pytest.param(b'{"jsonrpc":"2.0","method":"echo","params":["\\ud800"],"id":1}', PARSE, id="lone surrogate"),
    pytest.param(b'{"jsonrpc":"2.0","method":"skilld.ping","id":1} x', PARSE, id="trailing garbage"),
    pytest.param(b'{"jsonrpc":"2.0","method":"echo","params":' + b"[" * 200 + b"]" * 200 + b"}", PARSE, id="too deep"),
    pytest.param(b'{"a":' * 15_000, PARSE, id="far too deep"),
    pytest.param(b'{"jsonrpc":"2.0","method":"skilld.ping","id":' + b"9" * 5_000 + b"}", PARSE, id="5,000 digits"),
    pytest.param(
        b'[{"jsonrpc":"2.0","method":"skilld.ping","id":1},1]', [result({}), INVALID], id="valid and invalid entry"
    ),
    pytest.param(b'[{"jsonrpc":"2.0","method":"update"},{"id":4}]', [error(-32600, 4)], id="notification and invalid"),
    pytest.param(b"[[]]", [INVALID], id="batch in a batch"),
    pytest.param(
        b'[{"jsonrpc":"2.0","method":"skilld.ping","id":1},{"jsonrpc":"2.0","method":"skilld.ping","id":1}]',
        [result({}), result({})], id="one id twice",
    ),
    pytest.param(b"[" + b",".join([b"1"] * 51) + b"]", error(-32042), id="too large a batch"),
    pytest.param(
        b'[{"jsonrpc":"2.0","method":"bad_result","params":["set"],"id":1},{"jsonrpc":"2.0","method":"boom","id":2},'
        b'{"jsonrpc":"2.0","method":"skilld.ping","id":3}]',
        [error(-32603, 1), error(-32603, 2), result({}, 3)], id="failures in a batch",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), EDGES)
async def test_edges_of_the_specification(call: Call, text: bytes, expected: Any) -> None:
    """What the specification leaves to careful reading is answered to its letter."""
    assert strip(await call(text)) == expected


async def test_nothing_leaks_from_the_inside(call: Call) -> None:
    """An unexpected failure tells the caller nothing about the daemon."""
    reply = await call(b'{"jsonrpc":"2.0","method":"boom","id":1}')
    assert reply["error"]["data"] == {"reason": "internal"}
    assert "hunter2" not in json.dumps(reply)


async def test_handlers_may_use_time_limits(call: Call) -> None:
    """A handler's own time limit works from its first line on."""
    assert await call(b'{"jsonrpc":"2.0","method":"timed","params":[1],"id":1}') == result("timed out")


async def test_unknown_method_is_named(call: Call) -> None:
    """The error for an unknown method names it, in its message and its data."""
    reply = await call(b'{"jsonrpc":"2.0","method":"skills.lst","id":1}')
    assert reply["error"] == {
        "code": -32601,
        "message": str(MethodNotFound("skills.lst")),
        "data": {"reason": "method-not-found", "method": "skills.lst"},
    }


# Bytes that a hostile or broken peer may send first.
HOSTILE = [
    pytest.param(b"\x00\x01\x02\xff\xfe", id="binary"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
    pytest.param(b"GET / HTTP/1.1\r\nHost", id="half a head"),
    pytest.param(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n{", id="half a body"),
    pytest.param(b'{"jsonrpc":"2.0","method":"big","params":[50000],"id":1}\n' * 200, id="asks and never reads"),
    pytest.param(b'{"jsonrpc":"2.0","method":', id="half a line"),
    pytest.param(b"{" * 300_000, id="braces"),
    pytest.param(b"{\n" * 50_000, id="broken lines"),
    pytest.param(b"\n" * 100_000, id="nothing but newlines"),
    pytest.param(b"[1,2,3]\n" * 1_000, id="invalid batches"),
    pytest.param(b'{"jsonrpc":"2.0","method":"skills.subscribe","id":1}\n' * 500, id="subscribes without end"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n" * 2_000, id="pipelines without reading"),
]


@pytest.mark.parametrize("noise", HOSTILE)
@pytest.mark.parametrize("goes", [True, False], ids=["goes", "stays"])
async def test_hostile_peer_disturbs_nobody(served: Serving, noise: bytes, goes: bool) -> None:
    """Beside a peer that sends rubbish, stays in mid-message or goes, a good connection is served its own replies."""
    async with connected(served.path) as good:
        assert await good.call("echo", ["before"], 1) == result("before", 1)
        with socket.socket(socket.AF_UNIX) as hostile:
            hostile.setblocking(False)
            hostile.connect(served.path)
            hostile.send(noise)
            if goes:
                hostile.close()
            for number in range(20):
                assert await good.call("echo", [number], number) == result(number, number)
        assert await good.call("echo", ["after"], 2) == result("after", 2)
        reply = await fetch(served.path, "GET", "/health")
        assert reply.json == {"status": "ok"}


async def test_many_clients_get_their_own_replies(served: Serving) -> None:
    """Fifty connections of both framings at once: each gets its own replies, and all of them."""

    async def over_lines(number: int) -> None:
        async with connected(served.path) as client:
            client.send(*(request("echo", [f"{number}/{turn}"], turn) for turn in range(50)))
            for turn in range(50):
                assert await client.receive() == result(f"{number}/{turn}", turn)

    async def over_http(number: int) -> None:
        for turn in range(10):
            text = json.dumps(request("echo", [f"{number}/{turn}"], turn)).encode()
            assert (await fetch(served.path, "POST", "/", text)).json == result(f"{number}/{turn}", turn)

    async with asyncio.TaskGroup() as clients:
        for number in range(25):
            clients.create_task(over_lines(number))
            clients.create_task(over_http(number))


async def test_roles_hold_in_every_framing(tmp_path: Path) -> None:
    """A call without its role is refused in a batch, by itself and over REST; other calls of the batch run."""
    policy = AccessPolicy(owners=frozenset(), grants={"read": Grant(everybody=True)})
    async with serving(tmp_path, policy=policy) as running:
        batch = json.dumps([request("secret", id=1), request("skilld.ping", id=2)]).encode()
        refused = error(-32041, 1)
        async with connected(running.path) as client:
            client.send(batch)
            assert strip(await client.receive()) == [refused, result({}, 2)]
        assert strip((await fetch(running.path, "POST", "/", batch)).json) == [refused, result({}, 2)]
        reply = await fetch(running.path, "GET", "/secret")
        assert (reply.status, reply.json["error"]["data"]) == (
            403,
            {"reason": "forbidden", "method": "secret", "role": "tee"},
        )
