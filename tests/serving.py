"""A table of small methods, a registry's double, and a server of them on a real socket, for tests."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from skilld.config import Access, Limits
from skilld.errors import Busy, Conflict, SkillNotFound
from skilld.rpc.access import ALL_ROLES, AccessPolicy, Peer, build_policy
from skilld.rpc.connection import Connection
from skilld.rpc.dispatch import Context, Dispatcher, Method
from skilld.rpc.openrpc import document
from skilld.rpc.params import Param, any_json, array_of, boolean, integer, mapping_of, text
from skilld.rpc.server import Server

# Seconds after which a test that waits for the server has failed.
PATIENCE_S = 20.0

PEER = Peer(uid=1_000, gid=1_000, pid=1, groups=(), roles=ALL_ROLES)


@dataclass
class Change:
    """One revision's change."""

    revision: str
    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    is_complete: bool = True


@dataclass
class Events:
    """A registry that only counts: every call of :meth:`change` is a revision."""

    history: list[Change] = field(default_factory=list)
    callbacks: list[Any] = field(default_factory=list)

    @property
    def revision(self) -> str:
        return f"run:{len(self.history)}"

    def subscribe(self, callback: Any, /) -> Any:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)

    def changes_since(self, revision: str | None, /) -> Change:
        run_id, _, counter = (revision or "run:0").partition(":")
        if run_id != "run":
            return Change(self.revision, is_complete=False)
        return Change(self.revision, added=tuple(id for one in self.history[int(counter) :] for id in one.added))

    def change(self, *added: str) -> Change:
        one = Change(f"run:{len(self.history) + 1}", added=added)
        self.history.append(one)
        for callback in tuple(self.callbacks):
            callback(one)
        return one


@dataclass
class Services:
    """What the methods below work on."""

    events: Events = field(default_factory=Events)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    begins: asyncio.Condition = field(default_factory=asyncio.Condition)
    cancelled: list[str] = field(default_factory=list)
    notified: list[Any] = field(default_factory=list)

    def gate(self, name: str) -> asyncio.Event:
        """What ``slow`` of this name waits for."""
        return self.gates.setdefault(name, asyncio.Event())

    async def wait_begun(self, count: int) -> None:
        """Wait until so many calls of ``slow`` have begun."""
        async with asyncio.timeout(PATIENCE_S), self.begins:
            await self.begins.wait_for(lambda: len(self.begun) >= count)


async def ping(context: Context[Services], /) -> dict[str, Any]:
    """Answer."""
    return {}


async def echo(context: Context[Services], /, *, value: Any) -> Any:
    """
    Return what was given.

    More about that.
    """
    return value


async def subtract(context: Context[Services], /, *, minuend: int, subtrahend: int) -> int:
    """Subtract one number from another."""
    return minuend - subtrahend


async def add(context: Context[Services], /, **terms: int | None) -> int:
    """Add numbers."""
    return sum(term for term in terms.values() if term)


async def notice(context: Context[Services], /, **values: Any) -> None:
    """Remember that it was called."""
    context.services.notified.append([value for value in values.values() if value is not None])


async def get_data(context: Context[Services], /) -> list[Any]:
    """Return a text and a number."""
    return ["hello", 5]


async def slow(context: Context[Services], /, *, name: str) -> str:
    """Wait until the gate of this name opens."""
    services = context.services
    async with services.begins:
        services.begun.append(name)
        services.begins.notify_all()
    try:
        await services.gate(name).wait()
    except asyncio.CancelledError:
        services.cancelled.append(name)
        raise
    return name


async def boom(context: Context[Services], /) -> None:
    """Fail."""
    raise RuntimeError("the password is hunter2 in /etc/secret")


async def fail(context: Context[Services], /, *, how: str) -> None:
    """Fail as the table of errors says."""
    match how:
        case "busy":
            raise Busy("come back later", 1.2)
        case "conflict":
            raise Conflict("sha256:a", "sha256:b")
        case _:
            raise SkillNotFound(how, ("pdf",))


