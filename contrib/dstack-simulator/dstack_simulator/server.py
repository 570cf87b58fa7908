"""
The guest agent on its sockets: routes, connections, faults.

Two things the real agent has not: ``/simulator/faults``, which shows, sets and clears the faults, and a count of the
requests in flight.

Owns: the listening sockets, the connections and the faults.

Source: dstack's source, ra-rpc/src/rocket_helper.rs.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import urllib.parse
from collections import Counter
from collections.abc import AsyncIterator

from . import messages, protobuf
from .agent import Agent
from .faults import Fault, Faults, read_faults
from .http1 import (
    BINARY,
    HEAD_LIMIT_BYTES,
    JSON,
    Malformed,
    Request,
    Response,
    encoded,
    malformed,
    page,
    read_request,
)
from .messages import Rejected

FAULTS_PATH = "/simulator/faults"


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
            while keeps_alive and (request := await read_request(first, reader, writer)):
                first = b""
                response = await self._respond(request, reader, is_tappd)
                keeps_alive = request.keeps_alive and response.sent == "all"
                writer.write(encoded(request, response))
                await writer.drain()
        except Malformed:
            writer.write(malformed())
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
            return page(404, accept)
        prefix = "/prpc/" if is_tappd else "/"
        segment = request.path.removeprefix(prefix)
        if not request.path.startswith(prefix) or "/" in segment:
            return page(404, accept)
        if not segment:
            return page(422 if not is_tappd else 404, accept)
        method = _method(request, is_tappd)
        is_query = request.verb != "POST"
        # An error that comes before the method looks at the query string alone.
        asks_for_json = is_query or _flag(request.query, "json")
        if request.is_too_large:
            return self._error(Rejected("failed to read data", "payload too large"), asks_for_json)
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = asks_for_json or content_type == JSON
        try:
            return self._call(request, method, is_tappd, is_query, is_json)
        except Rejected as exc:
            return self._error(exc, is_json)

    def _call(self, request: Request, method: str, is_tappd: bool, is_query: bool, is_json: bool) -> Response:
        known = self.agent.tappd_methods if is_tappd else self.agent.profile.methods
        if method not in known:
            raise Rejected(f"Service not found: {method}")
        name = f"Tappd.{method}" if is_tappd else method
        values: messages.Values = {}
        if (all_fields := messages.REQUESTS[name]) is not None:
            fields = [field for field in all_fields if field.name not in self.agent.profile.unknown_fields]
            if is_query:
                values = messages.from_query(fields, request.query)
            else:
                values = (messages.from_json if is_json else protobuf.read)(fields, request.body)
        reply = self.agent.call(name, values)
        encode = messages.to_json if is_json else protobuf.write
        return Response(200, JSON if is_json else BINARY, encode(messages.REPLIES[name], reply))

    def _error(self, error: Rejected, is_json: bool) -> Response:
        text = error.text(on_lines=self.agent.profile.is_oldest)
        if is_json:
            return Response(400, JSON, messages.error_json(text))
        return Response(400, BINARY, protobuf.error(text))

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
        "html": page(404, ""),
        "garbage": Response(200, JSON, b"{\xff]"),
        "shape": Response(200, JSON, b'{"simulated":["fault"]}'),
    }[fault.kind]


def _flag(query: str, name: str) -> bool:
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
    return next((value in ("", "1", "true") for key, value in pairs if key == name), False)


def _unlink_own(path: str, inode: int) -> None:
    """Remove the socket, unless another agent has replaced it."""
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path).st_ino == inode:
            os.unlink(path)
