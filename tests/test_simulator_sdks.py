"""
dstack's own SDKs, unmodified, against the double in every version, or against the agent of DSTACK_SIMULATOR_ENDPOINT.

The npm SDK is installed into a cache directory on first use; without Node.js, npm or its registry its tests skip.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from dstack_sdk import AsyncDstackClient, DstackClient, TappdClient
from pydantic import ValidationError

from tests.simulator import TARGETS, Target, simulated, target

NPM_PACKAGES = ("@phala/dstack-sdk@0.5.8", "@noble/curves@1.9.7", "@noble/hashes@1.8.0")
NPM_PATIENCE_S = 60
CALLS = Path(__file__).parent / "simulator_sdk_calls.mjs"


@pytest.fixture(scope="module", params=TARGETS)
def agent(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Every agent."""
    with target(request.param) as running:
        yield running


class TestPython:
    """dstack-sdk from PyPI, every method."""

    async def test_async_client(self, agent: Target) -> None:
        """Every method gives its model, or the error that the version calls for."""
        async with AsyncDstackClient(agent.socket_path, timeout=20) as client:
            if agent.version >= (0, 5, 7):
                assert (await client.version()).version == ".".join(map(str, agent.version))
            else:
                with unsupported("Version"):
                    await client.version()
            assert await client.is_reachable()
            if agent.platform == "snp":
                # The SDK cannot read registers that are null.
                with pytest.raises(ValidationError, match="mrtd"):
                    await client.info()
            else:
                info = await client.info()
                assert info.compose_hash == info.tcb_info.compose_hash
                assert info.tcb_info.event_log[-1].imr == 3

            key = await client.get_key("a", "b")
            if agent.version != (0, 5, 6):
                assert (await client.get_key("a", "b", "k256")).key == key.key
            assert [len(link) for link in key.decode_signature_chain()] in ([65, 65], [65, 0])
            if agent.version >= (0, 5, 7):
                other = await client.get_key("a", "b", "ed25519")
                assert (other.key, other.signature_chain != key.signature_chain) == (key.key, True)
            else:
                # The SDK asks for the version first, and takes every failure for an old system.
                with pytest.raises(RuntimeError, match="OS version too old"):
                    await client.get_key("a", "b", "ed25519")

            quote = await client.get_quote(b"nonce")
            assert quote.report_data == b"nonce".ljust(64, b"\0").hex()
            if agent.platform == "tdx":
                assert quote.decode_quote()[568:573] == b"nonce"
                assert len(quote.decode_event_log()) > 9
            else:
                assert (quote.quote, quote.event_log) == ("", "")
            if agent.version >= (0, 5, 6):
                assert len((await client.attest(b"nonce")).decode_attestation()) > 1_000
            else:
                with unsupported("Attest"):
                    await client.attest(b"nonce")

            await self.check_tls(agent, client)
            await self.check_events(agent, client)
            await self.check_signatures(agent, client)

    async def check_tls(self, agent: Target, client: AsyncDstackClient) -> None:
        """With the defaults, with all options, and with those that the SDK allows from 0.5.7 on."""
        assert len((await client.get_tls_key()).certificate_chain) in (2, 3)
        reply = await client.get_tls_key("x", ["a.example"], True, True, True)
        leaf = x509.load_pem_x509_certificate(reply.certificate_chain[0].encode())
        assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.DNSName
        ) == ["a.example"]
        assert len(reply.as_uint8array()) > 100
        if agent.version >= (0, 5, 7):
            reply = await client.get_tls_key("x", not_before=1_700_000_000, not_after=1_800_000_000, with_app_info=True)
            leaf = x509.load_pem_x509_certificate(reply.certificate_chain[0].encode())
            assert leaf.not_valid_after_utc.timestamp() == 1_800_000_000
        else:
            with pytest.raises(RuntimeError, match="not_after"):
                await client.get_tls_key("x", not_after=1_800_000_000)

    async def check_events(self, agent: Target, client: AsyncDstackClient) -> None:
        """Until 0.6."""
        if agent.version >= (0, 6):
            with unsupported("EmitEvent"):
                await client.emit_event("app-event", b"payload")
        elif agent.is_double:
            await client.emit_event("app-event", b"payload")
            info = await client.info()
            assert info.tcb_info.event_log[-1].event == "app-event"
            # The SDK's own replay is right as long as the log keeps its digests.
            replayed = (await client.get_quote(b"x")).replay_rtmrs()
            assert (replayed[3] == info.tcb_info.rtmr3) == (agent.version < (0, 5, 6))
            assert replayed[0] == info.tcb_info.rtmr0

    async def check_signatures(self, agent: Target, client: AsyncDstackClient) -> None:
        """All algorithms."""
        digest = hashlib.sha256(b"data").digest()
        for algorithm, data in (("ed25519", b"data"), ("secp256k1", b"data"), ("secp256k1_prehashed", digest)):
            if agent.version < (0, 5, 6):
                with unsupported("Sign"):
                    await client.sign(algorithm, data)
                continue
            signed = await client.sign(algorithm, data)
            public, signature = signed.decode_public_key(), signed.decode_signature()
            assert (await client.verify(algorithm, data, signature, public)).valid
            assert not (await client.verify(algorithm, digest[::-1], signature, public)).valid

    def test_sync_client(self, agent: Target) -> None:
        """The same methods, stepped through a synchronous transport."""
        client = DstackClient(agent.socket_path, timeout=20)
        # What its context manager gives is the asynchronous client inside.
        with client:
            assert client.is_reachable()
            assert client.get_key("a", "b").key == agent.call("GetKey", path="a", purpose="b")["key"]
            assert client.get_quote("text").report_data.startswith(b"text".hex())
            assert client.get_tls_key("x").key.startswith("-----BEGIN PRIVATE KEY-----")
            if agent.version >= (0, 5, 7):
                assert client.version().rev
                assert client.attest(b"x").attestation
                signed = client.sign("secp256k1", "data")
                assert client.verify("secp256k1", "data", signed.decode_signature(), signed.decode_public_key()).valid

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_legacy_client(self, agent: Target) -> None:
        """The socket of old: keys, quotes, info."""
        if agent.tappd_path is None:
            pytest.skip("TAPPD_SIMULATOR_ENDPOINT names no socket")
        client = TappdClient(agent.tappd_path, timeout=20)
        with client:
            assert client.derive_key("a").key == client.derive_key("a").key
            if agent.platform == "tdx":
                assert client.tdx_quote(b"x", "raw").decode_quote()[631:632] == b"x"
                assert client.info().tcb_info.rtmr0


