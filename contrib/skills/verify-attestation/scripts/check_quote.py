#!/usr/bin/env python3
"""
Check a dstack TDX quote offline: layout, debug flag, event-log replay, report data.

Reads one reply of GetQuote, tee.quote or skills.attest (JSON, with or without a JSON-RPC envelope), or a bare
quote (binary or hex), from FILE or standard input. Prints one line per check.

    check_quote.py reply.json --expect report-data=HEX --expect compose-hash=HEX
    check_quote.py --compose app-compose.json < reply.json
    check_quote.py --nonce HEX < attest-reply.json

PASS and FAIL are results, NOTE is a fact to judge, OPEN is something that this script cannot check: a quote
is verified only when nothing is left open. Intel's signature is the business of check_signature.py.

Exit codes: 0 no check failed, 1 a check failed, 2 the input or the call is wrong.

Source: Intel TDX DCAP quoting library API, "TD quote format" version 4; dstack cc-eventlog (runtime events);
RFC 8785 for version 2 events.
"""

import argparse
import hashlib
import json
import signal
import sys

HEADER_BYTES = 48
BODY_BYTES = 584
TDX_TEE_TYPE = 0x81
# Intel's quoting enclave; the header's vendor field is the same for every real TDX quote.
INTEL_QE_VENDOR = "939a7233f79c4ca9940a0db3957f0607"

# Offsets from the start of the quote: (first byte, length).
FIELDS = {
    "td-attributes": (168, 8),
    "mrtd": (184, 48),
    "mr-config-id": (232, 48),
    "mr-owner": (280, 48),
    "mr-owner-config": (328, 48),
    "rtmr0": (376, 48),
    "rtmr1": (424, 48),
    "rtmr2": (472, 48),
    "rtmr3": (520, 48),
    "report-data": (568, 64),
}

# dstack's event type for everything that the guest itself extends into RTMR3.
RUNTIME_EVENT_TYPE = 0x08000001
# Written once by the boot code. Whatever follows system-ready was written by the application.
BOOT_EVENTS = ("app-id", "compose-hash", "instance-id", "os-image-hash", "key-provider", "gpu-policy-hash")
BOOT_END = "system-ready"

EXPECTABLE = tuple(name for name in FIELDS if name != "td-attributes") + BOOT_EVENTS


class InputError(Exception):
    """The input cannot be read as a quote; the message says why."""


class Report:
    """Collects the result lines. ``failed`` is true as soon as one check did not hold."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []
        self.failed = False

    def check(self, subject: str, held: bool, good: str, bad: str) -> None:
        self.lines.append(("PASS" if held else "FAIL", subject, good if held else bad))
        self.failed = self.failed or not held

    def note(self, subject: str, text: str) -> None:
        self.lines.append(("NOTE", subject, text))

    def skip(self, subject: str, text: str) -> None:
        self.lines.append(("OPEN", subject, text))


def unhex(text: object, what: str) -> bytes:
    """Bytes of a hex string, with or without ``0x``. Raises InputError."""
    if not isinstance(text, str):
        raise InputError(f"{what}: expected a hex string, got {type(text).__name__}")
    try:
        return bytes.fromhex(text.strip().removeprefix("0x"))
    except ValueError:
        raise InputError(f"{what}: not hex: {text[:40]!r}") from None


def parse_input(data: bytes) -> dict:
    """The reply as a dict; a bare quote becomes ``{"quote": hex}``. Raises InputError."""
    if not data.strip():
        raise InputError("the input is empty")
    if data[:2] == b"\x04\x00":
        return {"quote": data.hex()}
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InputError("neither a version 4 quote nor text") from None
    if not text.startswith("{"):
        return {"quote": unhex(text, "quote").hex()}
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InputError(f"not JSON: {exc}") from None
    if isinstance(reply.get("result"), dict):
        reply = reply["result"]
    if "error" in reply:
        raise InputError(f"the reply is an error: {json.dumps(reply['error'])[:200]}")
    if not reply.get("quote"):
        if reply.get("attestation"):
            raise InputError("only 'attestation', no TDX quote: give it to dstack-verifier")
        raise InputError("no 'quote' in the reply")
    return reply


def parse_events(event_log: object) -> list[dict]:
    """The event log as a list; it travels as a JSON string inside JSON. Raises InputError."""
    if isinstance(event_log, str):
        try:
            event_log = json.loads(event_log)
        except (ValueError, RecursionError) as exc:
            raise InputError(f"event_log: not JSON: {exc}") from None
    if not isinstance(event_log, list) or not all(isinstance(event, dict) for event in event_log):
        raise InputError("event_log: expected a list of objects")
    for number, event in enumerate(event_log):
        for key, kind in (("imr", int), ("event_type", int), ("event", str), ("event_payload", str)):
            if not isinstance(event.get(key), kind):
                raise InputError(f"event_log[{number}].{key}: missing or not {kind.__name__}")
        if not 0 <= event["imr"] <= 3:
            raise InputError(f"event_log[{number}].imr: {event['imr']} is not 0, 1, 2 or 3")
    return event_log


def runtime_digest(event: dict) -> bytes:
    """SHA-384 that the guest extended for one of dstack's own events, from its name and payload."""
    payload = unhex(event["event_payload"], f"payload of {event['event']!r}")
    if event.get("version", 1) == 2:
        content = {"name": event["event"], "payload": payload.hex(), "type": RUNTIME_EVENT_TYPE}
        # RFC 8785 for three members whose values are two strings and one small integer.
        preimage = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    else:
        name = event["event"].encode()
        preimage = RUNTIME_EVENT_TYPE.to_bytes(4, "little") + b":" + name + b":" + payload
    return hashlib.sha384(preimage).digest()


