"""What is answered to an HTTP request: routes, params from path, query and body, statuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from skilld.config import Limits
from skilld.rpc.access import Peer
from skilld.rpc.dispatch import Context, Dispatcher
from skilld.rpc.site import EventStream, Request, Response, Site
from tests.serving import METHODS, PEER, Services, request, result


class Local:
    """A site without a server."""

    def __init__(self) -> None:
        self.is_ready = True
        self.dispatcher = Dispatcher(METHODS, Services(), Limits())
        self.site = Site(self.dispatcher, lambda: self.is_ready)

    async def ask(
        self, http_method: str, target: str, body: bytes = b"", *, peer: Peer = PEER, **headers: str
    ) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        context = Context(peer, self.dispatcher.services)
        answer = await self.site.respond(Request(http_method, target, body, named), context)
        assert isinstance(answer, Response)
        return answer


def body_of(response: Response) -> Any:
    return json.loads(response.body)


@pytest.mark.parametrize("target", ["/", "/rpc", "/rpc?x=1"])
async def test_json_rpc_by_post(target: str) -> None:
    """A JSON-RPC text is answered with status 200, an error too; without anything to answer it is 204."""
    local = Local()
    response = await local.ask("POST", target, json.dumps(request("get_data")).encode())
    assert (response.status, body_of(response)) == (200, result(["hello", 5]))
    response = await local.ask("POST", target, b"{")
    assert (response.status, body_of(response)["error"]["code"]) == (200, -32700)
    response = await local.ask("POST", target)
    assert (response.status, body_of(response)["error"]["code"]) == (200, -32700)
    response = await local.ask("POST", target, b'{"jsonrpc":"2.0","method":"update"}')
    assert (response.status, response.body) == (204, b"")


@pytest.mark.parametrize(
    ("http_method", "target", "body", "status", "expected"),
    [
        ("GET", "/subtract?minuend=5&subtrahend=3", b"", 200, 2),
        ("GET", "/things", b"", 200, {"offset": 0, "limit": 10, "deep": False, "tags": None}),
        (
            "GET", "/things?offset=5&limit=7&deep=true&tags=a&tags=b", b"", 200,
            {"offset": 5, "limit": 7, "deep": True, "tags": ["a", "b"]},
        ),
        ("GET", '/things?tags=["a"]', b"", 200, {"offset": 0, "limit": 10, "deep": False, "tags": ["a"]}),
        ("GET", "/things?limit=7", b'{"deep":true}', 200, {"offset": 0, "limit": 7, "deep": True, "tags": None}),
        ("GET", "/things/search?query=a%20b+c%26%C3%A9", b"", 200, {"query": "a b c&é"}),
        ("GET", "/things/team%2Fdeploy", b"", 200, {"name": "team/deploy"}),
        ("GET", "/things/123", b"", 200, {"name": "123"}),
        ("GET", "/things/a/files/scripts%2Frun.py", b"", 200, {"name": "a", "path": "scripts/run.py"}),
        ("POST", "/things", b'{"name":"a","meta":{"b":"c"}}', 201, {"name": "a", "meta": {"b": "c"}}),
        ("POST", "/things?name=a", b"", 201, {"name": "a", "meta": None}),
        ("PUT", "/things/a", b'{"body":"x"}', 200, {"name": "a", "body": "x"}),
        ("PUT", "/things/a", b' {"name":"a","body":"x"}\n', 200, {"name": "a", "body": "x"}),
        ("DELETE", "/things/a?if_digest=sha256:1", b"", 200, {"name": "a", "if_digest": "sha256:1"}),
        ("DELETE", "/things/a", b'{"if_digest":"sha256:1"}', 200, {"name": "a", "if_digest": "sha256:1"}),
    ],
)  # fmt: skip
async def test_rest_routes(http_method: str, target: str, body: bytes, status: int, expected: Any) -> None:
    """A route is its method by another name: params from path, query and body, the bare result back."""
    response = await Local().ask(http_method, target, body)
    assert (response.status, body_of(response)) == (status, expected)


@pytest.mark.parametrize(
    ("http_method", "target", "body", "status", "code", "said"),
    [
        ("GET", "/fail/nope", b"", 404, -32001, "'nope'"),
        ("GET", "/fail/conflict", b"", 409, -32005, "sha256:b"),
        ("GET", "/fail/busy", b"", 503, -32040, "later"),
        ("GET", "/boom", b"", 500, -32603, "internal"),
        ("GET", "/bad/set", b"", 500, -32603, "internal"),
        ("GET", "/things?limit=ten", b"", 422, -32602, "limit: must be a whole number from 1 to 100, not 'ten'"),
        ("GET", "/things?limit=5&limit=6", b"", 422, -32602, "limit: must be"),
        ("GET", "/things?lmit=5", b"", 422, -32602, "lmit: unknown"),
        ("GET", "/things/search", b"", 422, -32602, "query: is required"),
        ("PUT", "/things/a", b'{"name":"b"}', 422, -32602, "given twice, as 'a' and as 'b'"),
        ("POST", "/things", b"{", 400, -32700, "Parse error"),
        ("POST", "/things", b"[1]", 400, -32600, "must be a JSON object, not [1]"),
        ("POST", "/things", b"null", 400, -32600, "must be a JSON object, not None"),
        ("GET", "/things?x=%ff", b"", 400, -32600, "query"),
        ("GET", "/things?" + "tags=a&" * 3_000, b"", 400, -32600, "query"),
        ("GET", "/things/%ff", b"", 400, -32600, "UTF-8"),
        ("GET", "/nothing", b"", 404, -32601, "GET /nothing"),
        ("GET", "/things/a/b", b"", 404, -32601, "GET /things/a/b"),
        ("GET", "/things/", b"", 404, -32601, "GET /things/"),
        ("OPTIONS", "*", b"", 404, -32601, "OPTIONS *"),
        ("GET", "/skills.subscribe", b"", 404, -32601, "/skills.subscribe"),
    ],
)
async def test_rest_errors(http_method: str, target: str, body: bytes, status: int, code: int, said: str) -> None:
    """An error is ``{"error": ...}`` with the status of its class."""
    response = await Local().ask(http_method, target, body)
    error = body_of(response)["error"]
    assert (response.status, error["code"], set(error)) == (status, code, {"code", "message", "data"})
    assert said in error["message"]


@pytest.mark.parametrize(
    ("http_method", "target", "allow"),
    [
        ("GET", "/", "POST"),
        ("GET", "/rpc", "POST"),
        ("POST", "/health", "GET, HEAD"),
        ("PATCH", "/things", "GET, HEAD, POST"),
        ("POST", "/things/a", "DELETE, GET, HEAD, PUT"),
        ("DELETE", "/things/search", "GET, HEAD"),
        ("HEAD", "/echo", "POST"),
    ],
)
async def test_method_not_allowed(http_method: str, target: str, allow: str) -> None:
    """A path that is there answers 405 to other methods and names its own; a static route wins over a placeholder."""
    response = await Local().ask(http_method, target)
    assert (response.status, response.headers) == (405, (("Allow", allow),))
    assert body_of(response)["error"]["code"] == -32600


async def test_busy_says_when_to_come_back() -> None:
    """A busy answer carries Retry-After in whole seconds."""
    assert (await Local().ask("GET", "/fail/busy")).headers == (("Retry-After", "2"),)


async def test_health() -> None:
    """Health is ok when ready; starting and draining are 503."""
    local = Local()
    assert await local.ask("GET", "/health") == Response(200, b'{"status":"ok"}')
    local.is_ready = False
    assert await local.ask("GET", "/health") == Response(503, b'{"status":"starting"}')
    local.dispatcher.is_draining = True
    assert await local.ask("GET", "/health") == Response(503, b'{"status":"draining"}')


async def test_draining_refuses_routes() -> None:
    """A draining daemon answers 503 to calls, and JSON-RPC's error with 200."""
    local = Local()
    local.dispatcher.is_draining = True
    response = await local.ask("GET", "/things")
    assert (response.status, body_of(response)["error"]["data"]) == (503, {"reason": "shutting-down"})
    response = await local.ask("POST", "/", json.dumps(request("skilld.ping")).encode())
    assert (response.status, body_of(response)["error"]["code"]) == (200, -32043)


async def test_events_need_the_role_to_read() -> None:
    """The stream of events is for peers that may read."""
    local = Local()
    context = Context(PEER, local.dispatcher.services)
    headers = {"last-event-id": "run:1"}
    assert await local.site.respond(Request("GET", "/events", b"", headers), context) == EventStream("run:1")
    assert await local.site.respond(Request("GET", "/events"), context) == EventStream(None)
    stranger = Peer(1, 1, 1, (), frozenset())
    assert (await local.ask("GET", "/events", peer=stranger)).status == 403
    assert (await local.ask("GET", "/health", peer=stranger)).status == 200


async def test_openrpc_document_has_a_route() -> None:
    """The document of ``rpc.discover`` is a route like any other."""
    response = await Local().ask("GET", "/openrpc.json")
    assert body_of(response)["openrpc"] == "1.3.2"
