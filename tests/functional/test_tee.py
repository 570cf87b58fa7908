"""The TEE methods and attested skills, by a real daemon.

The guest agent is the double; with DSTACK_SIMULATOR_ENDPOINT set, whatever needs no fault runs against that one, less
what its version lacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dstack_simulator import derivation
from dstack_simulator.machine import Machine

from skilld.cli import run
from skilld.client import AsyncSkilldClient
from skilld.errors import SkilldError
from skilld.tee.tdx_quote import parse_quote
from tests.functional.conftest import Daemon, save
from tests.isolation import as_nobody
from tests.simulator import ENDPOINT, SEED, numbers, real_target, simulated, spawned

TARGETS = ("real",) if ENDPOINT else ("0.5.5", "0.5.11", "0.6.0-snp")
PATIENCE_S = 20.0
DATA = b"\0data"


@dataclass
class Agent:
    """A guest agent; ``machine`` is what a double speaks for."""

    socket_path: str
    version: tuple[int, ...]
    platform: str
    machine: Machine | None = None


@contextlib.contextmanager
def running(name: str) -> Iterator[Agent]:
    """One of :data:`TARGETS`; a double is a process of its own, for its connections outlive a test."""
    if ENDPOINT:
        real = real_target()
        yield Agent(real.socket_path, real.version, real.platform)
        return
    profile, _, platform = name.partition("-")
    options = ("--profile", profile, "--platform", platform or "tdx", "--seed", SEED.decode())
    with spawned(*options) as double:
        yield Agent(double.socket_path, numbers(profile), platform or "tdx", Machine(SEED))


@dataclass
class Served:
    """A daemon and its guest agent."""

    daemon: Daemon
    agent: Agent
    root: Path

    def call(self, method: str, **params: Any) -> Any:
        return self.daemon.call(method, **params)

    def error(self, method: str, **params: Any) -> dict[str, Any]:
        return self.daemon.error(method, **params)

    def lacks(self, method: str, **params: Any) -> None:
        """The OS of this agent has no such method, and the daemon says so."""
        error = self.error(method, **params)
        version = ".".join(map(str, self.agent.version)) if self.agent.version >= (0, 5, 7) else "before 0.5.7"
        assert error["code"] == -32032
        assert error["data"] == {"reason": "tee-unsupported", "method": method, "os_version": version}


def save_echo(directory: Path) -> None:
    """A skill whose script says what it was given."""
    save(directory, "Echo")
    (directory / "scripts").mkdir()
    (directory / "scripts/echo.sh").write_text('printf "%s %s %s" "$1" "$MOOD" "$(cat)"\n')


@pytest.fixture(scope="module", params=TARGETS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with running(request.param) as agent, tempfile.TemporaryDirectory(prefix="skilld-") as directory:
        root = Path(directory, "skills")
        save(root / "pdf", "Fill forms")
        save(root / "team-a/deploy", "Deploy things")
        save_echo(root / "echo")
        daemon = Daemon([root], Path(directory), dstack_endpoint=agent.socket_path)
        try:
            daemon.call("skills.list", sync_timeout_ms=10_000)
            yield Served(daemon, agent, root)
        finally:
            daemon.stop()


def test_tee_info(served: Served) -> None:
    """Who the CVM is, its TCB info parsed, by either framing; the status names the endpoint."""
    info = served.call("tee.info")
    assert len(bytes.fromhex(info["app_id"])) == 20
    registers = [info["tcb_info"][name] for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")]
    sizes = [None if register is None else len(bytes.fromhex(register)) for register in registers]
    assert sizes == ([48] * 5 if served.agent.platform == "tdx" else [None] * 5)
    assert json.loads(info["key_provider_info"])["name"]
    status, again = served.daemon.http("GET", "/tee/info")
    assert status == 200
    assert again["app_id"] == info["app_id"]
    assert served.call("skilld.status")["tee"] == {"available": True, "endpoint": served.agent.socket_path}
    if served.agent.machine is not None:
        assert info["app_id"] == served.agent.machine.app_id.hex()


def test_derive_key(served: Served) -> None:
    """32 bytes that depend on the path alone, with two signatures."""
    first = served.call("tee.derive_key", path="a/b", purpose="mainnet")
    assert len(bytes.fromhex(first["key"])) == 32
    assert len(first["signature_chain"]) == 2
    assert served.call("tee.derive_key", path="a/b")["key"] == first["key"]
    assert served.call("tee.derive_key", path="a/c")["key"] != first["key"]
    assert served.daemon.http("POST", "/tee/derive-key", {"path": "a/b", "purpose": "mainnet"}) == (200, first)
    if served.agent.machine is not None:
        assert first["key"] == derivation.derive(served.agent.machine.app_key.secret, b"a/b").hex()


def test_derive_key_for_ed25519(served: Served) -> None:
    """Where the OS knows it, an older one is not asked for it, for it would answer with a key for another curve."""
    if served.agent.version < (0, 5, 6):
        served.lacks("tee.derive_key", path="a/b", algorithm="ed25519")
    else:
        assert len(served.call("tee.derive_key", path="a/b", algorithm="ed25519")["signature_chain"]) == 2


def test_a_quote_holds_the_report_data(served: Served) -> None:
    """Padded with zeros, hexadecimal with or without 0x; off TDX there is no quote."""
    reply = served.call("tee.quote", report_data="0x" + DATA.hex().upper())
    padded = DATA.ljust(64, b"\0")
    assert set(reply) == {"quote", "event_log", "report_data", "vm_config"}
    if served.agent.platform == "tdx":
        assert parse_quote(bytes.fromhex(reply["quote"])).report_data == padded
        assert json.loads(reply["event_log"])
    else:
        assert reply["quote"] == ""


def test_an_attestation_holds_the_report_data(served: Served) -> None:
    """In dstack's own format, for every kind of TEE."""
    if served.agent.version < (0, 5, 6):
        served.lacks("tee.attest", report_data=DATA.hex())
        return
    attestation = bytes.fromhex(served.call("tee.attest", report_data=DATA.hex())["attestation"])
    assert DATA.ljust(64, b"\0") in attestation


