"""Recovery of secp256k1 keys."""

from __future__ import annotations

import hashlib

import pytest
from dstack_simulator import secp256k1 as signer

from skilld.tee.keccak import keccak256
from skilld.tee.secp256k1 import GENERATOR, ORDER, BadPoint, P, compress, normalise, recover


@pytest.mark.parametrize("number", range(8))
def test_the_key_that_signed_is_recovered(number: int) -> None:
    """Whatever the parities of the two points are."""
    secret = hashlib.sha256(bytes([number])).digest()
    signature = signer.sign_recoverable(secret, b"message")
    assert recover(signature, keccak256(b"message")) == signer.public_key(secret)


def test_another_message_leads_to_another_key() -> None:
    """A signature that fits nothing known says so by the key."""
    secret = hashlib.sha256(b"s").digest()
    signature = signer.sign_recoverable(secret, b"message")
    assert recover(signature, keccak256(b"massage")) != signer.public_key(secret)


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        bytes(65),
        bytes(31) + b"\1" + bytes(32) + b"\0",
        bytes(31) + b"\1" + ORDER.to_bytes(32, "big") + b"\0",
        ORDER.to_bytes(32, "big") + bytes(31) + b"\1\0",
        bytes(31) + b"\1" + bytes(31) + b"\1\4",
        # No point of the curve has x = 5.
        bytes(31) + b"\5" + bytes(31) + b"\1\0",
        # r plus the order is above the field.
        (P - ORDER).to_bytes(32, "big") + bytes(31) + b"\1\2",
    ],
    ids=["empty", "zero", "s 0", "s too large", "r too large", "id 4", "no point", "x too large"],
)
def test_a_signature_of_no_key_is_refused(signature: bytes) -> None:
    """Every rule of the standard's recovery."""
    with pytest.raises(BadPoint):
        recover(signature, bytes(32))


def test_a_key_has_one_form() -> None:
    """Compressed, whatever it came as."""
    x, y = GENERATOR
    whole = x.to_bytes(32, "big") + y.to_bytes(32, "big")
    assert compress(GENERATOR).hex() == "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    for form in (compress(GENERATOR), whole, b"\4" + whole):
        assert normalise(form) == compress(GENERATOR)


@pytest.mark.parametrize("key", [b"", bytes(33), bytes(64), b"\4" + bytes(64), b"\2" + bytes(31) + b"\5", b"\5" * 33])
def test_what_is_no_key_is_refused(key: bytes) -> None:
    """A point must be on the curve."""
    with pytest.raises(BadPoint):
        normalise(key)
