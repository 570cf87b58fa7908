"""Intel's signature of a quote, checked offline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from dstack_simulator.evidence import tdx_quote
from dstack_simulator.machine import Machine

from skilld.tee.vendor import Platform, VendorRefused, VendorUnchecked, check_vendor_signature

# A quote of real hardware with the collateral of its day: see tests/data/README.md.
DATA = Path(__file__).parent / "data"
QUOTE = bytes.fromhex((DATA / "tdx_quote.hex").read_text())
COLLATERAL = (DATA / "tdx_quote_collateral.json").read_text()
# 2025-06-19 12:00 UTC, when the collateral was valid.
NOW_S = 1_750_334_400
DAY_S = 86_400


def test_a_real_quote_is_intels() -> None:
    """Chain, revocation lists and TCB level, without a network."""
    assert check_vendor_signature(QUOTE, COLLATERAL, NOW_S) == Platform("UpToDate", ())


@pytest.mark.parametrize("offset", [60, 200, 540, 600, 640, 720])
def test_a_changed_quote_is_not(offset: int) -> None:
    """Whether in a register, in report data or in the signature itself."""
    changed = bytearray(QUOTE)
    changed[offset] ^= 1
    with pytest.raises(VendorRefused):
        check_vendor_signature(bytes(changed), COLLATERAL, NOW_S)


def test_old_collateral_is_refused() -> None:
    """What was true then says nothing of now."""
    with pytest.raises(VendorRefused, match="Expired"):
        check_vendor_signature(QUOTE, COLLATERAL, NOW_S + 400 * DAY_S)


def test_a_simulated_quote_is_refused() -> None:
    """Its chain ends in a root of its own."""
    with pytest.raises(VendorRefused):
        check_vendor_signature(tdx_quote(Machine(b"seed"), bytes(64)), COLLATERAL, NOW_S)


def test_what_is_no_collateral_leaves_the_quote_unchecked() -> None:
    """That says nothing about the quote."""
    with pytest.raises(VendorUnchecked, match="the collateral is not understood"):
        check_vendor_signature(QUOTE, "{}", NOW_S)


def test_without_the_library_the_quote_is_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it says what to install."""
    modules: dict[str, Any] = sys.modules
    monkeypatch.setitem(modules, "dcap_qvl", None)
    with pytest.raises(VendorUnchecked, match=r"install skilld\[verify\]"):
        check_vendor_signature(QUOTE, COLLATERAL, NOW_S)
