"""
The guest agent's methods.

Owns: what each method of each version answers.

Source: dstack's source, guest-agent/src/rpc_service.rs and dstack-attest/src/attestation.rs, at the tags of the
profiles; texts of errors as dstack's own simulator gives them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ObjectIdentifier

from . import derivation, signing
from .certificates import (
    APP_ID_OID,
    APP_INFO_OID,
    ATTESTATION_OID,
    EVENT_LOG_OID,
    QUOTE_OID,
    USAGE_OID,
    Wish,
    p256_key,
    pem,
)
from .envelope import attestation, msgpack
from .events import stripped
from .evidence import QE_USER_DATA, tdx_quote
from .machine import Machine
from .messages import REQUESTS, Rejected, Values
from .profile import Profile
from .tappd import REPORT_DATA_BYTES, hashed_report_data


class Agent:
    """
    The guest agent of one machine.

    Args:
        machine: The machine that it speaks for.
        profile: The version that it plays.
        platform: "tdx" or "snp".

    Raises:
        ValueError: the version knows no such platform, or no events of the machine's version.
    """

    def __init__(self, machine: Machine, profile: Profile, platform: str = "tdx") -> None:
        if not profile.is_next and (platform == "snp" or machine.event_version != 1):
            raise ValueError(f"dstack {profile.version} knows neither SEV-SNP nor events of version 2; 0.6.0 does")
        self.machine = machine
        self.profile = profile
        self.platform = platform
        self.tappd_methods = frozenset(
            name.removeprefix("Tappd.") for name in REQUESTS if name.startswith("Tappd.")
        ) - (frozenset() if "Version" in profile.methods else {"Version"})

    def call(self, method: str, values: Values) -> dict[str, Any] | None:
        """
        Answer one request.

        Args:
            method: A name of :data:`~dstack_simulator.messages.REQUESTS`.

        Raises:
            Rejected: what the agent answers with 400.
        """
        handler = {
            "GetTlsKey": self._get_tls_key,
            "GetKey": self._get_key,
            "GetQuote": self._get_quote,
            "Attest": self._attest,
            "EmitEvent": self._emit_event,
            "Info": self._info,
            "GpuInfo": self._gpu_info,
            "Sign": self._sign,
            "Verify": self._verify,
            "Version": self._version,
            "Tappd.DeriveKey": self._tappd_derive_key,
            "Tappd.DeriveK256Key": self._tappd_derive_k256_key,
            "Tappd.TdxQuote": self._tappd_tdx_quote,
            "Tappd.RawQuote": self._tappd_raw_quote,
            "Tappd.Info": self._info,
            "Tappd.Version": self._version,
        }[method]
        return handler(values)

    def _version(self, values: Values) -> dict[str, Any]:
        return {"version": self.profile.version, "rev": f"git:{self.profile.revision}"}

    def _gpu_info(self, values: Values) -> dict[str, Any]:
        return {"attestation": ""}

    # Keys

    def _get_key(self, values: Values) -> dict[str, Any]:
        algorithm = self._algorithm(values.get("algorithm", ""))
        if algorithm == "secp256k1_prehashed" and not self.profile.has_k256_name:
            algorithm = "secp256k1"
        if algorithm not in ("", "secp256k1", "ed25519"):
            raise Rejected("Unsupported algorithm")
        key = derivation.path_key(self.machine.app_key, values["path"], values["purpose"], algorithm or "secp256k1")
        return {"key": key.secret, "signature_chain": key.signature_chain}

    def _sign(self, values: Values) -> dict[str, Any]:
        signed = signing.sign(self.machine.app_key, self._algorithm(values["algorithm"]), values["data"])
        return {
            "signature": signed.signature,
            "signature_chain": [signed.signature, *signed.key.signature_chain],
            "public_key": signed.key.public,
        }

    def _verify(self, values: Values) -> dict[str, Any]:
        algorithm = self._algorithm(values["algorithm"])
        return {"valid": signing.verify(algorithm, values["public_key"], values["data"], values["signature"])}

    def _algorithm(self, name: str) -> str:
        return "secp256k1" if name == "k256" and self.profile.has_k256_name else name

    # Certificates

    def _get_tls_key(self, values: Values) -> dict[str, Any]:
        times = [time for name in ("not_before", "not_after") if (time := values.get(name)) is not None]
        if self.profile.is_next and len(times) == 2 and times[0] >= times[1]:
            raise Rejected("not_before must be earlier than not_after")
        return self._tls_key(secrets.token_bytes(32), values)

    def _tls_key(self, secret: bytes, values: Values) -> dict[str, Any]:
        key = p256_key(secret)
        der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        # Only a KMS vouches for the app id.
        extensions = [(APP_ID_OID, self.machine.app_id)] if self.machine.key_provider_id else []
        extensions.append((USAGE_OID, b"app:custom"))
        if values.get("with_app_info"):
            extensions.append((APP_INFO_OID, self._app_info()))
        if values["usage_ra_tls"]:
            extensions.extend(self._evidence(hashlib.sha512(b"ratls-cert:" + der).digest()))
        wish = Wish(
            values["subject"],
            values["alt_names"],
            for_server=values["usage_server_auth"],
            for_client=values["usage_client_auth"],
            not_before=values.get("not_before"),
            not_after=values.get("not_after"),
            knows_addresses=self.profile.has_new_certificates,
        )
        try:
            leaf = self.machine.authority.issue(key.public_key(), wish, extensions)
        except ValueError as exc:
            raise Rejected("Failed to sign the CSR", "Failed to sign certificate", str(exc)) from exc
        text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return {"key": text, "certificate_chain": [pem(leaf), *self.machine.authority.chain]}

    def _evidence(self, report_data: bytes) -> list[tuple[ObjectIdentifier, bytes]]:
        """What a certificate says of the machine that holds its key."""
        if self.profile.has_new_certificates:
            return [(ATTESTATION_OID, attestation(self.machine, self.platform, report_data, is_stripped=True))]
        log = json.dumps([event.to_json() for event in self.machine.events], separators=(",", ":"))
        return [(QUOTE_OID, tdx_quote(self.machine, report_data)), (EVENT_LOG_OID, log.encode())]

    def _app_info(self) -> bytes:
        machine = self.machine
        provider = machine.key_provider.encode()
        system = hashlib.sha256(
            machine.mr_td + b"".join(machine.registers[:3]) + hashlib.sha256(provider).digest()
            if self.platform == "tdx"
            else machine.measurement
        ).digest()
        values: list[Any] = [
            machine.app_id,
            machine.compose_hash,
            machine.instance_id,
            self._device_id,
            system,
            self._mr_aggregated,
            machine.os_image_hash,
            provider,
        ]
        return msgpack([*values, []] if self.profile.is_next else values)

    # Attestation

    def _get_quote(self, values: Values) -> dict[str, Any]:
        report_data = _padded(values["report_data"])
        reply = {
            "quote": b"",
            "event_log": "",
            "report_data": report_data,
            "vm_config": self.machine.vm_config,
        }
        if self.platform == "tdx":
            return {**reply, "quote": tdx_quote(self.machine, report_data), "event_log": self._event_log()}
        return {**reply, "attestation": attestation(self.machine, self.platform, report_data)}

    def _attest(self, values: Values) -> dict[str, Any]:
        report_data = _padded(values["report_data"])
        return {"attestation": attestation(self.machine, self.platform, report_data)}

    def _event_log(self) -> str:
        events = self.machine.events
        if not self.profile.is_oldest:
            events = [stripped(event, keeps_acpi=self.profile.is_next) for event in events]
        return json.dumps([event.to_json() for event in events], separators=(",", ":"), ensure_ascii=False)

    def _emit_event(self, values: Values) -> None:
        self.machine.emit(values["event"], values["payload"])

    @property
    def _device_id(self) -> bytes:
        if self.platform == "snp":
            return hashlib.sha256(self.machine.chip_id).digest()
        return hashlib.sha256(QE_USER_DATA if self.profile.is_oldest else b"").digest()

    @property
    def _mr_aggregated(self) -> bytes:
        return self.machine.tdx_mr_aggregated if self.platform == "tdx" else self.machine.snp_mr_aggregated

    @functools.cached_property
    def _app_cert(self) -> str:
        """The certificate that Info shows, made when it is first asked for."""
        wish = {"subject": "demo-cert", "alt_names": (), "usage_ra_tls": True, "usage_server_auth": False}
        chain = self._tls_key(secrets.token_bytes(32), {**wish, "usage_client_auth": True})["certificate_chain"]
        return "\n".join(chain)

    def _info(self, values: Values) -> dict[str, Any]:
        machine = self.machine
        is_tdx = self.platform == "tdx"
        registers: list[bytes] | list[None] = machine.registers if is_tdx else [None] * 4
        tcb_info: Mapping[str, Any] = {
            "mrtd": machine.mr_td.hex() if is_tdx else None,
            **{f"rtmr{index}": value.hex() if value else None for index, value in enumerate(registers)},
            "mr_aggregated": self._mr_aggregated.hex(),
            "os_image_hash": machine.os_image_hash.hex(),
            "compose_hash": machine.compose_hash.hex(),
            "device_id": self._device_id.hex(),
            "event_log": [event.to_json() for event in machine.events] if is_tdx else [],
            "app_compose": machine.compose,
        }
        reply = {
            "app_id": machine.app_id,
            "instance_id": machine.instance_id,
            "app_cert": self._app_cert,
            "tcb_info": json.dumps(tcb_info, indent=2, ensure_ascii=False),
            "app_name": machine.app_name,
            "device_id": self._device_id,
            "mr_aggregated": self._mr_aggregated,
            "os_image_hash": machine.os_image_hash,
            "key_provider_info": machine.key_provider,
            "compose_hash": machine.compose_hash,
            "vm_config": machine.vm_config,
        }
        if not self.profile.is_oldest:
            reply |= {"cloud_vendor": "dstack-simulator", "cloud_product": "simulated, proves nothing"}
        return reply

    # The legacy service, on a socket of its own

    def _tappd_derive_key(self, values: Values) -> dict[str, Any]:
        seed = secrets.token_bytes(32) if values["random_seed"] else self.machine.app_key.secret
        return self._tls_key(derivation.derive(seed, values["path"].encode()), values)

    def _tappd_derive_k256_key(self, values: Values) -> dict[str, Any]:
        reply = self._get_key(values)
        return {"k256_key": reply["key"], "k256_signature_chain": reply["signature_chain"]}

    def _tappd_raw_quote(self, values: Values) -> dict[str, Any]:
        return self._tappd_tdx_quote({**values, "hash_algorithm": "raw", "prefix": ""})

    def _tappd_tdx_quote(self, values: Values) -> dict[str, Any]:
        name = values["hash_algorithm"] or "sha512"
        prefix = values["prefix"] or "app-data"
        # The older versions do not say which prefix it was.
        told = prefix if self.profile.is_next else "app-data"
        report_data = hashed_report_data(name, prefix, values["report_data"])
        quote = self._get_quote({"report_data": report_data})
        return {
            "quote": quote["quote"],
            "event_log": quote["event_log"],
            "hash_algorithm": name,
            "prefix": "" if name == "raw" else told,
        }


def _padded(report_data: bytes) -> bytes:
    if len(report_data) > REPORT_DATA_BYTES:
        raise Rejected("Report data is too long")
    return report_data.ljust(REPORT_DATA_BYTES, b"\0")
