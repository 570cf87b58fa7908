"""
The machine that is played: its keys, its app, its boot and its measurements, all out of one seed.

Owns: the event log and with it register 3; everything else is settled at the start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from . import derivation
from .certificates import APP_ID_OID, USAGE_OID, Authority, named
from .events import ACPI_DATA, ACPI_DATA_TYPE, Event, boot_event, replayed, runtime_event

COMPOSE = {
    "manifest_version": 2,
    "name": "skilld-demo",
    "runner": "docker-compose",
    "docker_compose_file": "services:\n  skilld:\n    image: skilld\n    volumes:\n"
    "      - /var/run/dstack.sock:/var/run/dstack.sock\n",
    "gateway_enabled": False,
    "kms_enabled": True,
    "public_logs": True,
    "public_sysinfo": True,
    "public_tcbinfo": True,
    "key_provider": "kms",
    "key_provider_id": "",
    "allowed_envs": [],
    "no_instance_id": False,
    "secure_time": False,
    "storage_fs": "zfs",
}

# A boot, shortened: the events by which firmware, boot loader and kernel come into registers 0 to 2.
BOOT: Sequence[tuple[int, int, bytes]] = (
    (0, 0x8000_000B, b"\x09TdxTable simulated"),
    (0, 0x8000_000A, b"simulated firmware configuration"),
    (0, 0x8000_0001, "SecureBoot".encode("utf-16-le")),
    (0, 0x0000_0004, bytes(4)),
    (0, ACPI_DATA_TYPE, ACPI_DATA),
    (0, ACPI_DATA_TYPE, ACPI_DATA),
    (0, ACPI_DATA_TYPE, ACPI_DATA),
    (1, 0x8000_0003, b"simulated kernel"),
    (1, 0x8000_0007, b"Calling EFI Application from Boot Option"),
    (1, 0x0000_0004, bytes(4)),
    (2, 0x0000_0006, b"simulated kernel command line"),
    (2, 0x0000_0006, b"simulated initrd"),
    (1, 0x8000_0007, b"Exit Boot Services Invocation"),
    (1, 0x8000_0007, b"Exit Boot Services Returned with Success"),
)


class Machine:
    """
    One booted machine with one app on it.

    Args:
        seed: Any bytes; the same seed gives the same keys, ids and measurements.
        event_version: 1, or 2 for digests of canonical JSON, which dstack knows from 0.6 on.
        has_kms: Whether a KMS gave the app its key; without, the last link of every chain is empty.
    """

    def __init__(self, seed: bytes, *, event_version: int = 1, has_kms: bool = True) -> None:
        self.event_version = event_version
        self.compose = json.dumps(COMPOSE, separators=(",", ":"))
        self.app_name = str(COMPOSE["name"])
        self.compose_hash = hashlib.sha256(self.compose.encode()).digest()
        self.app_id = self.compose_hash[:20]
        self.instance_id = hashlib.sha256(derivation.derive(seed, b"instance") + self.app_id).digest()[:20]
        self.os_image_hash = hashlib.sha256(b"a simulated OS image").digest()
        self.chip_id = hashlib.sha512(derivation.derive(seed, b"chip")).digest()
        self.vm_config = json.dumps(
            {"os_image_hash": self.os_image_hash.hex(), "cpu_count": 1, "memory_size": 2 << 30}, separators=(",", ":")
        )

        self.kms_root = derivation.derive(seed, b"kms-root")
        issued = derivation.app_key(self.kms_root, self.app_id)
        self.app_key = issued if has_kms else derivation.AppKey(issued.secret, b"")
        root_secret = derivation.derive(seed, b"kms-ca")
        root = Authority(root_secret, named("Simulated KMS CA (dstack-simulator)", "Dstack"))
        self.authority = self._app_authority(root_secret, root) if has_kms else root
        authority_key = root.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.key_provider_id = authority_key if has_kms else b""
        self.key_provider = json.dumps(
            {"name": "kms" if has_kms else "none", "id": self.key_provider_id.hex()}, separators=(",", ":")
        )
        self.vendor_seed = derivation.derive(seed, b"vendor")

        # State: grows with every event that the app emits.
        self.events = [boot_event(*event) for event in BOOT]
        for name, payload in self._runtime_events():
            self.emit(name, payload)

    def _app_authority(self, root_secret: bytes, root: Authority) -> Authority:
        """With a KMS, every app has an authority of its own below the KMS's."""
        extensions = ((APP_ID_OID, self.app_id), (USAGE_OID, b"app:ca"))
        secret = derivation.derive(root_secret, self.app_id, b"app-ca")
        return Authority(secret, named("Dstack App CA", "Dstack"), root, depth=0, extensions=extensions)

    def _runtime_events(self) -> Sequence[tuple[str, bytes]]:
        """The events of dstack's own start, in order."""
        image = (("os-image-hash", self.os_image_hash),) if self.key_provider_id else ()
        return (
            ("system-preparing", b""),
            ("app-id", self.app_id),
            ("compose-hash", self.compose_hash),
            ("instance-id", self.instance_id),
            ("boot-mr-done", b""),
            *image,
            ("key-provider", self.key_provider.encode()),
            ("storage-fs", b"zfs"),
            ("system-ready", b""),
        )

    def emit(self, name: str, payload: bytes) -> None:
        """Append an event to the log; register 3 follows."""
        self.events.append(runtime_event(name, payload, self.event_version))

    @property
    def runtime_events(self) -> list[Event]:
        return [event for event in self.events if event.is_runtime]

    # TDX

    @property
    def mr_td(self) -> bytes:
        return hashlib.sha384(b"a simulated TD").digest()

    @property
    def mr_config_id(self) -> bytes:
        """The app's compose file, bound by the host before the boot: 48 bytes."""
        return (b"\x01" + self.compose_hash).ljust(48, b"\0")

    @property
    def registers(self) -> list[bytes]:
        """RTMR0 to RTMR3."""
        return [replayed(self.events, imr) for imr in range(4)]

    @property
    def tdx_mr_aggregated(self) -> bytes:
        owner = bytes(48)
        return hashlib.sha256(self.mr_td + b"".join(self.registers) + self.mr_config_id + owner + owner).digest()

    # AMD SEV-SNP

    @property
    def measurement(self) -> bytes:
        return hashlib.sha384(b"a simulated SNP guest").digest()

    @property
    def mr_config(self) -> str:
        """The document by which an SNP machine says what runs on it, as canonical JSON."""
        document = {
            "app_id": self.app_id.hex(),
            "compose_hash": self.compose_hash.hex(),
            "instance_id": self.instance_id.hex(),
            "key_provider": "kms" if self.key_provider_id else "none",
            "key_provider_id": self.key_provider_id.hex() or None,
            "version": 3,
        }
        return json.dumps({key: value for key, value in document.items() if value is not None}, separators=(",", ":"))

    @property
    def host_data(self) -> bytes:
        """The digest of :attr:`mr_config` that the report carries: 32 bytes."""
        return hashlib.sha256(b"dstack-mr-config-v3:\0" + self.mr_config.encode()).digest()

    @property
    def snp_mr_aggregated(self) -> bytes:
        return hashlib.sha256(self.measurement + self.host_data).digest()