async def bad_result(context: Context[Services], /, *, kind: str) -> Any:
    """Return what JSON cannot carry."""
    return {"set": {1}, "nan": {"a": float("nan")}, "key": {1: 2}, "bytes": b"x"}[kind]


async def big(context: Context[Services], /, *, size: int) -> str:
    """Return a text of so many characters."""
    return "x" * size


async def timed(context: Context[Services], /, *, timeout_ms: int) -> str:
    """Wait for what never comes, with a time limit."""
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            await asyncio.Event().wait()
    except TimeoutError:
        return "timed out"
    return "never"


async def whoami(context: Context[Services], /) -> dict[str, Any]:
    """Tell who calls."""
    peer = context.peer
    return {"uid": peer.uid, "gid": peer.gid, "pid": peer.pid, "roles": sorted(peer.roles)}


async def secret(context: Context[Services], /, *, x: int | None) -> str:
    """Return what only few may see."""
    return "secret"


async def subscribe(context: Context[Services], /) -> dict[str, Any]:
    """Send changes."""
    assert context.connection is not None
    context.connection.subscribe()
    return {"revision": context.services.events.revision}


async def subscribe_slowly(context: Context[Services], /, *, name: str) -> dict[str, Any]:
    """Send changes, and answer when the gate of this name opens."""
    assert context.connection is not None
    context.connection.subscribe()
    return {"slowly": await slow(context, name=name)}


async def unsubscribe(context: Context[Services], /) -> dict[str, Any]:
    """Send no more changes."""
    assert context.connection is not None
    context.connection.unsubscribe()
    return {"revision": context.services.events.revision}


async def stream(context: Context[Services], /, *, parts: list[str]) -> int:
    """Send parts as notifications, then their number."""
    assert context.connection is not None
    for part in parts:
        await context.connection.notify("part", {"text": part})
        await asyncio.sleep(0)
    return len(parts)


async def thing(context: Context[Services], /, **values: Any) -> dict[str, Any]:
    """Return the params."""
    return values


async def discover(context: Context[Services], /) -> dict[str, Any]:
    """Describe the methods."""
    return document(METHODS)


_NUMBERS = tuple(Param(name, integer(), required=False) for name in "abcde")
_VALUES = tuple(Param(name, any_json(), required=False) for name in "abcde")
_NAME = Param("name", text(min_chars=1), required=True, doc="Which thing.")
_OBJECT = {"type": "object"}

