"""Whether the reply of skills.attest holds: the true one, and every way to change it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from dstack_simulator.events import runtime_event
from hypothesis import assume, given
from hypothesis import strategies as st

from skilld.cli.output import clean
from skilld.skills.digest import manifest, manifest_digest
from skilld.tee.attestation import attest_skills, report_data_of
from skilld.tee.attestation_checks import REGISTERS, Asked, check_attestation
from skilld.tee.checks import Check
from skilld.tee.service import Tee
from skilld.tee.vendor import Platform, VendorRefused, VendorUnchecked
from tests.mutations import mutations
from tests.simulator import Simulator, simulated

DIGESTS: Mapping[str, str | None] = {f"skill-{name}": f"sha256:{name * 64}" for name in "abc"}
NONCE = bytes(range(32))

Document = dict[str, Any]


async def attested(agent: Simulator, digests: Mapping[str, str | None] = DIGESTS, nonce: bytes = NONCE) -> Document:
    """What the daemon answers for a set of skills."""
    tee = Tee(agent.socket_path, 20.0)
    text = manifest(digests.items())
    try:
        return await attest_skills(tee, text, manifest_digest(text), nonce)
    finally:
        await tee.close()


@pytest.fixture(scope="module")
def agent() -> Any:
    with simulated() as running:
        yield running


@pytest.fixture(scope="module")
def expected(agent: Simulator) -> dict[str, bytes]:
    """What a verifier knows of the machine."""
    machine = agent.machine
    registers = dict(zip(REGISTERS, [machine.mr_td, *machine.registers[:3]], strict=True))
    return {"app-id": machine.app_id, "compose-hash": machine.compose_hash, **registers}


@pytest.fixture(scope="module")
def original(agent: Simulator) -> Document:
    return asyncio.run(attested(agent))


@pytest.fixture
def document(original: Document) -> Document:
    return dict(original)


def everything(expected: Mapping[str, bytes]) -> Asked:
    """A verifier who asks for all that can be known; the vendor's part is another test's."""
    return Asked(NONCE, expected, DIGESTS, lambda quote: Platform("UpToDate", ()))


def outcomes(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.outcome for check in checks if check.outcome != "note"}


def test_a_true_attestation_holds(document: Document, expected: dict[str, bytes]) -> None:
    """All that was asked, and nothing is left unchecked."""
    found = check_attestation(document, everything(expected)).checks
    assert outcomes(found) == dict.fromkeys(
        ("manifest", "digest", "nonce", "report-data", "skills-dir", "quote", "event-log", "rtmr3", "app-id",
         "compose-hash", "mrtd", "rtmr0", "rtmr1", "rtmr2", "vendor-signature", "tcb-status"),
        "ok",
    )  # fmt: skip


def test_the_report_data_is_that_of_the_interface(document: Document) -> None:
    """sha512 of tag, digest and nonce, which is what a verifier of its own computes."""
    digest = hashlib.sha256(document["manifest"].encode()).digest()
    assert document["digest"] == f"sha256:{digest.hex()}"
    assert document["report_data"] == hashlib.sha512(b"skilld-skillset:" + digest + NONCE).hexdigest()
    assert document["nonce"] == NONCE.hex()
    assert set(document) == {"manifest", "digest", "nonce", "report_data", "quote", "event_log", "vm_config"}


async def test_no_nonce_is_an_empty_one(agent: Simulator) -> None:
    """It comes back as empty text, and the reply holds."""
    document = await attested(agent, nonce=b"")
    assert document["nonce"] == ""
    assert document["report_data"] == report_data_of(document["digest"], b"").hex()
    found = check_attestation(document, Asked(nonce=b"")).checks
    assert not [check for check in found if check.outcome == "failed"]


def _swap(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def _edit_log(document: Document, edit: Callable[[list[Any]], Any]) -> None:
    log = json.loads(document["event_log"])
    edit(log)
    document["event_log"] = json.dumps(log)


def _patch_quote(document: Document, offset: int, byte: int) -> None:
    quote = bytearray.fromhex(document["quote"])
    quote[offset] ^= byte
    document["quote"] = quote.hex()


def another_skill(document: Document) -> None:
    """Somebody else's bytes, with the digest made to fit."""
    document["manifest"] = _swap(document["manifest"], "aaaa", "abaa")
    document["digest"] = manifest_digest(document["manifest"])


def another_skill_and_report_data(document: Document) -> None:
    another_skill(document)
    document["report_data"] = report_data_of(document["digest"], NONCE).hex()


