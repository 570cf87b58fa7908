"""
How dstack derives one key from another.

Owns: the derivation of the KMS, the app and the path keys.

Source: dstack's source, ra-tls/src/kdf.rs, kms/src/crypto.rs, guest-agent/src/rpc_service.rs.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from . import secp256k1

# What Sign uses: one key for all who reach the socket.
SIGNING_PATH = "vms"
SIGNING_PURPOSE = "signing"


@dataclass(frozen=True)
class AppKey:
    """The key of an app, with the KMS's word that it is: 32 and 65 bytes (or none, without a KMS)."""

    secret: bytes
    kms_signature: bytes

    def __repr__(self) -> str:
        return "AppKey(...)"


@dataclass(frozen=True)
class PathKey:
    """A derived key, its public half and the chain [app's signature, KMS's signature]."""

    secret: bytes
    public: bytes
    signature_chain: tuple[bytes, bytes]

    def __repr__(self) -> str:
        return f"PathKey(public={self.public.hex()})"


def derive(secret: bytes, *context: bytes) -> bytes:
    """Derive 32 bytes; the parts of the context are joined without a separator."""
    return HKDF(hashes.SHA256(), length=32, salt=b"RATLS", info=b"".join(context)).derive(secret)


def app_key(kms_root: bytes, app_id: bytes) -> AppKey:
    """What the KMS gives an app: its key, and a signature over its id and public key."""
    secret = derive(kms_root, app_id, b"app-key")
    message = b"dstack-kms-issued:" + app_id + secp256k1.public_key(secret)
    return AppKey(secret, secp256k1.sign_recoverable(kms_root, message))


def path_key(app: AppKey, path: str, purpose: str, algorithm: str) -> PathKey:
    """
    Derive the key of a path.

    The purpose is only in what the app signs, and the 32 bytes are the same for both algorithms.

    Args:
        algorithm: "secp256k1" or "ed25519".
    """
    secret = derive(app.secret, path.encode())
    if algorithm == "ed25519":
        public = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    else:
        public = secp256k1.public_key(secret)
    link = secp256k1.sign_recoverable(app.secret, f"{purpose}:{public.hex()}".encode())
    return PathKey(secret, public, (link, app.kms_signature))
