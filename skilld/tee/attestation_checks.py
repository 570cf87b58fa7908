"""
Whether the reply of ``skills.attest`` holds: manifest, digest, report data, quote, event log, measurements.

Owns: nothing; values only.

Source: API, section 7; dstack's ``attestation.rs`` for what the system measures and in which order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skilld.skills.digest import MANIFEST_SCHEMA, manifest_digest
from skilld.tee.attestation import SKILL_SET_EVENT, report_data_of
from skilld.tee.canonical import NotCanonical, parse_canonical
from skilld.tee.checks import Findings, parse_hex
from skilld.tee.event_log import BadEventLog, Event, boot_facts, parse_event_log, replay
from skilld.tee.tdx_quote import BadQuote, Quote, parse_quote
from skilld.tee.vendor import Platform, VendorRefused, VendorUnchecked

# What a verifier may expect: measured into RTMR3 by the system, or a register of the quote.
BOOT_FACTS = ("app-id", "compose-hash", "instance-id", "os-image-hash")
REGISTERS = ("mrtd", "rtmr0", "rtmr1", "rtmr2")

_MEMBERS = ("manifest", "digest", "nonce", "report_data", "quote", "event_log", "vm_config")
_SHOWN_LIMIT = 5


@dataclass(frozen=True)
class Asked:
    """
    What the verifier wants to know.

    Args:
        nonce: The bytes that were given to ``skills.attest``.
        expected: Values by name, of :data:`BOOT_FACTS` and :data:`REGISTERS`.
        digests: The verifier's own skills: digest by id.
        check_vendor: Checks the vendor's signature of a quote; None where there is no collateral.
    """

    nonce: bytes | None = None
    expected: Mapping[str, bytes] = field(default_factory=dict)
    digests: Mapping[str, str | None] | None = None
    check_vendor: Callable[[bytes], Platform] | None = None


def check_attestation(document: Mapping[str, Any], asked: Asked) -> Findings:
    """Check everything that can be checked; a document of another shape fails at once."""
    found = Findings()
    for member in _MEMBERS:
        if not isinstance(document.get(member), str):
            found.fail("document", f"its member {member!r} is missing or no text")
            return found
    attested = _check_manifest(document, found)
    _check_nonce(document, asked, found)
    _check_report_data(document, found)
    if asked.digests is not None:
        _check_skills(attested, asked.digests, found)
    quote = _check_quote(document, found)
    if quote is None:
        _leave_open(asked, found)
        return found
    events = _check_event_log(document, quote, found)
    _check_measurements(quote, events, asked.expected, found)
    _check_identity(asked.expected, found)
    found.note("vm_config", "nothing that the quote covers says whether it is true")
    _note_skill_set_event(document, events, found)
    _check_vendor(bytes.fromhex(document["quote"]), asked, found)
    return found


def _check_manifest(document: Mapping[str, Any], found: Findings) -> Mapping[str, str | None] | None:
    """Return the attested digests by id, or None where the manifest cannot be read."""
    text = document["manifest"]
    try:
        value = parse_canonical(text)
    except NotCanonical as exc:
        found.fail("manifest", f"it {exc}")
        return None
    if not isinstance(value, dict) or value.keys() != {"schema", "skills"} or value["schema"] != MANIFEST_SCHEMA:
        found.fail("manifest", f"it is no manifest of {MANIFEST_SCHEMA}")
        return None
    digests: dict[str, str | None] = {}
    before: bytes | None = None
    for entry in value["skills"] if isinstance(value["skills"], list) else [None]:
        if not isinstance(entry, dict) or entry.keys() != {"digest", "id"} or not isinstance(entry["id"], str):
            found.fail("manifest", "an entry is no skill with id and digest")
            return None
        if not isinstance(entry["digest"], str | None):
            found.fail("manifest", f"the digest of {entry['id']!r} is neither a text nor null")
            return None
        order = entry["id"].encode("utf-16-be")
        if before is not None and order <= before:
            found.fail("manifest", f"its skills are not sorted by id, each once, at {entry['id']!r}")
            return None
        before = order
        digests[entry["id"]] = entry["digest"]
    found.ok("manifest", f"canonical JSON, {len(digests)} skills")
    found.equal("digest", "the manifest's sha256", manifest_digest(text), document["digest"])
    nameless = [id for id, digest in digests.items() if digest is None]
    if nameless:
        found.unchecked("skill-digests", f"these skills have no digest, so they may hold anything: {_some(nameless)}")
    return digests


def _check_nonce(document: Mapping[str, Any], asked: Asked, found: Findings) -> None:
    if parse_hex(document["nonce"]) is None:
        found.fail("nonce", f"{document['nonce']!r} is not hexadecimal")
    elif asked.nonce is None:
        found.note("nonce", "not compared, so the quote may be an old one (--nonce)")
    else:
        found.equal("nonce", "the nonce", document["nonce"], asked.nonce.hex())


def _check_report_data(document: Mapping[str, Any], found: Findings) -> None:
    nonce, digest = parse_hex(document["nonce"]), document["digest"]
    if nonce is None:
        return
    if not digest.startswith("sha256:") or len(parse_hex(digest.removeprefix("sha256:")) or b"") != 32:
        found.fail("digest", f"{digest!r} is not sha256: and 64 hexadecimal digits")
        return
    expected = report_data_of(digest, nonce).hex()
    found.equal("report-data", "report data made of digest and nonce", document["report_data"], expected)


def _check_skills(attested: Mapping[str, str | None] | None, here: Mapping[str, str | None], found: Findings) -> None:
    """Compare the attested set with the verifier's own."""
    if attested is None:
        found.fail("skills-dir", "there is no manifest to compare it with")
        return
    differences = {
        "not attested": [id for id in here if id not in attested],
        "attested, but not here": [id for id in attested if id not in here],
        "different": [id for id in here if id in attested and here[id] != attested[id]],
    }
    texts = [f"{what}: {_some(ids)}" for what, ids in differences.items() if ids]
    if texts:
        found.fail("skills-dir", "; ".join(texts))
    else:
        found.ok("skills-dir", f"its {len(here)} skills are the attested ones")


