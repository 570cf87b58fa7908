"""
HTTP/1.1 on a Unix socket, as dstack's guest agent speaks it.

Two things the real agent has not: ``/simulator/faults``, which shows, sets and clears the faults, and a count of the
requests in flight.

Owns: the listening sockets, the connections and the faults.

Source: dstack's source, ra-rpc/src/rocket_helper.rs; pages and headers as dstack's own simulator sends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import email.utils
import functools
import http
import json
import os
import urllib.parse
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Literal

from . import messages
from .agent import Agent
from .faults import Fault, Faults, read_faults
from .messages import Rejected

BODY_LIMIT_BYTES = 10 * 1024 * 1024
HEAD_LIMIT_BYTES = 64 * 1024
# For a request's head, once it has begun, and between two requests; before the first there is no such limit.
HEADER_TIMEOUT_S = 15.0
FAULTS_PATH = "/simulator/faults"
CLOSE = "connection: close\r\n"
HTML, JSON, BINARY = "text/html; charset=utf-8", "application/json", "application/octet-stream"
HEADERS = (
    "server: dstack guest agent\r\nx-frame-options: SAMEORIGIN\r\npermissions-policy: interest-cohort=()\r\n"
    "x-content-type-options: nosniff\r\n"
)
DESCRIPTIONS = {
    404: "The requested resource could not be found.",
    422: "The request was well-formed but was unable to be followed due to semantic errors.",
}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
    <meta charset="utf-8">
    <meta name="color-scheme" content="light dark">
    <title>{status} {reason}</title>
</head>
<body align="center">
    <div role="main" align="center">
        <h1>{status}: {reason}</h1>
        <p>{description}</p>
        <hr />
    </div>
    <div role="contentinfo" align="center">
        <small>Rocket</small>
    </div>
</body>
</html>"""


@dataclass(frozen=True)
class Request:
    """One request; header names in lower case."""

    verb: str
    target: str
    version: str
    headers: Mapping[str, str]
    body: bytes
    is_too_large: bool = False

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def keeps_alive(self) -> bool:
        connection = self.headers.get("connection", "").lower()
        return "close" not in connection and (self.version == "HTTP/1.1" or "keep-alive" in connection)


@dataclass(frozen=True)
class Response:
    """One response; if less than all of it is ``sent``, the connection ends there."""

    status: int
    content_type: str
    body: bytes
    sent: Literal["all", "half", "nothing"] = "all"


class Malformed(Exception):
    """What came is no HTTP."""


