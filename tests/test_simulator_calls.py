"""
What a guest agent answers, method by method: the double in every version, or the agent of DSTACK_SIMULATOR_ENDPOINT.

A test skips where the version lacks what it is about.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from dstack_simulator import secp256k1

from tests.simulator import TARGETS, Target, recovered, target

RUNTIME_EVENT_TYPE = 134217729
NEVER = (9,)
# Method: the versions [from, to) that have it.
METHODS = {
    "GetTlsKey": ((0, 5, 5), NEVER),
    "GetKey": ((0, 5, 5), NEVER),
    "GetQuote": ((0, 5, 5), NEVER),
    "Info": ((0, 5, 5), NEVER),
    "EmitEvent": ((0, 5, 5), (0, 6)),
    "Attest": ((0, 5, 6), NEVER),
    "Sign": ((0, 5, 6), NEVER),
    "Verify": ((0, 5, 6), NEVER),
    "Version": ((0, 5, 7), NEVER),
    "GpuInfo": ((0, 6), NEVER),
}
REPORT_DATA = bytes(range(64))
MALFORMED_SIGNATURE = b"A"
# Offsets in a quote of version 4: Intel TDX DCAP Quoting Library API, appendix A.
MR_TD, RTMR0 = 184, 376


@pytest.fixture(scope="module", params=TARGETS)
def agent(request: pytest.FixtureRequest) -> Iterator[Target]:
    """Every agent."""
    with target(request.param) as running:
        yield running


@pytest.mark.parametrize("method", METHODS)
def test_a_version_has_its_methods_and_no_other(agent: Target, method: str) -> None:
    """What is missing is a 400 that says so, as an unknown method is."""
    since, until = METHODS[method]
    status, reply = agent.ask(method, event="x")
    if since <= agent.version < until:
        assert reply is None or "Service not found" not in str(reply)
    else:
        assert (status, reply) == (400, {"error": f"Service not found: {method}"})


def test_an_unknown_method_is_named(agent: Target) -> None:
    """As it was asked for."""
    assert agent.error("getkey") == "Service not found: getkey"


def test_version_tells_version_and_revision(agent: Target) -> None:
    """Both as text."""
    agent.needs((0, 5, 7), "Version")
    reply = agent.call("Version")
    assert list(reply) == ["version", "rev"]
    assert reply["version"] == ".".join(map(str, agent.version))
    assert reply["rev"].startswith("git:")


def test_gpu_info_is_empty_without_a_gpu(agent: Target) -> None:
    """An empty text."""
    agent.needs((0, 6), "GpuInfo")
    assert agent.call("GpuInfo") == {"attestation": ""}


class TestGetKey:
    """Keys of paths, and the chain that vouches for them."""

    def test_a_path_has_one_key(self, agent: Target) -> None:
        """Always the same, another for another path; the purpose is in the chain only."""
        one = agent.call("GetKey", path="a", purpose="b")
        assert list(one) == ["key", "signature_chain"]
        assert len(bytes.fromhex(one["key"])) == 32
        assert agent.call("GetKey", path="a", purpose="b") == one
        other = agent.call("GetKey", path="a", purpose="c")
        assert (other["key"], other["signature_chain"][1]) == (one["key"], one["signature_chain"][1])
        assert other["signature_chain"][0] != one["signature_chain"][0]
        assert agent.call("GetKey", path="A", purpose="b")["key"] != one["key"]

    def test_everything_has_a_default(self, agent: Target) -> None:
        """No path, no purpose, no algorithm is the key of the empty path."""
        assert agent.call("GetKey") == agent.call("GetKey", path="", purpose="", algorithm="secp256k1")

    @pytest.mark.parametrize("algorithm", ["secp256k1", "ed25519"])
    @pytest.mark.parametrize(("path", "purpose"), [("", ""), ("wallet/0", "eth"), ("ü/☃", "a:b")])
    def test_the_chain_leads_to_the_app_and_the_kms(
        self, agent: Target, path: str, purpose: str, algorithm: str
    ) -> None:
        """The app signs purpose and public key, the KMS signs app id and the app's public key."""
        if algorithm == "ed25519":
            agent.needs((0, 5, 6), "ed25519")
        key = agent.call("GetKey", path=path, purpose=purpose, algorithm=algorithm)
        check_chain(agent, key["signature_chain"], purpose, public_of(key["key"], algorithm))

    def test_both_algorithms_have_the_same_bytes(self, agent: Target) -> None:
        """What makes them differ is the public key. The oldest version gives a secp256k1 key whatever is asked."""
        first = agent.call("GetKey", path="p", purpose="q", algorithm="secp256k1")
        second = agent.call("GetKey", path="p", purpose="q", algorithm="ed25519")
        assert first["key"] == second["key"]
        assert (first == second) == (agent.version < (0, 5, 6))

    def test_an_unknown_field_may_hold_anything(self, agent: Target) -> None:
        """To the oldest version the algorithm is such a field."""
        assert agent.call("GetKey", x=[{}]) == agent.call("GetKey")
        status = agent.ask("GetKey", algorithm=1)[0]
        assert status == (200 if agent.version < (0, 5, 6) else 400)

    def test_k256_is_another_name(self, agent: Target) -> None:
        """From 0.5.7 on; before, it is no algorithm, and before that nobody looks."""
        if (0, 5, 6) <= agent.version < (0, 5, 7):
            assert agent.error("GetKey", algorithm="k256") == "Unsupported algorithm"
        else:
            assert agent.call("GetKey", algorithm="k256") == agent.call("GetKey", algorithm="secp256k1")

    @pytest.mark.parametrize("algorithm", ["rsa", "ED25519", " ", "secp256k1_prehashed"])
    def test_an_unknown_algorithm_is_refused(self, agent: Target, algorithm: str) -> None:
        """By its name, case included; keys are not prehashed."""
        agent.needs((0, 5, 6), "algorithms")
        if algorithm == "secp256k1_prehashed" and agent.version < (0, 5, 7):
            assert agent.call("GetKey", algorithm=algorithm) == agent.call("GetKey")
        else:
            assert agent.error("GetKey", algorithm=algorithm) == "Unsupported algorithm"


