"""Files of an identity: made at first start, mode 0600; a renewed certificate is taken into use without a restart."""

from __future__ import annotations

import datetime as dt
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from replica.model.errors import Code, ZaibeiError
from replica.model.identity import SIGNING_KEY_OID, TLS_NAME, fingerprint, name_of, signing_key_of
from replica.model.signing import Signer

SELF_SIGNED_DAYS = 3_650
TLS_KEY_FILE, SIGNING_KEY_FILE, CERTIFICATE_FILE = "tls.key", "signing.key", "certificate.pem"
NEXT_TLS_KEY_FILE = "tls.key.next"  # the key of a certificate that is about to come; it counts once that certificate is in place
LOOK_S = 1.0  # how often the files are looked at

log = logging.getLogger("zaibei.identity")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process's own identity, as it was read. `tls_key_pem` is secret; `certificate_pem` may be followed by its issuers."""

    name: str
    certificate_pem: bytes
    tls_key_pem: bytes
    signer: Signer
    folder: IdentityFolder | None = field(default=None, compare=False)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate_pem)

    def tls_key(self) -> ec.EllipticCurvePrivateKey:
        """The TLS key itself. Raises ZaibeiError(DAMAGED): it is of another kind."""
        key = load_pem_private_key(self.tls_key_pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ZaibeiError(Code.DAMAGED, f"the TLS key of {self.name!r} is no ECDSA key")
        return key

    def latest(self) -> Identity:
        """The identity as the files have it by now: a renewed certificate is used for the next connection."""
        return self if self.folder is None else self.folder.latest(self)

    def __repr__(self) -> str:
        return f"Identity({self.name}, {self.fingerprint[:23]})"


class IdentityFolder:
    """Looks whether an identity's files were renewed, at most once in LOOK_S. Any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._looked_s = 0.0
        self._mark: tuple[int, ...] = ()
        self._held: Identity | None = None

    def latest(self, before: Identity) -> Identity:
        """`before` when nothing new can be read: a half-written or foreign identity is logged and not used."""
        with self._lock:
            now_s = time.monotonic()
            if self._held is not None and now_s - self._looked_s < LOOK_S:
                return self._held
            self._looked_s = now_s
            held = self._held or before
            try:
                about = (self.path / CERTIFICATE_FILE).stat()
                mark = (about.st_mtime_ns, about.st_size, about.st_ino)
                if mark != self._mark:
                    self._mark = mark
                    fresh = _load(self.path, before.name, self)
                    if fresh.signer.public != before.signer.public:
                        raise ZaibeiError(Code.CONFLICT, "it has another signing key: that takes a restart")
                    if fresh.certificate_pem != held.certificate_pem:
                        log.info("a renewed certificate is in use", extra={"fields": {"fingerprint": fresh.fingerprint}})
                        held = fresh
            except (OSError, ZaibeiError) as exc:
                log.error("the renewed identity is not used", extra={"fields": {"folder": str(self.path), "why": str(exc)}})
            self._held = held
            return held


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
    return _load(folder, name, IdentityFolder(folder))


def _load(folder: Path, name: str, source: IdentityFolder) -> Identity:
    for file in (TLS_KEY_FILE, SIGNING_KEY_FILE):
        if (folder / file).stat().st_mode & 0o077:
            raise ZaibeiError(Code.NOT_AUTHORISED, f"{folder / file} can be read by others: chmod 600 it, or make a new identity")
    try:
        certificate = (folder / CERTIFICATE_FILE).read_bytes()
        tls_key = _key_of(folder, certificate)
        private = load_pem_private_key((folder / SIGNING_KEY_FILE).read_bytes(), None)
    except (OSError, ValueError) as exc:
        raise ZaibeiError(Code.DAMAGED, f"cannot read the identity in {folder}: {exc}") from exc
    if not isinstance(private, Ed25519PrivateKey):
        raise ZaibeiError(Code.DAMAGED, f"{folder / SIGNING_KEY_FILE} is not an Ed25519 key")
    if name_of(certificate) != name:
        raise ZaibeiError(Code.DAMAGED, f"the identity in {folder} is {name_of(certificate)!r}, not {name!r}")
    if signing_key_of(certificate) != Signer(private).public:
        raise ZaibeiError(Code.DAMAGED, f"the certificate in {folder} was made for another signing key than {SIGNING_KEY_FILE}")
    return Identity(name, certificate, tls_key, Signer(private), source)


def _key_of(folder: Path, certificate: bytes) -> bytes:
    """The TLS key of this certificate; a renewal that was interrupted is finished here."""
    wanted = x509.load_pem_x509_certificate(certificate).public_key()
    for file in (TLS_KEY_FILE, NEXT_TLS_KEY_FILE):
        path = folder / file
        if not path.exists():
            continue
        octets = path.read_bytes()
        if _public(load_pem_private_key(octets, None).public_key()) == _public(wanted):
            if file == NEXT_TLS_KEY_FILE:
                os.replace(path, folder / TLS_KEY_FILE)
            return octets
    raise ZaibeiError(Code.DAMAGED, f"no key in {folder} belongs to its {CERTIFICATE_FILE}: restore both, or enrol again")


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def replace_certificate(folder: Path, certificate_pem: bytes, tls_key_pem: bytes) -> None:
    """Put a renewed certificate in place; at each moment of a crash the folder holds a whole identity, the old or the new.

    Args:
        certificate_pem: the certificate, followed by its issuers.
    """
    write_whole(folder / NEXT_TLS_KEY_FILE, tls_key_pem)
    write_whole(folder / CERTIFICATE_FILE, certificate_pem)
    os.replace(folder / NEXT_TLS_KEY_FILE, folder / TLS_KEY_FILE)
    sync_folder(folder)


def write_identity(folder: Path, certificate_pem: bytes, tls_key_pem: bytes, signing_key_pem: bytes) -> None:
    """A whole identity into a folder that has none. Raises ZaibeiError(CONFLICT): there is one."""
    if (folder / CERTIFICATE_FILE).exists():
        raise ZaibeiError(Code.CONFLICT, f"{folder} holds an identity already: move it away, or renew it")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(folder / TLS_KEY_FILE, tls_key_pem)
    write_whole(folder / SIGNING_KEY_FILE, signing_key_pem)
    write_whole(folder / CERTIFICATE_FILE, certificate_pem)


def new_tls_key() -> ec.EllipticCurvePrivateKey:
    """A fresh key of the kind gRPC speaks."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(private: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """PKCS 8 without a passphrase, as an identity's files hold it."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _create(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    tls, signing = new_tls_key(), Ed25519PrivateKey.generate()
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
        (TLS_KEY_FILE, key_pem(tls)),
        (SIGNING_KEY_FILE, key_pem(signing)),
        (CERTIFICATE_FILE, certificate.public_bytes(Encoding.PEM)),
    ):
        _write_new(folder / file, octets)


def _write_new(path: Path, octets: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(octets)
        out.flush()
        os.fsync(out.fileno())


def write_whole(path: Path, octets: bytes) -> None:
    """Whole or not at all, mode 0600, on the disk when it returns."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    _write_new(beside, octets)
    os.replace(beside, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Names in a folder are on the disk when it returns."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