@pytest.mark.parametrize("algorithm", ["ed25519", "secp256k1", "secp256k1_prehashed"])
def test_what_was_signed_verifies(served: Served, algorithm: str) -> None:
    """And nothing else does."""
    data = hashlib.sha256(DATA).hexdigest()
    if served.agent.version < (0, 5, 6):
        served.lacks("tee.sign", algorithm=algorithm, data=data)
        served.lacks("tee.verify", algorithm=algorithm, data=data, signature="00" * 64, public_key="00" * 32)
        return
    reply = served.call("tee.sign", algorithm=algorithm, data=data)
    assert len(reply["signature_chain"]) == 3
    assert reply["signature_chain"][0] == reply["signature"]
    proof = {"algorithm": algorithm, "signature": reply["signature"], "public_key": reply["public_key"]}
    assert served.call("tee.verify", data=data, **proof) == {"valid": True}
    other = hashlib.sha256(b"other").hexdigest()
    assert served.call("tee.verify", data=other, **proof) == {"valid": False}


def test_an_event_is_logged(served: Served) -> None:
    """As text or bytes; where the OS has events."""
    if served.agent.version >= (0, 6):
        served.lacks("tee.emit_event", event="skilld-test", payload="x")
        return
    try:
        assert served.call("tee.emit_event", event="skilld-test", payload="\u00e9") == {}
    except AssertionError:
        if served.agent.machine is not None:
            raise
        pytest.skip("this agent cannot extend RTMR3")
    assert served.call("tee.emit_event", event="skilld-test", payload={"hex": "0xFF"}) == {}
    log = json.loads(served.call("tee.quote", report_data="00")["event_log"])
    assert [event["event_payload"] for event in log if event["event"] == "skilld-test"][-2:] == ["c3a9", "ff"]