class TestSign:
    """Signatures with the key that all callers share."""

    @pytest.mark.parametrize("algorithm", ["ed25519", "secp256k1", "secp256k1_prehashed"])
    @pytest.mark.parametrize("data", [b"", b"a message", bytes(5_000)], ids=len)
    def test_what_is_signed_verifies(self, agent: Target, algorithm: str, data: bytes) -> None:
        """And nothing else: not with another byte, not as another message."""
        agent.needs((0, 5, 6), "Sign")
        if algorithm == "secp256k1_prehashed":
            data = hashlib.sha256(data).digest()
        signed = agent.call("Sign", algorithm=algorithm, data=data)
        assert list(signed) == ["signature", "signature_chain", "public_key"]
        signature, public = bytes.fromhex(signed["signature"]), bytes.fromhex(signed["public_key"])
        assert (len(signature), len(public)) == (64, 32 if algorithm == "ed25519" else 33)

        def verified(data: bytes = data, signature: bytes = signature, public: bytes = public) -> Any:
            return agent.call("Verify", algorithm=algorithm, data=data, signature=signature, public_key=public)

        assert verified() == {"valid": True}
        other = hashlib.sha256(data + b"!").digest()
        assert verified(data=other) == {"valid": False}
        assert verified(signature=signature[:40] + bytes([signature[40] ^ 1]) + signature[41:]) == {"valid": False}
        assert verified(public=public_of(hashlib.sha256(b"x").hexdigest(), algorithm)) == {"valid": False}

    @pytest.mark.parametrize("algorithm", ["ed25519", "secp256k1", "secp256k1_prehashed"])
    def test_the_key_is_that_of_the_path_vms(self, agent: Target, algorithm: str) -> None:
        """For the purpose "signing": who reaches the socket can have it, and the chain is GetKey's."""
        agent.needs((0, 5, 6), "Sign")
        signed = agent.call("Sign", algorithm=algorithm, data=bytes(32))
        key_algorithm = algorithm.removesuffix("_prehashed")
        key = agent.call("GetKey", path="vms", purpose="signing", algorithm=key_algorithm)
        assert signed["signature_chain"] == [signed["signature"], *key["signature_chain"]]
        assert bytes.fromhex(signed["public_key"]) == public_of(key["key"], key_algorithm)
        check_chain(agent, signed["signature_chain"][1:], "signing", bytes.fromhex(signed["public_key"]))
        expected = {
            "ed25519": lambda secret: Ed25519PrivateKey.from_private_bytes(secret).sign(bytes(32)),
            "secp256k1": lambda secret: secp256k1.sign(secret, hashlib.sha256(bytes(32)).digest()),
            "secp256k1_prehashed": lambda secret: secp256k1.sign(secret, bytes(32)),
        }[algorithm](bytes.fromhex(key["key"]))
        assert bytes.fromhex(signed["signature"]) == expected

    def test_a_prehash_is_signed_as_it_is(self, agent: Target) -> None:
        """What "secp256k1" signs is the SHA-256 of the data."""
        agent.needs((0, 5, 6), "Sign")
        hashed = agent.call("Sign", algorithm="secp256k1_prehashed", data=hashlib.sha256(b"data").digest())
        assert hashed == agent.call("Sign", algorithm="secp256k1", data=b"data")

    @pytest.mark.parametrize("size", [0, 1, 31, 33])
    def test_a_prehash_has_32_bytes(self, agent: Target, size: int) -> None:
        """The error counts them."""
        agent.needs((0, 5, 6), "Sign")
        assert agent.error("Sign", algorithm="secp256k1_prehashed", data=bytes(size)) == (
            f"Pre-hashed signing requires a 32-byte digest, but received {size} bytes"
        )

    @pytest.mark.parametrize("method", ["Sign", "Verify"])
    @pytest.mark.parametrize("algorithm", ["", "rsa", "Ed25519"])
    def test_an_algorithm_must_be_named(self, agent: Target, method: str, algorithm: str) -> None:
        """Here none is no default."""
        agent.needs((0, 5, 6), method)
        assert agent.error(method, algorithm=algorithm, data=b"") == "Unsupported algorithm"