def _check_quote(document: Mapping[str, Any], found: Findings) -> Quote | None:
    if not document["quote"]:
        _note_other_attestation(document, found)
        return None
    content = parse_hex(document["quote"])
    if content is None:
        found.fail("quote", "it is not hexadecimal")
        return None
    try:
        quote = parse_quote(content)
    except BadQuote as exc:
        found.fail("quote", f"it is no TDX quote: {exc}")
        return None
    found.equal("quote", "its report data", quote.report_data.hex(), document["report_data"])
    if quote.is_debug:
        found.fail("debug", "the TD runs in debug mode: its host can read and change everything in it")
    return quote


def _note_other_attestation(document: Mapping[str, Any], found: Findings) -> None:
    """Say what is known of a TEE without a TDX quote."""
    attestation, report_data = parse_hex(document.get("attestation")), parse_hex(document["report_data"])
    if not attestation or not report_data:
        found.fail("quote", "there is neither a quote nor an attestation")
    elif report_data not in attestation:
        found.fail("quote", "the attestation does not hold the report data")
    else:
        found.unchecked("quote", "it is no TDX quote; the attestation holds the report data, its signature is not read")


def _leave_open(asked: Asked, found: Findings) -> None:
    """Say what is not known without a TDX quote; what the verifier asked for does not hold."""
    for name in asked.expected:
        found.fail(name, "there is no TDX quote to compare it with")
    found.unchecked("os-image", "without a TDX quote nothing says what measured all this")
    found.unchecked("app", "without a TDX quote nothing says whose app it is that speaks")
    if asked.check_vendor is None:
        found.unchecked("vendor-signature", "without a TDX quote nothing says what hardware this is")
    else:
        found.fail("vendor-signature", "there is no TDX quote that the collateral could be for")