def replay(events: list[dict], imr: int, report: Report) -> bytes:
    """The value that the register must have after all its events."""
    register = bytes(48)
    for event in events:
        if event["imr"] != imr:
            continue
        given = unhex(event.get("digest", ""), f"digest of {event['event']!r}")
        if event["event_type"] == RUNTIME_EVENT_TYPE:
            # GetQuote leaves this digest empty from OS 0.5.6 on. Never trust it: the payload is what we read.
            digest = runtime_digest(event)
            if given and given != digest:
                report.check(
                    f"rtmr{imr}", False, "", f"digest of event {event['event']!r} is not that of its payload"
                )
        else:
            digest = given
        register = hashlib.sha384(register + digest).digest()
    return register


def check_boot_events(events: list[dict], report: Report) -> dict[str, str]:
    """
    Read the facts that the boot code measured.

    Only events before the first system-ready count: an application may extend RTMR3 later with an event of
    any name, and the replay then still holds.
    """
    runtime = [event for event in events if event["imr"] == 3 and event["event_type"] == RUNTIME_EVENT_TYPE]
    names = [event["event"] for event in runtime]
    if BOOT_END not in names:
        report.check(
            "boot events", False, "", f"no {BOOT_END} event: boot and application cannot be told apart"
        )
        return {}
    end = names.index(BOOT_END)
    boot, later = runtime[:end], runtime[end + 1 :]
    twice = sorted({name for name in BOOT_EVENTS if names[:end].count(name) > 1})
    report.check(
        "boot events",
        not twice,
        f"{len(boot)} before {BOOT_END}, each trusted name at most once",
        f"more than one of: {', '.join(twice)}",
    )
    if later:
        report.note(
            "app events", f"{len(later)} after {BOOT_END}: " + ", ".join(e["event"] for e in later[:5])
        )
    for name in sorted({event["event"] for event in later} & {*BOOT_EVENTS, BOOT_END}):
        report.note("app events", f"{name!r} after {BOOT_END} was written by the application: ignored")
    return {event["event"]: event["event_payload"].lower() for event in boot if event["event"] in BOOT_EVENTS}


def check_skill_set(
    reply: dict, quoted_report_data: bytes, wanted_nonce: bytes | None, report: Report
) -> None:
    """The extra promises of skills.attest: the quote speaks of exactly this manifest and this nonce."""
    manifest = reply["manifest"]
    if not isinstance(manifest, str):
        raise InputError("manifest: expected the manifest's text")
    digest = hashlib.sha256(manifest.encode()).digest()
    nonce = unhex(reply.get("nonce", ""), "nonce")
    claimed = reply.get("digest")
    held = isinstance(claimed, str) and claimed.removeprefix("sha256:") == digest.hex()
    report.check(
        "manifest", held, f"sha256:{digest.hex()}", f"its sha256 is {digest.hex()}, the reply says {claimed}"
    )
    if wanted_nonce is None:
        report.skip("freshness", "no --nonce given: this may be an old quote")
    else:
        report.check(
            "nonce",
            nonce == wanted_nonce,
            "is the one asked for",
            f"is {nonce.hex()!r}, asked for {wanted_nonce.hex()!r}",
        )
    bound = hashlib.sha512(b"skilld-skillset:" + digest + nonce).digest()
    report.check(
        "skill set",
        quoted_report_data == bound,
        "bound by the quoted report data",
        "NOT what the quote binds",
    )
    try:
        skills = json.loads(manifest)["skills"]
        report.note("skill set", f"{len(skills)} skills: " + ", ".join(skill["id"] for skill in skills[:8]))
    except (ValueError, KeyError, TypeError):
        report.check("manifest", False, "", "is not a skill-set manifest")


