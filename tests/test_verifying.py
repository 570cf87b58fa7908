"""The command that checks attestations and receipts: its options, its words and its exit code."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dstack_simulator import secp256k1

from skilld.cli import run
from skilld.cli.own_skills import read_skills
from skilld.skills.digest import manifest, manifest_digest
from skilld.tee.attestation import attest_skills
from skilld.tee.receipts import make_statement, sign_statement
from skilld.tee.service import Tee
from tests.conftest import WriteSkill
from tests.simulator import Simulator, simulated

EMPTY = hashlib.sha256(b"").hexdigest()


@pytest.fixture(scope="module")
def agent() -> Iterator[Simulator]:
    with simulated() as running:
        yield running


@pytest.fixture
def skills(root: Path, write_skill: WriteSkill) -> Path:
    """A root with two skills; the first has a script."""
    write_skill("pdf", files={"scripts/fill.py": "print()"})
    write_skill("team-a/deploy")
    return root


class Verify:
    """``skilld verify`` on a document."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = directory / "document.json"
        self.capsys = capsys

    def __call__(self, document: Any, *options: str | Path) -> tuple[int, str]:
        """The exit code, and what was printed."""
        self.file.write_text(json.dumps(document))
        code = run(["verify", str(self.file), *map(str, options)])
        printed = self.capsys.readouterr()
        return code, printed.out + printed.err


@pytest.fixture
def verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verify:
    return Verify(tmp_path, capsys)


@pytest.fixture
def attestation(agent: Simulator, skills: Path) -> Any:
    """The reply of skills.attest for the root, with a nonce."""
    text = manifest((skill.id, skill.digest) for skill in read_skills([str(skills)]))

    async def attest() -> Any:
        tee = Tee(agent.socket_path, 20.0)
        try:
            return await attest_skills(tee, text, manifest_digest(text), b"\xab")
        finally:
            await tee.close()

    return asyncio.run(attest())


ResultOf = Callable[..., Any]


@pytest.fixture
def result_of(agent: Simulator, skills: Path) -> ResultOf:
    """Makes the result of a script of the root, with its receipt."""
    own = {skill.id: skill.digest for skill in read_skills([str(skills)])}

    async def sign(statement: str) -> Any:
        tee = Tee(agent.socket_path, 20.0)
        try:
            return await sign_statement(tee, statement, "ed25519")
        finally:
            await tee.close()

    def make(*, skill_digest: str | None) -> Any:
        statement = make_statement(
            skill="pdf", skill_digest=skill_digest, registry_digest=manifest_digest(manifest(own.items())),
            script="scripts/fill.py", args=[], env=[], stdin_sha256=EMPTY, stdout_sha256=EMPTY, stderr_sha256=EMPTY,
            exit_code=0, timed_out=False, started_at=datetime.now(UTC), ended_at=datetime.now(UTC),
        )  # fmt: skip
        return {
            "stdout": "", "stderr": "", "exit_code": 0, "timed_out": False,
            "encoding": {"stdout": "utf-8", "stderr": "utf-8"}, "truncated": {"stdout": False, "stderr": False},
            "bytes": {"stdout": 0, "stderr": 0}, "receipt": asyncio.run(sign(statement)),
        }  # fmt: skip

    return make


@pytest.fixture
def result(result_of: ResultOf, skills: Path) -> Any:
    """The result of a script of the root, with a receipt that names the skill as it is."""
    return result_of(skill_digest=next(skill.digest for skill in read_skills([str(skills)]) if skill.id == "pdf"))


def of_machine(agent: Simulator) -> list[str]:
    """Options for all that is known of the machine."""
    machine = agent.machine
    registers = [f"--expect-rtmr{imr}={machine.registers[imr].hex()}" for imr in range(3)]
    return [f"--expect-app-id=0x{machine.app_id.hex()}", f"--expect-mrtd={machine.mr_td.hex()}", *registers]


