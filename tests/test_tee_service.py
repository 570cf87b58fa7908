"""The guest agent as skilld asks it: outcomes, turns, time, and a client for life."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skilld.errors import (
    Busy,
    SkilldError,
    TeeProtocol,
    TeeRejected,
    TeeTimeout,
    TeeUnavailable,
    TeeUnsupported,
)
from skilld.tee import endpoint, service
from skilld.tee.service import Tee
from tests.simulator import Simulator, simulated

# As in every call that should be answered.
PATIENCE_S = 20.0
SECRET = bytes.fromhex("5ec7e7" * 20)

Call = Callable[[Tee], Awaitable[Any]]
TLS_OPTIONS = {"subject": "app", "usage_server_auth": True}
CALLS: dict[str, Call] = {
    "Info": lambda tee: tee.info(),
    "Version": lambda tee: tee.version(),
    "GetQuote": lambda tee: tee.quote(b"data"),
    "Attest": lambda tee: tee.attest(b"data"),
    "GetKey": lambda tee: tee.derive_key("path", "purpose", "secp256k1"),
    "Sign": lambda tee: tee.sign("ed25519", SECRET),
    "Verify": lambda tee: tee.verify("ed25519", SECRET, bytes(64), bytes(32)),
    "EmitEvent": lambda tee: tee.emit_event("event", b"payload"),
    "GetTlsKey": lambda tee: tee.tls_key(**TLS_OPTIONS),
}
NAMES = {
    "Info": "tee.info",
    "Version": "tee.version",
    "GetQuote": "tee.quote",
    "Attest": "tee.attest",
    "GetKey": "tee.derive_key",
    "Sign": "tee.sign",
    "Verify": "tee.verify",
    "EmitEvent": "tee.emit_event",
    "GetTlsKey": "tee.tls_key",
}


@pytest.fixture
def agent() -> Iterator[Simulator]:
    with simulated() as running:
        yield running


@pytest.fixture
async def tee(agent: Simulator) -> AsyncIterator[Tee]:
    asked = Tee(agent.socket_path, PATIENCE_S)
    yield asked
    await asked.close()


async def refusal(awaitable: Awaitable[Any]) -> SkilldError:
    """The error that a call ends with."""
    with pytest.raises(SkilldError) as caught:
        await awaitable
    return caught.value


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("cut", TeeUnavailable),
        ("drop", TeeUnavailable),
        ("reject", TeeRejected),
        ("html", TeeProtocol),
        ("garbage", TeeProtocol),
        ("shape", TeeProtocol),
    ],
)
async def test_every_fault_has_its_error(agent: Simulator, tee: Tee, fault: str, expected: type[SkilldError]) -> None:
    """Whatever was called; the error names the method or the endpoint, and the next call works."""
    for rpc, call in CALLS.items():
        if rpc == "EmitEvent" and fault == "shape":
            continue  # the reply of this one is not looked at
        agent.fail(fault, rpc, text="no luck today")
        error = await refusal(call(tee))
        assert type(error) is expected, (rpc, error)
        if expected is TeeRejected:
            assert error.facts == {"method": NAMES[rpc], "error": "no luck today"}
        elif expected is TeeProtocol:
            assert error.facts == {"method": NAMES[rpc]}
        else:
            assert error.facts["endpoint"] == agent.socket_path
        agent.heal()
        await call(tee)


@pytest.mark.parametrize(
    ("profile", "lacking"),
    [
        ("0.5.5", {"Version", "Attest", "Sign", "Verify"}),
        ("0.5.6", {"Version"}),
        ("0.5.11", set()),
        ("0.6.0", {"EmitEvent"}),
    ],
)
async def test_what_a_version_lacks_is_unsupported(profile: str, lacking: set[str]) -> None:
    """With the OS's version, where it can say it; everything else is answered."""
    version = profile if profile in ("0.5.11", "0.6.0") else "before 0.5.7"
    with simulated(profile) as agent:
        tee = Tee(agent.socket_path, PATIENCE_S)
        for rpc, call in CALLS.items():
            if rpc in lacking:
                error = await refusal(call(tee))
                assert type(error) is TeeUnsupported
                assert error.facts == {"method": NAMES[rpc], "os_version": version}
            else:
                await call(tee)
        await tee.close()


