"""
X.509: the KMS's authority, TLS keys for apps, and the vendor's chains below quotes.

Owns: how certificates are made.

Source: dstack's source, ra-tls/src/{cert,oids,kdf}.rs.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

_DSTACK = "1.3.6.1.4.1.62397.1"
QUOTE_OID, EVENT_LOG_OID, APP_ID_OID, USAGE_OID, ATTESTATION_OID, APP_INFO_OID = (
    ObjectIdentifier(f"{_DSTACK}.{number}") for number in (1, 2, 3, 4, 8, 9)
)
Extensions = Sequence[tuple[ObjectIdentifier, bytes]]
# Certificates that do not say otherwise hold so long, and begin when rcgen's do.
DEFAULT_DAYS = 3_650
DEFAULT_NOT_BEFORE = datetime.datetime(1975, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Wish:
    """
    What a certificate shall say.

    Args:
        not_before: Unix seconds, as ``not_after``.
        knows_addresses: Whether an alternative name that is an IP address becomes one, or a host name like others.
    """

    subject: str
    alt_names: Sequence[str] = ()
    for_server: bool = False
    for_client: bool = False
    not_before: int | None = None
    not_after: int | None = None
    knows_addresses: bool = True


class Authority:
    """
    A certificate authority with a P-256 key out of 32 bytes.

    Args:
        secret: The key.
        subject: Its names.
        issuer: Who vouches for it; without, it does so itself.
        depth: How many authorities may stand below it.
        extensions: As for :meth:`issue`.
    """

    def __init__(
        self,
        secret: bytes,
        subject: x509.Name,
        issuer: Authority | None = None,
        *,
        depth: int = 1,
        extensions: Extensions = (),
    ) -> None:
        self._key = p256_key(secret)
        self.name = subject
        builder = (
            _builder(subject, issuer.name if issuer else subject, self.public_key, Wish(""))
            .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
            .add_extension(_key_usage(is_authority=True), critical=True)
        )
        self.certificate = (issuer or self)._sign(builder, extensions)
        self.chain: tuple[str, ...] = (pem(self.certificate), *(issuer.chain if issuer else ()))

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    def issue(self, public: ec.EllipticCurvePublicKey, wish: Wish, extensions: Extensions = ()) -> x509.Certificate:
        """
        Sign a certificate; every extension is an octet string.

        Raises:
            ValueError: a name or a time that no certificate can carry.
        """
        builder = _builder(named(wish.subject), self.name, public, wish)
        if wish.alt_names:
            names = [_alt_name(name, knows_addresses=wish.knows_addresses) for name in wish.alt_names]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(_key_usage(is_authority=False), critical=True)
        usages = [
            usage
            for usage, is_wanted in (
                (ExtendedKeyUsageOID.SERVER_AUTH, wish.for_server),
                (ExtendedKeyUsageOID.CLIENT_AUTH, wish.for_client),
            )
            if is_wanted
        ]
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return self._sign(builder, extensions)

    def _sign(self, builder: x509.CertificateBuilder, extensions: Extensions) -> x509.Certificate:
        for oid, content in extensions:
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, octet_string(content)), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def named(common_name: str, organization: str = "") -> x509.Name:
    """A name; an empty common name, which dstack writes, is left out, since this package refuses it."""
    parts = ((NameOID.ORGANIZATION_NAME, organization), (NameOID.COMMON_NAME, common_name))
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts if text])


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def p256_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """The P-256 key whose scalar the 32 bytes are (all but one in 2^32 are one)."""
    return ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())


def octet_string(content: bytes) -> bytes:
    """The DER of an octet string."""
    size = len(content)
    if size < 0x80:
        return bytes([4, size]) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([4, 0x80 | len(digits)]) + digits + content


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, wish: Wish
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    not_before = DEFAULT_NOT_BEFORE if wish.not_before is None else _time(wish.not_before)
    not_after = now + datetime.timedelta(days=DEFAULT_DAYS) if wish.not_after is None else _time(wish.not_after)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )


def _time(seconds: int) -> datetime.datetime:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, OSError) as exc:
        raise ValueError(f"no time that a certificate can carry: {seconds}") from exc


def _alt_name(name: str, *, knows_addresses: bool) -> x509.GeneralName:
    if not knows_addresses:
        return x509.DNSName(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