def a_skill_less(document: Document) -> None:
    kept = json.loads(document["manifest"])["skills"][:-1]
    document["manifest"] = manifest((entry["id"], entry["digest"]) for entry in kept)


def unsorted(document: Document) -> None:
    value = json.loads(document["manifest"])
    value["skills"].reverse()
    document["manifest"] = json.dumps(value, separators=(",", ":"))
    document["digest"] = manifest_digest(document["manifest"])


def blanks(document: Document) -> None:
    document["manifest"] = _swap(document["manifest"], '","id"', '", "id"')


def digest_of_another_type(document: Document) -> None:
    document["manifest"] = _swap(document["manifest"], f'"sha256:{"a" * 64}"', "false")


def app_id_event(log: list[Any]) -> Any:
    return next(event for event in log if event["event"] == "app-id")


TAMPERINGS: list[tuple[str, Callable[[Document], None], str, str]] = [
    ("skill", another_skill, "report-data", "report data made of digest and nonce is"),
    ("skill and report data", another_skill_and_report_data, "quote", "its report data is"),
    ("skill less", a_skill_less, "digest", "the manifest's sha256 is"),
    ("order", unsorted, "manifest", "not sorted by id"),
    ("blanks", blanks, "manifest", "is no canonical JSON"),
    ("schema", lambda d: d.update(manifest=_swap(d["manifest"], ".v1", ".v2")), "manifest", "no manifest of"),
    ("digest", lambda d: d.update(digest="sha256:" + "0" * 64), "digest", "the manifest's sha256 is"),
    ("digest's form", lambda d: d.update(digest=d["digest"][7:]), "digest", "is not sha256: and 64"),
    ("nonce", lambda d: d.update(nonce="00" * 32), "nonce", "the nonce is 0000"),
    ("report data", lambda d: d.update(report_data="00" * 64), "report-data", "report data made of digest and nonce"),
    ("report data in the quote", lambda d: _patch_quote(d, 570, 1), "quote", "its report data is"),
    ("quote cut off", lambda d: d.update(quote=d["quote"][:-2]), "quote", "is cut off"),
    ("no quote", lambda d: d.update(quote=""), "quote", "neither a quote nor an attestation"),
    ("debug", lambda d: _patch_quote(d, 168, 1), "debug", "debug mode"),
    ("mrtd", lambda d: _patch_quote(d, 184, 1), "mrtd", "it is"),
    ("rtmr0", lambda d: _patch_quote(d, 376, 1), "event-log", "other values of rtmr0"),
    ("rtmr3", lambda d: _patch_quote(d, 520, 1), "rtmr3", "the event log leads to another value"),
    ("event missing", lambda d: _edit_log(d, lambda log: log.pop()), "rtmr3", "an event is missing or changed"),
    ("event added", lambda d: _edit_log(d, lambda log: log.append(runtime_event("x", b"", 1).to_json())), "rtmr3",
     "an event is missing or changed"),
    ("another app", lambda d: _edit_log(d, lambda log: app_id_event(log).update(event_payload="00" * 20)), "rtmr3",
     "an event is missing or changed"),
    ("digest of an event", lambda d: _edit_log(d, lambda log: app_id_event(log).update(digest="00" * 48)), "event-log",
     "its digest is not that of its name and payload"),
    ("event's name", lambda d: _edit_log(d, lambda log: app_id_event(log).update(event="\ud800")), "event-log",
     "its name is no text"),
    ("id", lambda d: d.update(manifest=_swap(d["manifest"], "skill-a", "\ud800")), "manifest", "is no JSON of texts"),
    ("digest of a skill", digest_of_another_type, "manifest",
     "the digest of 'skill-a' is neither a text nor null"),
    ("log", lambda d: d.update(event_log="{"), "event-log", "it is no JSON"),
    ("member", lambda d: d.pop("vm_config"), "document", "its member 'vm_config' is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "name", "message"), [t[1:] for t in TAMPERINGS], ids=[t[0] for t in TAMPERINGS])
def test_a_changed_attestation_is_refused(
    document: Document, expected: dict[str, bytes], tamper: Callable[[Document], None], name: str, message: str
) -> None:
    """The message names what is wrong."""
    tamper(document)
    failed = {
        c.name: c.detail for c in check_attestation(document, everything(expected)).checks if c.outcome == "failed"
    }
    assert message in failed[name], failed


@pytest.mark.parametrize(
    ("asked", "name", "message"),
    [
        (Asked(nonce=b"other"), "nonce", "not 6f74686572"),
        (Asked(expected={"app-id": bytes(20)}), "app-id", "not 0000000000000000000000000000000000000000"),
        (Asked(expected={"rtmr2": bytes(48)}), "rtmr2", "not 00000000"),
        (Asked(digests={**DIGESTS, "mine": None}), "skills-dir", "not attested: 'mine'"),
        (Asked(digests={"skill-a": DIGESTS["skill-a"]}), "skills-dir", "attested, but not here: 'skill-b', 'skill-c'"),
        (Asked(digests={**DIGESTS, "skill-b": "sha256:00"}), "skills-dir", "different: 'skill-b'"),
    ],
)
def test_another_expectation_is_not_met(document: Document, asked: Asked, name: str, message: str) -> None:
    """What the verifier knows must be what is attested; the message says what is not."""
    failed = {c.name: c.detail for c in check_attestation(document, asked).checks if c.outcome == "failed"}
    assert failed.keys() == {name}
    assert message in failed[name]


def test_what_a_proof_needs_and_lacks_is_named(document: Document) -> None:
    """Without the vendor, the image and the app anybody's machine could have said it."""
    assert {c.name for c in check_attestation(document, Asked()).checks if c.outcome == "unchecked"} == {
        "vendor-signature",
        "os-image",
        "app",
    }


async def test_a_skill_without_digest_is_no_proof(agent: Simulator) -> None:
    """It may hold anything, and its manifest is still that of the verifier's own directory."""
    digests = {**DIGESTS, "odd": None}
    found = check_attestation(await attested(agent, digests), Asked(digests=digests)).checks
    assert [c.detail for c in found if c.name == "skill-digests"] == [
        "these skills have no digest, so they may hold anything: 'odd'"
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            Platform("OutOfDate", ("INTEL-SA-1",)),
            Check("tcb-status", "unchecked", "the machine's firmware is OutOfDate (INTEL-SA-1)"),
        ),
        (VendorRefused("bad signature"), Check("vendor-signature", "failed", "bad signature")),
        (VendorUnchecked("no library"), Check("vendor-signature", "unchecked", "no library")),
    ],
)
def test_the_vendors_word_counts(document: Document, answer: Any, expected: Check) -> None:
    """A signature that was not checked is never called good."""

    def check(quote: bytes) -> Platform:
        assert quote.hex() == document["quote"]
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Platform)
        return answer

    assert expected in check_attestation(document, Asked(check_vendor=check)).checks


