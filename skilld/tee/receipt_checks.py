"""
Whether a receipt holds: its statement, its signature, the keys behind it, and the result that it goes with.

Owns: nothing; values only.

Source: API, section 7, "Execution receipts"; dstack's ``rpc_service.rs`` (sign) for the chain.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from skilld.skills.digest import manifest, manifest_digest
from skilld.tee.canonical import NotCanonical, parse_canonical
from skilld.tee.chain import recover_app_key, recover_kms_root
from skilld.tee.checks import Findings, parse_hex
from skilld.tee.receipts import RECEIPT_SCHEMA, signed_message
from skilld.tee.secp256k1 import BadPoint, normalise

CRYPTOGRAPHY_HINT = "the package cryptography is not installed; install skilld[verify]"

ALGORITHMS = ("ed25519", "secp256k1")
CHAIN_LINKS = 3  # the signature, the app's on the key, the KMS's on the app

_TEXTS = ("schema", "skill", "registry_digest", "script", "stdin", "stdout", "stderr", "started", "ended")
_MEMBERS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(_TEXTS, (str,)),
    "skill_digest": (str, type(None)),
    "args": (list,),
    "env": (list,),
    "exit_code": (int,),
    "timed_out": (bool,),
}

_RECEIPT_MEMBERS = frozenset({"statement", "signature", "algorithm", "public_key", "signature_chain"})

# What a result says of its streams.
_STREAM_GROUPS = ("encoding", "truncated", "bytes")
# The line in a stream's text for what was cut out; its last line feed may be the next one's first.
_CUT = re.compile(r"\n\[\.\.\. ([0-9]{1,18}) bytes cut \.\.\.\](?=\n)")


@dataclass(frozen=True)
class OwnSkills:
    """The verifier's own skills: digest and script paths by id."""

    digests: Mapping[str, str | None]
    scripts: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Asked:
    """
    What the verifier wants to know.

    Args:
        app_id: The app that should have signed, 20 bytes.
        kms_root: The secp256k1 key of the KMS that should have given the app its key.
        skills: The skills that should have run.
    """

    app_id: bytes | None = None
    kms_root: bytes | None = None
    skills: OwnSkills | None = None


def check_receipt(receipt: Mapping[str, Any], run: Mapping[str, Any] | None, asked: Asked) -> Findings:
    """
    Check a receipt.

    Args:
        receipt: statement, signature, algorithm, public_key, signature_chain.
        run: The result that it came with, or None for a bare receipt.
        asked: What to compare it with.
    """
    found = Findings()
    chain = receipt.get("signature_chain")
    for member in ("statement", "signature", "algorithm", "public_key"):
        if not isinstance(receipt.get(member), str):
            found.fail("document", f"the receipt's member {member!r} is missing or no text")
            return found
    if not isinstance(chain, list) or len(chain) != CHAIN_LINKS or any(parse_hex(link) is None for link in chain):
        found.fail("document", f"the receipt's signature_chain is no list of {CHAIN_LINKS} hexadecimal texts")
        return found
    if receipt.keys() - _RECEIPT_MEMBERS:
        # Such as a result that looks like a bare receipt, so that nobody compares it.
        found.fail("document", "the receipt has members that no receipt has")
        return found
    statement = _check_statement(receipt["statement"], found)
    if statement is None:
        return found
    _check_signature(receipt, found)
    _check_chain(receipt, asked, found)
    if run is None:
        found.note("result", "there is none to compare the statement with")
    else:
        _check_run(statement, run, found)
    if asked.skills is not None:
        _check_skills(statement, asked.skills, found)
    return found


