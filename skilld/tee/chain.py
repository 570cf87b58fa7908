"""
What dstack's two signatures say about a key: this app derived it, and this KMS gave the app its own key.

Owns: nothing; values only.

Source: dstack's ``rpc_service.rs`` (get_key, sign) and ``kms/src/crypto.rs``.
"""

from __future__ import annotations

from skilld.tee.keccak import keccak256
from skilld.tee.secp256k1 import recover

# The key of Sign is derived for this purpose.
SIGNING_PURPOSE = "signing"
APP_ID_BYTES = 20


def recover_app_key(signature: bytes, public_key: bytes, purpose: str = SIGNING_PURPOSE) -> bytes:
    """
    Return the compressed key of the app that signed a derived public key.

    Raises:
        BadPoint: The signature fits no key.
    """
    return recover(signature, keccak256(f"{purpose}:{public_key.hex()}".encode()))


def recover_kms_root(signature: bytes, app_id: bytes, app_key: bytes) -> bytes:
    """
    Return the compressed root key of the KMS that gave an app its key.

    Raises:
        BadPoint: The signature fits no key.
    """
    return recover(signature, keccak256(b"dstack-kms-issued:" + app_id + app_key))