@contextlib.contextmanager
def unsupported(method: str) -> Iterator[None]:
    """What the SDK raises where the agent has no such method."""
    with pytest.raises(httpx.HTTPStatusError) as caught:
        yield
    assert caught.value.response.status_code == 400
    assert caught.value.response.json() == {"error": f"Service not found: {method}"}


@pytest.fixture(scope="module")
def npm_results() -> dict[str, Any]:
    """The outcome of every call by target, all from one process."""
    directory = npm_directory()
    with contextlib.ExitStack() as stack:
        agents = [stack.enter_context(target(name)) for name in TARGETS]
        command = ["node", str(CALLS), str(directory), *(agent.socket_path for agent in agents)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=NPM_PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    outcomes: list[Any] = json.loads(done.stdout)
    return {name: {"agent": agent, **outcome} for name, agent, outcome in zip(TARGETS, agents, outcomes, strict=True)}


class TestNpm:
    """@phala/dstack-sdk, every method."""

    @pytest.mark.parametrize("name", TARGETS)
    def test_every_method(self, npm_results: dict[str, Any], name: str) -> None:
        """What the version has is there; what it lacks fails as the SDK lets it."""
        found = npm_results[name]
        version, platform = found["agent"].version, found["agent"].platform

        def got(call: str) -> Any:
            assert "result" in found[call], (call, found[call])
            return found[call]["result"]

        # The SDK does not look at the status: the error is taken for the reply.
        told = got("version") if version >= (0, 5, 7) else None
        assert told is None or told["version"] == ".".join(map(str, version))
        assert got("isReachable") is True
        assert got("info")["tcb_info"]["app_compose"]
        assert (got("info")["tcb_info"]["mrtd"] is None) == (platform == "snp")
        assert len(bytes.fromhex(got("getKey")["key"])) == 32
        assert [len(link) for link in got("getKey")["signature_chain"]] in ([130, 130], [130, 0])
        assert got("getTlsKey")["key"].startswith("-----BEGIN PRIVATE KEY-----")
        assert len(got("getTlsKey")["certificate_chain"]) in (2, 3)
        quote = got("getQuote")
        assert quote["report_data"] == b"nonce".hex().ljust(128, "0")
        assert (quote["quote"] == "") == (platform == "snp")
        if version >= (0, 5, 7):
            assert got("getKeyEd25519")["key"] == got("getKey")["key"]
            assert got("getTlsKeyTimes")["certificate_chain"]
        if version >= (0, 5, 6):
            assert got("attest")["attestation"]
            assert len(got("sign")["public_key"]) == 66
            assert got("verify")["valid"] is True
        else:
            assert found["attest"]["error"] == "Service not found: Attest"


def npm_directory() -> Path:
    """Where the npm SDK is installed; skips the test where it cannot be."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on this machine: the npm SDK is not tested")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skilld-tests"
    name = hashlib.sha256(" ".join(NPM_PACKAGES).encode()).hexdigest()[:16]
    directory = cache / f"npm-{name}"
    if not directory.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as fresh:
            command = ["npm", "install", "--prefix", fresh, "--no-audit", "--no-fund", "--ignore-scripts"]
            command += ["--legacy-peer-deps", *NPM_PACKAGES]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=NPM_PATIENCE_S, check=False)
            except subprocess.TimeoutExpired:
                pytest.skip(f"npm took more than {NPM_PATIENCE_S} s: the npm SDK is not tested")
            if done.returncode:
                pytest.skip(f"npm cannot install the SDK, which is not tested: {done.stderr.strip()[-200:]}")
            # Whole or not at all, whoever else is at it.
            with contextlib.suppress(OSError):
                os.rename(Path(fresh), directory)
            Path(fresh).mkdir(exist_ok=True)
    return directory


async def test_the_sdk_meets_every_fault() -> None:
    """Each as a foreign exception of its own kind, which a daemon has to map."""
    kinds = {
        "hang": httpx.ReadTimeout,
        "latency": httpx.ReadTimeout,
        "cut": httpx.RemoteProtocolError,
        "drop": httpx.RemoteProtocolError,
        "reject": httpx.HTTPStatusError,
        "html": httpx.HTTPStatusError,
        "garbage": ValueError,
        "shape": ValidationError,
    }
    with simulated() as simulator:
        async with AsyncDstackClient(simulator.socket_path, timeout=0.5) as client:
            for kind, error in kinds.items():
                simulator.fail(kind, "GetKey", seconds=20.0)
                with pytest.raises(error):
                    await client.get_key("a")
                simulator.heal()
            simulator.stop()
            with pytest.raises(httpx.ConnectError):
                await client.get_key("a")
            simulator.start()
            simulator.heal()
            client._timeout = 20
            assert (await client.get_key("a")).key
