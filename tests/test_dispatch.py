"""From a JSON-RPC text to its reply: validation, batches, roles, errors."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skilld.config import Limits
from skilld.errors import Forbidden, InvalidParams, InvalidRequest, ShuttingDown
from skilld.rpc import dispatch
from skilld.rpc.access import Peer
from skilld.rpc.dispatch import Context, Dispatcher, Method
from skilld.rpc.params import Param, text
from tests.serving import METHODS, PEER, Services, ping, request, result, small


def make_dispatcher(limits: Limits | None = None) -> Dispatcher:
    return Dispatcher(METHODS, Services(), limits or Limits())


async def answer(message: Any, dispatcher: Dispatcher | None = None, peer: Peer = PEER) -> Any:
    dispatcher = dispatcher or make_dispatcher()
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    reply = await dispatcher.answer_text(text, Context(peer, dispatcher.services))
    return None if reply is None else json.loads(reply)


async def test_result() -> None:
    """A request is answered with its result and its id."""
    assert await answer(request("get_data", id="9")) == result(["hello", 5], "9")


@pytest.mark.parametrize(
    ("message", "code", "id", "said"),
    [
        pytest.param(1, -32600, None, "not an object: 1", id="a number"),
        pytest.param("x", -32600, None, "not an object: 'x'", id="a text"),
        pytest.param(None, -32600, None, "not an object: None", id="null"),
        pytest.param({}, -32600, None, 'jsonrpc must be "2.0", not None', id="an empty object"),
        pytest.param({"jsonrpc": "1.0", "method": "echo", "id": 7}, -32600, 7, "not '1.0'", id="version 1.0"),
        pytest.param({"jsonrpc": 2.0, "method": "echo", "id": 7}, -32600, 7, "not 2.0", id="version as a number"),
        pytest.param({"method": "echo", "id": "a"}, -32600, "a", "jsonrpc", id="no version, readable id"),
        pytest.param({"jsonrpc": "2.0", "id": 1.5}, -32600, 1.5, "method must be text", id="no method"),
        pytest.param({"jsonrpc": "2.0", "method": 1, "id": 1}, -32600, 1, "not 1", id="method as a number"),
        pytest.param({"jsonrpc": "2.0", "method": None}, -32600, None, "not None", id="method null, no id"),
        pytest.param({**request("echo"), "params": None}, -32600, 1, "params must be an array", id="params null"),
        pytest.param({**request("echo"), "params": "x"}, -32600, 1, "not 'x'", id="params as text"),
        pytest.param({**request("echo"), "params": 0}, -32600, 1, "not 0", id="params as a number"),
        pytest.param(request("echo", id=True), -32600, None, "id must be", id="id true"),
        pytest.param(request("echo", id=[1]), -32600, None, "not [1]", id="id as an array"),
        pytest.param(request("echo", id={}), -32600, None, "not {}", id="id as an object"),
        pytest.param({"jsonrpc": "2.0", "result": 1, "id": 4}, -32600, 4, "method", id="a reply"),
        pytest.param([], -32600, None, "an empty batch", id="an empty batch"),
        pytest.param(request("nope", id="x"), -32601, "x", "'nope'", id="unknown method"),
        pytest.param(request("rpc.nope", id=None), -32601, None, "'rpc.nope'", id="unknown method, id null"),
        pytest.param(request("subtract", [1], 3), -32602, 3, "subtrahend: is required", id="missing param"),
        pytest.param(request("subtract", [1, "2"], 3), -32602, 3, "subtrahend: must be a whole", id="bad param"),
        pytest.param(request("boom", id=5), -32603, 5, "internal error", id="a failing method"),
        pytest.param(request("skills.subscribe", id=6), -32600, 6, "GET /events", id="no connection"),
    ],
)
async def test_errors(message: Any, code: int, id: Any, said: str) -> None:
    """Every error has its code, a message that names the bad value, and the id if it can be read."""
    reply = await answer(message)
    assert (reply["jsonrpc"], reply["id"], reply["error"]["code"]) == ("2.0", id, code)
    assert said in reply["error"]["message"]
    assert set(reply) == {"jsonrpc", "error", "id"}
    assert reply["error"]["data"]["reason"]


async def test_error_data_holds_the_facts() -> None:
    """The data of an error are its reason and its facts."""
    reply = await answer(request("subtract", {"minuend": "a", "subtrahend": 1}))
    assert reply["error"]["data"] == {
        "reason": "invalid-params",
        "field": "minuend",
        "message": "must be a whole number, not 'a'",
    }
    assert (await answer(request("fail", ["conflict"])))["error"]["data"] == {
        "reason": "conflict",
        "expected": "sha256:a",
        "actual": "sha256:b",
    }


@pytest.mark.parametrize("id", [0, -1, 1.5, 1.0, "", "x", "é", None, 2**53 + 1, 2**70 + 1])
async def test_id_comes_back_as_it_was(id: Any) -> None:
    """An id of any allowed type is echoed exactly; null is an id too."""
    dispatcher = make_dispatcher()
    text = json.dumps(request("skilld.ping", id=id)).encode()
    reply = await dispatcher.answer_text(text, Context(PEER, dispatcher.services))
    assert reply is not None
    assert b'"id":' + json.dumps(id, ensure_ascii=False).encode() in reply


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"jsonrpc": "2.0", "method": "update", "params": [1]}, id="that works"),
        pytest.param({"jsonrpc": "2.0", "method": "nope"}, id="of an unknown method"),
        pytest.param({"jsonrpc": "2.0", "method": "subtract", "params": [1]}, id="with bad params"),
        pytest.param({"jsonrpc": "2.0", "method": "boom"}, id="that fails"),
        pytest.param({"jsonrpc": "2.0", "method": "bad_result", "params": ["set"]}, id="with a bad result"),
    ],
)
async def test_notification_is_never_answered(message: Any) -> None:
    """A request without an id gets no reply, whatever becomes of it; alone or in a batch."""
    assert await answer(message) is None
    assert await answer([message, message]) is None
    assert await answer([message, request("get_data")]) == [result(["hello", 5])]


async def test_unknown_members_are_ignored() -> None:
    """Members that the specification does not know do no harm."""
    assert await answer({**request("skilld.ping"), "x": 1, "result": 2}) == result({})


@pytest.mark.parametrize("kind", ["set", "nan", "key", "bytes"])
async def test_bad_result_is_internal_for_its_id_alone(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A result that JSON cannot carry spoils no other reply of its batch."""
    replies = await answer([request("skilld.ping", id=1), request("bad_result", [kind], 2), request("get_data", id=3)])
    assert replies[0] == result({}, 1)
    assert (replies[1]["id"], replies[1]["error"]["code"]) == (2, -32603)
    assert replies[2] == result(["hello", 5], 3)
    assert "bad_result returned what JSON cannot carry" in caplog.text