def check(reply: dict, expected: dict[str, bytes], nonce: bytes | None) -> Report:
    """Run every check that the input allows. Raises InputError when there is no readable quote."""
    report = Report()
    quote = unhex(reply["quote"], "quote")
    if len(quote) < HEADER_BYTES + BODY_BYTES:
        raise InputError(f"quote: {len(quote)} bytes, a TDX quote has at least {HEADER_BYTES + BODY_BYTES}")
    version, tee_type = int.from_bytes(quote[0:2], "little"), int.from_bytes(quote[4:8], "little")
    if version != 4 or tee_type != TDX_TEE_TYPE:
        raise InputError(
            f"quote: version {version}, TEE type 0x{tee_type:x}; only version 4, 0x81 (TDX) is known here"
        )

    facts = {name: quote[start : start + length] for name, (start, length) in FIELDS.items()}
    vendor = quote[12:28].hex()
    report.check(
        "structure",
        vendor == INTEL_QE_VENDOR,
        f"TDX quote version 4, {len(quote)} bytes",
        f"QE vendor {vendor} is not Intel's",
    )
    report.check(
        "debug",
        not facts["td-attributes"][0] & 1,
        "the TD is not a debug TD",
        "DEBUG TD: the host can read its memory",
    )

    if "report_data" in reply:
        padded = unhex(reply["report_data"], "report_data").ljust(64, b"\0")
        report.check(
            "report_data",
            padded == facts["report-data"],
            "reply and quote agree",
            "the reply's copy is NOT the quoted one",
        )

    boot: dict[str, str] = {}
    if reply.get("event_log"):
        events = parse_events(reply["event_log"])
        for imr in range(4):
            value = replay(events, imr, report)
            count = sum(event["imr"] == imr for event in events)
            quoted = facts[f"rtmr{imr}"]
            report.check(
                f"rtmr{imr}",
                value == quoted,
                f"{count} events replay to the quoted value",
                f"replay gives {value.hex()}, quote has {quoted.hex()}",
            )
        boot = check_boot_events(events, report)
    else:
        report.skip("event log", "none in the input: nothing is known about the application")

    if "manifest" in reply:
        check_skill_set(reply, facts["report-data"], nonce, report)
    elif nonce is not None:
        raise InputError("--nonce is for replies of skills.attest; use --expect report-data=HEX")

    measured = {name: value for name, value in facts.items() if name != "td-attributes"}
    measured |= {name: unhex(value, name) for name, value in boot.items()}
    for name, wanted in expected.items():
        if name == "report-data":
            wanted = wanted.ljust(64, b"\0")
        got = measured.get(name)
        report.check(
            name,
            got == wanted,
            "is the expected value",
            f"is {got.hex() if got is not None else 'absent'}, expected {wanted.hex()}",
        )
    for name, value in boot.items():
        if name not in expected:
            report.note(
                name, bytes.fromhex(value).decode("utf-8", "replace") if name == "key-provider" else value
            )
    if "report-data" not in expected and "manifest" not in reply:
        report.note("report-data", facts["report-data"].hex())
        report.skip("freshness", "report data not compared: give --expect report-data=HEX of your challenge")
    if boot and "compose-hash" not in expected:
        report.skip("compose-hash", "not compared: give --compose app-compose.json")
    if not {"mrtd", "rtmr1", "rtmr2"} <= expected.keys():
        report.skip("OS image", "mrtd and rtmr0-2 not compared with an image: dstack-mr or dstack-verifier")
    report.skip("signature", "not verified here: check_signature.py, then dstack-verifier for the TCB status")
    return report


def read_bytes(path: str) -> bytes:
    """All bytes of a file, or of standard input for ``-``. Raises InputError."""
    try:
        if path == "-":
            return sys.stdin.buffer.read()
        with open(path, "rb") as file:
            return file.read()
    except OSError as exc:
        raise InputError(f"{path}: {exc.strerror}") from None


def printable(text: str) -> str:
    """Names come from the input: none may start a line of its own or reach the terminal as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Check a dstack TDX quote offline.")
    parser.add_argument("file", nargs="?", default="-", help="reply or quote; default: standard input")
    parser.add_argument(
        "--expect", action="append", default=[], metavar="NAME=HEX", help="one of: " + ", ".join(EXPECTABLE)
    )
    parser.add_argument(
        "--compose", metavar="FILE", help="app-compose.json whose sha256 the compose-hash must be"
    )
    parser.add_argument("--nonce", metavar="HEX", help="nonce that was given to skills.attest")
    args = parser.parse_args()
    try:
        expected = {}
        for item in args.expect:
            name, equals, value = item.partition("=")
            if not equals or name not in EXPECTABLE:
                raise InputError(f"--expect {item}: want NAME=HEX with NAME one of {', '.join(EXPECTABLE)}")
            expected[name] = unhex(value, f"--expect {name}")
        if args.compose:
            expected["compose-hash"] = hashlib.sha256(read_bytes(args.compose)).digest()
        nonce = None if args.nonce is None else unhex(args.nonce, "--nonce")
        report = check(parse_input(read_bytes(args.file)), expected, nonce)
    except InputError as exc:
        print(f"check_quote.py: {exc}", file=sys.stderr)
        return 2
    for verdict, subject, text in report.lines:
        print(f"{verdict}  {subject:<13} {printable(text)}")
    counts = {
        verdict: sum(line[0] == verdict for line in report.lines) for verdict in ("PASS", "FAIL", "OPEN")
    }
    print("{PASS} passed, {FAIL} failed, {OPEN} open".format(**counts))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
