"""CAs for tests: one with an intermediate and a revocation list, made by plain `cryptography` as a company's own tools would."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from replica.enrol.request import raw
from replica.model.identity import SIGNING_KEY_OID, TLS_NAME

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
NOW_S = NOW.timestamp()
DAY = dt.timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def pem(*certificates: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def named(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example Works"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


@dataclass
class Company:
    """A CA as `openssl ca` makes one: an RSA root, an ECDSA intermediate that signs, its list. `root`, `middle`: certificates."""

    start: dt.datetime = NOW - 30 * DAY
    days: int = 3_650
    middle_is_ca: bool = True
    root_path_length: int | None = None
    revoked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root_key: Key = rsa.generate_private_key(65537, 2048)
        self.middle_key: Key = ec.generate_private_key(ec.SECP384R1())
        self.root = self._ca("Example Works Root", self.root_key, None, self.root_path_length)
        self.middle = self._ca("Example Works Issuing", self.middle_key, self.root, 0, ca=self.middle_is_ca)

    def _ca(
        self, name: str, key: Key, issuer: x509.Certificate | None, length: int | None, *, ca: bool = True
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(issuer.subject if issuer is not None else named(name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.start)
            .not_valid_after(self.start + self.days * DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.root_key.public_key()), critical=False)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=length if ca else None), critical=True)
            .sign(self.root_key, hashes.SHA256())
        )

    def sign(
        self,
        name: str,
        uris: Sequence[str],
        *,
        tls: ec.EllipticCurvePrivateKey | None = None,
        signing: Ed25519PrivateKey | None = None,
        start: dt.datetime | None = None,
        lasts: dt.timedelta = 90 * DAY,
        signing_key: bytes | None = None,
        ca: bool = False,
    ) -> x509.Certificate:
        tls, signing = tls or ec.generate_private_key(ec.SECP256R1()), signing or Ed25519PrivateKey.generate()
        start = start or NOW - DAY
        names = [x509.DNSName(TLS_NAME), *(x509.UniformResourceIdentifier(uri) for uri in uris)]
        octets = raw(signing) if signing_key is None else signing_key
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(self.middle.subject)
            .public_key(tls.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + lasts)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
        )
        if octets:
            builder = builder.add_extension(x509.UnrecognizedExtension(SIGNING_KEY_OID, octets), critical=False)
        return builder.sign(self.middle_key, hashes.SHA256())

    def list_pem(self, *serials: int, next_update: dt.datetime = NOW + 7 * DAY) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.middle.subject)
            .last_update(self.start)
            .next_update(next_update)
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(self.start).build()
            builder = builder.add_revoked_certificate(entry)
        return pem(builder.sign(self.middle_key, hashes.SHA256()))