class TestVerify:
    """Malformed is not the same as wrong."""

    @pytest.mark.parametrize(
        ("algorithm", "public", "signature", "text"),
        [
            ("ed25519", b"A", bytes(64), "invalid public key"),
            ("ed25519", bytes(33), bytes(64), "invalid public key"),
            ("ed25519", b"A" * 32, bytes(64), "signature error: Cannot decompress Edwards point"),
            ("ed25519", bytes.fromhex("58" + "66" * 31), MALFORMED_SIGNATURE, "signature error"),
            ("secp256k1", b"A", bytes(64), "signature error"),
            ("secp256k1", b"\x05" + bytes(32), bytes(64), "signature error"),
            ("secp256k1", bytes.fromhex("02" + "ff" * 32), bytes(64), "signature error"),
            ("secp256k1_prehashed", secp256k1.public_key(bytes(31) + b"\1"), MALFORMED_SIGNATURE, "signature error"),
            ("secp256k1", secp256k1.public_key(bytes(31) + b"\1"), bytes(64), "signature error"),
            ("secp256k1", secp256k1.public_key(bytes(31) + b"\1"), b"\xff" * 64, "signature error"),
        ],
    )
    def test_what_cannot_be_read_is_an_error(
        self, agent: Target, algorithm: str, public: bytes, signature: bytes, text: str
    ) -> None:
        """Not ``valid: false``."""
        agent.needs((0, 5, 6), "Verify")
        got = agent.error("Verify", algorithm=algorithm, data=b"x", signature=signature, public_key=public)
        assert got.startswith(text)

    def test_a_key_may_be_uncompressed(self, agent: Target) -> None:
        """SEC 1, both forms."""
        agent.needs((0, 5, 6), "Verify")
        signed = agent.call("Sign", algorithm="secp256k1", data=b"x")
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), bytes.fromhex(signed["public_key"]))
        numbers = key.public_numbers()
        public = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        reply = agent.call("Verify", algorithm="secp256k1", data=b"x", signature=signed["signature"], public_key=public)
        assert reply == {"valid": True}

    def test_a_high_s_is_not_valid(self, agent: Target) -> None:
        """Though mathematics has nothing against it."""
        agent.needs((0, 5, 6), "Verify")
        signed = agent.call("Sign", algorithm="secp256k1", data=b"x")
        signature = bytes.fromhex(signed["signature"])
        high = signature[:32] + (secp256k1.ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
        reply = agent.call("Verify", algorithm="secp256k1", data=b"x", signature=high, public_key=signed["public_key"])
        assert reply == {"valid": False}


class TestGetQuote:
    """Quotes with report data in place."""

    @pytest.mark.parametrize("report_data", [b"", b"nonce", REPORT_DATA], ids=len)
    def test_report_data_is_padded_on_the_right(self, agent: Target, report_data: bytes) -> None:
        """With zeros, to 64 bytes, in the reply and in the evidence."""
        reply = agent.call("GetQuote", report_data=report_data)
        padded = report_data.ljust(64, b"\0")
        assert bytes.fromhex(reply["report_data"]) == padded
        assert json.loads(reply["vm_config"])["os_image_hash"]
        if agent.platform == "tdx":
            # dstack's simulator adds an attestation that the real agent leaves out.
            assert [name for name in reply if name != "attestation"] == [
                "quote", "event_log", "report_data", "vm_config"
            ]  # fmt: skip
            assert not agent.is_double or "attestation" not in reply
            assert bytes.fromhex(reply["quote"])[568:632] == padded
        else:
            assert (reply["quote"], reply["event_log"]) == ("", "")
            assert report_data_of(parse_scale(bytes.fromhex(reply["attestation"]))) == padded

    @pytest.mark.parametrize("method", ["GetQuote", "Attest"])
    def test_more_than_64_bytes_are_too_long(self, agent: Target, method: str) -> None:
        """One byte is enough."""
        agent.needs(METHODS[method][0], method)
        assert agent.error(method, report_data=bytes(65)) == "Report data is too long"

    def test_a_quote_is_one_of_tdx(self, agent: Target) -> None:
        """Header, measurements as Info tells them, and a signature over both by the key that follows it."""
        needs_tdx(agent)
        quote = bytes.fromhex(agent.call("GetQuote", report_data=REPORT_DATA)["quote"])
        tcb_info = json.loads(agent.call("Info")["tcb_info"])
        assert struct.unpack_from("<HHI", quote) == (4, 2, 0x81)
        assert quote[12:28].hex() == "939a7233f79c4ca9940a0db3957f0607"
        assert quote[MR_TD : MR_TD + 48].hex() == tcb_info["mrtd"]
        for index in range(4):
            start = RTMR0 + 48 * index
            assert quote[start : start + 48].hex() == tcb_info[f"rtmr{index}"]
        (size,) = struct.unpack_from("<I", quote, 632)
        assert 636 + size <= len(quote)

    def test_the_doubles_quote_says_that_it_is_simulated(self, agent: Target) -> None:
        """Its signatures hold, and they end in a root that is plainly not Intel's."""
        needs_tdx(agent)
        if not agent.is_double:
            pytest.skip("not the double")
        quote = bytes.fromhex(agent.call("GetQuote", report_data=REPORT_DATA)["quote"])
        signature = quote[636:]
        raw_key = signature[64:128]
        check_p256(raw_key, signature[:64], quote[:632])
        kind, size = struct.unpack_from("<HI", signature, 128)
        certification = signature[134:]
        assert (kind, size) == (6, len(certification))
        report, qe_signature = certification[:384], certification[384:448]
        (auth_size,) = struct.unpack_from("<H", certification, 448)
        authentication = certification[450 : 450 + auth_size]
        assert report[320:] == hashlib.sha256(raw_key + authentication).digest().ljust(64, b"\0")
        kind, size = struct.unpack_from("<HI", certification, 450 + auth_size)
        chain = certification[456 + auth_size :]
        assert (kind, size) == (5, len(chain))
        pck, root = x509.load_pem_x509_certificates(chain)
        key = pck.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        point = key.public_numbers()
        check_p256(point.x.to_bytes(32, "big") + point.y.to_bytes(32, "big"), qe_signature, report)
        pck.verify_directly_issued_by(root)
        assert common_name(root) == "Simulated SGX Root CA (dstack-simulator, not Intel)"
        assert b"dstack-simulator" in quote[28:48]

    def test_the_log_replays_to_the_registers(self, agent: Target) -> None:
        """Once the digests of runtime events, which newer versions leave out, are computed."""
        needs_tdx(agent)
        reply = agent.call("GetQuote", report_data=b"")
        quote, events = bytes.fromhex(reply["quote"]), json.loads(reply["event_log"])
        for index in range(4):
            register = bytes(48)
            for event in events:
                if event["imr"] == index:
                    register = hashlib.sha384(register + digest_of(event)).digest()
            assert register == quote[RTMR0 + 48 * index : RTMR0 + 48 * index + 48], index

    def test_what_the_log_leaves_out(self, agent: Target) -> None:
        """Digests of runtime events and payloads of boot events, from 0.5.6 on; ACPI markers stay from 0.6 on."""
        needs_tdx(agent)
        if not agent.is_double:
            pytest.skip("dstack's simulator shows its fixture's log as it is")
        events = json.loads(agent.call("GetQuote", report_data=b"")["event_log"])
        keys = ["imr", "event_type", "digest", "event", "event_payload"]
        is_old = agent.version < (0, 5, 6)
        for event in events:
            assert list(event)[:5] == keys
            if event["event_type"] == RUNTIME_EVENT_TYPE:
                assert bool(event["digest"]) == is_old
                assert list(event)[5:] == (["version", "preimage"] if agent.event_version == 2 else [])
            else:
                keeps = is_old or (event["event_type"] == 10 and agent.version >= (0, 6))
                assert bool(event["event_payload"]) == keeps

    def test_the_boot_is_told_in_order(self, agent: Target) -> None:
        """The names of dstack's own events, and what those say that Info repeats."""
        needs_tdx(agent)
        info = agent.call("Info")
        events = [
            (event["event"], event["event_payload"])
            for event in json.loads(agent.call("GetQuote", report_data=b"")["event_log"])
            if event["imr"] == 3
        ]
        names = [name for name, _ in events]
        has_kms = json.loads(info["key_provider_info"])["name"] == "kms"
        boot = ["system-preparing", "app-id", "compose-hash", "instance-id", "boot-mr-done"]
        boot += ["os-image-hash"] * has_kms + ["key-provider", "storage-fs", "system-ready"]
        if not agent.is_double and agent.version < (0, 5, 6):
            boot = [name for name in boot if name in names]  # the fixture of this version is from an older machine
        assert names[: len(boot)] == boot
        told = dict(events[: len(boot)])
        assert told["app-id"] == info["app_id"]
        assert told["compose-hash"] == info["compose_hash"]
        assert told["instance-id"] == info["instance_id"]
        assert bytes.fromhex(told["key-provider"]).decode() == info["key_provider_info"]


class TestAttest:
    """dstack's own envelope."""

    @pytest.mark.parametrize("report_data", [b"", b"nonce", REPORT_DATA], ids=len)
    def test_an_attestation_can_be_read_to_its_last_byte(self, agent: Target, report_data: bytes) -> None:
        """SCALE with events of version 1, MessagePack with those of version 2; both carry the report data twice."""
        agent.needs((0, 5, 6), "Attest")
        if not agent.is_double and agent.version < (0, 5, 9):
            pytest.skip("dstack's simulator of these versions attests its fixture's report data, whatever is asked")
        reply = agent.call("Attest", report_data=report_data)
        assert list(reply) == ["attestation"]
        content = bytes.fromhex(reply["attestation"])
        padded = report_data.ljust(64, b"\0")
        if content[0] == 0:
            parsed = parse_scale(content)
            assert report_data_of(parsed) == parsed["report_data"] == padded
        else:
            parsed = parse_msgpack(content)
            assert (parsed["version"], parsed["platform"]["kind"], parsed["stack"]["kind"]) == (1, "tdx", "dstack")
            assert bytes(parsed["stack"]["data"]["report_data"]) == padded
            assert bytes(parsed["platform"]["data"]["quote"])[568:632] == padded
        assert not agent.is_double or (content[0] == 0) == (agent.event_version == 1)

    def test_the_events_are_those_of_the_log(self, agent: Target) -> None:
        """Whole: nothing is left out here."""
        agent.needs((0, 5, 6), "Attest")
        needs_tdx(agent)
        content = bytes.fromhex(agent.call("Attest", report_data=b"")["attestation"])
        log = json.loads(agent.call("Info")["tcb_info"])["event_log"]
        if content[0] == 0:
            events, names = parse_scale(content)["events"], parse_scale(content)["runtime_events"]
        else:
            parsed = parse_msgpack(content)
            events = [
                (event["imr"], event["event_type"], event["digest"], event["event"], event["event_payload"])
                for event in parsed["platform"]["data"]["event_log"]
            ]
            for event in parsed["platform"]["data"]["event_log"]:
                if "preimage" in event:
                    assert hashlib.sha384(bytes.fromhex(event["preimage"])).digest() == event["digest"]
            names = [(event["event"], event["payload"]) for event in parsed["stack"]["data"]["runtime_events"]]
        assert events == [
            (
                event["imr"],
                event["event_type"],
                bytes.fromhex(event["digest"]),
                event["event"],
                bytes.fromhex(event["event_payload"]),
            )
            for event in log
        ]
        assert names == [(event["event"], bytes.fromhex(event["event_payload"])) for event in log if event["imr"] == 3]

    def test_an_snp_report_is_one(self, agent: Target) -> None:
        """Report data, the digest of the configuration and a P-384 signature at their places."""
        if agent.platform != "snp":
            pytest.skip("not SEV-SNP")
        parsed = parse_scale(bytes.fromhex(agent.call("Attest", report_data=REPORT_DATA)["attestation"]))
        report, mr_config = parsed["report"], parsed["mr_config"]
        info = agent.call("Info")
        assert len(report) == 1_184
        assert report[0xC0:0xE0] == hashlib.sha256(b"dstack-mr-config-v3:\0" + mr_config).digest()
        assert json.loads(mr_config)["app_id"] == info["app_id"]
        assert json.loads(mr_config)["compose_hash"] == info["compose_hash"]
        assert hashlib.sha256(report[0x90:0xE0]).hexdigest() == info["mr_aggregated"]
        assert hashlib.sha256(report[0x1A0:0x1E0]).hexdigest() == info["device_id"]
        assert any(report[0x2A0:0x2E8])
        assert (parsed["events"], parsed["runtime_events"]) == ([], [])


class TestInfo:
    """What the agent tells of app and machine."""

    def test_the_fields_are_those_of_the_version(self, agent: Target) -> None:
        """In the protocol's order."""
        fields = [
            "app_id", "instance_id", "app_cert", "tcb_info", "app_name", "device_id", "mr_aggregated", "os_image_hash",
            "key_provider_info", "compose_hash", "vm_config",
        ]  # fmt: skip
        if agent.version >= (0, 5, 6):
            fields += ["cloud_vendor", "cloud_product"]
        info = agent.call("Info")
        assert list(info) == fields
        assert all(isinstance(value, str) for value in info.values())
        sizes = {"app_id": 20, "instance_id": 20, "device_id": 32, "mr_aggregated": 32, "compose_hash": 32}
        assert {name: len(bytes.fromhex(info[name])) for name in sizes} == sizes

    def test_tcb_info_is_json_in_a_text(self, agent: Target) -> None:
        """Registers are null where there is no TDX; everything said twice agrees."""
        info = agent.call("Info")
        tcb_info = json.loads(info["tcb_info"])
        assert list(tcb_info) == [
            "mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mr_aggregated", "os_image_hash", "compose_hash", "device_id",
            "event_log", "app_compose",
        ]  # fmt: skip
        for name in ("mr_aggregated", "os_image_hash", "compose_hash", "device_id"):
            assert tcb_info[name] == info[name]
        registers = [tcb_info[name] for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")]
        if agent.platform == "snp":
            assert (registers, tcb_info["event_log"]) == ([None] * 5, [])
        else:
            assert [len(bytes.fromhex(register)) for register in registers] == [48] * 5
            # Before 0.5.6 it is what the quoting enclave calls itself.
            quote = bytes.fromhex(agent.call("GetQuote", report_data=b"")["quote"])
            device = quote[28:48] if agent.version < (0, 5, 6) else b""
            assert info["device_id"] == hashlib.sha256(device).hexdigest()
            # Digests and payloads are all there.
            assert all(digest_of(event).hex() == event["digest"] for event in tcb_info["event_log"])
        assert info["app_name"] == json.loads(tcb_info["app_compose"])["name"]

    def test_the_double_is_consistent(self, agent: Target) -> None:
        """App id and compose hash follow from the compose file, which dstack's own fixture does not keep to."""
        if not agent.is_double:
            pytest.skip("not the double")
        info = agent.call("Info")
        compose = json.loads(info["tcb_info"])["app_compose"]
        assert info["compose_hash"] == hashlib.sha256(compose.encode()).hexdigest()
        assert info["app_id"] == info["compose_hash"][:40]
        assert json.loads(info["vm_config"])["os_image_hash"] == info["os_image_hash"]

    def test_the_aggregate_follows_from_the_quote(self, agent: Target) -> None:
        """The measurements, and the configuration ids where there are any."""
        needs_tdx(agent)
        quote = bytes.fromhex(agent.call("GetQuote", report_data=b"")["quote"])
        content = quote[MR_TD : MR_TD + 48] + quote[RTMR0 : RTMR0 + 192]
        if any(quote[232:376]):
            content += quote[232:376]
        assert hashlib.sha256(content).hexdigest() == agent.call("Info")["mr_aggregated"]

    def test_the_body_is_never_read(self, agent: Target) -> None:
        """Whatever it is."""
        reply = agent.call("Info", app_id=1, x=None)
        assert list(reply) == list(agent.call("Info"))


class TestGetTlsKey:
    """A fresh key with a certificate of the app's authority."""

    def test_key_and_chain_belong_together(self, agent: Target) -> None:
        """A P-256 key in PKCS #8, its certificate, and the authority's."""
        reply = agent.call("GetTlsKey", subject="example", alt_names=["a.example", "10.0.0.1"], usage_server_auth=True)
        assert list(reply) == ["key", "certificate_chain"]
        assert reply["key"].startswith("-----BEGIN PRIVATE KEY-----\n")
        key = load_pem_private_key(reply["key"].encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.curve.name == "secp256r1"
        chain = [x509.load_pem_x509_certificate(text.encode()) for text in reply["certificate_chain"]]
        leaf = chain[0]
        assert leaf.public_key() == key.public_key()
        for certificate, authority in zip(chain, [*chain[1:], chain[-1]], strict=True):
            certificate.verify_directly_issued_by(authority)
        assert common_name(leaf) == "example"
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        # Before 0.5.11 an address is a host name like others.
        addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
        assert names.get_values_for_type(x509.DNSName) + addresses == ["a.example", "10.0.0.1"]
        assert bool(addresses) == (agent.version >= (0, 5, 11))

    def test_a_kms_gives_every_app_an_authority(self, agent: Target) -> None:
        """Below its own, which its key provider info names; leaf and authority carry the app id then."""
        if not agent.is_double:
            pytest.skip("dstack's simulator speaks of a KMS but has none")
        info = agent.call("Info")
        chain = [x509.load_pem_x509_certificate(text.encode()) for text in agent.call("GetTlsKey")["certificate_chain"]]
        app_ids = [
            octets(extension).hex()
            for certificate in chain
            for extension in certificate.extensions
            if extension.oid.dotted_string == "1.3.6.1.4.1.62397.1.3"
        ]
        provider = json.loads(info["key_provider_info"])
        if provider["name"] == "kms":
            assert (len(chain), app_ids) == (3, [info["app_id"]] * 2)
            assert chain[-1].public_key().public_bytes(*der_key()).hex() == provider["id"]
        else:
            assert (len(chain), app_ids) == (2, [])

    def test_every_call_gives_another_key(self, agent: Target) -> None:
        """It is random, not derived."""
        assert agent.call("GetTlsKey")["key"] != agent.call("GetTlsKey")["key"]

    @pytest.mark.parametrize("is_server", [False, True])
    @pytest.mark.parametrize("is_client", [False, True])
    def test_usages_are_those_asked_for(self, agent: Target, is_server: bool, is_client: bool) -> None:
        """None by default."""
        leaf = issued(agent, usage_server_auth=is_server, usage_client_auth=is_client)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] * is_server + [ExtendedKeyUsageOID.CLIENT_AUTH] * is_client
        try:
            found = list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        except x509.ExtensionNotFound:
            found = []
        assert found == usages

    def test_a_validity_can_be_set(self, agent: Target) -> None:
        """In Unix seconds; the default ends in ten years. The oldest version does not know the fields."""
        leaf = issued(agent, not_before=1_700_000_000, not_after=1_800_000_000)
        found = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        assert (found == (1_700_000_000, 1_800_000_000)) == (agent.version >= (0, 5, 6))
        days = (issued(agent).not_valid_after_utc - datetime.datetime.now(datetime.UTC)).days
        assert 3_640 < days < 3_660

    def test_a_validity_must_not_end_before_it_begins(self, agent: Target) -> None:
        """From 0.6 on it is refused."""
        agent.needs((0, 6), "check of a validity")
        for not_after in (4, 5):
            text = agent.error("GetTlsKey", not_before=5, not_after=not_after)
            assert text == "not_before must be earlier than not_after"

    def test_ra_tls_carries_evidence_of_the_key(self, agent: Target) -> None:
        """The report data is the hash of the public key; since 0.5.9 in dstack's envelope, before as a bare quote."""
        leaf = issued(agent, usage_ra_tls=True)
        extensions = {extension.oid.dotted_string: extension for extension in leaf.extensions}
        der = leaf.public_key().public_bytes(*der_key())
        bound = hashlib.sha512(b"ratls-cert:" + der).digest()
        if not agent.is_double and agent.version < (0, 5, 6):
            pytest.skip("dstack's simulator of this version puts nothing in")
        if agent.version < (0, 5, 9):
            quote = octets(extensions["1.3.6.1.4.1.62397.1.1"])
            if agent.is_double:
                # dstack's simulator of these versions puts its fixture in as it is.
                assert quote[568:632] == bound
            log = json.loads(octets(extensions["1.3.6.1.4.1.62397.1.2"]))
            assert log == json.loads(agent.call("Info")["tcb_info"])["event_log"]
            return
        content = octets(extensions["1.3.6.1.4.1.62397.1.8"])
        if content[0] == 0:
            assert report_data_of(parse_scale(content)) == bound
        else:
            assert bytes(parse_msgpack(content)["stack"]["data"]["report_data"]) == bound

    def test_app_info_can_be_put_in(self, agent: Target) -> None:
        """As MessagePack; only when asked for, and not in the oldest version."""
        oid = ObjectIdentifier("1.3.6.1.4.1.62397.1.9")
        found = {extension.oid: extension for extension in issued(agent, with_app_info=True).extensions}
        if agent.version < (0, 5, 6):
            assert oid not in found
            return
        info = agent.call("Info")
        values = parse_msgpack(octets(found[oid]))
        assert [value.hex() for value in values[:4]] == [
            info[name] for name in ("app_id", "compose_hash", "instance_id", "device_id")
        ]
        assert [value.hex() for value in values[5:7]] == [info["mr_aggregated"], info["os_image_hash"]]
        assert values[7].decode() == info["key_provider_info"]
        assert oid not in {extension.oid for extension in issued(agent).extensions}

    def test_a_name_that_no_certificate_carries_is_refused(self, agent: Target) -> None:
        """With the chain of causes."""
        assert agent.error("GetTlsKey", alt_names=["ü.example"]).startswith("Failed to sign the CSR")


class TestEmitEvent:
    """Events of the app, until 0.6."""

    @pytest.mark.parametrize("payload", [b"", b"payload", bytes(1_000)], ids=len)
    def test_an_event_extends_register_3(self, agent: Target, payload: bytes) -> None:
        """It is in the log, last, and the register that the next quote shows follows from it."""
        if not agent.is_double:
            pytest.skip("would extend a real register, and dstack's simulator refuses")
        if agent.version >= (0, 6):
            pytest.skip("gone from 0.6 on")
        before = json.loads(agent.call("Info")["tcb_info"])
        assert agent.call("EmitEvent", event="app-event", payload=payload) is None
        after = json.loads(agent.call("Info")["tcb_info"])
        digest = hashlib.sha384(b"\x01\x00\x00\x08:app-event:" + payload).digest()
        assert after["event_log"][:-1] == before["event_log"]
        assert after["event_log"][-1] == {
            "imr": 3,
            "event_type": RUNTIME_EVENT_TYPE,
            "digest": digest.hex(),
            "event": "app-event",
            "event_payload": payload.hex(),
        }
        assert after["rtmr3"] == hashlib.sha384(bytes.fromhex(before["rtmr3"]) + digest).hexdigest()
        quote = bytes.fromhex(agent.call("GetQuote", report_data=b"")["quote"])
        assert quote[520:568].hex() == after["rtmr3"]


def needs_tdx(agent: Target) -> None:
    if agent.platform != "tdx":
        pytest.skip("not TDX")


def public_of(secret: str, algorithm: str) -> bytes:
    """The public key of a secret in hex."""
    if algorithm == "ed25519":
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret)).public_key().public_bytes_raw()
    key = ec.derive_private_key(int(secret, 16), ec.SECP256K1()).public_key().public_numbers()
    return bytes([2 + key.y % 2]) + key.x.to_bytes(32, "big")