def _check_statement(text: str, found: Findings) -> Mapping[str, Any] | None:
    try:
        statement = parse_canonical(text)
    except NotCanonical as exc:
        found.fail("statement", f"it {exc}")
        return None
    if not isinstance(statement, dict) or statement.get("schema") != RECEIPT_SCHEMA:
        found.fail("statement", f"it is no statement of {RECEIPT_SCHEMA}")
        return None
    # The type itself: true is no number here.
    wrong = [name for name, kinds in _MEMBERS.items() if name not in statement or type(statement[name]) not in kinds]
    wrong += sorted(statement.keys() - _MEMBERS.keys())
    if wrong:
        found.fail("statement", f"a member is missing, unknown or of the wrong type: {', '.join(wrong)}")
        return None
    try:
        is_in_order = datetime.fromisoformat(statement["started"]) <= datetime.fromisoformat(statement["ended"])
    except (TypeError, ValueError) as exc:
        found.fail("statement", f"started and ended are no times: {exc}")
        return None
    if not is_in_order:
        found.fail("statement", "it ended before it started")
        return None
    found.ok("statement", f"{statement['script']} of {statement['skill']}, started {statement['started']}")
    if statement["skill_digest"] is None:
        found.unchecked("skill-digests", f"the skill {statement['skill']!r} has no digest, so it may hold anything")
    return statement


def _check_signature(receipt: Mapping[str, Any], found: Findings) -> None:
    algorithm, signature, key = receipt["algorithm"], parse_hex(receipt["signature"]), parse_hex(receipt["public_key"])
    if algorithm not in ALGORITHMS:
        found.fail("signature", f"the algorithm {algorithm!r} is none of {', '.join(ALGORITHMS)}")
        return
    if signature is None or key is None:
        found.fail("signature", "signature or public_key is not hexadecimal")
        return
    try:
        from skilld.tee.signature import is_signed
    except ImportError:
        found.unchecked("signature", CRYPTOGRAPHY_HINT)
        return
    try:
        holds = is_signed(algorithm, key, signed_message(receipt["statement"]), signature)
    except ValueError as exc:
        found.fail("signature", f"public_key is no key for {algorithm}: {exc}")
        return
    if holds:
        found.ok("signature", f"{algorithm} by the key {key.hex()}")
    else:
        found.fail("signature", "it is not that of public_key over this statement")


def _check_chain(receipt: Mapping[str, Any], asked: Asked, found: Findings) -> None:
    """Follow the links from the key that signed to the KMS."""
    first, app_link, kms_link = (parse_hex(link) or b"" for link in receipt["signature_chain"])
    if first.hex() != receipt["signature"]:
        found.fail("chain", "its first link is another signature than the receipt's")
        return
    key = parse_hex(receipt["public_key"])
    if key is None:
        return
    try:
        app_key = recover_app_key(app_link, key)
    except BadPoint as exc:
        found.fail("chain", f"its second link, the app's signature of public_key, fits no key: {exc}")
        return
    if not kms_link:
        found.unchecked("kms-root", "the app's key comes from no KMS, so nothing says which app it is")
    elif asked.app_id is None:
        found.unchecked("kms-root", "name the app and its KMS to have the chain followed (--expect-app-id, --kms-root)")
    else:
        _check_kms_link(kms_link, asked.app_id, app_key, asked.kms_root, found)


def _check_kms_link(link: bytes, app_id: bytes, app_key: bytes, kms_root: bytes | None, found: Findings) -> None:
    try:
        root = recover_kms_root(link, app_id, app_key)
        wanted = None if kms_root is None else normalise(kms_root)
    except BadPoint as exc:
        found.fail("kms-root", f"the chain's third link, the KMS's signature of the app's key, fits no key: {exc}")
        return
    if wanted is None:
        found.unchecked("kms-root", f"for this app the chain leads to {root.hex()}; name the KMS's key (--kms-root)")
    elif root == wanted:
        found.ok("kms-root", f"the KMS {root.hex()} gave the app {app_id.hex()} the key that signed")
    else:
        found.fail(
            "kms-root",
            f"for the app {app_id.hex()} the chain leads to {root.hex()}, not to {wanted.hex()}: "
            "another app, another KMS, or a changed link",
        )