def _check_event_log(document: Mapping[str, Any], quote: Quote, found: Findings) -> tuple[Event, ...] | None:
    """Return the events where they are those of the quote's RTMR3."""
    try:
        events = parse_event_log(document["event_log"])
    except BadEventLog as exc:
        found.fail("event-log", str(exc))
        return None
    logged = [imr for imr in range(3) if any(event.imr == imr for event in events)]
    wrong = [f"rtmr{imr}" for imr in logged if replay(events, imr) != quote.registers[f"rtmr{imr}"]]
    if wrong:
        found.fail("event-log", f"it leads to other values of {', '.join(wrong)} than the quote's")
    elif logged:
        found.ok("event-log", f"it leads to the quote's {', '.join(f'rtmr{imr}' for imr in logged)}")
    if replay(events, 3) != quote.registers["rtmr3"]:
        found.fail("rtmr3", "the event log leads to another value than the quote's: an event is missing or changed")
        return None
    found.ok("rtmr3", "the event log leads to the quote's value; what the system measured into it follows")
    return events


def _check_measurements(
    quote: Quote, events: tuple[Event, ...] | None, expected: Mapping[str, bytes], found: Findings
) -> None:
    facts = {} if events is None else boot_facts(events)
    measured = {name: facts.get(name) for name in BOOT_FACTS} | {name: quote.registers[name] for name in REGISTERS}
    for name, value in measured.items():
        if name not in expected:
            if value:
                found.note(name, f"{value.hex()} (not compared; --expect-{name})")
        elif value is None:
            found.fail(name, "no event of the log that the quote covers says what it is")
        else:
            found.equal(name, "it", value.hex(), expected[name].hex())


def _check_identity(expected: Mapping[str, bytes], found: Findings) -> None:
    """Make sure that the verifier knows who speaks: anybody with such hardware can have it quote anything."""
    missing = [name for name in REGISTERS if name not in expected]
    if missing:
        options = ", ".join(f"--expect-{name}" for name in missing)
        found.unchecked("os-image", f"whether a dstack OS measured all this needs {options}")
    else:
        found.note("os-image", "measured by mrtd and rtmr0 to rtmr2, which were compared")
    if not {"app-id", "compose-hash"} & expected.keys():
        found.unchecked("app", "whether it is your app that speaks needs --expect-app-id or --expect-compose-hash")


def _note_skill_set_event(document: Mapping[str, Any], events: tuple[Event, ...] | None, found: Findings) -> None:
    announced = [event.payload for event in events or () if event.name == SKILL_SET_EVENT]
    if not announced:
        return
    is_last = announced[-1].hex() == document["digest"].removeprefix("sha256:")
    which = "the last of them is this set" if is_last else "the last of them is another set than this one"
    found.note("skill-set-events", f"{len(announced)} in RTMR3; {which}")


def _check_vendor(quote: bytes, asked: Asked, found: Findings) -> None:
    name = "vendor-signature"
    if asked.check_vendor is None:
        found.unchecked(name, "whether Intel's hardware made this quote needs collateral (--collateral)")
        return
    try:
        platform = asked.check_vendor(quote)
    except VendorUnchecked as exc:
        found.unchecked(name, str(exc))
        return
    except VendorRefused as exc:
        found.fail(name, str(exc))
        return
    found.ok(name, "Intel's, with a chain up to Intel's root, not revoked")
    advisories = f" ({', '.join(platform.advisories)})" if platform.advisories else ""
    if platform.status == "UpToDate":
        found.ok("tcb-status", f"UpToDate{advisories}")
    else:
        found.unchecked("tcb-status", f"the machine's firmware is {platform.status}{advisories}")


def _some(ids: list[str]) -> str:
    shown = ", ".join(repr(id) for id in ids[:_SHOWN_LIMIT])
    return shown if len(ids) <= _SHOWN_LIMIT else f"{shown} and {len(ids) - _SHOWN_LIMIT} more"