def check_chain(agent: Target, chain: list[str], purpose: str, public: bytes) -> None:
    """The app's link, then the KMS's, down to the root where it is known."""
    app_link, kms_link = (bytes.fromhex(link) for link in chain)
    app_key = recovered(app_link, f"{purpose}:{public.hex()}".encode())
    # Every link of this app comes from one key.
    other = agent.call("GetKey", path="other", purpose="")
    signed = f":{public_of(other['key'], 'secp256k1').hex()}".encode()
    assert app_key == recovered(bytes.fromhex(other["signature_chain"][0]), signed)
    info = agent.call("Info")
    if json.loads(info["key_provider_info"])["name"] != "kms":
        assert kms_link == b""
        return
    assert len(kms_link) == 65
    root = recovered(kms_link, b"dstack-kms-issued:" + bytes.fromhex(info["app_id"]) + app_key)
    assert agent.kms_root in (None, root)


def digest_of(event: dict[str, Any]) -> bytes:
    """What an event extends its register with, computed where it is one of dstack's."""
    if event["event_type"] != RUNTIME_EVENT_TYPE:
        return bytes.fromhex(event["digest"])
    payload = event["event_payload"]
    if event.get("version", 1) == 1:
        content = b"\x01\x00\x00\x08:" + event["event"].encode() + b":" + bytes.fromhex(payload)
    else:
        content = f'{{"name":{json.dumps(event["event"])},"payload":"{payload}","type":134217729}}'.encode()
        assert event.get("preimage", content.hex()) == content.hex()
    return hashlib.sha384(content).digest()


