"""The double's cryptography, event log and envelopes, against values that others have published or that dstack gave."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from dstack_simulator import derivation, secp256k1
from dstack_simulator.agent import Agent
from dstack_simulator.envelope import Numbers, msgpack
from dstack_simulator.events import boot_event, preimage, replayed, runtime_event, stripped
from dstack_simulator.faults import Fault, parse_fault, read_faults
from dstack_simulator.keccak import keccak, keccak256
from dstack_simulator.machine import Machine
from dstack_simulator.messages import Rejected
from dstack_simulator.profile import PROFILES
from eth_keys.datatypes import PrivateKey

from tests.simulator import recovered

# dstack's source, guest-agent/src/rpc_service.rs, tests.
DSTACK_KEY = bytes.fromhex("1A2B3C4D5E6F7A8B9C0D1E2F3A4B5C6D7E8F9A0B1C2D3E4F5A6B7C8D9E0F1A2B")
# dstack's source, sdk/simulator/appkeys.json: the app key of its simulator, whose answers are below.
SIMULATOR_KEY = bytes.fromhex("d6e88992cdeeee35fe70b5db61ab66cdb191fb9b6ec9313757ef162dd7214d5d")


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"),
        (b"abc", "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45"),
        (b"testing", "5f16f4c7f149ac4f9510d9cf8cf384038ad348b3bcdc01915f95de12df9d1b02"),
    ],
)
def test_keccak_is_that_of_ethereum(data: bytes, digest: str) -> None:
    """The padding before FIPS 202."""
    assert keccak256(data).hex() == digest


@pytest.mark.parametrize("size_bytes", [32, 48, 64])
@pytest.mark.parametrize("length", [0, 71, 72, 103, 104, 135, 136, 300])
def test_keccak_differs_from_sha3_in_the_padding_alone(size_bytes: int, length: int) -> None:
    """Around the borders of a block the permutation and the sponge are those of hashlib's SHA-3."""
    data = bytes(range(256)) * 2
    assert len(keccak(data[:length], size_bytes)) == size_bytes
    assert _sha3(data[:length], size_bytes) == hashlib.new(f"sha3_{8 * size_bytes}", data[:length]).digest()


