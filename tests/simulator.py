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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from dstack_simulator import secp256k1
from dstack_simulator.agent import Agent
from dstack_simulator.faults import Fault
from dstack_simulator.keccak import keccak256
from dstack_simulator.machine import Machine
from dstack_simulator.profile import DEFAULT_PROFILE, PROFILES
from dstack_simulator.server import FAULTS_PATH, Server
from eth_keys.datatypes import Signature

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

    def begun(self, method: str) -> int:
        """How many requests of a method have come since it was made."""
        return self._tell(lambda: self._server.begun[method])

    def wait_begun(self, method: str, count: int) -> None:
        """Wait until so many have come."""
        assert self._loop is not None
        waiting = self._server.wait_begun(method, count)
        asyncio.run_coroutine_threadsafe(waiting, self._loop).result(PATIENCE_S)

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


@dataclass(frozen=True)
class Target:
    """
    A guest agent that the suite looks at: the double, or the one of DSTACK_SIMULATOR_ENDPOINT.

    Attributes:
        simulator: The double, or None for a real one.
        version: As numbers, (0, 5, 11).
        kms_root: The public key in which chains end, where it is known.
    """

    socket_path: str
    version: tuple[int, ...]
    platform: str
    simulator: Simulator | None = None
    tappd_path: str | None = None
    kms_root: bytes | None = None
    event_version: int = 1

    @property
    def is_double(self) -> bool:
        return self.simulator is not None

    def call(self, method: str, **params: Any) -> Any:
        """The reply; bytes among the params are written as hex."""
        status, reply = self.ask(method, **params)
        assert status == 200, reply
        return reply

    def error(self, method: str, **params: Any) -> str:
        """The text of an error."""
        status, reply = self.ask(method, **params)
        assert (status, list(reply)) == (400, ["error"]), reply
        text: str = reply["error"]
        return text

    def ask(self, method: str, **params: Any) -> tuple[int, Any]:
        """Status and reply."""
        written = {name: value.hex() if isinstance(value, bytes) else value for name, value in params.items()}
        return request(self.socket_path, "POST", f"/{method}", written)

    def needs(self, version: tuple[int, ...], what: str) -> None:
        """Skip the test where this version is too old for it."""
        if self.version < version:
            pytest.skip(f"dstack {'.'.join(map(str, self.version))} has no {what}")


ENDPOINT = os.environ.get("DSTACK_SIMULATOR_ENDPOINT")
DOUBLES = ("0.5.5", "0.5.6", "0.5.11", "0.6.0", "0.6.0-snp", "0.6.0-events2", "0.5.11-nokms")
TARGETS = ("real",) if ENDPOINT else DOUBLES


@contextlib.contextmanager
def target(name: str) -> Iterator[Target]:
    """One of :data:`TARGETS`, running."""
    if name == "real":
        yield real_target()
        return
    profile, _, variant = name.partition("-")
    event_version = 2 if variant == "events2" else 1
    platform = "snp" if variant == "snp" else "tdx"
    with simulated(profile, platform, event_version=event_version, has_kms=variant != "nokms") as simulator:
        yield Target(
            simulator.socket_path,
            numbers(profile),
            platform,
            simulator,
            simulator.tappd_path,
            secp256k1.public_key(simulator.machine.kms_root),
            event_version,
        )


def real_target() -> Target:
    """The agent that the environment names, after a look at what it is."""
    path = ENDPOINT or ""
    status, reply = request(path, "POST", "/Version", {})
    if status == 200:
        version = reply["version"]
    else:
        # The oldest ones do not say; what they lack tells them apart.
        has_sign = request(path, "POST", "/Sign", {})[1]["error"] == "Unsupported algorithm"
        version = "0.5.6" if has_sign else "0.5.5"
    tcb_info = json.loads(request(path, "POST", "/Info", {})[1]["tcb_info"])
    platform = "tdx" if tcb_info["mrtd"] else "snp"
    versions = {event.get("version", 1) for event in tcb_info["event_log"] if event["imr"] == 3}
    tappd_path = os.environ.get("TAPPD_SIMULATOR_ENDPOINT")
    return Target(path, numbers(version), platform, tappd_path=tappd_path, event_version=max(versions, default=1))


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def recovered(signature: bytes, message: bytes) -> bytes:
    """The compressed public key that made a recoverable signature over a message, by another implementation."""
    return Signature(signature).recover_public_key_from_msg_hash(keccak256(message)).to_compressed_bytes()