async def test_failure_says_nothing_about_the_inside(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected exception is logged with its traceback; the caller sees none of it."""
    reply = await answer(request("boom"))
    assert reply["error"]["data"] == {"reason": "internal"}
    assert "hunter2" not in json.dumps(reply)
    assert "boom failed" in caplog.text and "hunter2" in caplog.text


async def test_batch_runs_concurrently_and_replies_in_order() -> None:
    """Entries of a batch overlap; their replies stand in the order of the entries."""
    dispatcher = make_dispatcher()
    services: Services = dispatcher.services
    batch = asyncio.create_task(answer([request("slow", [name], name) for name in "abc"], dispatcher))
    await services.wait_begun(3)
    for name in "cab":
        services.gate(name).set()
    assert await batch == [result(name, name) for name in "abc"]


async def test_batch_runs_a_bounded_number_at_a_time() -> None:
    """A long batch does not begin all its entries at once."""
    dispatcher = make_dispatcher()
    services: Services = dispatcher.services
    batch = asyncio.create_task(answer([request("slow", [f"n{n}"], n) for n in range(40)], dispatcher))
    await services.wait_begun(16)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(services.begun) == 16
    for n in range(40):
        services.gate(f"n{n}").set()
    assert await batch == [result(f"n{n}", n) for n in range(40)]


async def test_batch_over_the_limit_is_refused_whole() -> None:
    """A batch of more entries than allowed is one error, and runs nothing."""
    dispatcher = make_dispatcher(small(batch=3))
    entry = {"jsonrpc": "2.0", "method": "update", "params": [1]}
    reply = await answer([entry] * 4, dispatcher)
    assert (reply["id"], reply["error"]["code"], reply["error"]["data"]["reason"]) == (None, -32042, "too-large")
    assert dispatcher.services.notified == []
    assert await answer([entry] * 3, dispatcher) is None


async def test_batch_stops_when_its_replies_grow_too_large() -> None:
    """Once the replies of a batch outgrow a message, its remaining entries are refused, each with its id."""
    dispatcher = make_dispatcher(small(message_bytes=2_000))
    notification = {"jsonrpc": "2.0", "method": "update", "params": [1]}
    batch = [*(request("big", [900], n) for n in range(5)), notification, {"id": "x"}]
    replies = await answer(batch, dispatcher)
    assert [reply["id"] for reply in replies] == [0, 1, 2, 3, 4, "x"]
    assert [reply.get("error", {}).get("code") for reply in replies] == [None, None, None, -32042, -32042, -32042]
    assert dispatcher.services.notified == []


async def test_a_long_batch_lets_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of quick calls gives the event loop a turn whenever its slice of time is used up."""
    monkeypatch.setattr(dispatch, "WORKER_SLICE_S", -1.0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counter = asyncio.create_task(count())
    await answer([request("big", [1], n) for n in range(400)])
    counter.cancel()
    assert turns > 400 / 16


async def test_nesting_and_unreadable_texts_are_parse_errors() -> None:
    """A text that is not JSON, or too deep, is a parse error with id null."""
    deep: Any = 1
    for _ in range(63):
        deep = [deep]
    dispatcher = make_dispatcher(small(nesting=65))
    assert await answer(request("echo", [deep]), dispatcher) == result(deep)
    for bad in (b"{", b"\xff", json.dumps(request("echo", [[deep]])).encode()):
        reply = await answer(bad, dispatcher)
        assert (reply["id"], reply["error"]["code"]) == (None, -32700)


async def test_refusal_names_the_role_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A peer without the role is refused, before its params are looked at, in a batch too; one log line says who."""
    peer = Peer(uid=1_234, gid=5, pid=99, groups=(), roles=frozenset({"read"}))
    with caplog.at_level(logging.WARNING):
        replies = await answer([request("secret", ["no number"], 1), request("skilld.ping", id=2)], peer=peer)
    assert replies[0]["error"]["data"] == {"reason": "forbidden", "method": "secret", "role": "tee"}
    assert replies[1] == result({}, 2)
    assert caplog.messages == ["refused secret to uid 1234, gid 5, pid 99: it lacks the role tee"]


async def test_a_slow_call_is_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its time and its peer, and nothing of what was asked; waiting that was asked for is not slow."""
    monkeypatch.setattr(dispatch, "SLOW_CALL_S", 0.02)
    services = Services()
    dispatcher = Dispatcher(METHODS, services, Limits())
    asyncio.get_running_loop().call_later(0.05, services.gate("secret").set)
    assert await answer(request("slow", {"name": "secret"}), dispatcher) == result("secret")
    (record,) = caplog.records
    fields = vars(record)
    assert (record.levelname, fields["method"], fields["peer_uid"]) == ("WARNING", "slow", 1_000)
    assert 40 <= fields["duration_ms"] < 5_000
    assert record.getMessage().startswith("slow call: slow took 0.")
    assert "secret" not in str(fields)
    caplog.clear()
    monkeypatch.setattr(dispatch, "SLOW_CALL_S", 2.0)
    assert await answer(request("timed", {"timeout_ms": 10}), dispatcher) == result("timed out")
    assert caplog.records == []


async def test_draining_refuses_what_has_not_begun() -> None:
    """A call in flight ends as it would; one that comes now is refused, with its id."""
    dispatcher = make_dispatcher()
    services: Services = dispatcher.services
    running = asyncio.create_task(answer(request("slow", ["a"], 1), dispatcher))
    await services.wait_begun(1)
    dispatcher.is_draining = True
    reply = await answer(request("skilld.ping", id=2), dispatcher)
    assert (reply["id"], reply["error"]["data"]) == (2, {"reason": "shutting-down"})
    services.gate("a").set()
    assert await running == result("a")


async def test_call_is_the_same_for_every_framing() -> None:
    """A single call checks role, framing and params, and raises what it refuses."""
    dispatcher = make_dispatcher()
    methods, context = dispatcher.methods, Context(PEER, dispatcher.services)
    assert await dispatcher.call(methods["subtract"], {"minuend": 3, "subtrahend": 1}, context) == 2
    with pytest.raises(InvalidParams):
        await dispatcher.call(methods["subtract"], {"minuend": 3}, context)
    with pytest.raises(InvalidRequest):
        await dispatcher.call(methods["skills.subscribe"], {}, context)
    stranger = Peer(1, 1, 1, (), frozenset())
    with pytest.raises(Forbidden):
        await dispatcher.call(methods["skilld.ping"], {}, Context(stranger, dispatcher.services))
    dispatcher.is_draining = True
    with pytest.raises(ShuttingDown):
        await dispatcher.call(methods["skilld.ping"], {}, context)


async def test_cancellation_passes_through() -> None:
    """A cancelled answer cancels what it waits for, and is no error reply."""
    dispatcher = make_dispatcher()
    running = asyncio.create_task(answer([request("slow", ["a"]), request("slow", ["b"])], dispatcher))
    await dispatcher.services.wait_begun(2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(dispatcher.services.cancelled) == ["a", "b"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "2.0", "2.0", "1.0", 2]),
        "method": st.sampled_from(["echo", "subtract", "nope", "boom", "skilld.ping", 5]),
        "params": JSON,
        "id": JSON,
    },
)