def test_a_quote_without_its_vendors_word_is_never_verified(
    agent: Simulator, verify: Verify, attestation: Any, skills: Path
) -> None:
    """Exit 1 and what is missing; who accepts that is not told otherwise."""
    options: list[str | Path] = ["--skills-dir", skills, "--nonce", "AB", *of_machine(agent)]
    code, printed = verify(attestation, *options)
    assert code == 1
    assert printed.splitlines()[-1] == "not proved: vendor-signature"
    assert "verified" not in printed
    code, printed = verify(attestation, *options, "--accept", "vendor-signature")
    assert code == 0
    assert printed.splitlines()[-1] == ("held as far as it was checked; accepted without a check: vendor-signature")
    assert "verified" not in printed


def test_a_simulated_quote_fails_with_collateral(verify: Verify, attestation: Any) -> None:
    """Its chain does not end at Intel, and no option makes that good."""
    collateral = Path(__file__).parent / "data" / "tdx_quote_collateral.json"
    options = [part for name in ("vendor-signature", "os-image", "app", "tcb-status") for part in ("--accept", name)]
    code, printed = verify(attestation, "--collateral", collateral, *options)
    assert code == 1
    assert printed.splitlines()[-1] == "refused: vendor-signature"


def test_without_a_quote_much_more_is_missing_than_the_quote(verify: Verify, attestation: Any) -> None:
    """Anybody can write such a document; collateral that goes with no quote does not look as if it had been used."""
    attestation |= {"quote": "", "attestation": attestation["report_data"]}
    code, printed = verify(attestation, "--accept", "quote")
    assert (code, printed.splitlines()[-1]) == (1, "not proved: os-image, app, vendor-signature")
    accepted = [part for name in ("quote", "os-image", "app", "vendor-signature") for part in ("--accept", name)]
    code, printed = verify(attestation, *accepted)
    assert code == 0
    assert "verified" not in printed
    collateral = Path(__file__).parent / "data" / "tdx_quote_collateral.json"
    code, printed = verify(attestation, "--collateral", collateral, *accepted)
    assert (code, printed.splitlines()[-1]) == (1, "refused: vendor-signature")
    assert "there is no TDX quote that the collateral could be for" in printed


def test_a_directory_that_differs_is_refused(verify: Verify, attestation: Any, skills: Path) -> None:
    """The skill is named; a JSON-RPC reply counts as its result."""
    (skills / "pdf/scripts/fill.py").write_text("other")
    code, printed = verify({"jsonrpc": "2.0", "id": 1, "result": attestation}, "--skills-dir", skills)
    assert code == 1
    assert "different: 'pdf'" in printed
    assert printed.splitlines()[-1] == "refused: skills-dir"


def test_several_roots_are_one_set(verify: Verify, attestation: Any, skills: Path, tmp_path: Path) -> None:
    """In the daemon's order: the earlier wins a collision of ids."""
    other = tmp_path / "other" / "pdf"
    other.mkdir(parents=True)
    (other / "SKILL.md").write_text("---\ndescription: d\n---\n")
    assert (
        "its 2 skills are the attested ones"
        in verify(attestation, "--skills-dir", skills, "--skills-dir", other.parent)[1]
    )
    assert "different: 'pdf'" in verify(attestation, "--skills-dir", other.parent, "--skills-dir", skills)[1]


def test_a_receipt_of_ones_own_skills_is_verified(agent: Simulator, verify: Verify, result: Any, skills: Path) -> None:
    """With the app and its KMS; a bare receipt, too."""
    known = of_app(agent)
    for document in (result, result["receipt"]):
        code, printed = verify(document, "--skills-dir", skills, *known)
        assert code == 0, printed
        assert printed.splitlines()[-1] == "verified"
    code, printed = verify(result)
    assert code == 1
    assert printed.splitlines()[-1] == "not proved: kms-root"
    result["stdout"] = "other"
    code, printed = verify(result, *known)
    assert code == 1
    assert printed.splitlines()[-1] == "refused: result"


def of_app(agent: Simulator) -> list[str]:
    """Options for the app and its KMS."""
    root = secp256k1.public_key(agent.machine.kms_root)
    return ["--expect-app-id", agent.machine.app_id.hex(), "--kms-root", root.hex()]