METHODS: tuple[Method, ...] = (
    Method("skilld.ping", "read", (), ping, _OBJECT),
    Method("echo", "read", (Param("value", any_json(), required=True),), echo, {}, ("POST", "/echo")),
    Method(
        "subtract",
        "read",
        (Param("minuend", integer(), required=True), Param("subtrahend", integer(), required=True)),
        subtract,
        {"type": "integer"},
        ("GET", "/subtract"),
    ),
    Method("sum", "read", _NUMBERS, add, {"type": "integer"}),
    Method("update", "read", _VALUES, notice, {"type": "null"}),
    Method("notify_hello", "read", _VALUES, notice, {"type": "null"}),
    Method("notify_sum", "read", _VALUES, notice, {"type": "null"}),
    Method("get_data", "read", (), get_data, {"type": "array"}),
    Method("slow", "read", (_NAME,), slow, {"type": "string"}, ("GET", "/slow/{name}")),
    Method("boom", "read", (), boom, {}, ("GET", "/boom")),
    Method(
        "fail", "read", (Param("how", text(), required=True),), fail, {}, ("GET", "/fail/{how}"),
        errors=(Busy, Conflict, SkillNotFound),
    ),
    Method("bad_result", "read", (Param("kind", text(), required=True),), bad_result, {}, ("GET", "/bad/{kind}")),
    Method("big", "read", (Param("size", integer(0), required=True),), big, {"type": "string"}, ("GET", "/big/{size}")),
    Method("timed", "read", (Param("timeout_ms", integer(0), required=True),), timed, {"type": "string"}),
    Method("whoami", "read", (), whoami, _OBJECT, ("GET", "/whoami")),
    Method("secret", "tee", (Param("x", integer(), required=False),), secret, {"type": "string"}, ("GET", "/secret")),
    Method("skills.subscribe", "read", (), subscribe, _OBJECT, framing="ndjson"),
    Method("subscribe_slowly", "read", (_NAME,), subscribe_slowly, _OBJECT, framing="ndjson"),
    Method("skills.unsubscribe", "read", (), unsubscribe, _OBJECT, framing="ndjson"),
    Method("stream", "read", (Param("parts", array_of(text(), 100), required=True),), stream, {}, framing="ndjson"),
    Method(
        "thing.list",
        "read",
        (
            Param("offset", integer(0), required=False, default=0),
            Param("limit", integer(1, 100), required=False, default=10),
            Param("deep", boolean(), required=False, default=False),
            Param("tags", array_of(text(), 5), required=False),
        ),
        thing,
        _OBJECT,
        ("GET", "/things"),
    ),
    Method("thing.search", "read", (Param("query", text(), required=True),), thing, _OBJECT, ("GET", "/things/search")),
    Method("thing.get", "read", (_NAME,), thing, _OBJECT, ("GET", "/things/{name}")),
    Method(
        "thing.create", "write", (_NAME, Param("meta", mapping_of(text()), required=False)), thing, _OBJECT,
        ("POST", "/things"), status=201,
    ),
    Method(
        "thing.update", "write", (_NAME, Param("body", text(), required=False)), thing, _OBJECT,
        ("PUT", "/things/{name}"),
    ),
    Method(
        "thing.delete", "write", (_NAME, Param("if_digest", text(), required=False)), thing, _OBJECT,
        ("DELETE", "/things/{name}"),
    ),
    Method(
        "thing.file", "read", (_NAME, Param("path", text(), required=True)), thing, _OBJECT,
        ("GET", "/things/{name}/files/{path}"),
    ),
    Method("rpc.discover", "read", (), discover, _OBJECT, ("GET", "/openrpc.json")),
)  # fmt: skip


@dataclass
class Serving:
    """A running server and what it works on."""

    path: str
    server: Server
    services: Services
    is_ready: bool = True

    @property
    def events(self) -> Events:
        return self.services.events

    @property
    def connections(self) -> list[Connection]:
        """The open connections whose framing is known."""
        return [one for one in self.server._connections if isinstance(one, Connection)]

    async def wait_connections(self, count: int) -> None:
        """Wait until so many connections are open."""
        async with asyncio.timeout(PATIENCE_S):
            while self.server.connections != count:
                # The server's own clock, for it looks at its connections by it.
                changed = asyncio.Event()
                asyncio.get_running_loop().call_later(0.01, changed.set)
                await changed.wait()


