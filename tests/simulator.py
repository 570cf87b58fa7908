"""
The double of dstack's guest agent, running beside a test.

    with simulated(profile="0.6.0", platform="snp") as agent:
        AsyncDstackClient(agent.socket_path)
        agent.fail("latency", "GetQuote", seconds=5)
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from dstack_simulator.agent import Agent
from dstack_simulator.faults import Fault
from dstack_simulator.machine import Machine
from dstack_simulator.profile import DEFAULT_PROFILE, PROFILES
from dstack_simulator.server import FAULTS_PATH, Server

PROGRAM = Path(__file__).parent.parent / "contrib" / "dstack-simulator"
SEED = b"tests"
# Seconds in which it starts, stops and answers.
PATIENCE_S = 20.0

T = TypeVar("T")


class Simulator:
    """
    A guest agent on a thread of this process.

    Attributes:
        machine: What it speaks for; its ``kms_root`` is the key in which every chain ends. It outlives a restart of
            the agent, as a real one does.
        socket_path: Where it listens, a path short enough for a socket.
        tappd_path: Where it serves the legacy methods.
    """

    def __init__(self, agent: Agent, directory: str) -> None:
        self.machine = agent.machine
        self.profile = agent.profile
        self.socket_path = f"{directory}/dstack.sock"
        self.tappd_path = f"{directory}/tappd.sock"
        self._server = Server(agent)
        # State of the running thread.
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> None:
        """Listen; returns when a client can connect."""
        assert self._thread is None
        is_listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(is_listening)), name="simulator")
        self._thread.start()
        assert is_listening.wait(PATIENCE_S), "the simulator did not start"

    def stop(self) -> None:
        """Close every connection in the middle of whatever it does, and remove the sockets, as if it were killed."""
        if self._thread is not None:
            assert self._stop is not None
            self._tell(self._stop.set)
            self._thread.join(PATIENCE_S)
            assert not self._thread.is_alive(), "the simulator did not stop"
            self._thread = None

    def fail(self, kind: str, method: str = "*", **given: Any) -> None:
        """Switch a fault on: see :class:`dstack_simulator.faults.Fault`."""
        fault = Fault(kind, method, **given)
        self._tell(lambda: self._server.faults.add(fault))

    def heal(self) -> None:
        """Switch all faults off."""
        self._tell(self._server.faults.clear)

    def answered(self, method: str) -> int:
        """How many requests of a method were begun."""
        return self._tell(lambda: self._server.answered[method])

    def peak(self, method: str) -> int:
        """The most requests of a method that were ever in flight at once."""
        return self._tell(lambda: self._server.peak[method])

    def _tell(self, act: Callable[[], T]) -> T:
        """Do something on the agent's own thread."""
        assert self._loop is not None

        async def done() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(PATIENCE_S)

    async def _serve(self, is_listening: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._server.serving(self.socket_path, self.tappd_path):
            is_listening.set()
            await self._stop.wait()


class SimulatorProcess:
    """A guest agent as a process of its own."""

    def __init__(self, socket_path: str, arguments: list[str]) -> None:
        self.socket_path = socket_path
        self._command = [sys.executable, str(PROGRAM), "--socket", socket_path, *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when a client can connect."""
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        # It speaks when it listens; the pipe stays open for what it says later.
        line = self._process.stderr.readline()
        assert line.startswith(b"simulated dstack"), line + self._process.stderr.read()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; the exit code."""
        assert self._process is not None and self._process.stderr is not None
        self._process.send_signal(number)
        with self._process.stderr:
            return self._process.wait(PATIENCE_S)

    def fail(self, kind: str, method: str = "*", **given: Any) -> None:
        """Switch a fault on."""
        request(self.socket_path, "POST", FAULTS_PATH, [dataclasses.asdict(Fault(kind, method, **given))])

    def heal(self) -> None:
        """Switch all faults off."""
        request(self.socket_path, "DELETE", FAULTS_PATH)


@contextlib.contextmanager
def simulated(
    profile: str = DEFAULT_PROFILE,
    platform: str = "tdx",
    *,
    event_version: int = 1,
    has_kms: bool = True,
    seed: bytes = SEED,
) -> Iterator[Simulator]:
    """A guest agent that listens; stopped at the end."""
    machine = Machine(seed, event_version=event_version, has_kms=has_kms)
    with tempfile.TemporaryDirectory(prefix="dstack-") as directory:
        # A caller of another user id reaches the socket, as it does /run/dstack.sock.
        os.chmod(directory, 0o755)
        simulator = Simulator(Agent(machine, PROFILES[profile], platform), directory)
        simulator.start()
        try:
            yield simulator
        finally:
            simulator.stop()


@contextlib.contextmanager
def spawned(*arguments: str) -> Iterator[SimulatorProcess]:
    """A guest agent as a process; killed at the end if it still runs."""
    with tempfile.TemporaryDirectory(prefix="dstack-") as directory:
        simulator = SimulatorProcess(f"{directory}/dstack.sock", list(arguments))
        simulator.start()
        try:
            yield simulator
        finally:
            if simulator._process is not None and simulator._process.poll() is None:
                simulator.stop(signal.SIGKILL)


def request(socket_path: str, verb: str, target: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """One JSON request on a connection of its own: status, and the body parsed if it is JSON."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{verb} {target} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(content)}"]
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
    lines += [f"{name}: {text}" for name, text in given.items()]
    status, got, text = raw(socket_path, "\r\n".join([*lines, "", ""]).encode() + content)
    return status, json.loads(text) if got.get("content-type") == "application/json" else text


def raw(socket_path: str, content: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes, read to the end: status, headers by lower-case name, body."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(socket_path)
        connection.sendall(content)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(": ") for line in rest]
    return int(first.split(" ")[1]) if first else 0, {name.lower(): text for name, _, text in pairs}, body