@pytest.mark.parametrize(("profile", "is_there"), [("0.5.5", False), ("0.5.6", True), ("0.5.11", True)])
async def test_ed25519_is_had_where_the_os_has_it(profile: str, is_there: bool) -> None:
    """An old OS ignores the algorithm, so that its key would be another's; 0.5.6 has it and cannot say its version."""
    with simulated(profile) as agent:
        tee = Tee(agent.socket_path, PATIENCE_S)
        if is_there:
            assert len((await tee.derive_key("p", "", "ed25519"))["key"]) == 64
        else:
            error = await refusal(tee.derive_key("p", "", "ed25519"))
            assert str(error) == "tee.derive_key for ed25519 does not exist on dstack OS before 0.5.7"
        await tee.close()


async def test_a_slow_version_is_no_old_os(agent: Simulator) -> None:
    """The SDK takes any failure of its question for the version for an old OS."""
    tee = Tee(agent.socket_path, 0.2)
    await tee.info()
    agent.fail("hang", "Version")
    assert type(await refusal(tee.derive_key("p", "", "ed25519"))) is TeeTimeout
    assert type(await refusal(tee.tls_key(**TLS_OPTIONS, with_app_info=True))) is TeeTimeout
    agent.heal()
    agent.fail("drop", "Version")
    assert type(await refusal(tee.derive_key("p", "", "ed25519"))) is TeeUnavailable
    await tee.close()


async def test_registers_may_be_null() -> None:
    """Off TDX there are none, and the SDK's model demands them."""
    with simulated("0.6.0", "snp") as agent:
        tee = Tee(agent.socket_path, PATIENCE_S)
        info = await tee.info()
        assert info["app_id"] == agent.machine.app_id.hex()
        assert info["tcb_info"]["mrtd"] is None
        assert (await tee.quote(b"x"))["quote"] == ""
        await tee.close()


async def test_a_hung_agent_times_out(agent: Simulator) -> None:
    """After the time that is set, waiting for one's turn included; later calls work."""
    tee = Tee(agent.socket_path, 0.2)
    await tee.version()
    agent.fail("hang")
    rpcs = ["Info", "GetQuote", "EmitEvent"] * 10
    errors = await asyncio.gather(*(refusal(CALLS[rpc](tee)) for rpc in rpcs))
    assert {type(error) for error in errors} == {TeeTimeout}
    assert errors[1].facts == {"method": "tee.quote", "timeout_s": 0.2}
    agent.heal()
    # The one that hung has its turn until its own time is over.
    tee.timeout_s = PATIENCE_S
    await asyncio.gather(*(CALLS[rpc](tee) for rpc in rpcs))
    await tee.close()


async def test_a_call_that_only_reads_is_made_again_once(agent: Simulator, tee: Tee) -> None:
    """The agent was restarted in the middle of it; a signature is not asked for twice."""
    agent.fail("cut", "Info", times=1)
    await tee.info()
    assert agent.begun("Info") == 2
    agent.fail("cut", "Sign", times=1)
    assert type(await refusal(tee.sign("ed25519", b"x"))) is TeeUnavailable
    assert agent.begun("Sign") == 1


async def test_few_calls_are_in_flight(agent: Simulator, tee: Tee) -> None:
    """A hundred at once are all answered, four at a time; quotes, attestations and events one at a time."""
    agent.fail("latency", seconds=0.01)
    await asyncio.gather(*(tee.version() for _ in range(60)), *(tee.sign("ed25519", b"x") for _ in range(40)))
    assert agent.peak("Version") == service.QUESTIONS_IN_FLIGHT_LIMIT
    assert agent.peak("Sign") == service.IN_FLIGHT_LIMIT
    alone = [tee.quote(b"x"), tee.attest(b"x"), tee.emit_event("e", b"")]
    await asyncio.gather(*alone, tee.quote(b"y"), tee.attest(b"y"), tee.emit_event("f", b""))
    assert [agent.peak(rpc) for rpc in ("GetQuote", "Attest", "EmitEvent")] == [1, 1, 1]


