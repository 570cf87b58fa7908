#!/usr/bin/env python3
"""
Verify the signature chain of a TDX quote offline, up to Intel's SGX root key.

Reads a bare quote (binary or hex) or a JSON reply with a ``quote`` member from FILE or standard input.

    check_signature.py reply.json
    check_signature.py < quote.bin

The chain: the attestation key signs the TD report; the quoting enclave's report names that key; the
platform's PCK certificate signs the quoting enclave's report; Intel's root signs the PCK certificate
through one CA.

What it cannot know without Intel's collateral (network): whether the platform's TCB is up to date and
whether a certificate was revoked. It prints the FMSPC with which to ask.

Only public data is handled, so the arithmetic need not run in constant time.

Exit codes: 0 every signature holds, 1 one does not, 2 the input or the call is wrong.

Source: Intel TDX DCAP quoting library API, "TD quote format" version 4; Intel SGX PCK
certificate and CRL profile; FIPS 186-5 (ECDSA verification, P-256).
"""

import argparse
import base64
import hashlib
import json
import re
import signal
import sys
from datetime import UTC, datetime

SIGNED_BYTES = 632  # header and TD report
QE_REPORT_BYTES = 384

# Public key of "Intel SGX Root CA", the trust anchor of every DCAP verifier (x and y).
INTEL_ROOT_KEY = bytes.fromhex(
    "0ba9c4c0c0c86193a3fe23d6b02cda10a8bbd4e88e48b4458561a36e705525f5"
    "67918e2edc88e40d860bd0cc4ee26aacc988e505a953558c453f6b0904ae7394"
)
# Signer and product id of Intel's TD quoting enclave. The platform signs reports of other enclaves too, so
# without this check any enclave could stand in for it.
TD_QE_SIGNER = "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5"
TD_QE_PRODUCT = 2

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)

OID_EC_PUBLIC_KEY_P256 = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
OID_ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
OID_BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")
OID_SGX = bytes.fromhex("06092a864886f84d010d01")
OID_FMSPC = bytes.fromhex("060a2a864886f84d010d0104")


class InputError(Exception):
    """The input is not a quote that this script understands; the message says why."""


# --- P-256 ----------------------------------------------------------------------------------------


def add(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int] | None:
    """Sum of two points of P-256; None is the point at infinity."""
    if a is None or b is None:
        return b if a is None else a
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(k: int, point: tuple[int, int] | None) -> tuple[int, int] | None:
    result = None
    while k:
        if k & 1:
            result = add(result, point)
        point = add(point, point)
        k >>= 1
    return result


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """ECDSA with SHA-256 over P-256; ``key`` is x and y, ``signature`` is r and s, 64 bytes each."""
    x, y = int.from_bytes(key[:32], "big"), int.from_bytes(key[32:], "big")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if (
        len(key) != 64
        or x >= P
        or y >= P
        or (y * y - x * x * x + 3 * x - B) % P
        or not (0 < r < N and 0 < s < N)
    ):
        return False
    e = int.from_bytes(hashlib.sha256(message).digest(), "big")
    w = pow(s, -1, N)
    point = add(multiply(e * w % N, G), multiply(r * w % N, (x, y)))
    return point is not None and point[0] % N == r


# --- X.509, as far as Intel's PCK chain needs it --------------------------------------------------


def tlv(data: bytes, start: int = 0) -> tuple[int, int, int, int]:
    """One DER element: tag, first byte of its value, first byte after it, and ``start``."""
    try:
        tag, size, at = data[start], data[start + 1], start + 2
        if size & 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(data[at : at + count], "big"), at + count
    except IndexError:
        raise InputError("certificate: truncated DER") from None
    if at + size > len(data):
        raise InputError("certificate: truncated DER")
    return tag, at, at + size, start


def children(data: bytes, start: int, end: int) -> list[tuple[int, int, int, int]]:
    found = []
    while start < end:
        found.append(tlv(data, start))
        start = found[-1][2]
    return found


def parse_time(tag: int, value: bytes) -> datetime:
    layout = "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ"
    try:
        return datetime.strptime(value.decode("ascii"), layout).replace(tzinfo=UTC)
    except ValueError:
        raise InputError("certificate: unreadable date") from None


