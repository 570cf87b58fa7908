"""
Measure what a call costs over the socket, beside the least that a call could cost.

Starts servers, each in a process of its own, and calls them in turn with one blocking client:

- ``echo``: a bare asyncio Protocol that parses a JSON line and prints it back,
- ``skilld lines``, ``skilld http``: the server with ``skilld.ping``, in both framings,
- ``starlette``: a minimal uvicorn + starlette app (left out where they are not installed).

Prints medians, the server's processor time a call, and the two ratios that matter: medians of the ratios of single
rounds, for what else the machine does changes over seconds, and over several launches, for one and the same program
is up to half slower in one process than in the next (measured). The client has one processor, the servers another.

    python contrib/bench/rpc.py [--launches 7] [--rounds 50] [--calls 100]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import orjson

from skilld.config import Access, Limits
from skilld.rpc.access import build_policy
from skilld.rpc.dispatch import Context, Dispatcher, Method
from skilld.rpc.server import Server

PING = b'{"jsonrpc":"2.0","method":"skilld.ping","id":1}'
LINE = PING + b"\n"
REQUEST = b"POST / HTTP/1.1\r\nHost: skilld\r\nContent-Length: %d\r\n\r\n%s" % (len(PING), PING)

# A name, what serves, and what calls.
Case = tuple[str, Callable[[str], None], Callable[[socket.socket], None]]


def main() -> None:
    """Run the servers and print the table."""
    parser = argparse.ArgumentParser(description="cost of a call over the socket")
    parser.add_argument("--launches", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=50, help="rounds a launch")
    parser.add_argument("--calls", type=int, default=100, help="calls a round")
    options = parser.parse_args()

    cases: list[Case] = [
        ("echo", serve_echo, call_line),
        ("skilld lines", serve_skilld, call_line),
        ("skilld http", serve_skilld, call_http),
    ]
    try:
        import starlette  # noqa: F401 - asks whether it is there
        import uvicorn  # noqa: F401 - likewise
    except ImportError:
        print("uvicorn and starlette are not installed: no comparison of HTTP")
    else:
        cases.append(("starlette", serve_starlette, call_http))

    times: dict[str, list[list[float]]] = {name: [] for name, _, _ in cases}
    used_s = dict.fromkeys(times, 0.0)
    for _ in range(options.launches):
        launch(cases, options.rounds, options.calls, times, used_s)
    for name, rounds in times.items():
        taken = sorted(one for taken in rounds for one in taken)
        p50, p99 = (taken[len(taken) * share // 100] * 1e6 for share in (50, 99))
        server = used_s[name] / len(taken) * 1e6
        print(f"{name:14} p50 {p50:6.1f} µs   p99 {p99:7.1f} µs   server {server:5.1f} µs a call")
    print(f"lines: skilld / echo       {ratio(times['skilld lines'], times['echo']):.2f}   (aim: 2 or less)")
    if "starlette" in times:
        print(f"http:  skilld / starlette  {ratio(times['skilld http'], times['starlette']):.2f}   (aim: 1 or less)")


def launch(
    cases: list[Case], rounds: int, calls: int, times: dict[str, list[list[float]]], used_s: dict[str, float]
) -> None:
    """Start every case's server, call them in turn, and add up what it took."""
    processors = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        clients = {}
        for name, serve, _ in cases:
            path = os.path.join(directory, name)
            process = multiprocessing.get_context("spawn").Process(target=serve, args=(path,))
            process.start()
            assert process.pid is not None
            stack.callback(process.join)
            stack.callback(process.terminate)
            clients[name] = (stack.enter_context(connect(path)), process.pid)
            os.sched_setaffinity(process.pid, {processors[-1]})
        os.sched_setaffinity(0, {processors[0]})
        for _ in range(rounds):
            for name, _, call in cases:
                sock, pid = clients[name]
                before_s = processor_s(pid)
                times[name].append([timed(call, sock) for _ in range(calls)])
                used_s[name] += processor_s(pid) - before_s
        os.sched_setaffinity(0, set(processors))


def ratio(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """The median of the ratios of the rounds' medians."""
    pairs = zip(ours, theirs, strict=True)
    return statistics.median(statistics.median(our) / statistics.median(their) for our, their in pairs)


def timed(call: Callable[[socket.socket], None], sock: socket.socket) -> float:
    """Seconds that one call takes."""
    begun = time.perf_counter()
    call(sock)
    return time.perf_counter() - begun


def processor_s(pid: int) -> float:
    """Seconds of processor time that the main thread of a process has used."""
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0]) / 1e9


def connect(path: str) -> socket.socket:
    """Connect, once the server is there."""
    deadline = time.monotonic() + 20
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
            return sock
        except OSError:
            sock.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def call_line(sock: socket.socket) -> None:
    """One round trip of a JSON line."""
    sock.sendall(LINE)
    reply = sock.recv(65536)
    assert reply.endswith(b"\n"), reply


def call_http(sock: socket.socket) -> None:
    """One round trip over HTTP on a kept connection."""
    sock.sendall(REQUEST)
    reply = sock.recv(65536)
    # Some servers write head and body apart.
    while not reply.endswith(b"}"):
        reply += sock.recv(65536)
    assert reply.startswith(b"HTTP/1.1 200"), reply


def serve_echo(path: str) -> None:
    """A bare Protocol: the least that a server of JSON lines in asyncio can do."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            self.rest = b""

        def data_received(self, data: bytes) -> None:
            *lines, self.rest = (self.rest + data).split(b"\n")
            self.transport.write(b"".join(orjson.dumps(orjson.loads(line)) + b"\n" for line in lines))

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_unix_server(Echo, path)
        await server.serve_forever()

    asyncio.run(serve())


def serve_skilld(path: str) -> None:
    """The server of skilld with one method."""

    async def ping(_: Context[None], /) -> dict[str, Any]:
        """Answer."""
        return {}

    class Events:
        def subscribe(self, _: Callable[[Any], None], /) -> Callable[[], None]:
            return lambda: None

        def changes_since(self, _: str | None, /) -> Any:
            return SimpleNamespace(revision="0:0", added=(), updated=(), removed=(), is_complete=True)

    async def serve() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        limits = Limits()
        dispatcher = Dispatcher([Method("skilld.ping", "read", (), ping, {})], None, limits)
        policy = build_policy(Access(), daemon_uid=os.getuid(), socket_gid=os.getgid())
        server = Server(dispatcher, limits, policy=policy, events=Events(), health=lambda: True)
        await server.start(sock)
        await asyncio.Event().wait()

    asyncio.run(serve())


def serve_starlette(path: str) -> None:
    """What a service over HTTP is usually made of; without uvloop, as skilld is."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def answer(request: Request) -> JSONResponse:
        message = await request.json()
        return JSONResponse({"jsonrpc": "2.0", "result": {}, "id": message["id"]})

    app = Starlette(routes=[Route("/", answer, methods=["POST"])])
    uvicorn.run(app, uds=path, loop="asyncio", http="httptools", access_log=False, log_level="error")


if __name__ == "__main__":
    main()