def _sha3(data: bytes, size_bytes: int) -> bytes:
    """SHA-3 through our Keccak: its two more bits in front of the padding, as a block that fits."""
    from dstack_simulator import keccak as module

    rate = 200 - 2 * size_bytes
    padded = bytearray(data) + bytearray(rate - len(data) % rate)
    padded[len(data)] ^= 0x06
    padded[-1] ^= 0x80
    lanes = [0] * 25
    for start in range(0, len(padded), rate):
        for index in range(rate // 8):
            lanes[index] ^= int.from_bytes(padded[start + 8 * index : start + 8 * index + 8], "little")
        module._permute(lanes)
    return b"".join(lane.to_bytes(8, "little") for lane in lanes)[:size_bytes]


@pytest.mark.parametrize(
    ("algorithm", "public"),
    [
        ("ed25519", "5Pbre1Amf1hrp2V2bbfKlIfxpQb2pJAmrgmhxgVoG9s"),
        ("secp256k1", "A6t_JdVkVdMAocH3f1f20WGT6JzdntxcXimUtEax8zc9"),
    ],
)
def test_derivation_gives_the_keys_that_dstack_publishes(algorithm: str, public: str) -> None:
    """The constants of dstack's own tests."""
    key = derivation.path_key(derivation.AppKey(DSTACK_KEY, b""), "vms", "signing", algorithm)
    assert base64.urlsafe_b64encode(key.public).rstrip(b"=").decode() == public


@pytest.mark.parametrize(
    ("path", "purpose", "algorithm", "link"),
    [
        ("a", "b", "secp256k1", "d6a2ed6ca62be6c0514fc6f1e22ba82c00c7510312cb9da6faac1d429dba9b68"
         "4ad5229322805ffd16e02d672a6362064a0be568cb0fec6865998918e997d81500"),
        ("a", "", "secp256k1", "2b394682025077f4ca21a038d07183c5dd332b00eeb8bd3687cc1d3820894d80"
         "4f060abc45653badf901dcdd9a79ea93c9a5069bbdab9e6c80ed7b7a5e8b235701"),
        ("", "", "secp256k1", "64ce2f1b381d04f7404fda78bdc942c314d89b7069d97eea1897e51b249dd3b1"
         "700995cbf7efe7ff04195dd6e31f153b702eeeeaffc5941510739dc39b9bd9cf01"),
        ("vms", "signing", "ed25519", "d61ff204728dae76ba4e29313003433d533d069f9c98ebb3382104145f1c664c"
         "59fac4326a86420ec3f450303d3a675d595f546448076a464343bcc25143c4a300"),
    ],
)  # fmt: skip
def test_the_apps_link_is_that_of_dstack(path: str, purpose: str, algorithm: str, link: str) -> None:
    """Byte for byte what dstack's simulator, version 0.6.0, answers with the same app key."""
    key = derivation.path_key(derivation.AppKey(SIMULATOR_KEY, b""), path, purpose, algorithm)
    assert key.signature_chain[0].hex() == link


def test_a_signature_is_that_of_dstack() -> None:
    """Sign with secp256k1 over "A", as dstack's simulator answers it."""
    key = derivation.path_key(derivation.AppKey(SIMULATOR_KEY, b""), "vms", "signing", "secp256k1")
    assert key.public.hex() == "036105f01d1fd781568f7c208b087b1c4f522601410ed7e9c7870d573de7c46d54"
    assert secp256k1.sign(key.secret, hashlib.sha256(b"A").digest()).hex() == (
        "e31b96aa61d258728a7e41fbf763e8b5f04b13bf31c8cc1ead0eda4383f62fc3"
        "70204b9876da2e9791790a38c8bea2dde06dc9ddc48dd960f96589b557338fec"
    )


@pytest.mark.parametrize("number", range(20))
def test_signatures_agree_with_another_implementation(number: int) -> None:
    """Nonce, low s and recovery id, for recovery ids of both kinds."""
    secret, digest = hashlib.sha256(b"%d" % number).digest(), hashlib.sha256(b"digest %d" % number).digest()
    assert secp256k1._sign(secret, digest) == PrivateKey(secret).sign_msg_hash(digest).to_bytes()
    assert secp256k1.verify(secp256k1.public_key(secret), digest, secp256k1.sign(secret, digest))
    message = b"message %d" % number
    assert recovered(secp256k1.sign_recoverable(secret, message), message) == secp256k1.public_key(secret)


def test_a_high_s_does_not_verify() -> None:
    """The other signature that mathematics allows is refused, as by dstack."""
    digest = hashlib.sha256(b"x").digest()
    signature = secp256k1.sign(DSTACK_KEY, digest)
    high = signature[:32] + (secp256k1.ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    public = secp256k1.public_key(DSTACK_KEY)
    assert (secp256k1.verify(public, digest, signature), secp256k1.verify(public, digest, high)) == (True, False)


def test_the_kms_signs_for_the_app() -> None:
    """The app's key and the KMS's link follow from the root and the app id."""
    root, app_id = hashlib.sha256(b"root").digest(), bytes(range(20))
    issued = derivation.app_key(root, app_id)
    message = b"dstack-kms-issued:" + app_id + secp256k1.public_key(issued.secret)
    assert issued.secret == derivation.derive(root, app_id + b"app-key")
    assert recovered(issued.kms_signature, message) == secp256k1.public_key(root)


def test_secrets_do_not_show() -> None:
    """A key in a log or a traceback is its public half."""
    issued = derivation.app_key(DSTACK_KEY, bytes(20))
    shown = repr(issued) + repr(derivation.path_key(issued, "a", "", "ed25519"))
    assert issued.secret.hex() not in shown
    assert derivation.derive(issued.secret, b"a").hex() not in shown


def test_event_digests_of_both_versions() -> None:
    """The examples of dstack's own tests."""
    first = runtime_event("app-id", bytes.fromhex("deadbeef"), 1)
    second = runtime_event("compose-hash", bytes.fromhex("abcd"), 2)
    assert first.digest == hashlib.sha384(b"\x01\x00\x00\x08:app-id:\xde\xad\xbe\xef").digest()
    assert preimage("compose-hash", b"\xab\xcd", 2) == b'{"name":"compose-hash","payload":"abcd","type":134217729}'
    assert second.digest == hashlib.sha384(b'{"name":"compose-hash","payload":"abcd","type":134217729}').digest()
    assert (first.imr, first.type, "version" in first.to_json()) == (3, 134217729, False)
    assert second.to_json()["version"] == 2


def test_a_register_is_a_chain_of_digests() -> None:
    """From 48 zero bytes; events of other registers do not count."""
    one, two = boot_event(1, 4, b"one"), boot_event(1, 4, b"two")
    expected = hashlib.sha384(hashlib.sha384(bytes(48) + one.digest).digest() + two.digest).digest()
    assert replayed([one, boot_event(0, 4, b"x"), two], 1) == expected
    assert replayed([], 1) == bytes(48)


def test_what_a_stripped_event_keeps() -> None:
    """A runtime event what its digest follows from, a boot event its digest; the ACPI markers from 0.6 on."""
    first, second = runtime_event("a", b"b", 1), runtime_event("a", b"b", 2)
    boot, acpi = boot_event(0, 4, b"payload"), boot_event(0, 10, b"ACPI DATA")
    assert (stripped(first, keeps_acpi=True).digest, stripped(first, keeps_acpi=True).payload) == (b"", b"b")
    shown = stripped(second, keeps_acpi=True).preimage
    assert shown is not None
    assert hashlib.sha384(shown).digest() == second.digest
    assert (stripped(boot, keeps_acpi=True).digest, stripped(boot, keeps_acpi=True).payload) == (boot.digest, b"")
    assert stripped(acpi, keeps_acpi=True).payload == b"ACPI DATA"
    assert stripped(acpi, keeps_acpi=False).payload == b""


@pytest.mark.parametrize(
    ("causes", "text"),
    [
        (("a",), "a"),
        (("a", "b"), "a\n\nCaused by:\n    b"),
        (("a", "b", "c"), "a\n\nCaused by:\n    0: b\n    1: c"),
    ],
)
def test_an_error_shows_its_causes(causes: tuple[str, ...], text: str) -> None:
    """After colons; in the oldest version on lines, as dstack 0.5.5 answered."""
    error = Rejected(*causes)
    assert (error.text(on_lines=True), error.text(on_lines=False)) == (text, ": ".join(causes))


def test_a_seed_settles_the_machine() -> None:
    """The same one after every start, another one with another seed."""
    one, same, other = Machine(b"one"), Machine(b"one"), Machine(b"other")
    assert (one.kms_root, one.instance_id, one.registers) == (same.kms_root, same.instance_id, same.registers)
    assert one.kms_root != other.kms_root
    assert one.instance_id != other.instance_id
    # What runs on both is the same app.
    assert one.app_id == other.app_id == hashlib.sha256(one.compose.encode()).digest()[:20]
    assert json.loads(one.compose)["name"] == one.app_name


@pytest.mark.parametrize("version", ["0.5.5", "0.5.6", "0.5.11"])
def test_old_versions_know_neither_snp_nor_new_events(version: str) -> None:
    """A combination that does not exist is refused, not played."""
    with pytest.raises(ValueError, match=f"dstack {version} knows neither"):
        Agent(Machine(b"x"), PROFILES[version], "snp")
    with pytest.raises(ValueError, match=f"dstack {version} knows neither"):
        Agent(Machine(b"x", event_version=2), PROFILES[version])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": 1}, "81a16101"),
        (Numbers(b"\x05\xff"), "9205ccff"),
        (b"\x05\xff", "c40205ff"),
        ([b"", "x" * 32], "92c400d920" + "78" * 32),
        ("x" * 300, "da012c" + "78" * 300),
        (bytes(70_000), "c600011170" + "00" * 70_000),
        (list(range(16)), "dc0010" + bytes(range(16)).hex()),
        (134_217_729, "ce08000001"),
        (40_000, "cd9c40"),
    ],
    ids=str,
)  # fmt: skip
def test_messagepack_is_as_short_as_it_can_be(value: object, text: str) -> None:
    """The formats of its specification that attestations need."""
    assert msgpack(value).hex() == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hang", Fault("hang")),
        ("cut:GetQuote", Fault("cut", "GetQuote")),
        ("latency::0.5", Fault("latency", seconds=0.5)),
        ("reject:Sign:a: b", Fault("reject", "Sign", text="a: b")),
    ],
)
def test_a_fault_is_read_off_the_command_line(text: str, fault: Fault) -> None:
    """Kind, method, argument."""
    assert parse_fault(text) == fault


@pytest.mark.parametrize("text", ["", "nope", "latency:GetQuote:soon", "latency:GetQuote:-1", "latency::inf"])
def test_a_wrong_fault_is_refused(text: str) -> None:
    """With an error, not with a fault that never strikes."""
    with pytest.raises(ValueError, match=r".+"):
        parse_fault(text)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1]", b'[{"kind":"hang","x":1}]', b"[{}]", b'[{"kind":"hang","times":0}]']
)
def test_a_wrong_list_of_faults_is_refused(body: bytes) -> None:
    """Whatever is wrong with it."""
    with pytest.raises(ValueError, match=r".+"):
        read_faults(body)