class Server:
    """
    Serves one agent on one or two sockets.

    Attributes:
        faults: What goes wrong; may be changed at any time, from the server's own thread.
        begun: How many requests of each method have come.
        peak: The most that were ever in flight at once, of each method.
    """

    def __init__(self, agent: Agent, faults: Faults | None = None) -> None:
        self.agent = agent
        self.faults = faults or Faults()
        self.begun: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._connections: set[asyncio.Task[None]] = set()
        self._comes = asyncio.Condition()

    async def wait_begun(self, method: str, count: int) -> None:
        """Wait until so many requests of a method have come."""
        async with self._comes:
            await self._comes.wait_for(lambda: self.begun[method] >= count)

    @contextlib.asynccontextmanager
    async def serving(self, socket_path: str, tappd_path: str | None = None) -> AsyncIterator[None]:
        """
        Listen until the context ends; then every connection is closed at once, as if the agent had been killed.

        A socket file that is there already is replaced.

        Raises:
            OSError: a path that cannot be bound.
        """
        paths = {socket_path: False} | ({tappd_path: True} if tappd_path else {})
        async with contextlib.AsyncExitStack() as stack:
            for path, is_tappd in paths.items():
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                listener = await asyncio.start_unix_server(
                    functools.partial(self._accept, is_tappd),
                    path,
                    limit=HEAD_LIMIT_BYTES,
                    backlog=1_024,
                )
                stack.callback(_unlink_own, path, os.stat(path).st_ino)
                stack.callback(listener.close)
                # dstack's own sockets are open to everybody.
                os.chmod(path, 0o777)
            try:
                yield
            finally:
                for task in tuple(self._connections):
                    task.cancel()
                await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, is_tappd: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connection(reader, writer, is_tappd), name="simulator connection")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_tappd: bool) -> None:
        try:
            keeps_alive, first = True, await reader.readexactly(1)
            while keeps_alive and (request := await _read_request(first, reader, writer)):
                first = b""
                response = await self._respond(request, reader, is_tappd)
                keeps_alive = request.keeps_alive and response.sent == "all"
                writer.write(_encoded(request, response))
                await writer.drain()
        except Malformed:
            writer.write(_head("HTTP/1.1", 400, f"content-length: 0\r\n{CLOSE}"))
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        finally:
            with contextlib.suppress(OSError):
                writer.close()
                # Whoever does not read what is left, does not hold the end up.
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()

    async def _respond(self, request: Request, reader: asyncio.StreamReader, is_tappd: bool) -> Response:
        if request.path == FAULTS_PATH:
            return self._change_faults(request)
        method = _method(request, is_tappd)
        self.begun[method] += 1
        self._in_flight[method] += 1
        self.peak[method] = max(self.peak[method], self._in_flight[method])
        try:
            async with self._comes:
                self._comes.notify_all()
            for fault in self.faults.strike(method):
                if fault.kind == "latency":
                    await asyncio.sleep(fault.seconds)
                elif fault.kind == "hang":
                    await _gone(reader)
                    return Response(200, JSON, b"", sent="nothing")
                else:
                    return _struck(fault, self._unstruck(request, is_tappd))
            return self._unstruck(request, is_tappd)
        finally:
            self._in_flight[method] -= 1

    def _unstruck(self, request: Request, is_tappd: bool) -> Response:
        """The answer that no fault has touched."""
        accept = request.headers.get("accept", "")
        if request.verb not in ("GET", "HEAD", "POST"):
            return _page(404, accept)
        prefix = "/prpc/" if is_tappd else "/"
        segment = request.path.removeprefix(prefix)
        if not request.path.startswith(prefix) or "/" in segment:
            return _page(404, accept)
        if not segment:
            return _page(422 if not is_tappd else 404, accept)
        method = _method(request, is_tappd)
        is_query = request.verb != "POST"
        # An error that comes before the method looks at the query string alone.
        asks_for_json = is_query or _flag(request.query, "json")
        if request.is_too_large:
            return _error("failed to read data: payload too large", asks_for_json)
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = asks_for_json or content_type == JSON
        try:
            return self._call(request, method, is_tappd, is_query, is_json)
        except Rejected as exc:
            return _error(str(exc), is_json)

    def _call(self, request: Request, method: str, is_tappd: bool, is_query: bool, is_json: bool) -> Response:
        known = self.agent.tappd_methods if is_tappd else self.agent.profile.methods
        if method not in known:
            raise Rejected(f"Service not found: {method}")
        name = f"Tappd.{method}" if is_tappd else method
        values: messages.Values = {}
        if (fields := messages.REQUESTS[name]) is not None:
            if is_query:
                values = messages.from_query(fields, request.query)
            else:
                values = (messages.from_json if is_json else messages.from_protobuf)(fields, request.body)
        reply = self.agent.call(name, values)
        encode = messages.to_json if is_json else messages.to_protobuf
        return Response(200, JSON if is_json else BINARY, encode(messages.REPLIES[name], reply))

    def _change_faults(self, request: Request) -> Response:
        """Show the faults (GET), set them all (PUT), add some (POST) or clear them (DELETE)."""
        try:
            new = read_faults(request.body) if request.verb in ("PUT", "POST") else []
        except ValueError as exc:
            return Response(400, JSON, messages.error_json(str(exc)))
        if request.verb in ("PUT", "DELETE"):
            self.faults.clear()
        for fault in new:
            self.faults.add(fault)
        return Response(200, JSON, json.dumps([dataclasses.asdict(fault) for fault in self.faults]).encode())


def _method(request: Request, is_tappd: bool) -> str:
    name = urllib.parse.unquote(request.path.rpartition("/")[2])
    return name.removeprefix("Tappd.") if is_tappd else name


async def _gone(reader: asyncio.StreamReader) -> None:
    """Wait until the caller has closed the connection."""
    while await reader.read(HEAD_LIMIT_BYTES):
        pass


