"""Whether a receipt holds: the true one, and every way to change it."""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dstack_simulator import secp256k1
from hypothesis import assume, given
from hypothesis import strategies as st

from skilld.cli.output import clean
from skilld.scripts.capture import Capture
from skilld.skills.digest import manifest, manifest_digest
from skilld.tee.canonical import canonical_json
from skilld.tee.checks import Check
from skilld.tee.receipt_checks import Asked, OwnSkills, check_receipt
from skilld.tee.receipts import make_statement, sign_statement
from skilld.tee.service import Tee
from tests.mutations import mutations
from tests.simulator import Simulator, simulated

STDOUT = b"a report\n"
DIGESTS: dict[str, str | None] = {"pdf": "sha256:" + "1" * 64, "other": "sha256:" + "2" * 64}
OWN = OwnSkills(DIGESTS, {"pdf": frozenset({"scripts/fill.py"}), "other": frozenset()})
STARTED = datetime(2026, 5, 4, 3, 2, 1, 5_000, UTC)

Run = dict[str, Any]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


STATEMENT = make_statement(
    skill="pdf",
    skill_digest=DIGESTS["pdf"],
    registry_digest=manifest_digest(manifest(DIGESTS.items())),
    script="scripts/fill.py",
    args=["--in", "\u00fc\udcff"],
    env=["B", "A"],
    stdin_sha256=sha256(b""),
    stdout_sha256=sha256(STDOUT),
    stderr_sha256=sha256(b""),
    exit_code=0,
    timed_out=False,
    started_at=STARTED,
    ended_at=STARTED + timedelta(seconds=1),
)


@pytest.fixture(scope="module")
def agent() -> Iterator[Simulator]:
    with simulated() as running:
        yield running


async def signed(agent: Simulator, algorithm: str = "ed25519", statement: str = STATEMENT) -> Run:
    """The result of a script with its receipt."""
    tee = Tee(agent.socket_path, 20.0)
    try:
        receipt = await sign_statement(tee, statement, algorithm)
    finally:
        await tee.close()
    return {
        "stdout": STDOUT.decode(),
        "stderr": "",
        "encoding": {"stdout": "utf-8", "stderr": "utf-8"},
        "truncated": {"stdout": False, "stderr": False},
        "bytes": {"stdout": len(STDOUT), "stderr": 0},
        "exit_code": 0,
        "timed_out": False,
        "receipt": receipt,
    }


@pytest.fixture(scope="module")
def original(agent: Simulator) -> Run:
    return asyncio.run(signed(agent))


@pytest.fixture
def run(original: Run) -> Run:
    return copy.deepcopy(original)


def everything(agent: Simulator) -> Asked:
    """A verifier who knows the app, its KMS and the skills."""
    return Asked(agent.machine.app_id, secp256k1.public_key(agent.machine.kms_root), OWN)


def outcomes(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.outcome for check in checks}


def test_a_statement_is_canonical_and_hides_the_arguments() -> None:
    """Its text, byte for byte; names of variables sorted, arguments and streams as digests."""
    assert (
        canonical_json(
            {
                "args": [sha256(b"--in"), sha256(b"\xc3\xbc\xff")],
                "ended": "2026-05-04T03:02:02.005Z",
                "env": ["A", "B"],
                "exit_code": 0,
                "registry_digest": manifest_digest(manifest(DIGESTS.items())),
                "schema": "skilld.receipt.v1",
                "script": "scripts/fill.py",
                "skill": "pdf",
                "skill_digest": "sha256:" + "1" * 64,
                "started": "2026-05-04T03:02:01.005Z",
                "stderr": sha256(b""),
                "stdin": sha256(b""),
                "stdout": sha256(STDOUT),
                "timed_out": False,
            }
        )
        == STATEMENT
    )


@pytest.mark.parametrize("algorithm", ["ed25519", "secp256k1"])
async def test_a_true_receipt_holds(agent: Simulator, algorithm: str) -> None:
    """With either algorithm, up to the KMS's root key and the verifier's own skills."""
    run = await signed(agent, algorithm)
    assert set(run["receipt"]) == {"statement", "signature", "algorithm", "public_key", "signature_chain"}
    found = check_receipt(run["receipt"], run, everything(agent)).checks
    assert outcomes(found) == dict.fromkeys(("statement", "signature", "kms-root", "result", "skills-dir"), "ok")


def test_a_bare_receipt_has_no_result(agent: Simulator, run: Run) -> None:
    """Everything else is checked."""
    found = check_receipt(run["receipt"], None, everything(agent)).checks
    assert outcomes(found)["result"] == "note"
    assert outcomes(found)["kms-root"] == "ok"


