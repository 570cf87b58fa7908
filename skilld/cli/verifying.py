"""
The command that checks what a daemon elsewhere says of its skills, offline: verify.

Owns: nothing.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from skilld.cli.exits import EXIT_REFUSED
from skilld.cli.output import clean, print_json
from skilld.cli.own_skills import read_skills
from skilld.skills.model import Skill
from skilld.tee import attestation_checks, receipt_checks
from skilld.tee.attestation_checks import BOOT_FACTS, REGISTERS, check_attestation
from skilld.tee.checks import Check, Findings
from skilld.tee.receipt_checks import OwnSkills, check_receipt
from skilld.tee.vendor import Platform, check_vendor_signature

# What may be missing from a proof without the proof being wrong; whoever accepts that says so.
ACCEPTABLE = ("vendor-signature", "tcb-status", "os-image", "app", "quote", "skill-digests", "kms-root", "result")

_MARKS = {"ok": "ok", "failed": "FAILED", "unchecked": "unchecked", "note": "-"}


class HexBytes(click.ParamType[bytes]):
    """Bytes as hexadecimal digits, with or without ``0x``."""

    name = "hex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """Return the bytes."""
        if isinstance(value, bytes):
            return value
        try:
            return bytes.fromhex(value.removeprefix("0x"))
        except ValueError:
            self.fail(f"{value!r} is not hexadecimal", param, ctx)


def _expectations(command: Any) -> Any:
    for name in reversed((*BOOT_FACTS, *REGISTERS)):
        command = click.option(f"--expect-{name}", type=HexBytes(), metavar="HEX", help=f"What {name} must be.")(
            command
        )
    return command


@click.command("verify")
@click.argument("file", type=click.File("rb"))
@click.option(
    "--skills-dir",
    "directories",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    help="The skills must be those of this root; several in the daemon's order.",
)
@click.option("--nonce", type=HexBytes(), metavar="HEX", help="What was given to skilld attest.")
@_expectations
@click.option("--kms-root", type=HexBytes(), metavar="HEX", help="The KMS's secp256k1 key, to which a receipt leads.")
@click.option(
    "--collateral",
    type=click.File("r", encoding="utf-8"),
    help="Intel's statements about the machine, to check a quote.",
)
@click.option(
    "--accept", "accepted", multiple=True, type=click.Choice(ACCEPTABLE), help="Do without this; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
def verify_command(
    file: Any,
    directories: tuple[str, ...],
    nonce: bytes | None,
    kms_root: bytes | None,
    collateral: Any,
    accepted: tuple[str, ...],
    as_json: bool,
    **expectations: bytes | None,
) -> int:
    """
    Check the reply of skills.attest, the result of a script or its receipt; needs neither daemon nor network.

    Exit 0 only if everything held, and if everything was known that a proof needs: of a quote the vendor's signature,
    the OS's measurements and the app; of a receipt the app and its KMS. What you do without, you --accept.
    """
    document = _read(file)
    # click writes expect_app_id for --expect-app-id.
    expected = {
        name: value
        for name in (*BOOT_FACTS, *REGISTERS)
        if (value := expectations[f"expect_{name.replace('-', '_')}"]) is not None
    }
    skills = read_skills(directories) if directories else None
    if "manifest" in document:
        _refuse(document="an attestation", kms_root=kms_root)
        asked = attestation_checks.Asked(
            nonce,
            expected,
            None if skills is None else {skill.id: skill.digest for skill in skills},
            _vendor_check(collateral),
        )
        found = check_attestation(document, asked)
    else:
        app_id = expected.pop("app-id", None)
        others = {f"expect-{name}": value for name, value in expected.items()}
        _refuse(document="a receipt", nonce=nonce, collateral=collateral, **others)
        is_run = isinstance(document.get("receipt"), dict)
        own = None if skills is None else _own(skills)
        found = check_receipt(
            document["receipt"] if is_run else document,
            document if is_run else None,
            receipt_checks.Asked(app_id, kms_root, own),
        )
    return _report(found, accepted, as_json)


def _own(skills: list[Skill]) -> OwnSkills:
    return OwnSkills(
        {skill.id: skill.digest for skill in skills},
        {skill.id: frozenset(resource.path for resource in skill.resources) for skill in skills},
    )


def _read(file: Any) -> Mapping[str, Any]:
    """Return the document; the result of a whole JSON-RPC reply is taken out of it."""
    try:
        document = json.loads(file.read())
    except (ValueError, RecursionError) as exc:
        raise click.BadParameter(f"it is no JSON: {exc}", param_hint="FILE") from exc
    if isinstance(document, dict) and "jsonrpc" in document:
        document = document.get("result")
    if not isinstance(document, dict) or not {"manifest", "receipt", "statement"} & document.keys():
        raise click.BadParameter("it is neither an attestation nor a receipt", param_hint="FILE")
    return document


def _refuse(*, document: str, **options: Any) -> None:
    """Refuse options that mean nothing for a document: they would look as if they had been checked."""
    for name, value in options.items():
        if value is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} does not go with {document}")


def _vendor_check(collateral: Any) -> Callable[[bytes], Platform] | None:
    if collateral is None:
        return None
    text = collateral.read()
    return lambda quote: check_vendor_signature(quote, text, int(time.time()))


def _report(found: Findings, accepted: tuple[str, ...], as_json: bool) -> int:
    failed = [check for check in found.checks if check.outcome == "failed"]
    unchecked = [check for check in found.checks if check.outcome == "unchecked"]
    missing = [check for check in unchecked if check.name not in accepted]
    is_held = not failed and not missing
    if as_json:
        print_json({"held": is_held, "verified": is_held and not unchecked, **_as_json(found.checks)})
    else:
        for check in found.checks:
            colour = {"ok": "green", "failed": "red", "unchecked": "yellow"}.get(check.outcome)
            mark = click.style(f"{_MARKS[check.outcome]:11}", fg=colour)
            click.echo(f"{mark}{check.name:18}{clean(check.detail)}")
        click.echo(_conclusion(failed, missing, unchecked))
    return 0 if is_held else EXIT_REFUSED


def _as_json(checks: list[Check]) -> dict[str, Any]:
    return {"checks": [dataclasses.asdict(check) for check in checks]}


def _conclusion(failed: list[Check], missing: list[Check], unchecked: list[Check]) -> str:
    if failed:
        return f"refused: {_names(failed)}"
    if missing:
        return f"not proved: {_names(missing)}"
    if unchecked:
        return f"held as far as it was checked; accepted without a check: {_names(unchecked)}"
    return "verified"


def _names(checks: list[Check]) -> str:
    return ", ".join(dict.fromkeys(check.name for check in checks))
