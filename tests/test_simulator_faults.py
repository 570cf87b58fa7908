"""The double's faults, its life and its command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dstack_simulator.server import FAULTS_PATH

from tests.simulator import PATIENCE_S, PROGRAM, Simulator, raw, request, simulated, spawned

GET_VERSION = b"GET /Version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def running() -> Iterator[Simulator]:
    """One double for all tests of faults."""
    with simulated() as simulator:
        yield simulator


@pytest.fixture
def agent(running: Simulator) -> Iterator[Simulator]:
    """It, in good health before and after."""
    running.heal()
    yield running
    running.heal()


class Caller:
    """One request whose answer is waited for later."""

    def __init__(self, path: str, content: bytes = GET_VERSION) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(path)
        self.socket.sendall(content)

    def answer(self) -> bytes:
        """All that comes until the end."""
        with self.socket:
            return b"".join(iter(lambda: self.socket.recv(1 << 16), b""))

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *unused: object) -> None:
        self.socket.close()


def test_a_latency_holds_the_answer_back(agent: Simulator) -> None:
    """And it is whole then."""
    agent.fail("latency", "Version", seconds=0.2)
    began = time.monotonic()
    with Caller(agent.socket_path) as slow:
        assert b'{"version":"0.5.11"' in slow.answer()
    assert time.monotonic() - began >= 0.2


def test_a_hang_never_answers(agent: Simulator) -> None:
    """Until the caller gives up; others are served meanwhile."""
    agent.fail("hang", "Version", times=1)
    seen = agent.begun("Version")
    with Caller(agent.socket_path) as hung:
        agent.wait_begun("Version", seen + 1)
        assert request(agent.socket_path, "GET", "/Version")[0] == 200
        hung.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            hung.socket.recv(1)


def test_a_cut_ends_in_the_middle_of_the_body(agent: Simulator) -> None:
    """The headers promise more than comes."""
    whole = raw(agent.socket_path, GET_VERSION)[2]
    agent.fail("cut")
    status, headers, body = raw(agent.socket_path, GET_VERSION)
    assert (status, int(headers["content-length"]), body) == (200, len(whole), whole[: len(whole) // 2])


def test_a_drop_sends_nothing(agent: Simulator) -> None:
    """Not a byte."""
    agent.fail("drop")
    assert Caller(agent.socket_path).answer() == b""


@pytest.mark.parametrize(
    ("kind", "status", "content_type", "part"),
    [
        ("reject", 400, "application/json", b'{\n  "error": "no quote today"\n}'),
        ("html", 404, "text/html; charset=utf-8", b"<title>404 Not Found</title>"),
        ("garbage", 200, "application/json", b"\xff"),
        ("shape", 200, "application/json", b'{"simulated":["fault"]}'),
    ],
)
def test_an_answer_is_replaced(agent: Simulator, kind: str, status: int, content_type: str, part: bytes) -> None:
    """By an error, by a page, by what is no JSON, by other JSON."""
    agent.fail(kind, "Version", **({"text": "no quote today"} if kind == "reject" else {}))
    got, headers, body = raw(agent.socket_path, GET_VERSION)
    assert (got, headers["content-type"], part in body) == (status, content_type, True)
    assert request(agent.socket_path, "GET", "/GetKey")[0] == 200
    agent.heal()
    assert request(agent.socket_path, "GET", "/Version")[0] == 200


def test_a_fault_may_strike_a_number_of_times(agent: Simulator) -> None:
    """Latency comes before another fault, whatever the order in which they were switched on."""
    agent.fail("reject", "Version", text="no", times=2)
    agent.fail("latency", "*", seconds=0.01, times=1)
    statuses = [request(agent.socket_path, "GET", "/Version")[0] for _ in range(3)]
    assert statuses == [400, 400, 200]


def test_faults_are_switched_over_http_too(agent: Simulator) -> None:
    """So that a process of its own can be told: POST adds, PUT replaces, DELETE clears, GET shows."""
    path = agent.socket_path
    hang = {"kind": "hang", "method": "Sign", "seconds": 0.0, "text": "simulated failure", "times": None}
    cut = {**hang, "kind": "cut", "method": "*", "times": 3}
    assert request(path, "POST", FAULTS_PATH, [{"kind": "hang", "method": "Sign"}]) == (200, [hang])
    assert request(path, "POST", FAULTS_PATH, [cut]) == (200, [hang, cut])
    assert request(path, "GET", FAULTS_PATH) == (200, [hang, cut])
    assert request(path, "PUT", FAULTS_PATH, [cut]) == (200, [cut])
    status, reply = request(path, "PUT", FAULTS_PATH, [{"kind": "nope"}])
    assert (status, reply["error"].startswith("no such fault: 'nope'")) == (400, True)
    assert request(path, "GET", FAULTS_PATH) == (200, [cut])
    assert request(path, "DELETE", FAULTS_PATH) == (200, [])


def test_requests_in_flight_are_counted(agent: Simulator) -> None:
    """What a client promises about how many it sends at once can be seen."""
    agent.fail("hang", "Attest")
    before = agent.begun("Attest")
    callers = [Caller(agent.socket_path, GET_VERSION.replace(b"Version", b"Attest")) for _ in range(7)]
    agent.wait_begun("Attest", before + 7)
    assert agent.peak("Attest") == 7
    for caller in callers:
        caller.socket.close()
    agent.heal()
    assert request(agent.socket_path, "POST", "/Attest", {})[0] == 200


def test_a_hundred_callers_at_once_are_answered(agent: Simulator) -> None:
    """Each on a connection of its own."""
    callers = [Caller(agent.socket_path) for _ in range(100)]
    assert [b'{"version":"0.5.11"' in caller.answer() for caller in callers] == [True] * 100


def test_a_killed_agent_comes_back_with_its_machine() -> None:
    """Connections break off, the socket is gone; then keys and register 3 are what they were."""
    with simulated("0.5.6") as agent:
        assert request(agent.socket_path, "POST", "/EmitEvent", {"event": "a", "payload": "00"}) == (200, None)
        before = request(agent.socket_path, "POST", "/GetKey", {})
        register = json.loads(request(agent.socket_path, "POST", "/Info", {})[1]["tcb_info"])["rtmr3"]
        agent.fail("hang", "Sign")
        with Caller(agent.socket_path, GET_VERSION.replace(b"Version", b"Sign")) as hung:
            agent.wait_begun("Sign", 1)
            agent.stop()
            assert hung.answer() == b""
        assert not os.path.exists(agent.socket_path)
        agent.start()
        agent.heal()
        assert request(agent.socket_path, "POST", "/GetKey", {}) == before
        assert json.loads(request(agent.socket_path, "POST", "/Info", {})[1]["tcb_info"])["rtmr3"] == register


async def test_a_double_beside_a_loop_does_not_disturb_it() -> None:
    """It has its own thread, so that async tests may use it as they are."""
    with simulated() as agent:
        reader, writer = await asyncio.open_unix_connection(agent.socket_path)
        writer.write(GET_VERSION)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()


class TestCommand:
    """``python contrib/dstack-simulator``."""

    def test_it_serves_until_it_is_told_to_stop(self) -> None:
        """The socket is open to all, as dstack's is; a clean end takes it away."""
        with spawned("--profile", "0.6.0", "--platform", "snp", "--seed", "other") as agent:
            assert request(agent.socket_path, "GET", "/Version")[1]["version"] == "0.6.0"
            assert request(agent.socket_path, "POST", "/GetQuote", {})[1]["quote"] == ""
            assert stat.S_IMODE(os.stat(agent.socket_path).st_mode) == 0o777
            agent.fail("reject", "Info", text="no")
            assert request(agent.socket_path, "GET", "/Info") == (400, {"error": "no"})
            agent.heal()
            assert request(agent.socket_path, "GET", "/Info")[0] == 200
            assert agent.stop(signal.SIGTERM) == 0
            assert not os.path.exists(agent.socket_path)

    def test_a_killed_one_leaves_a_socket_that_the_next_replaces(self) -> None:
        """As nobody listens there any more."""
        with spawned("--fault", "reject:Version:not now", "--no-kms") as agent:
            assert request(agent.socket_path, "GET", "/Version") == (400, {"error": "not now"})
            assert request(agent.socket_path, "GET", "/GetKey")[1]["signature_chain"][1] == ""
            assert agent.stop(signal.SIGKILL) == -signal.SIGKILL
            assert os.path.exists(agent.socket_path)
            agent.start()
            assert request(agent.socket_path, "GET", "/GetKey")[0] == 200
            assert agent.stop(signal.SIGINT) == 0

    @pytest.mark.parametrize(
        ("arguments", "code", "text"),
        [
            (["--socket", "{}/s", "--profile", "1.0"], 2, "invalid choice"),
            (["--socket", "{}/s", "--platform", "snp"], 2, "dstack 0.5.11 knows neither SEV-SNP"),
            (["--socket", "{}/s", "--fault", "nope"], 2, "no such fault: 'nope'"),
            (["--socket", "{}/none/s"], 1, "No such file or directory"),
            ([], 2, "--socket"),
        ],
    )
    def test_what_cannot_be_is_said(self, arguments: list[str], code: int, text: str) -> None:
        """Usage is 2, a socket that cannot be had is 1."""
        with tempfile.TemporaryDirectory(prefix="dstack-") as directory:
            command: list[Any] = [sys.executable, PROGRAM, *(part.format(directory) for part in arguments)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr

    def test_a_missing_package_is_named(self, tmp_path: Path) -> None:
        """With what to install; that is all that it needs beside Python."""
        (tmp_path / "cryptography.py").write_text("raise ModuleNotFoundError('x', name='cryptography')")
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command: list[Any] = [sys.executable, PROGRAM, "--socket", "x"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert (done.returncode, "pip install '.[tee]'" in done.stderr) == (1, True), done.stderr

    def test_it_needs_one_package(self) -> None:
        """cryptography, and its own modules: none of skilld, no SDK."""
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); import dstack_simulator.main; "
            "print(*sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))"
        )
        done = subprocess.run([sys.executable, "-c", code, PROGRAM], capture_output=True, text=True, check=True)
        found = {name for name in done.stdout.split() if not name.startswith(("_", "__editable__"))}
        assert found - {"cffi", "sitecustomize"} == {"cryptography", "dstack_simulator"}