def report_data_of(parsed: dict[str, Any]) -> bytes:
    """Where the evidence itself has it."""
    content: bytes = parsed["quote"][568:632] if "quote" in parsed else parsed["report"][0x50:0x90]
    return content


def parse_scale(content: bytes) -> dict[str, Any]:
    """An attestation of version 0, to the last byte."""
    reader = Reader(content)
    assert reader.take(1) == b"\0"
    parsed: dict[str, Any] = {"events": []}
    variant = reader.take(1)[0]
    if variant == 0:
        parsed["quote"] = reader.sized()
        for _ in range(reader.compact()):
            imr, type = struct.unpack("<II", reader.take(8))
            digest, name, payload = reader.sized(), reader.sized().decode(), reader.sized()
            parsed["events"].append((imr, type, digest, name, payload))
    else:
        assert variant == 3
        parsed["report"] = reader.sized()
        parsed["certificates"] = [reader.sized() for _ in range(reader.compact())]
        parsed["mr_config"] = reader.sized()
    parsed["runtime_events"] = [(reader.sized().decode(), reader.sized()) for _ in range(reader.compact())]
    parsed["report_data"] = reader.take(64)
    parsed["config"] = json.loads(reader.sized())
    assert reader.position == len(content)
    return parsed


class Reader:
    """Bytes with a position."""

    def __init__(self, content: bytes) -> None:
        self.content, self.position = content, 0

    def take(self, size: int) -> bytes:
        taken = self.content[self.position : self.position + size]
        assert len(taken) == size
        self.position += size
        return taken

    def compact(self) -> int:
        size = (1, 2, 4)[self.content[self.position] & 3]
        return int.from_bytes(self.take(size), "little") >> 2

    def sized(self) -> bytes:
        return self.take(self.compact())