def _struck(fault: Fault, response: Response) -> Response:
    """What a fault makes of a response."""
    if fault.kind in ("cut", "drop"):
        return dataclasses.replace(response, sent="half" if fault.kind == "cut" else "nothing")
    return {
        "reject": Response(400, JSON, messages.error_json(fault.text)),
        "html": _page(404, ""),
        "garbage": Response(200, JSON, b"{\xff]"),
        "shape": Response(200, JSON, b'{"simulated":["fault"]}'),
    }[fault.kind]


def _flag(query: str, name: str) -> bool:
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
    return next((value in ("", "1", "true") for key, value in pairs if key == name), False)


def _error(text: str, is_json: bool) -> Response:
    if is_json:
        return Response(400, JSON, messages.error_json(text))
    return Response(400, BINARY, messages.error_protobuf(text))


def _page(status: int, accept: str) -> Response:
    """A page of the web framework below the agent."""
    reason, description = http.HTTPStatus(status).phrase, DESCRIPTIONS[status]
    if JSON in accept:
        error = {"code": status, "reason": reason, "description": description}
        return Response(status, JSON, json.dumps({"error": error}, indent=2).encode())
    return Response(status, HTML, PAGE.format(status=status, reason=reason, description=description).encode())


def _encoded(request: Request, response: Response) -> bytes:
    """The bytes of a response; that to HEAD has no body."""
    headers = f"content-type: {response.content_type}\r\n{HEADERS}content-length: {len(response.body)}\r\n"
    head = _head(request.version, response.status, headers + ("" if request.keeps_alive else CLOSE))
    if response.sent == "nothing":
        return b""
    body = b"" if request.verb == "HEAD" else response.body
    return head + (body if response.sent == "all" else body[: len(body) // 2])


def _head(version: str, status: int, headers: str) -> bytes:
    date = email.utils.formatdate(usegmt=True)
    return f"{version} {status} {http.HTTPStatus(status).phrase}\r\n{headers}date: {date}\r\n\r\n".encode()


async def _read_request(first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The request that begins with ``first``, or None where the connection ends between two."""
    async with asyncio.timeout(HEADER_TIMEOUT_S):
        try:
            head = first + await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as exc:
            if exc.partial:
                raise
            return None
        except asyncio.LimitOverrunError as exc:
            raise Malformed from exc
    line, *rest = head[:-4].decode("latin-1").split("\r\n")
    parts = line.split(" ")
    if len(parts) != 3 or not parts[1].startswith("/") or parts[2] not in ("HTTP/1.0", "HTTP/1.1"):
        raise Malformed
    pairs = [header.partition(":") for header in rest]
    if not all(colon and name.strip() == name and name for name, colon, _ in pairs):
        raise Malformed
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body, is_too_large = await _read_body(reader, headers)
    return Request(parts[0], parts[1], parts[2], headers, body, is_too_large)


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> tuple[bytes, bool]:
    """The body, and whether it was too large; then it was read to its end, and is empty."""
    body, size = bytearray(), 0
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while chunk_size := _number((await reader.readline()).partition(b";")[0].strip(), 16):
            size += chunk_size
            await _take(reader, chunk_size, body if size <= BODY_LIMIT_BYTES else None)
            await reader.readexactly(2)
        while (await reader.readline()).strip():
            pass
    elif "content-length" in headers:
        size = _number(headers["content-length"].encode(), 10)
        await _take(reader, size, body if size <= BODY_LIMIT_BYTES else None)
    is_too_large = size > BODY_LIMIT_BYTES
    return (b"" if is_too_large else bytes(body)), is_too_large


async def _take(reader: asyncio.StreamReader, size: int, into: bytearray | None) -> None:
    while size:
        part = await reader.readexactly(min(size, HEAD_LIMIT_BYTES))
        size -= len(part)
        if into is not None:
            into += part


def _number(text: bytes, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError as exc:
        raise Malformed from exc
    if number < 0:
        raise Malformed
    return number


def _unlink_own(path: str, inode: int) -> None:
    """Remove the socket, unless another agent has replaced it."""
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path).st_ino == inode:
            os.unlink(path)