def test_a_tls_key_comes_with_its_certificates(served: Served) -> None:
    """Another key at every call."""
    options = {"subject": "app.example", "alt_names": ["b.example"], "usage_client_auth": True}
    first, second = (served.call("tee.tls_key", **options) for _ in range(2))
    assert first["key"].startswith("-----BEGIN PRIVATE KEY-----")
    assert len(first["certificate_chain"]) >= 2
    assert first["key"] != second["key"]
    if served.agent.version < (0, 5, 7):
        served.lacks("tee.tls_key", not_after=2_000_000_000)


def test_the_version_is_told_where_the_os_can(served: Served) -> None:
    """0.5.7 was the first."""
    if served.agent.version < (0, 5, 7):
        served.lacks("tee.version")
    else:
        version = served.call("tee.version")["version"]
        assert tuple(int(part) for part in version.split(".")) == served.agent.version


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("tee.quote", {}, "report_data"),
    ("tee.quote", {"report_data": ""}, "report_data"),
    ("tee.quote", {"report_data": "0"}, "report_data"),
    ("tee.quote", {"report_data": "00" * 65}, "report_data"),
    ("tee.quote", {"report_data": "0x0x00"}, "report_data"),
    ("tee.attest", {"report_data": "zz"}, "report_data"),
    ("tee.derive_key", {"algorithm": "secp256k1_prehashed"}, "algorithm"),
    ("tee.derive_key", {"path": "x" * 1_025}, "path"),
    ("tee.derive_key", {"path": 1}, "path"),
    ("tee.sign", {"algorithm": "", "data": "00"}, "algorithm"),
    ("tee.sign", {"algorithm": "ed25519"}, "data"),
    ("tee.sign", {"algorithm": "secp256k1_prehashed", "data": "00" * 31}, "data"),
    ("tee.sign", {"algorithm": "ed25519", "data": "00" * (1_048_576 + 1)}, "data"),
    ("tee.verify", {"algorithm": "ed25519", "data": "", "signature": "00" * 63, "public_key": "00" * 32}, "signature"),
    ("tee.verify", {"algorithm": "ed25519", "data": "", "signature": "00" * 64, "public_key": "00"}, "public_key"),
    ("tee.emit_event", {"event": "", "payload": ""}, "event"),
    ("tee.emit_event", {"event": "e", "payload": {"hex": "0"}}, "payload"),
    ("tee.emit_event", {"event": "e", "payload": "\u00e9" * 40_000}, "payload"),
    ("tee.tls_key", {"not_before": 2, "not_after": 2}, "not_before"),
    ("tee.tls_key", {"not_before": -1}, "not_before"),
    ("tee.tls_key", {"alt_names": "a"}, "alt_names"),
    ("skills.attest", {"nonce": "00" * 65}, "nonce"),
    ("tee.info", {"x": 1}, "x"),
]


def test_wrong_params_never_reach_the_agent() -> None:
    """-32602 with the field, before anything is asked; what should be signed is not repeated."""
    with tempfile.TemporaryDirectory(prefix="skilld-") as directory, simulated() as agent:
        daemon = Daemon([Path(directory, "skills")], Path(directory), dstack_endpoint=agent.socket_path)
        try:
            for method, params, field in WRONG:
                error = daemon.error(method, **params)
                assert (error["code"], error["data"]["field"]) == (-32602, field), (method, params)
            error = daemon.error("tee.sign", algorithm="ed25519", data="5ec7e7 is no hex")
            assert "5ec7e7" not in json.dumps(error)
            assert [agent.begun(rpc) for rpc in ("GetQuote", "Sign", "Verify", "GetKey", "EmitEvent")] == [0] * 5
        finally:
            daemon.stop()
            assert "5ec7e7" not in daemon.log_path.read_text()


def test_the_keys_are_not_for_everybody(served: Served) -> None:
    """Whoever may only read is told who the CVM is, and no more."""
    os.chmod(served.daemon.socket_path.parent, 0o755)
    os.chmod(served.daemon.socket_path, 0o666)

    def ask() -> list[Any]:
        params = {"tee.derive_key": {}, "tee.quote": {"report_data": "00"}, "skills.attest": {}, "tee.info": {}}
        replies = [served.daemon.request(method, given) for method, given in params.items()]
        return [reply["error"]["data"] if "error" in reply else "ok" for reply in replies]

    refused = [
        {"reason": "forbidden", "method": method, "role": "tee"}
        for method in ("tee.derive_key", "tee.quote", "skills.attest")
    ]
    assert as_nobody(ask) == [*refused, "ok"]