@pytest.mark.parametrize(
    ("rpc", "limit"),
    [("Version", "QUESTIONS_PENDING_LIMIT"), ("Sign", "PENDING_LIMIT"), ("EmitEvent", "PENDING_LIMIT")],
)
async def test_too_many_calls_are_refused(
    agent: Simulator, monkeypatch: pytest.MonkeyPatch, rpc: str, limit: str
) -> None:
    """What waits is bounded, too."""
    monkeypatch.setattr(service, limit, 3)
    tee = Tee(agent.socket_path, PATIENCE_S)
    agent.fail("latency", rpc, seconds=0.05)
    results = await asyncio.gather(*(CALLS[rpc](tee) for _ in range(5)), return_exceptions=True)
    assert [type(result) is Busy for result in results] == [False, False, False, True, True]
    await tee.close()


@pytest.mark.parametrize("rpc", ["Info", "Version", "Verify"])
async def test_questions_keep_no_signature_waiting(agent: Simulator, tee: Tee, rpc: str) -> None:
    """Whatever a peer may ask who may only read: whoever needs a signature, a quote or a key gets it."""
    await tee.version()
    agent.fail("hang", rpc)
    asking = [asyncio.ensure_future(CALLS[rpc](tee)) for _ in range(24 * 64)]
    await asyncio.to_thread(agent.wait_begun, rpc, agent.begun(rpc) + 1)
    for other in ("Sign", "GetQuote", "Attest", "GetKey", "GetTlsKey", "EmitEvent"):
        await CALLS[other](tee)
    for task in asking:
        task.cancel()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == len(asking) - service.QUESTIONS_PENDING_LIMIT


async def test_a_question_ends_with_its_caller(agent: Simulator, tee: Tee) -> None:
    """Its turn is the next one's at once, though the agent never answers."""
    await tee.version()
    agent.fail("hang", "Info")
    asking = [asyncio.create_task(tee.info()) for _ in range(service.QUESTIONS_IN_FLIGHT_LIMIT)]
    await asyncio.to_thread(agent.wait_begun, "Info", len(asking))
    for task in asking:
        task.cancel()
    await asyncio.wait(asking)
    async with asyncio.timeout(PATIENCE_S / 4):
        await tee.version()


