"""
What each version of dstack's guest agent can do.

Owns: the profiles.

Source: dstack's source at the tags v0.5.5, v0.5.6, v0.5.11 and at 0.6.0, guest-agent/rpc/proto/agent_rpc.proto and
guest-agent/src/rpc_service.rs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """One version; ``methods`` are those of its main socket."""

    version: str
    revision: str
    methods: frozenset[str]
    # Fields of requests that it does not know, and so ignores whatever they hold.
    unknown_fields: frozenset[str] = frozenset()
    # "k256" means secp256k1, and "secp256k1_prehashed" is no algorithm of a key.
    has_k256_name: bool = True
    # Before 0.5.6: GetQuote shows the log whole, Info tells the device of the quote's header but no cloud, and an error
    # has its causes on lines of their own.
    is_oldest: bool = False
    # From 0.6 on: SEV-SNP, events of version 2, ACPI markers in a stripped log, no validity that ends before it begins,
    # and TdxQuote tells a custom prefix.
    is_next: bool = False
    # Certificates carry an attestation (from 0.5.9 on), not a bare quote and the log, and know that an address is no
    # host name (from 0.5.11 on).
    has_new_certificates: bool = True


_OLDEST = frozenset({"GetTlsKey", "GetKey", "GetQuote", "EmitEvent", "Info"})
_SIGNING = _OLDEST | {"Attest", "Sign", "Verify"}

PROFILES = {
    profile.version: profile
    for profile in (
        Profile(
            "0.5.5",
            "7bf1843a8ddf877fbaeb",
            _OLDEST,
            unknown_fields=frozenset({"algorithm", "not_before", "not_after", "with_app_info"}),
            has_k256_name=False,
            is_oldest=True,
            has_new_certificates=False,
        ),
        Profile("0.5.6", "3a456dd6e332509f97e7", _SIGNING, has_k256_name=False, has_new_certificates=False),
        Profile("0.5.11", "40eaf35e6b3f112998d0", _SIGNING | {"Version"}),
        Profile(
            "0.6.0",
            "312dc605ebaaf9337253",
            (_SIGNING | {"Version", "GpuInfo"}) - {"EmitEvent"},
            is_next=True,
        ),
    )
}
DEFAULT_PROFILE = "0.5.11"
PLATFORMS = ("tdx", "snp")
