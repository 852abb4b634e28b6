"""Certificates and revocation lists, made out of values: keys, serial numbers and times are arguments. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from replica.enrol.request import names_of
from replica.model.identity import SIGNING_KEY_OID
from replica.model.trust import Claims

BEFORE_S = 86_400  # certificates and lists count from a day ago: clocks of other machines may be hours behind
LIST_DAYS = 3_650  # a list is written anew with each revocation; how old one is never stops the feed


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _at(unix_s: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(unix_s), dt.UTC)


def make_root(name: str, key: ec.EllipticCurvePrivateKey, serial: int, now_s: float, days: int) -> x509.Certificate:
    """A self-signed CA that signs end certificates only."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    ours = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(_at(now_s - BEFORE_S))
        .not_valid_after(_at(now_s + days * 86_400))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(ours, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def make_certificate(
    claims: Claims,
    tls: ec.EllipticCurvePublicKey,
    signing_key: bytes,
    root: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    serial: int,
    now_s: float,
    lasts_s: float,
) -> x509.Certificate:
    """A certificate that says these claims; it never outlives the CA."""
    end = min(_at(now_s + lasts_s), root.not_valid_after_utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, claims.name)]))
        .issuer_name(root.subject)
        .public_key(tls)
        .serial_number(serial)
        .not_valid_before(_at(now_s - BEFORE_S))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(names_of(claims), critical=False)
        .add_extension(x509.UnrecognizedExtension(SIGNING_KEY_OID, signing_key), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(tls), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def make_list(
    root: x509.Certificate, key: ec.EllipticCurvePrivateKey, revoked: Sequence[tuple[int, float]], number: int, now_s: float
) -> x509.CertificateRevocationList:
    """The list of what was revoked: serial numbers and when, in Unix seconds. `number` rises with each list."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(root.subject)
        .last_update(_at(now_s - BEFORE_S))
        .next_update(_at(now_s + LIST_DAYS * 86_400))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    for serial, at_s in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_at(at_s)).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(key, hashes.SHA256())