def _check_run(statement: Mapping[str, Any], run: Mapping[str, Any], found: Findings) -> None:
    """Compare the statement with the result that it came with."""
    for name in ("exit_code", "timed_out"):
        if type(run.get(name)) is not type(statement[name]) or run[name] != statement[name]:
            found.fail("result", f"its {name} is {_shown(run.get(name))}, the statement's {statement[name]!r}")
            return
    cut: list[str] = []
    for name in ("stdout", "stderr"):
        try:
            stream = _read_stream(run, name)
        except ValueError as exc:
            found.fail("result", f"its {name} cannot be read: {exc}")
            return
        if stream.is_truncated:
            cut.append(name)
        elif hashlib.sha256(stream.content).hexdigest() != statement[name]:
            found.fail("result", f"its {name} is not the one that the statement names")
            return
    if cut:
        found.unchecked(
            "result",
            f"its {' and '.join(cut)} is cut off, so that nothing says whether what is left is what was written",
        )
    else:
        found.ok("result", "exit code and output are those of the statement")


@dataclass(frozen=True)
class _Stream:
    """A stream of a result; of one that is truncated, ``content`` has a line for what was cut out, or a gap."""

    content: bytes
    is_truncated: bool


def _read_stream(run: Mapping[str, Any], name: str) -> _Stream:
    """
    Read a stream as strictly as skilld writes it: no other reader shall see something else in it.

    Raises:
        ValueError: It is not as skilld writes it; the text says why.
    """
    text, encoding, is_truncated, count = run.get(name), *(_member(run, group, name) for group in _STREAM_GROUPS)
    if not isinstance(text, str):
        raise ValueError("it is no text")
    if encoding not in ("utf-8", "base64"):
        raise ValueError("its encoding is neither utf-8 nor base64")
    if type(is_truncated) is not bool or type(count) is not int:
        raise ValueError("whether it is truncated, or how many bytes it has, is not said")
    content = base64.b64decode(text, validate=True) if encoding == "base64" else text.encode()
    if not is_truncated and count != len(content):
        raise ValueError(f"it has not {count} bytes")
    if is_truncated and count not in _sizes(text) and not (encoding == "base64" and len(content) < count):
        raise ValueError(f"it cannot be what is left of {count} bytes")
    return _Stream(content, is_truncated)


def _sizes(text: str) -> set[int]:
    """The sizes that a stream may have had before it was cut; the script may have written such a line, too."""
    size = len(text.encode())
    return {size - len(cut[0]) - 1 + int(cut[1]) for cut in _CUT.finditer(text) if int(cut[1])}


def _member(run: Mapping[str, Any], group: str, name: str) -> Any:
    value = run.get(group)
    return value.get(name) if isinstance(value, Mapping) else None


def _shown(value: Any) -> str:
    """A number, boolean or null as it is; of anything else, what it is."""
    return repr(value) if isinstance(value, int | None) else f"of the type {type(value).__name__}"


def _check_skills(statement: Mapping[str, Any], skills: OwnSkills, found: Findings) -> None:
    """Compare what ran with the verifier's own skills."""
    id = statement["skill"]
    if id not in skills.digests:
        found.fail("skills-dir", f"it has no skill {id!r}")
    elif skills.digests[id] != statement["skill_digest"]:
        found.fail("skills-dir", f"its {id!r} is {skills.digests[id]}, what ran is {statement['skill_digest']}")
    elif statement["script"] not in skills.scripts[id]:
        found.fail("skills-dir", f"its {id!r} has no file {statement['script']!r}")
    elif (registry_digest := manifest_digest(manifest(skills.digests.items()))) != statement["registry_digest"]:
        found.fail(
            "skills-dir",
            f"its {id!r} is what ran, but of another set: {statement['registry_digest']}, not {registry_digest}",
        )
    else:
        found.ok("skills-dir", f"its {id!r}, of the same set, is what ran")
