"""
What the processor would say: a TDX quote and an SEV-SNP report.

Both have the real structure, with report data and measurements in place and signatures that hold; their chains end in
roots of our own, whose names say that they are simulated. No verifier that trusts Intel or AMD accepts them.

Owns: the layout of both, and the simulated vendors' keys.

Source: Intel TDX DCAP Quoting Library API, appendix A (quote, version 4); AMD SEV-SNP ABI specification, table
"ATTESTATION_REPORT"; dstack's source, dstack-attest/src/attestation.rs (where report data lies).
"""

from __future__ import annotations

import functools
import hashlib
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from . import derivation
from .certificates import Authority, Wish, named, p256_key, pem
from .machine import Machine

TDX_REPORT_DATA = slice(568, 632)
SNP_REPORT_DATA = slice(0x50, 0x90)
SNP_REPORT_BYTES = 1_184
SNP_SIGNED_BYTES = 672

# The vendor's names for the parts of a quote's certification data.
QE_REPORT_CERTIFICATION, PCK_CHAIN = 6, 5
INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
# Where a quoting enclave names itself; dstack took the processor's id from there before 0.5.6.
QE_USER_DATA = b"dstack-simulator".ljust(20, b"\0")
# What a quoting enclave adds to the key before it hashes both; any 32 bytes do.
QE_AUTHENTICATION = hashlib.sha256(b"dstack-simulator").digest()


def tdx_quote(machine: Machine, report_data: bytes) -> bytes:
    """A quote of version 4 over 64 bytes of report data."""
    header = struct.pack("<HHIHH", 4, 2, 0x81, 0, 0) + INTEL_QE_VENDOR + QE_USER_DATA
    body = b"".join(
        (
            bytes.fromhex("0b010400").ljust(16, b"\0"),  # tee_tcb_svn
            hashlib.sha384(b"a simulated TDX module").digest(),  # mr_seam
            bytes(48),  # mr_signer_seam
            bytes(8),  # seam_attributes
            bytes.fromhex("0000001000000000"),  # td_attributes: no debug
            bytes.fromhex("e702060000000000"),  # xfam
            machine.mr_td,
            machine.mr_config_id,
            bytes(48),  # mr_owner
            bytes(48),  # mr_owner_config
            *machine.registers,
            report_data,
        )
    )
    signature = _tdx_signature(machine.vendor_seed, header + body)
    return header + body + struct.pack("<I", len(signature)) + signature


def _tdx_signature(seed: bytes, signed: bytes) -> bytes:
    attestation_key = p256_key(derivation.derive(seed, b"attestation key"))
    raw_key = attestation_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
    return b"".join((_p256_signature(attestation_key, signed), raw_key, _certification(seed, raw_key)))


@functools.lru_cache(maxsize=8)
def _certification(seed: bytes, raw_key: bytes) -> bytes:
    """The quoting enclave's report on the attestation key, and the chain of the key that signed it."""
    root = Authority(derivation.derive(seed, b"root"), named("Simulated SGX Root CA (dstack-simulator, not Intel)"))
    pck_key = p256_key(derivation.derive(seed, b"PCK"))
    pck = root.issue(pck_key.public_key(), Wish("Simulated SGX PCK Certificate (dstack-simulator, not Intel)"))
    bound = hashlib.sha256(raw_key + QE_AUTHENTICATION).digest().ljust(64, b"\0")
    report = bytes(320) + bound
    chain = "".join((pem(pck), *root.chain)).encode()
    inner = b"".join(
        (
            report,
            _p256_signature(pck_key, report),
            struct.pack("<H", len(QE_AUTHENTICATION)),
            QE_AUTHENTICATION,
            struct.pack("<HI", PCK_CHAIN, len(chain)),
            chain,
        )
    )
    return struct.pack("<HI", QE_REPORT_CERTIFICATION, len(inner)) + inner


def _p256_signature(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def snp_report(machine: Machine, report_data: bytes) -> bytes:
    """An attestation report of version 3 over 64 bytes of report data."""
    report = bytearray(SNP_REPORT_BYTES)
    struct.pack_into("<IIQ", report, 0x00, 3, 0, 0x3_0000)  # version, guest_svn, policy (SMT, no debug)
    struct.pack_into("<I", report, 0x34, 1)  # signature algorithm: ECDSA P-384 with SHA-384
    report[SNP_REPORT_DATA] = report_data
    report[0x90:0xC0] = machine.measurement
    report[0xC0:0xE0] = machine.host_data
    report[0x140:0x160] = hashlib.sha256(machine.instance_id).digest()  # report_id
    report[0x1A0:0x1E0] = machine.chip_id
    # The P-384 order is above 2^383, so that 32 derived bytes are a scalar of it.
    key = ec.derive_private_key(
        int.from_bytes(derivation.derive(machine.vendor_seed, b"VCEK"), "big") or 1, ec.SECP384R1()
    )
    signed = bytes(report[:SNP_SIGNED_BYTES])
    r, s = utils.decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA384())))
    report[0x2A0:0x2E8] = r.to_bytes(72, "little")
    report[0x2E8:0x330] = s.to_bytes(72, "little")
    return bytes(report)
