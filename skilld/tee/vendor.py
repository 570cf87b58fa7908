"""
The vendor's signature of a quote: Intel's, checked with dcap-qvl and collateral, offline.

Owns: nothing.

Source: dcap-qvl 0.7; Intel's Provisioning Certification Service for what collateral is.
"""

from __future__ import annotations

from dataclasses import dataclass

INSTALL_HINT = "dcap-qvl is not installed; install skilld[verify]"


class VendorUnchecked(Exception):
    """The signature cannot be checked here; the text says why."""


class VendorRefused(Exception):
    """The signature, its chain or the collateral does not hold; the text says why."""


@dataclass(frozen=True)
class Platform:
    """What Intel says of the machine: its TCB status ("UpToDate") and the advisories that apply."""

    status: str
    advisories: tuple[str, ...]


def check_vendor_signature(quote: bytes, collateral: str, now_s: int) -> Platform:
    """
    Check a TDX quote up to Intel's root, with revocation lists and TCB levels of the collateral.

    Args:
        quote: The quote's bytes.
        collateral: JSON as dcap-qvl writes it: certificates, revocation lists, TCB info, QE identity.
        now_s: Unix seconds at which all of it must be valid.

    Raises:
        VendorUnchecked: The library is missing, or the collateral is none.
        VendorRefused: It does not hold.
    """
    try:
        import dcap_qvl
    except ImportError:
        raise VendorUnchecked(INSTALL_HINT) from None
    try:
        parsed = dcap_qvl.QuoteCollateralV3.from_json(collateral)
    except ValueError as exc:
        raise VendorUnchecked(f"the collateral is not understood: {exc}") from None
    try:
        report = dcap_qvl.verify(quote, parsed, now_s)
    except ValueError as exc:
        raise VendorRefused(str(exc)) from None
    return Platform(report.status, tuple(report.advisory_ids))
