"""The CA's folder: key (mode 0600, with or without a passphrase), certificate, revocation list, book; one writer at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ops.pki.book import Book, Issued, decode_book, encode_book
from ops.pki.make import make_certificate, make_list, make_root
from replica.enrol.tickets import Ticket
from replica.model.edge_identity import new_tls_key, sync_folder
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import fingerprint
from replica.model.trust import Claims

KEY_FILE, ROOT_FILE, LIST_FILE, BOOK_FILE, LOCK_FILE = "ca.key", "ca.pem", "crl.pem", "book.json", "lock"
ROOT_DAYS, CERTIFICATE_DAYS = 3_650, 398
DAY_S = 86_400


class PkiFolder:
    """Satisfies replica.enrol.port.Shelf and Issuer.

    Args:
        passphrase: gives the key's passphrase when it is needed; None: the key has none.
        lasts_s: how long certificates last that are signed through `issue`.
    """

    def __init__(
        self, path: Path, passphrase: Callable[[], bytes] | None = None, lasts_s: float = CERTIFICATE_DAYS * DAY_S
    ) -> None:
        self.path, self._passphrase, self._lasts_s = path, passphrase, lasts_s

    @staticmethod
    def create(path: Path, name: str, days: int = ROOT_DAYS, passphrase: bytes = b"") -> PkiFolder:
        """Make a CA. Raises ZaibeiError(CONFLICT): the folder holds one already; it stays as it is."""
        if (path / KEY_FILE).exists() or (path / ROOT_FILE).exists():
            raise ZaibeiError(Code.CONFLICT, f"{path} holds a CA already. Next: `zaibei pki show`, or another --folder")
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        key, now_s = new_tls_key(), time.time()
        root = make_root(name, key, x509.random_serial_number(), now_s, days)
        how: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        _write(path / BOOK_FILE, encode_book(Book(list_number=1)), 0o600)
        _write(path / LIST_FILE, make_list(root, key, (), 1, now_s).public_bytes(Encoding.PEM), 0o644)
        _write(path / KEY_FILE, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how), 0o600)
        _write(path / ROOT_FILE, root.public_bytes(Encoding.PEM), 0o644)  # last: with it there is a CA
        return PkiFolder(path, (lambda: passphrase) if passphrase else None)

    @property
    def root(self) -> x509.Certificate:
        """Raises ZaibeiError(NOT_FOUND, DAMAGED)."""
        try:
            return x509.load_pem_x509_certificate(self.roots_pem())
        except ValueError as exc:
            raise ZaibeiError(Code.DAMAGED, f"{self.path / ROOT_FILE} is no certificate: {exc}") from exc

    def roots_pem(self) -> bytes:
        try:
            return (self.path / ROOT_FILE).read_bytes()
        except FileNotFoundError:
            raise ZaibeiError(
                Code.NOT_FOUND, f"there is no CA in {self.path}. Next: zaibei pki init --folder {self.path}"
            ) from None

    def lists_pem(self) -> bytes:
        """The revocation list. Raises OSError."""
        return (self.path / LIST_FILE).read_bytes()

    def key(self) -> ec.EllipticCurvePrivateKey:
        """The CA's key. Raises ZaibeiError(NOT_FOUND, NOT_AUTHORISED, DAMAGED)."""
        path = self.path / KEY_FILE
        try:
            if path.stat().st_mode & 0o077:
                raise ZaibeiError(
                    Code.NOT_AUTHORISED, f"{path} can be read by others: chmod 600 it; if others had it, make a new CA"
                )
            octets = path.read_bytes()
        except FileNotFoundError:
            raise ZaibeiError(Code.NOT_FOUND, f"the CA's key is not here ({path}): do this at the member that has it") from None
        locked = b"ENCRYPTED" in octets
        try:
            key = load_pem_private_key(octets, self._passphrase() if locked and self._passphrase is not None else None)
        except (ValueError, TypeError) as exc:
            why = "the passphrase is missing or wrong: [pki] passphrase_file, or --passphrase-file" if locked else str(exc)
            raise ZaibeiError(Code.NOT_AUTHORISED, f"{path} does not open: {why}") from exc
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ZaibeiError(Code.DAMAGED, f"{path} is no ECDSA key")
        return key

    def book(self) -> Book:
        """Raises ZaibeiError(NOT_FOUND, DAMAGED)."""
        self.roots_pem()
        path = self.path / BOOK_FILE
        return decode_book(path.read_bytes() if path.exists() else b"", str(path))

    @contextmanager
    def writing(self) -> Iterator[Callable[[Book], None]]:
        """One writer at a time, among processes too; the function given puts a new book on the disk."""
        handle = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield lambda book: _write(self.path / BOOK_FILE, encode_book(book), 0o600)
        finally:
            os.close(handle)

    # -- replica.enrol.port.Issuer

    def issue(self, claims: Claims, tls: ec.EllipticCurvePublicKey, signing_key: bytes) -> bytes:
        return self.issue_for(claims, tls, signing_key, self._lasts_s)

    def issue_for(self, claims: Claims, tls: ec.EllipticCurvePublicKey, signing_key: bytes, lasts_s: float) -> bytes:
        """As `issue`, for a time of its own, in seconds."""
        root, key, now_s, serial = self.root, self.key(), time.time(), x509.random_serial_number()
        made = make_certificate(claims, tls, signing_key, root, key, serial, now_s, lasts_s)
        pem = made.public_bytes(Encoding.PEM)
        ends_s = int(made.not_valid_after_utc.timestamp())
        entry = Issued(f"{serial:x}", claims.role, claims.name, claims.number, fingerprint(pem), int(now_s), ends_s)
        with self.writing() as write:  # in the book before anybody has it: what is not there cannot be revoked
            write(self.book().with_issued(entry))
        return pem + root.public_bytes(Encoding.PEM)

    def revoke(self, serials: frozenset[str]) -> None:
        """Into the book, then onto the list: readers of the list see it within seconds."""
        root, key, now_s = self.root, self.key(), time.time()
        with self.writing() as write:
            before = self.book()
            book = replace(before.revoke(serials, now_s), list_number=before.list_number + 1)
            write(book)
            made = make_list(root, key, book.revoked(), book.list_number, now_s)
            _write(self.path / LIST_FILE, made.public_bytes(Encoding.PEM), 0o644)

    # -- replica.enrol.port.Shelf

    def change(self, ident: bytes, step: Callable[[Ticket], Ticket]) -> Ticket | None:
        with self.writing() as write:
            book = self.book()
            before = book.ticket(ident)
            if before is None:
                return None
            after = step(before)
            if after != before:
                write(book.with_ticket(after, time.time()))
            return after

    def put(self, ticket: Ticket) -> None:
        """Remember a ticket that is given out now."""
        with self.writing() as write:
            write(self.book().with_ticket(ticket, time.time()))


def _write(path: Path, octets: bytes, mode: int) -> None:
    """Whole or not at all, on the disk when it returns."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as out:
        out.write(octets)
        out.flush()
        os.fsync(out.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)