@asynccontextmanager
async def serving(
    directory: Path, limits: Limits | None = None, *, access: Access | None = None, policy: AccessPolicy | None = None
) -> AsyncIterator[Serving]:
    """Serve the table on a socket in a directory; at the end nothing of the server may be left."""
    path = str(directory / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    limits = limits or Limits()
    services = Services()
    policy = policy or build_policy(access or Access(), daemon_uid=os.geteuid(), socket_gid=os.getegid())
    serving = Serving(path, None, services)  # type: ignore[arg-type]  # set below, for health asks it
    serving.server = Server(
        Dispatcher(METHODS, services, limits),
        limits,
        policy=policy,
        events=services.events,
        health=lambda: serving.is_ready,
    )
    await serving.server.start(listener)
    try:
        yield serving
    finally:
        for gate in services.gates.values():
            gate.set()
        async with asyncio.timeout(PATIENCE_S):
            await serving.server.close(drain_s=PATIENCE_S / 2)
        assert serving.server.connections == 0
        assert not services.events.callbacks
        # A task whose coroutine ended at once has a last turn of its own.
        await asyncio.sleep(0)


@dataclass
class Lines:
    """A client of JSON lines."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *messages: Any) -> None:
        """Send texts, or values as JSON, a line each."""
        for message in messages:
            self.writer.write((message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n")

    async def receive_line(self) -> bytes:
        """The next line; empty at the end of the stream."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readline()

    async def receive(self) -> Any:
        """The next line, parsed."""
        line = await self.receive_line()
        assert line.endswith(b"\n"), line
        return json.loads(line)

    async def receive_rest(self) -> list[Any]:
        """Write no more, and return all replies up to the end of the stream."""
        self.writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            return [json.loads(line) for line in (await self.reader.read()).splitlines()]

    async def call(self, method: str, params: Any = None, id: Any = 1) -> Any:
        """One request and the reply that comes next."""
        self.send(request(method, params, id))
        return await self.receive()


@asynccontextmanager
async def connected(path: str, unread_bytes: int = 256 * 1024 * 1024) -> AsyncIterator[Lines]:
    """A connection that is closed at the end; it takes no more than so many bytes that the test does not read."""
    reader, writer = await asyncio.open_unix_connection(path, limit=unread_bytes // 2)
    try:
        yield Lines(reader, writer)
    finally:
        if not writer.is_closing():
            writer.transport.abort()


async def hung_up(sock: socket.socket) -> None:
    """Wait until the other side has closed, without reading what it sent."""
    poll = select.poll()
    poll.register(sock, 0)
    events = await asyncio.to_thread(poll.poll, PATIENCE_S * 1_000)
    assert [event for _, event in events] == [select.POLLHUP]


def request(method: str, params: Any = None, id: Any = 1) -> dict[str, Any]:
    """A request as a value."""
    message = {"jsonrpc": "2.0", "method": method, "id": id}
    return message if params is None else {**message, "params": params}


def result(value: Any, id: Any = 1) -> dict[str, Any]:
    """A successful reply as a value."""
    return {"jsonrpc": "2.0", "result": value, "id": id}


@dataclass(frozen=True)
class Reply:
    """A response of HTTP; ``headers`` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def read_reply(reader: asyncio.StreamReader, *, is_head: bool = False) -> Reply:
    """Read one response of HTTP/1.1."""
    async with asyncio.timeout(PATIENCE_S):
        status, headers = await read_head(reader)
        if is_head or status in (100, 204):
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = b""
            while chunk := await read_chunk(reader):
                body += chunk
        elif "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        else:
            body = await reader.read()
    return Reply(status, headers, body)


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Read the status and the headers."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    version, status, _ = head[0].split(" ", 2)
    assert version == "HTTP/1.1"
    pairs = [line.split(": ", 1) for line in head[1:-2]]
    headers = {name.lower(): value for name, value in pairs}
    assert len(headers) == len(pairs), head
    return int(status), headers


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """Read one chunk of a body; the last is empty."""
    size = int(await reader.readline(), 16)
    chunk = await reader.readexactly(size)
    assert await reader.readexactly(2) == b"\r\n"
    return chunk


async def exchange(path: str, *requests: bytes, is_head: bool = False) -> list[Reply]:
    """Send raw requests on one connection and read as many responses."""
    async with connected(path) as client:
        client.writer.write(b"".join(requests))
        return [await read_reply(client.reader, is_head=is_head) for _ in requests]


async def fetch(path: str, http_method: str, target: str, body: bytes | None = None, **headers: str) -> Reply:
    """One request on a connection of its own."""
    return (await exchange(path, raw_request(http_method, target, body, **headers), is_head=http_method == "HEAD"))[0]


def raw_request(http_method: str, target: str, body: bytes | None = None, **headers: str) -> bytes:
    """The bytes of a request; underscores in header names are hyphens."""
    lines: Iterable[str] = [f"{http_method} {target} HTTP/1.1", "Host: skilld"]
    lines = [*lines, *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    if body is not None:
        lines = [*lines, f"Content-Length: {len(body)}"]
    return "\r\n".join((*lines, "", "")).encode() + (body or b"")


def small(**changes: Any) -> Limits:
    """Limits that a test can reach."""
    return replace(Limits(), **changes)