def _restate(run: Run, **changes: Any) -> None:
    run["receipt"]["statement"] = canonical_json({**json.loads(run["receipt"]["statement"]), **changes})


def _flip(text: str, at: int = 0) -> str:
    """The hexadecimal text with one digit changed."""
    return text[:at] + ("1" if text[at] == "0" else "0") + text[at + 1 :]


def _flip_link(run: Run, number: int) -> None:
    chain = run["receipt"]["signature_chain"]
    chain[number] = _flip(chain[number], 100)


def _break_link(run: Run, number: int) -> None:
    """A recovery id of 4 belongs to no key."""
    chain = run["receipt"]["signature_chain"]
    chain[number] = chain[number][:128] + "04"


def exit_code_in_both(run: Run) -> None:
    _restate(run, exit_code=1)
    run["exit_code"] = 1


def both_signatures(run: Run) -> None:
    changed = _flip(run["receipt"]["signature"], 100)
    run["receipt"]["signature"] = run["receipt"]["signature_chain"][0] = changed


def another_key(run: Run) -> None:
    """A statement that somebody signed with a key of their own."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from skilld.tee.receipts import signed_message

    exit_code_in_both(run)
    key = Ed25519PrivateKey.generate()
    receipt = run["receipt"]
    receipt["public_key"] = key.public_key().public_bytes_raw().hex()
    receipt["signature"] = key.sign(signed_message(receipt["statement"])).hex()
    receipt["signature_chain"][0] = receipt["signature"]


def cut(run: Run, text: str, count: int) -> None:
    run["truncated"]["stdout"] = True
    run["stdout"], run["bytes"]["stdout"] = text, count


def cut_of_nothing(run: Run) -> None:
    cut(run, "a rep\n[... 0 bytes cut ...]\nort\n", 9)


def cut_of_another_size(run: Run) -> None:
    cut(run, "a\n[... 5 bytes cut ...]\n[... 7 bytes cut ...]\nt", 13)


def cut_base64(run: Run) -> None:
    cut(run, base64.b64encode(STDOUT).decode(), 9)
    run["encoding"]["stdout"] = "base64"


def forged_errors(run: Run) -> None:
    cut(run, "a \n[... 5 bytes cut ...]\nt\n", 9)
    run["stderr"] = "\n"
    run["bytes"]["stderr"] = 1


def without_skill_digest(run: Run) -> None:
    statement = json.loads(run["receipt"]["statement"])
    del statement["skill_digest"]
    run["receipt"]["statement"] = canonical_json(statement)


WRONG_SIGNATURE = "it is not that of public_key over this statement"
TAMPERINGS: list[tuple[str, Callable[[Run], None], str, str]] = [
    ("skill", lambda r: _restate(r, skill="other"), "signature", WRONG_SIGNATURE),
    ("exit code in both", exit_code_in_both, "signature", WRONG_SIGNATURE),
    ("exit code", lambda r: r.update(exit_code=1), "result", "its exit_code is 1, the statement's 0"),
    ("exit code's type", lambda r: r.update(exit_code=False), "result", "its exit_code is False"),
    ("timed out", lambda r: r.update(timed_out=True), "result", "its timed_out is True"),
    ("exit code, deep", lambda r: r.update(exit_code=[1]), "result", "its exit_code is of the type list"),
    ("output", lambda r: r.update(stdout="a rep0rt\n"), "result", "its stdout is not the one that the statement names"),
    ("errors", lambda r: r.update(stderr="x", bytes={"stdout": 9, "stderr": 1}), "result", "its stderr is not the one"),
    ("output, no text", lambda r: r.update(stdout=None), "result", "its stdout cannot be read: it is no text"),
    ("output, half a character", lambda r: r.update(stdout="\ud800"), "result", "its stdout cannot be read"),
    ("encoding", lambda r: r["encoding"].update(stdout="base64"), "result", "its stdout cannot be read"),
    ("encoding, another", lambda r: r["encoding"].update(stdout="utf-7"), "result", "encoding is neither utf-8 nor"),
    ("no encoding", lambda r: r.pop("encoding"), "result", "encoding is neither utf-8 nor"),
    ("no flag", lambda r: r.pop("truncated"), "result", "whether it is truncated, or how many bytes it has"),
    ("flag, no boolean", lambda r: r["truncated"].update(stdout=1), "result", "whether it is truncated"),
    ("flags, no object", lambda r: r.update(truncated=True), "result", "whether it is truncated"),
    ("size", lambda r: r["bytes"].update(stdout=8), "result", "it has not 8 bytes"),
    ("size, no number", lambda r: r["bytes"].update(stdout=9.0), "result", "truncated, or how many bytes"),
    ("whole, said to be cut", lambda r: r["truncated"].update(stdout=True), "result", "cannot be what is left of 9"),
    ("cut, nothing missing", cut_of_nothing, "result", "it cannot be what is left of 9 bytes"),
    ("cut, another size", cut_of_another_size, "result", "it cannot be what is left of 13 bytes"),
    ("cut, base64 of more", cut_base64, "result", "it cannot be what is left of 9 bytes"),
    ("forged and cut, errors forged", forged_errors, "result", "its stderr is not the one"),
    ("signature", both_signatures, "signature", WRONG_SIGNATURE),
    ("signature's size", lambda r: r["receipt"].update(signature="00"), "signature", WRONG_SIGNATURE),
    ("signature, not in the chain", lambda r: r["receipt"].update(signature="00" * 64), "chain", "its first link is"),
    ("key", lambda r: r["receipt"].update(public_key=_flip(r["receipt"]["public_key"])), "signature", WRONG_SIGNATURE),
    ("key of another size", lambda r: r["receipt"].update(public_key="00"), "signature", "no key for ed25519"),
    ("somebody's key", another_key, "kms-root", "another app, another KMS, or a changed link"),
    ("algorithm", lambda r: r["receipt"].update(algorithm="rsa"), "signature", "the algorithm 'rsa' is none of"),
    ("other algorithm", lambda r: r["receipt"].update(algorithm="secp256k1"), "signature", "no key for secp256k1"),
    ("app's link", lambda r: _flip_link(r, 1), "kms-root", "the chain leads to"),
    ("app's link, no key", lambda r: _break_link(r, 1), "chain", "its second link"),
    ("KMS's link", lambda r: _flip_link(r, 2), "kms-root", "the chain leads to"),
    ("KMS's link, no key", lambda r: _break_link(r, 2), "kms-root", "the chain's third link"),
    ("chain too short", lambda r: r["receipt"]["signature_chain"].pop(), "document", "signature_chain is no list of 3"),
    ("no hexadecimal", lambda r: r["receipt"]["signature_chain"].__setitem__(1, "xy"), "document", "no list of 3"),
    ("receipt's member", lambda r: r["receipt"].update(stdout="x"), "document", "members that no receipt has"),
    ("member", lambda r: r["receipt"].pop("public_key"), "document", "'public_key' is missing"),
    ("blank", lambda r: r["receipt"].update(statement=STATEMENT + " "), "statement", "is no canonical JSON"),
    ("half a character", lambda r: _restate(r, skill="\ud800"), "statement", "is no JSON of texts and whole numbers"),
    ("schema", lambda r: _restate(r, schema="skilld.receipt.v2"), "statement", "is no statement of skilld.receipt.v1"),
    ("member's type", lambda r: _restate(r, exit_code=True), "statement", "of the wrong type: exit_code"),
    ("member of the statement", without_skill_digest, "statement", "a member is missing"),
    ("unknown member", lambda r: _restate(r, more=1), "statement", "unknown or of the wrong type: more"),
    ("order of times", lambda r: _restate(r, ended="2020-01-01T00:00:00Z"), "statement", "it ended before it started"),
    ("times", lambda r: _restate(r, ended="soon"), "statement", "are no times"),
    ("times without zone", lambda r: _restate(r, ended="2026-05-05T00:00:00"), "statement", "are no times"),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "name", "message"), [t[1:] for t in TAMPERINGS], ids=[t[0] for t in TAMPERINGS])
def test_a_changed_receipt_is_refused(
    agent: Simulator, run: Run, tamper: Callable[[Run], Any], name: str, message: str
) -> None:
    """The message names what is wrong."""
    tamper(run)
    failed = {
        c.name: c.detail for c in check_receipt(run["receipt"], run, everything(agent)).checks if c.outcome == "failed"
    }
    assert message in failed[name], failed


async def test_a_high_s_is_refused(agent: Simulator) -> None:
    """The second signature that fits every message of secp256k1, which dstack refuses, too."""
    from skilld.tee.secp256k1 import ORDER

    run = await signed(agent, "secp256k1")
    signature = run["receipt"]["signature"]
    other = signature[:64] + f"{ORDER - int(signature[64:], 16):064x}"
    run["receipt"]["signature"] = run["receipt"]["signature_chain"][0] = other
    found = check_receipt(run["receipt"], run, everything(agent)).checks
    assert outcomes(found)["signature"] == "failed"


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (OwnSkills({}, {}), "it has no skill 'pdf'"),
        (OwnSkills({**DIGESTS, "pdf": "sha256:x"}, OWN.scripts), "its 'pdf' is sha256:x, what ran is sha256:1111"),
        (OwnSkills(DIGESTS, {"pdf": frozenset()}), "its 'pdf' has no file 'scripts/fill.py'"),
        (OwnSkills({"pdf": DIGESTS["pdf"]}, OWN.scripts), "its 'pdf' is what ran, but of another set"),
    ],
)
def test_other_skills_are_not_what_ran(run: Run, own: OwnSkills, message: str) -> None:
    """The skill, its script and the set that it was of must be the verifier's."""
    found = check_receipt(run["receipt"], run, Asked(skills=own)).checks
    assert [c.detail.startswith(message) for c in found if c.name == "skills-dir"] == [True]
    assert outcomes(found)["skills-dir"] == "failed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"app_id": None}, "name the app and its KMS"),
        ({"kms_root": None}, "the chain leads to {root}; name the KMS's key"),
    ],
)
def test_without_app_and_kms_nothing_is_proved(
    agent: Simulator, run: Run, changes: dict[str, None], message: str
) -> None:
    """Anybody can make a key that signs; the recovered root is shown, for whoever knows it."""
    known: dict[str, Any] = {"app_id": agent.machine.app_id, "kms_root": bytes(33)} | changes
    found = check_receipt(run["receipt"], run, Asked(**known)).checks
    detail = next(check.detail for check in found if check.name == "kms-root")
    assert message.format(root=secp256k1.public_key(agent.machine.kms_root).hex()) in detail
    assert outcomes(found)["kms-root"] == "unchecked"