class Certificate:
    """The parts of a certificate that the check needs. Raises InputError on anything but ECDSA P-256."""

    def __init__(self, der: bytes) -> None:
        _, start, end, _ = tlv(der)
        parts = children(der, start, end)
        if len(parts) != 3:
            raise InputError("certificate: not an X.509 certificate")
        tbs, algorithm, signature = parts
        self.signed = der[tbs[3] : tbs[2]]
        if OID_ECDSA_SHA256 not in der[algorithm[1] : algorithm[2]]:
            raise InputError("certificate: signature algorithm is not ECDSA with SHA-256")
        # BIT STRING: one byte "unused bits", then SEQUENCE { r, s }.
        _, start, end, _ = tlv(der, signature[1] + 1)
        self.signature = b""
        for _, first, last, _ in children(der, start, end)[:2]:
            number = int.from_bytes(der[first:last], "big")
            if number >= 2**256:
                raise InputError("certificate: signature number too large")
            self.signature += number.to_bytes(32, "big")
        fields = [field for field in children(der, tbs[1], tbs[2]) if field[0] != 0xA0]
        if len(fields) < 6:
            raise InputError("certificate: incomplete")
        issuer, validity, subject, key = fields[2:6]
        self.issuer, self.subject = der[issuer[1] : issuer[2]], der[subject[1] : subject[2]]
        self.not_before, self.not_after = (
            parse_time(tag, der[first:last])
            for tag, first, last, _ in children(der, validity[1], validity[2])[:2]
        )
        key_info = der[key[1] : key[2]]
        if not key_info.startswith(OID_EC_PUBLIC_KEY_P256):
            raise InputError("certificate: key is not on P-256")
        self.key = key_info[-64:]
        self.is_ca, self.fmspc = False, ""
        for field in fields[6:]:
            if field[0] == 0xA3:
                self.read_extensions(der, field[1])

    def read_extensions(self, der: bytes, at: int) -> None:
        """SEQUENCE OF SEQUENCE { OID, [critical], OCTET STRING }."""
        _, start, end, _ = tlv(der, at)
        for extension in children(der, start, end):
            parts = children(der, extension[1], extension[2])
            if not parts:
                raise InputError("certificate: empty extension")
            oid, value = der[parts[0][3] : parts[0][2]], der[parts[-1][1] : parts[-1][2]]
            if oid == OID_BASIC_CONSTRAINTS:
                self.is_ca = value[2:5] == b"\x01\x01\xff"
            elif oid == OID_SGX and OID_FMSPC in value:
                # OCTET STRING of six bytes behind the identifier.
                self.fmspc = value.partition(OID_FMSPC)[2][2:8].hex()

    @property
    def common_name(self) -> str:
        found = re.search(rb"\x06\x03\x55\x04\x03[\x0c\x13](.)", self.subject, re.DOTALL)
        return (
            self.subject[found.end() : found.end() + found[1][0]].decode("utf-8", "replace") if found else "?"
        )


def parse_chain(pem: bytes) -> list[Certificate]:
    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", pem, re.DOTALL)
    try:
        return [Certificate(base64.b64decode(b"".join(block.split()), validate=True)) for block in blocks]
    except ValueError:
        raise InputError("certificate: not base64") from None


# --- the quote ------------------------------------------------------------------------------------