def test_output_that_is_said_to_be_cut_off_is_never_verified(agent: Simulator, verify: Verify, result: Any) -> None:
    """Whoever forges it can say so, too; whoever has a cut result accepts that."""
    result["stdout"] = "EVERYTHING IS FORGED"
    result["truncated"]["stdout"] = True
    code, printed = verify(result, *of_app(agent))
    assert (code, printed.splitlines()[-1]) == (1, "refused: result")
    result["stdout"] += "\n[... 9 bytes cut ...]\n"
    result["bytes"]["stdout"] = 29
    code, printed = verify(result, *of_app(agent))
    assert (code, printed.splitlines()[-1]) == (1, "not proved: result")
    assert "verified" not in printed
    code, printed = verify(result, *of_app(agent), "--accept", "result")
    assert code == 0
    assert "verified" not in printed


def test_a_skill_that_was_touched_is_never_verified(agent: Simulator, verify: Verify, result_of: ResultOf) -> None:
    """Its run has a receipt without the skill's digest."""
    code, printed = verify(result_of(skill_digest=None), *of_app(agent))
    assert (code, printed.splitlines()[-1]) == (1, "not proved: skill-digests")
    assert "verified" not in printed


def test_a_result_in_the_guise_of_a_bare_receipt_is_refused(agent: Simulator, verify: Verify, result: Any) -> None:
    """Nothing would compare it."""
    code, printed = verify({"stdout": "FORGED", **result["receipt"]}, *of_app(agent))
    assert (code, printed.splitlines()[-1]) == (1, "refused: document")


def test_machines_get_json(verify: Verify, result: Any) -> None:
    """Every check, and two booleans that are not mixed up."""
    code, printed = verify(result, "--json", "--accept", "kms-root")
    reply = json.loads(printed)
    assert code == 0
    assert (reply["held"], reply["verified"]) == (True, False)
    assert {"name": "result", "outcome": "ok", "detail": "exit code and output are those of the statement"} in reply[
        "checks"
    ]


@pytest.mark.parametrize(
    ("document", "options", "message"),
    [
        ([], [], "neither an attestation nor a receipt"),
        ({"jsonrpc": "2.0", "error": {}}, [], "neither an attestation nor a receipt"),
        ({"manifest": ""}, ["--kms-root", "00"], "--kms-root does not go with an attestation"),
        ({"statement": ""}, ["--nonce", "00"], "--nonce does not go with a receipt"),
        ({"statement": ""}, ["--expect-mrtd", "00"], "--expect-mrtd does not go with a receipt"),
        ({"statement": ""}, ["--nonce", "0"], "'0' is not hexadecimal"),
        ({"statement": ""}, ["--accept", "digest"], "'digest' is not one of"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(verify: Verify, document: Any, options: list[str], message: str) -> None:
    """An option that means nothing must not look as if it had been checked: exit 2."""
    code, printed = verify(document, *options)
    assert code == 2
    assert message in printed


def test_what_is_no_json_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2, one line."""
    (tmp_path / "f").write_bytes(b"\xff{")
    assert run(["verify", str(tmp_path / "f")]) == 2
    assert "it is no JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("member", "old", "new"), [("event_log", '"app-id"', r'"\ud800"'), ("manifest", '"pdf"', '"\ud800"')]
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_half_a_character_is_refused_in_words(
    verify: Verify, attestation: Any, member: str, old: str, new: str, options: list[str]
) -> None:
    """JSON can carry it, no output can."""
    assert old in attestation[member]
    attestation[member] = attestation[member].replace(old, new)
    code, printed = verify(attestation, *options)
    assert code == 1
    assert member.replace("_", "-") in printed


def test_the_guest_agents_words_cannot_drive_a_terminal(verify: Verify, attestation: Any) -> None:
    """What a document says is shown clean."""
    attestation["digest"] = "\x1b]0;owned\x07"
    _, printed = verify(attestation)
    assert "\x1b" not in printed