async def test_a_key_without_kms_proves_nothing() -> None:
    """A machine whose keys come from its own TPM, or from nowhere."""
    with simulated(has_kms=False) as agent:
        run = await signed(agent)
        found = check_receipt(run["receipt"], run, everything(agent)).checks
    assert outcomes(found)["kms-root"] == "unchecked"
    assert outcomes(found)["signature"] == "ok"


@pytest.mark.parametrize(
    "content",
    [b"line\n" * 100, "\u00fc\u20ac".encode() * 100, b"\xff" * 99, b"\n[... 3 bytes cut ...]\n" * 9],
    ids=["ascii", "utf-8", "base64", "such lines"],
)
@pytest.mark.parametrize("limit_bytes", [0, 1, 21, 22, 90])
async def test_output_that_was_cut_off_is_not_compared(
    agent: Simulator, run: Run, content: bytes, limit_bytes: int
) -> None:
    """The statement's digest is of all bytes, so that what is left may be anything: nothing is proved."""
    capture = Capture(limit_bytes)
    capture.add(content)
    captured = capture.result()
    text, run["encoding"]["stdout"] = captured.to_json()
    cut(run, text, captured.bytes_count)
    found = check_receipt(run["receipt"], run, everything(agent)).checks
    assert [(c.outcome, c.detail) for c in found if c.name == "result"] == [
        ("unchecked", "its stdout is cut off, so that nothing says whether what is left is what was written")
    ]