class Reader:
    """Takes fields from the front of the signature section. Raises InputError at its end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        value = self.data[self.at : self.at + count]
        if len(value) != count:
            raise InputError(f"quote: {count} bytes expected at offset {self.at}, {len(value)} left")
        self.at += count
        return value

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")


def check(quote: bytes, now: datetime) -> list[tuple[str, str, str]]:
    """All links of the chain, as (verdict, subject, text). Raises InputError."""
    lines = []

    def link(subject: str, held: bool, good: str, bad: str) -> None:
        lines.append(("PASS" if held else "FAIL", subject, good if held else bad))

    reader = Reader(quote)
    header = reader.take(SIGNED_BYTES)
    version, tee_type = int.from_bytes(header[:2], "little"), int.from_bytes(header[4:8], "little")
    key_type = int.from_bytes(header[2:4], "little")
    if (version, tee_type, key_type) != (4, 0x81, 2):
        raise InputError(
            f"version {version}, TEE type 0x{tee_type:x}, key type {key_type}; only 4, 0x81, 2 is known here"
        )
    if not any(reader.data[SIGNED_BYTES:]):
        raise InputError("the quote carries no signature")
    # What follows the announced length is the agent's padding.
    reader = Reader(reader.take(reader.number(4)))
    signature, attestation_key = reader.take(64), reader.take(64)
    if reader.number(2) != 6:
        raise InputError("quote: certification data is not a QE report (type 6)")
    reader = Reader(reader.take(reader.number(4)))
    qe_report, qe_signature = reader.take(QE_REPORT_BYTES), reader.take(64)
    qe_auth = reader.take(reader.number(2))
    if reader.number(2) != 5:
        raise InputError("quote: no PCK certificate chain inside (type 5)")
    chain = parse_chain(reader.take(reader.number(4)))
    if len(chain) != 3:
        raise InputError(f"quote: {len(chain)} certificates, expected leaf, CA and root")
    leaf, ca, root = chain

    link(
        "TD report",
        verify(attestation_key, header, signature),
        "signed by the attestation key",
        "signature does NOT hold",
    )
    named = hashlib.sha256(attestation_key + qe_auth).digest() + bytes(32)
    link(
        "attestation key",
        qe_report[320:384] == named,
        "named in the quoting enclave's report",
        "NOT the one in the quoting enclave's report",
    )
    link(
        "QE report",
        verify(leaf.key, qe_report, qe_signature),
        "signed by the PCK certificate's key",
        "signature does NOT hold",
    )
    signer, product = qe_report[128:160].hex(), int.from_bytes(qe_report[256:258], "little")
    link(
        "QE identity",
        (signer, product) == (TD_QE_SIGNER, TD_QE_PRODUCT),
        "Intel's TD quoting enclave",
        f"signer {signer}, product {product}: NOT Intel's TD quoting enclave",
    )
    link("QE debug", not qe_report[48] & 2, "not a debug enclave", "a DEBUG enclave")
    for child, parent in ((leaf, ca), (ca, root), (root, root)):
        held = (
            child.issuer == parent.subject
            and verify(parent.key, child.signed, child.signature)
            and parent.is_ca
        )
        link(
            "certificate",
            held,
            f"{child.common_name!r} signed by {parent.common_name!r}",
            f"{child.common_name!r} is NOT signed by {parent.common_name!r}",
        )
    link("root", root.key == INTEL_ROOT_KEY, "is Intel's SGX root key", "is NOT Intel's SGX root key")
    start, end = max(c.not_before for c in chain), min(c.not_after for c in chain)
    span = f"{start:%Y-%m-%d} to {end:%Y-%m-%d}, today is {now:%Y-%m-%d}"
    link("validity", start <= now <= end, span, span)
    lines.append(("OPEN", "TCB status", f"ask Intel's PCS or a PCCS: FMSPC {leaf.fmspc or 'unknown'}"))
    lines.append(("OPEN", "revocation", "CRLs of the root and of the PCK CA not consulted"))
    return lines


def read_quote(data: bytes) -> bytes:
    """The quote's bytes from binary, hex or JSON. Raises InputError."""
    if not data.strip():
        raise InputError("the input is empty")
    if data[:2] == b"\x04\x00":
        return data
    try:
        text = data.decode("utf-8").strip()
        if text.startswith("{"):
            reply = json.loads(text)
            reply = reply["result"] if isinstance(reply.get("result"), dict) else reply
            if not reply.get("quote"):
                raise InputError("no 'quote' in the reply")
            text = reply["quote"]
        return bytes.fromhex(text.removeprefix("0x"))
    except (ValueError, AttributeError, RecursionError):
        raise InputError("neither a version 4 quote, nor hex, nor JSON with a 'quote' in hex") from None


def printable(text: str) -> str:
    """Names come from the input: none may start a line of its own or reach the terminal as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def main() -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    parser = argparse.ArgumentParser(description="Verify the signature chain of a TDX quote offline.")
    parser.add_argument("file", nargs="?", default="-", help="reply or quote; default: standard input")
    args = parser.parse_args()
    try:
        if args.file == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(args.file, "rb") as file:
                data = file.read()
        lines = check(read_quote(data), datetime.now(UTC))
    except OSError as exc:
        print(f"check_signature.py: {args.file}: {exc.strerror}", file=sys.stderr)
        return 2
    except InputError as exc:
        print(f"check_signature.py: {exc}", file=sys.stderr)
        return 2
    for verdict, subject, text in lines:
        print(f"{verdict}  {subject:<15} {printable(text)}")
    return 1 if any(line[0] == "FAIL" for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