async def test_another_tee_is_attested_but_not_proved() -> None:
    """Its attestation holds the report data; what its vendor signed is not read here."""
    with simulated("0.6.0", "snp") as agent:
        document = await attested(agent)
    assert document["quote"] == ""
    found = check_attestation(document, Asked(nonce=NONCE)).checks
    assert {name for name, outcome in outcomes(found).items() if outcome == "unchecked"} == {
        "quote",
        "os-image",
        "app",
        "vendor-signature",
    }
    failed = [
        c.name for c in check_attestation(document, Asked(expected={"app-id": b""})).checks if c.outcome == "failed"
    ]
    assert failed == ["app-id"]
    document["attestation"] = _swap(document["attestation"], document["report_data"], "00" * 64)
    found = check_attestation(document, Asked()).checks
    assert [c.detail for c in found if c.outcome == "failed"] == ["the attestation does not hold the report data"]


async def test_announced_sets_are_told_apart(document: Document) -> None:
    """The log says which set came last; a log that the quote covers."""
    with simulated(event_version=1) as agent:
        digest = bytes.fromhex(document["digest"].removeprefix("sha256:"))
        agent.machine.emit("skilld-skill-set", digest)
        now = check_attestation(await attested(agent), Asked()).checks
        agent.machine.emit("skilld-skill-set", bytes(32))
        later = check_attestation(await attested(agent), Asked()).checks
    notes = [check.detail for check in now + later if check.name == "skill-set-events"]
    assert notes == [
        "1 in RTMR3; the last of them is this set",
        "2 in RTMR3; the last of them is another set than this one",
    ]


@given(data=st.data())
def test_no_change_breaks_the_verifier(original: Document, expected: dict[str, bytes], data: st.DataObject) -> None:
    """Whatever JSON it is given in the place of anything, it refuses, in words that can be printed."""
    path, document = data.draw(mutations(original, texts=frozenset({"manifest", "event_log"})))
    assume(document != original)
    found = check_attestation(document, everything(expected)).checks
    words = [clean(check.detail).encode() for check in found if check.outcome == "failed"]
    # The log may say less, such as no digests; vm_config is not covered by anything.
    assert words or path[0] in ("event_log", "vm_config")
