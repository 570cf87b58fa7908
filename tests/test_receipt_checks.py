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

from skilld.skills.digest import manifest, manifest_digest
from skilld.tee.canonical import canonical_json
from skilld.tee.checks import Check
from skilld.tee.receipt_checks import Asked, OwnSkills, check_receipt
from skilld.tee.receipts import make_statement, sign_statement
from skilld.tee.service import Tee
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


WRONG_SIGNATURE = "it is not that of public_key over this statement"
TAMPERINGS: list[tuple[str, Callable[[Run], None], str, str]] = [
    ("skill", lambda r: _restate(r, skill="other"), "signature", WRONG_SIGNATURE),
    ("exit code in both", exit_code_in_both, "signature", WRONG_SIGNATURE),
    ("exit code", lambda r: r.update(exit_code=1), "result", "its exit_code is 1, the statement's 0"),
    ("exit code's type", lambda r: r.update(exit_code=False), "result", "its exit_code is False"),
    ("timed out", lambda r: r.update(timed_out=True), "result", "its timed_out is True"),
    ("output", lambda r: r.update(stdout="a rep0rt\n"), "result", "its stdout is not the one that the statement names"),
    ("errors", lambda r: r.update(stderr="x"), "result", "its stderr is not the one"),
    ("encoding", lambda r: r.update(encoding={"stdout": "base64"}), "result", "its stdout cannot be read"),
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
    ("member", lambda r: r["receipt"].pop("public_key"), "document", "'public_key' is missing"),
    ("blank", lambda r: r["receipt"].update(statement=STATEMENT + " "), "statement", "is no canonical JSON"),
    ("schema", lambda r: _restate(r, schema="skilld.receipt.v2"), "statement", "is no statement of skilld.receipt.v1"),
    ("member's type", lambda r: _restate(r, exit_code=True), "statement", "of the wrong type: exit_code"),
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


def test_output_that_was_cut_off_is_not_compared(agent: Simulator, run: Run) -> None:
    """The statement's digest is of all bytes; base64 is decoded first."""
    run["truncated"] = {"stdout": True}
    run["stdout"] = "a r"
    found = check_receipt(run["receipt"], run, everything(agent)).checks
    assert [(c.outcome, c.detail) for c in found if c.name == "result"] == [
        ("note", "its stdout is cut off and cannot be compared"),
        ("ok", "exit code and output are those of the statement"),
    ]
    run |= {"truncated": {}, "stdout": base64.b64encode(STDOUT).decode(), "encoding": {"stdout": "base64"}}
    assert outcomes(check_receipt(run["receipt"], run, everything(agent)).checks)["result"] == "ok"


async def test_a_skill_without_digest_proves_nothing(agent: Simulator) -> None:
    """It may hold anything."""
    statement = canonical_json({**json.loads(STATEMENT), "skill_digest": None})
    run = await signed(agent, statement=statement)
    assert outcomes(check_receipt(run["receipt"], run, Asked()).checks)["skill-digests"] == "unchecked"