async def test_an_event_is_finished_without_its_caller(agent: Simulator, tee: Tee) -> None:
    """The next one does not begin before: two at once may spoil the log for the whole machine."""
    await tee.version()
    agent.fail("latency", "EmitEvent", seconds=0.05)
    caller = asyncio.create_task(tee.emit_event("first", b""))
    await asyncio.to_thread(agent.wait_begun, "EmitEvent", 1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await tee.emit_event("second", b"")
    assert agent.peak("EmitEvent") == 1
    assert [event.name for event in agent.machine.events[-2:]] == ["first", "second"]


async def test_a_restarted_agent_is_found_again(agent: Simulator, tee: Tee) -> None:
    """The socket goes, which is an error that says where, and comes again."""
    await tee.info()
    agent.stop()
    error = await refusal(tee.info())
    assert type(error) is TeeUnavailable
    assert error.facts["endpoint"] == agent.socket_path
    assert not tee.is_available
    agent.start()
    await tee.info()


async def test_a_dead_agent_is_not_tried_for_every_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection speaks for the calls of the next moment, which cost nothing; then it is tried again."""
    monkeypatch.setattr(service, "REFUSED_S", 3_600.0)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
        tee = Tee(str(tmp_path / "s"), PATIENCE_S)
        first = await refusal(tee.info())
        dead.listen()
        second = await refusal(tee.info())
        assert (type(second), second.facts) == (type(first), first.facts)
        dead.setblocking(False)
        with pytest.raises(BlockingIOError):
            dead.accept()
        tee._refused_until = 0
        asking = asyncio.create_task(tee.info())
        for _ in range(2):  # what only reads is asked again
            accepted, _ = await asyncio.get_running_loop().sock_accept(dead)
            accepted.close()
        assert type(await refusal(asking)) is TeeUnavailable
        await tee.close()


async def test_another_endpoint_is_taken_at_once(agent: Simulator, tee: Tee) -> None:
    """A reload of the configuration names it."""
    await tee.version()
    with simulated("0.6.0") as other:
        tee.reconfigure(other.socket_path)
        assert (await tee.version())["version"] == "0.6.0"
        await tee.close()


async def test_close_ends_what_is_in_flight(agent: Simulator, tee: Tee) -> None:
    """And may be called again; a hung agent does not hold the end of the daemon."""
    await tee.version()
    agent.fail("hang", "GetQuote")
    caller = asyncio.create_task(tee.quote(b"x"))
    await asyncio.to_thread(agent.wait_begun, "GetQuote", 1)
    async with asyncio.timeout(PATIENCE_S / 4):
        await tee.close()
        await tee.close()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_reply_without_end_is_cut_off(tmp_path: Path) -> None:
    """An agent that babbles costs no more memory, and no more time, than a reply may."""

    served: list[asyncio.Task[Any] | None] = []

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_unix_server(babble, tmp_path / "s")
    async with server:
        tee = Tee(str(tmp_path / "s"), PATIENCE_S)
        assert type(await refusal(tee.version())) is TeeProtocol
        await tee.close()
        await asyncio.gather(*filter(None, served))


@pytest.mark.parametrize("fault", ["cut", "reject", "html", "garbage", "shape"])
async def test_secrets_stay_inside(agent: Simulator, tee: Tee, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """Keys and data to be signed are in no error, no log and no repr, even where the agent repeats them."""
    caplog.set_level(logging.DEBUG)
    key = (await tee.derive_key("path", "", "ed25519"))["key"]
    await tee.sign("ed25519", SECRET)
    agent.fail(fault, "Sign", text=f"cannot sign {SECRET.hex()}")
    error = await refusal(tee.sign("ed25519", SECRET))
    agent.fail(fault, "GetKey", text=f"not {key}")
    other = await refusal(tee.derive_key("path", "", "ed25519"))
    seen = caplog.text + "".join(
        f"{error!r}{error}{error.data}{error.__context__!r}{error.__cause__!r}" for error in (error, other)
    )
    assert SECRET.hex() not in seen
    assert repr(SECRET) not in seen
    assert key not in seen
    assert repr(tee).startswith("<skilld.tee.service.Tee object")


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("missing", "there is no guest agent at"),
        ("file", "is no socket"),
        ("file/x", "Not a directory"),
        ("nobody", "no guest agent answers"),
    ],
)
async def test_without_an_agent_the_tee_is_unavailable(tmp_path: Path, path: str, hint: str) -> None:
    """With the endpoint, and what is wrong with it."""
    (tmp_path / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "nobody"))
    tee = Tee(str(tmp_path / path), PATIENCE_S)
    error = await refusal(tee.info())
    assert type(error) is TeeUnavailable
    assert error.facts["endpoint"] == str(tmp_path / path)
    assert hint in error.facts["hint"]
    await tee.close()


async def test_without_the_sdk_it_says_what_to_install(agent: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """skilld works without; only calls of the guest agent do not."""
    monkeypatch.setitem(sys.modules, "dstack_sdk", None)
    tee = Tee(agent.socket_path, PATIENCE_S)
    error = await refusal(tee.info())
    assert type(error) is TeeUnavailable
    assert error.facts["hint"] == "dstack's SDK is not installed; install skilld[tee]"
    assert not tee.is_available


def test_the_daemon_starts_without_the_sdk() -> None:
    """Nothing of it, nor of what it needs, is loaded before it is asked for."""
    code = (
        "import sys, skilld.daemon\n"
        "print(sorted({'dstack_sdk', 'httpx', 'pydantic', 'cryptography', 'dcap_qvl'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_endpoint_is_searched_for_as_the_sdk_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configured one, the simulator's, the first path that is there, the first path; empty is unset."""
    (tmp_path / "b").write_text("")
    monkeypatch.setattr(endpoint, "SOCKET_PATHS", (f"{tmp_path}/a", f"{tmp_path}/b"))
    simulator = {endpoint.SIMULATOR_VARIABLE: "/simulator"}
    assert endpoint.find_endpoint("/mine", simulator) == "/mine"
    assert endpoint.find_endpoint("", simulator) == "/simulator"
    assert endpoint.find_endpoint("", {endpoint.SIMULATOR_VARIABLE: ""}) == f"{tmp_path}/b"
    (tmp_path / "b").unlink()
    assert endpoint.find_endpoint("", {}) == f"{tmp_path}/a"


def test_the_paths_are_those_of_the_sdk() -> None:
    """In its order."""
    import inspect

    from dstack_sdk import dstack_client

    text = inspect.getsource(dstack_client.get_endpoint)
    assert [text.index(f'"{path}"') for path in endpoint.SOCKET_PATHS] == sorted(
        text.index(f'"{path}"') for path in endpoint.SOCKET_PATHS
    )
    assert text.count('.sock"') == len(endpoint.SOCKET_PATHS)