def parse_msgpack(content: bytes) -> Any:
    """MessagePack, to the last byte."""
    reader = Reader(content)
    value = msgpack_value(reader)
    assert reader.position == len(content)
    return value


def msgpack_value(reader: Reader) -> Any:
    code = reader.take(1)[0]

    def number(size: int) -> int:
        return int.from_bytes(reader.take(size), "big")

    if code < 0x80:
        return code
    if code < 0x90:
        return {msgpack_value(reader): msgpack_value(reader) for _ in range(code & 15)}
    if code < 0xA0:
        return [msgpack_value(reader) for _ in range(code & 15)]
    if code < 0xC0:
        return reader.take(code & 31).decode()
    if code == 0xC0:
        return None
    if code in (0xC4, 0xC5, 0xC6):
        return reader.take(number(1 << code - 0xC4))
    if code in (0xCC, 0xCD, 0xCE):
        return number(1 << code - 0xCC)
    if code in (0xD9, 0xDA, 0xDB):
        return reader.take(number(1 << code - 0xD9)).decode()
    if code in (0xDC, 0xDD):
        return [msgpack_value(reader) for _ in range(number(2 << code - 0xDC))]
    assert code in (0xDE, 0xDF), hex(code)
    return {msgpack_value(reader): msgpack_value(reader) for _ in range(number(2 << code - 0xDE))}


def issued(agent: Target, **wish: Any) -> x509.Certificate:
    """The leaf of a new TLS key."""
    return x509.load_pem_x509_certificate(agent.call("GetTlsKey", **wish)["certificate_chain"][0].encode())


def octets(extension: x509.Extension[Any]) -> bytes:
    """What is in an extension of dstack's, less the octet string's head."""
    der: bytes = extension.value.value
    assert der[0] == 4
    head = 2 + (der[1] & 0x7F if der[1] & 0x80 else 0)
    return der[head:]


def check_p256(raw_key: bytes, signature: bytes, message: bytes) -> None:
    """A signature of 64 bytes by a public key of 64 bytes."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + raw_key)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))


def common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def der_key() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return Encoding.DER, PublicFormat.SubjectPublicKeyInfo