@given(st.one_of(REQUESTS, st.lists(REQUESTS | JSON, max_size=5), JSON))
def test_whatever_comes_the_reply_is_json_rpc(message: Any) -> None:
    """For any JSON there is a reply of JSON-RPC, or none; as many as there are requests."""
    reply = asyncio.run(answer(message))
    replies = reply if isinstance(reply, list) else [] if reply is None else [reply]
    for one in replies:
        assert one["jsonrpc"] == "2.0"
        assert set(one) in ({"jsonrpc", "id", "result"}, {"jsonrpc", "id", "error"})
    if isinstance(message, list) and message:
        assert len(replies) <= len(message)
        assert isinstance(reply, list) or reply is None
    else:
        assert not isinstance(reply, list)


def make_method(**changes: Any) -> Method:
    fields: dict[str, Any] = {"name": "m", "role": "read", "params": (), "handler": ping, "result": {}}
    return Method(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"role": "admin"}, "no such role"),
        ({"params": (Param("a", text(), True), Param("a", text(), True))}, "named twice"),
        ({"route": ("GET", "/x/{name}")}, "names what is no parameter"),
    ],
)
def test_mistakes_in_the_table_are_found_at_once(changes: dict[str, Any], message: str) -> None:
    """A row that cannot work is refused when it is made."""
    with pytest.raises(ValueError, match=message):
        make_method(**changes)


def test_a_name_is_in_the_table_once() -> None:
    """Two rows of one name are a mistake."""
    with pytest.raises(ValueError, match="in the table twice"):
        Dispatcher([make_method(), make_method()], None, Limits())


def test_summary_is_the_first_line_of_the_docstring() -> None:
    """The handler's docstring says what the method does, in one line."""
    dispatcher = make_dispatcher()
    assert dispatcher.methods["skilld.ping"].summary == "Answer."
    assert dispatcher.methods["echo"].summary == "Return what was given."
