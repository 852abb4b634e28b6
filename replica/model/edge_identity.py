"""Files of an identity: made at first start, mode 0600, never overwritten."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from replica.model.errors import Code, ZaibeiError
from replica.model.identity import SIGNING_KEY_OID, TLS_NAME, fingerprint, name_of
from replica.model.signing import Signer

SELF_SIGNED_DAYS = 3_650
TLS_KEY_FILE, SIGNING_KEY_FILE, CERTIFICATE_FILE = "tls.key", "signing.key", "certificate.pem"


@dataclass(frozen=True, slots=True)
class Identity:
    """A process's own identity. `tls_key_pem` is secret."""

    name: str
    certificate_pem: bytes
    tls_key_pem: bytes
    signer: Signer

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate_pem)

    def __repr__(self) -> str:
        return f"Identity({self.name}, {self.fingerprint[:23]})"


def ensure_identity(folder: Path, name: str) -> Identity:
    """Load the identity in `folder`, or make it (keys and self-signed certificate, mode 0600).

    Raises:
        ZaibeiError(DAMAGED): files are missing, unreadable or of another name; says which.
        ZaibeiError(NOT_AUTHORISED): a key file may be read by others than its owner.
    """
    present = [(folder / file).exists() for file in (TLS_KEY_FILE, SIGNING_KEY_FILE, CERTIFICATE_FILE)]
    if not any(present):
        _create(folder, name)
    elif not all(present):
        raise ZaibeiError(Code.DAMAGED, f"{folder} holds a part of an identity only: restore its files or move them away")
    return _load(folder, name)


def _load(folder: Path, name: str) -> Identity:
    for file in (TLS_KEY_FILE, SIGNING_KEY_FILE):
        if (folder / file).stat().st_mode & 0o077:
            raise ZaibeiError(Code.NOT_AUTHORISED, f"{folder / file} can be read by others: chmod 600 it, or make a new identity")
    try:
        certificate, tls_key = (folder / CERTIFICATE_FILE).read_bytes(), (folder / TLS_KEY_FILE).read_bytes()
        private = load_pem_private_key((folder / SIGNING_KEY_FILE).read_bytes(), None)
    except (OSError, ValueError) as exc:
        raise ZaibeiError(Code.DAMAGED, f"cannot read the identity in {folder}: {exc}") from exc
    if not isinstance(private, Ed25519PrivateKey):
        raise ZaibeiError(Code.DAMAGED, f"{folder / SIGNING_KEY_FILE} is not an Ed25519 key")
    if name_of(certificate) != name:
        raise ZaibeiError(Code.DAMAGED, f"the identity in {folder} is {name_of(certificate)!r}, not {name!r}")
    return Identity(name, certificate, tls_key, Signer(private))


def _create(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    tls, signing = ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)  # peers' clocks may be behind
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(tls.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(TLS_NAME)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.UnrecognizedExtension(SIGNING_KEY_OID, Signer(signing).public), critical=False)
        .sign(tls, hashes.SHA256())
    )
    for file, octets in (
        (TLS_KEY_FILE, tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
        (SIGNING_KEY_FILE, signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
        (CERTIFICATE_FILE, certificate.public_bytes(Encoding.PEM)),
    ):
        _write_new(folder / file, octets)


def _write_new(path: Path, octets: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(octets)
        out.flush()
        os.fsync(out.fileno())