def test_output_in_base64_is_compared(agent: Simulator, run: Run) -> None:
    """It is decoded first."""
    run["stdout"], run["encoding"]["stdout"] = base64.b64encode(STDOUT).decode(), "base64"
    assert outcomes(check_receipt(run["receipt"], run, everything(agent)).checks)["result"] == "ok"


async def test_a_skill_without_digest_proves_nothing(agent: Simulator) -> None:
    """It may hold anything."""
    statement = canonical_json({**json.loads(STATEMENT), "skill_digest": None})
    run = await signed(agent, statement=statement)
    assert outcomes(check_receipt(run["receipt"], run, Asked()).checks)["skill-digests"] == "unchecked"


@given(data=st.data())
def test_no_change_breaks_the_verifier(agent: Simulator, original: Run, data: st.DataObject) -> None:
    """Whatever JSON it is given in the place of anything, nothing is proved, in words that can be printed."""
    _, run = data.draw(mutations(original, texts=frozenset({"statement"})))
    assume(run != original)
    receipt = run.get("receipt")
    if isinstance(receipt, dict):
        found = check_receipt(receipt, run, everything(agent)).checks
        # A chain without its last link is open, as that of a key without KMS.
        assert [clean(check.detail).encode() for check in found if check.outcome in ("failed", "unchecked")]