def test_every_method_has_its_command(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Facts for people, JSON for what is to be kept; exit 1 where the OS lacks it."""
    monkeypatch.setenv("SKILLD_ENDPOINT", str(served.daemon.socket_path))

    def skilld(*args: str) -> str:
        code = run(["tee", *args])
        printed = capsys.readouterr()
        return printed.out if code == 0 else f"{code} {printed.err}"

    app_id = served.call("tee.info")["app_id"]
    assert f"app_id         {app_id}\n" in skilld("info")
    assert json.loads(skilld("info", "--json"))["app_id"] == app_id
    assert json.loads(skilld("quote", "00ff"))["report_data"].startswith("00ff00")
    assert json.loads(skilld("derive-key", "a/b")) == served.call("tee.derive_key", path="a/b")
    assert json.loads(skilld("tls-key", "--subject", "x", "--alt-name", "y", "--ra-tls"))["key"]
    assert skilld("quote", "0") == "1 skilld: report_data: must be hexadecimal digits of 1 to 64 bytes, not '0'\n"
    file = tmp_path / "file"
    file.write_bytes(DATA)
    if served.agent.version < (0, 5, 6):
        assert skilld("version") == "1 skilld: tee.version does not exist on dstack OS before 0.5.7\n"
        return
    assert skilld("version").startswith(".".join(map(str, served.agent.version)))
    signed = json.loads(skilld("sign", str(file)))
    proof = ["--signature", signed["signature"], "--public-key", signed["public_key"]]
    assert skilld("verify", str(file), *proof) == "valid\n"
    file.write_bytes(b"other")
    assert skilld("verify", str(file), *proof).startswith("1 ")
    assert json.loads(skilld("attest", "00"))["attestation"]
    if served.agent.machine is not None and served.agent.version < (0, 6):
        assert skilld("emit-event", "skilld-test", "payload") == ""


# Attested skills.


def test_the_attested_set_is_the_served_one(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its digest is the status's; whoever has the same directory finds nothing different."""
    if served.agent.platform != "tdx" and served.agent.version < (0, 5, 6):
        pytest.skip("this OS cannot attest")
    reply = served.call("skills.attest", nonce="0xAB")
    assert reply["nonce"] == "ab"
    assert reply["digest"] == served.call("skilld.status")["digest"]
    assert [entry["id"] for entry in json.loads(reply["manifest"])["skills"]] == ["echo", "pdf", "team-a/deploy"]
    assert ("attestation" in reply) == (reply["quote"] == "")
    file = tmp_path / "attestation.json"
    file.write_text(json.dumps(reply))
    app_id = served.call("tee.info")["app_id"]
    options = ["--skills-dir", str(served.root), "--nonce", "ab"]
    if reply["quote"]:
        options += ["--expect-app-id", app_id]
    else:
        options += ["--accept", "quote", "--accept", "app"]
    options += ["--accept", "vendor-signature", "--accept", "os-image"]
    code = run(["verify", str(file), *options])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "its 3 skills are the attested ones" in printed
    assert "verified" not in printed


def test_a_run_comes_with_its_receipt(served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it says is what came back, and it leads to the app's key; a result that was touched is refused."""
    wish = {"name": "echo", "script": "echo.sh", "args": ["geheim"], "env": {"MOOD": "good"}, "stdin": "in"}
    if served.agent.version < (0, 5, 6):
        served.lacks("tee.sign", algorithm="ed25519", data="00")
        assert served.error("skills.execute_script", **wish, receipt=True)["code"] == -32032
        return
    result = served.call("skills.execute_script", **wish, receipt=True)
    assert result["stdout"] == "geheim good in"
    statement = json.loads(result["receipt"]["statement"])
    skill = served.call("skills.get", name="echo")
    hashes = {text: hashlib.sha256(text.encode()).hexdigest() for text in ("geheim", "in", "", "geheim good in")}
    assert {key: statement[key] for key in statement.keys() - {"started", "ended"}} == {
        "schema": "skilld.receipt.v1",
        "skill": "echo",
        "skill_digest": skill["digest"],
        "registry_digest": served.call("skilld.status")["digest"],
        "script": "scripts/echo.sh",
        "args": [hashes["geheim"]],
        "env": ["MOOD"],
        "stdin": hashes["in"],
        "stdout": hashes["geheim good in"],
        "stderr": hashes[""],
        "exit_code": 0,
        "timed_out": False,
    }
    file = tmp_path / "run.json"
    options = ["--skills-dir", str(served.root), "--expect-app-id", served.call("tee.info")["app_id"]]
    for change, code in (({}, 0), ({"exit_code": 1}, 1), ({"stdout": "geheim good out"}, 1)):
        file.write_text(json.dumps({**result, **change}))
        assert run(["verify", str(file), *options, "--accept", "kms-root"]) == code, capsys.readouterr().out
    assert "receipt" not in served.call("skills.execute_script", **wish)


def test_a_receipt_names_what_ran() -> None:
    """The tree that the run was pinned to, whatever comes meanwhile; and never one that the disk only seems to hold."""
    with tempfile.TemporaryDirectory(prefix="skilld-") as directory, simulated() as agent:
        root = Path(directory, "skills")
        save_echo(root / "echo")
        wait = root / "echo/scripts/wait.sh"
        wait.write_text("echo here; sleep 0.3\n")
        daemon = Daemon([root], Path(directory), dstack_endpoint=agent.socket_path)
        try:
            before = daemon.call("skills.get", name="echo", sync_timeout_ms=10_000)["digest"]
            with contextlib.closing(daemon.lines()) as lines:
                params = {"name": "echo", "script": "wait.sh", "receipt": True, "stream": True}
                call = {"jsonrpc": "2.0", "id": 1, "method": "skills.execute_script", "params": params}
                lines.send(json.dumps(call).encode() + b"\n")
                assert lines.receive()["method"] == "skills.output"
                files = {"scripts": {"wait.sh": "echo other\n"}, "references": {"a.md": "x", "b.md": "y"}}
                after = daemon.call("skills.update", name="echo", **files)["digest"]
                receipt = lines.receive()["result"]["receipt"]
            assert json.loads(receipt["statement"])["skill_digest"] == before != after

            # A page that is dirty already is written to without any trace in the file's times.
            with wait.open("r+b") as file, mmap.mmap(file.fileno(), 0) as page:
                page[5:10] = b"first"
                daemon.call("skills.list", sync_timeout_ms=10_000)
                time.sleep(0.05)  # so that its times are not those of a file that is being written
                page[5:10] = b"other"
                reply = daemon.request("skills.execute_script", params={**params, "stream": False})
                if "error" in reply:
                    assert reply["error"]["data"]["reason"] == "busy"
                else:
                    digest = digest_of_directory(root / "echo")
                    assert json.loads(reply["result"]["receipt"]["statement"])["skill_digest"] == digest
        finally:
            daemon.stop()


def test_questions_deny_nobody_a_receipt() -> None:
    """However many wait for an agent that hangs; and once who asked is gone, others may ask at once."""
    with simulated() as agent, tempfile.TemporaryDirectory(prefix="skilld-") as directory:
        root = Path(directory, "skills")
        save_echo(root / "echo")
        daemon = Daemon([root], Path(directory), dstack_endpoint=agent.socket_path)
        try:
            daemon.call("skills.list")  # answers after the first scan
            daemon.call("tee.version")
            agent.fail("hang", "Info")
            peers = [daemon.lines() for _ in range(24)]
            for peer in peers:
                peer.send(b"".join(b'{"jsonrpc":"2.0","id":%d,"method":"tee.info"}\n' % id for id in range(64)))
            assert peers[-1].receive()["error"]["data"]["reason"] == "busy"  # their room is full
            receipt = daemon.call("skills.execute_script", name="echo", script="echo.sh", receipt=True)["receipt"]
            assert receipt["signature"]
            for peer in peers:
                peer.close()
            # The daemon looks now and then whether a peer is gone that it does not read from.
            deadline = time.monotonic() + PATIENCE_S
            while "result" not in daemon.request("tee.version", {}):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            daemon.stop()


def digest_of_directory(path: Path) -> str:
    """By the command line, which knows nothing of what the daemon knows."""
    command = [sys.executable, "-m", "skilld", "digest", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_without_an_agent_no_receipt_and_no_run(tmp_path: Path) -> None:
    """Whoever asks for a receipt, or has them for all, gets no result without one; nothing ran for it."""
    with tempfile.TemporaryDirectory(prefix="skilld-") as directory:
        root = Path(directory, "skills")
        save_echo(root / "echo")
        daemon = Daemon([root], Path(directory), dstack_endpoint=tmp_path / "none.sock", receipts="true")
        try:
            for receipt in (None, False, True):
                error = daemon.error("skills.execute_script", name="echo", script="echo.sh", receipt=receipt)
                assert error["data"]["reason"] == "tee-unavailable"
            assert "ran scripts/echo.sh" not in daemon.log_path.read_text()
            assert daemon.call("skills.execute_script", name="echo", script="echo.sh", explain=True)["plan"]
        finally:
            daemon.stop()


def test_an_edit_meanwhile_belongs_to_the_next_attestation(tmp_path: Path) -> None:
    """The reply speaks of one set, whole: the one that was served when the quote was asked for."""
    with tempfile.TemporaryDirectory(prefix="skilld-") as directory, simulated() as agent:
        root = Path(directory, "skills")
        save(root / "a", "First")
        daemon = Daemon([root], Path(directory), dstack_endpoint=agent.socket_path)

        async def attest_and_edit() -> tuple[Any, str, Any]:
            async with AsyncSkilldClient(str(daemon.socket_path), timeout=PATIENCE_S) as client:
                await client.call("skills.list")  # answers after the first scan
                before = (await client.status()).digest
                agent.fail("latency", "GetQuote", seconds=0.5)
                attesting = asyncio.create_task(client.call("skills.attest"))
                await asyncio.to_thread(agent.wait_begun, "GetQuote", 1)
                save(root / "a", "Second")
                save(root / "b", "New")
                await client.call("skills.list", {"sync_timeout_ms": 10_000})
                agent.heal()
                return await attesting, str(before), await client.call("skills.attest")

        try:
            first, before, second = asyncio.run(attest_and_edit())
        finally:
            daemon.stop()
    assert first["digest"] == before != second["digest"]
    for reply, ids in ((first, ["a"]), (second, ["a", "b"])):
        assert [entry["id"] for entry in json.loads(reply["manifest"])["skills"]] == ids
        quote = parse_quote(bytes.fromhex(reply["quote"]))
        digest = hashlib.sha256(reply["manifest"].encode()).digest()
        assert quote.report_data == hashlib.sha512(b"skilld-skillset:" + digest).digest()


def test_every_new_set_is_announced() -> None:
    """Where that is switched on; the last event is the digest that is attested."""
    with tempfile.TemporaryDirectory(prefix="skilld-") as directory, simulated() as agent:
        root = Path(directory, "skills")
        save(root / "a", "First")
        settings = {"tee_skill_set_events": "true", "tee_skill_set_event_interval_s": "0.1"}
        daemon = Daemon([root], Path(directory), dstack_endpoint=agent.socket_path, **settings)
        try:
            agent.wait_begun("EmitEvent", 1)
            save(root / "b", "New")
            agent.wait_begun("EmitEvent", 2)
            log = json.loads(daemon.call("skills.attest")["event_log"])
            digest = daemon.call("skilld.status")["digest"]
        finally:
            daemon.stop()
    events = [event["event_payload"] for event in log if event["event"] == "skilld-skill-set"]
    assert len(events) == 2
    assert events[-1] == digest.removeprefix("sha256:")


# What an agent does wrong is its own affair.


def test_a_hundred_calls_at_once(served: Served) -> None:
    """Over one connection; every one is answered, and the right one."""

    async def ask() -> list[Any]:
        async with AsyncSkilldClient(str(served.daemon.socket_path), timeout=PATIENCE_S) as client:
            calls = [client.call("tee.derive_key", {"path": str(number % 10)}) for number in range(90)]
            calls += [client.call("tee.quote", {"report_data": f"{number:02x}"}) for number in range(10)]
            return await asyncio.gather(*calls)

    replies = asyncio.run(ask())
    assert len({reply["key"] for reply in replies[:90]}) == 10
    assert [reply["key"] for reply in replies[:10]] == [reply["key"] for reply in replies[80:90]]
    if served.agent.platform == "tdx":
        data = [parse_quote(bytes.fromhex(reply["quote"])).report_data[0] for reply in replies[90:]]
        assert data == list(range(10))


async def test_a_broken_agent_slows_no_search(tmp_path: Path) -> None:
    """Hung, killed and restarted under load: searches take what they took before, and the TEE comes back."""
    with tempfile.TemporaryDirectory(prefix="skilld-") as directory, simulated() as agent:
        root = Path(directory, "skills")
        for number in range(50):
            save(root / f"skill-{number}", f"Does things of kind {number}")
        daemon = Daemon([root], Path(directory), dstack_endpoint=agent.socket_path, tee_timeout_s=3)
        tee = AsyncSkilldClient(str(daemon.socket_path), timeout=PATIENCE_S)
        searcher = AsyncSkilldClient(str(daemon.socket_path), timeout=PATIENCE_S)

        async def load() -> set[str]:
            """A hundred calls of every kind at once: the outcomes."""
            params: dict[str, dict[str, Any]] = {
                "tee.version": {}, "tee.quote": {"report_data": "00"}, "tee.info": {}, "tee.derive_key": {},
            }  # fmt: skip
            calls = [tee.call(method, given) for _ in range(25) for method, given in params.items()]
            results = await asyncio.gather(*calls, return_exceptions=True)
            return {r.reason if isinstance(r, SkilldError) else type(r).__name__ for r in results}

        async def p99_ms(count: int = 150) -> float:
            took = []
            for _ in range(count):
                began = time.perf_counter()
                await searcher.search("things of kind 7")
                took.append((time.perf_counter() - began) * 1_000)
            return statistics.quantiles(took, n=100)[-1]

        async def during(act: Callable[[], Awaitable[Any]]) -> tuple[float, set[str]]:
            """Search while calls meet the trouble, and others come after it; how those end."""
            meeting = asyncio.create_task(load())
            await act()
            coming = asyncio.create_task(load())
            took = await p99_ms()
            await meeting
            return took, await coming

        async def hang() -> None:
            await asyncio.to_thread(agent.fail, "hang")

        async def kill() -> None:
            await asyncio.to_thread(agent.stop)

        async def restart() -> None:
            await asyncio.to_thread(agent.start)
            await asyncio.to_thread(agent.stop)
            await asyncio.to_thread(agent.start)

        try:
            async with tee, searcher:
                # On a busy machine the SDK takes longer to load than a call may take; it is loaded all the same.
                while "dict" not in await load():
                    pass
                idle = await p99_ms()
                hung, hung_outcomes = await during(hang)
                agent.heal()
                killed, killed_outcomes = await during(kill)
                restarted, _ = await during(restart)
                assert "dict" in await load()
        finally:
            daemon.stop()
    print(f"search p99, ms: idle {idle:.2f}, hung {hung:.2f}, killed {killed:.2f}, restarted {restarted:.2f}")
    assert hung_outcomes == {"tee-timeout"}
    assert killed_outcomes == {"tee-unavailable"}
    # The machine may be busy with other things; a search that waits for the agent would take a second.
    assert max(hung, killed, restarted) < max(5 * idle, 500)
