"""Bundles on disk: one folder, one key, one chain; a bundle is written once, fsynced, and never replaced.

evidence.key          Ed25519, mode 0600, made at the first drill
evidence.pub          its public half, PEM: what a verifier is given
000007-s33-pass.jsonl the seventh bundle of the chain
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from chaos.evidence.bundle import BUNDLE_OCTETS_MAX, FIRST, Drill, Part, Said
from chaos.evidence.history import Stored
from chaos.evidence.seal import seal
from replica.model.errors import Code, ZaibeiError
from replica.model.signing import Signer

KEY_FILE, PUBLIC_FILE, LOCK_FILE = "evidence.key", "evidence.pub", ".lock"
KEY_OCTETS_MAX = 16 * 1024
BUNDLES_MAX = 100_000  # of one folder
NAME = re.compile(r"(\d{6})-([a-z0-9-]{1,80})\.jsonl")


class EvidenceFolder:
    """See the module. Several processes may write; they take turns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # ------------------------------------------------------------------------------------------------------- the key

    def signer(self) -> Signer:
        """The folder's key, made when there is none.

        Raises:
            ZaibeiError(DAMAGED): it is no such key, or bundles lie there without it.
            ZaibeiError(NOT_AUTHORISED): others may read it.
        """
        path = self.folder / KEY_FILE
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._turn():
            if not path.exists():
                self._make_key(path)
        if path.stat().st_mode & 0o077:
            raise ZaibeiError(Code.NOT_AUTHORISED, f"others can read {path}: what it signed proves nothing. Next: chmod 600")
        try:
            private = load_pem_private_key(path.read_bytes()[:KEY_OCTETS_MAX], None)
        except (ValueError, TypeError) as exc:
            raise ZaibeiError(Code.DAMAGED, f"{path} is not a key file. Next: restore it from where it is kept") from exc
        if not isinstance(private, Ed25519PrivateKey):
            raise ZaibeiError(Code.DAMAGED, f"{path} holds another kind of key than Ed25519")
        return Signer(private)

    def _make_key(self, path: Path) -> None:
        if self._paths():
            raise ZaibeiError(
                Code.DAMAGED,
                f"{self.folder} holds bundles and no {KEY_FILE}: a new key would break their chain. Next: restore the key, or "
                "begin a new folder and keep this one",
            )
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _write(self.folder / PUBLIC_FILE, public, 0o644)
        _write(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)

    def public(self) -> bytes:
        """Raw public key. Raises ZaibeiError(NOT_FOUND): no drill was run here; ZaibeiError(DAMAGED)."""
        return read_public(self.folder / PUBLIC_FILE)

    # ------------------------------------------------------------------------------------------------------- bundles

    def append(self, parts: Sequence[Part]) -> Path:
        """Sign a drill and put it at the end of the chain; returns its file.

        The chain goes on from the octets that lie there, whatever they are: damage of an old bundle stays visible at that one.

        Raises:
            ZaibeiError(MALFORMED): no whole drill. OSError: it could not be written; then nothing is there.
        """
        signer = self.signer()
        with self._turn():
            paths = self._paths()
            last = paths[-1] if paths else None
            number = int(last.name[:6]) + 1 if last is not None else 1
            previous = FIRST if last is None else sha256(last.read_bytes()).hexdigest()
            octets = seal(parts, number, previous, signer)
            path = self.folder / f"{number:06}-{_slug(parts)}.jsonl"
            _write(path, octets, 0o644)
        return path

    def bundles(self) -> Iterator[Stored]:
        """All bundles by their number, one after the other, unread."""
        for path in self._paths():
            yield Stored(path.name, int(path.name[:6]), _octets(path))

    def stored(self, number: int) -> Stored:
        """One of them. Raises ZaibeiError(NOT_FOUND)."""
        for path in self._paths():
            if int(path.name[:6]) == number:
                return Stored(path.name, number, _octets(path))
        raise ZaibeiError(Code.NOT_FOUND, f"there is no drill {number} in {self.folder}. Next: zaibei drill history")

    def _paths(self) -> list[Path]:
        found = sorted(path for path in self.folder.glob("*.jsonl") if NAME.fullmatch(path.name))
        if len(found) > BUNDLES_MAX:
            raise ZaibeiError(Code.REFUSED, f"{self.folder} holds more than {BUNDLES_MAX} bundles. Next: begin a new folder")
        return found

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with (self.folder / LOCK_FILE).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def read_public(path: Path) -> bytes:
    """Raw public key of a PEM file. Raises ZaibeiError(NOT_FOUND), ZaibeiError(DAMAGED)."""
    try:
        key = load_pem_public_key(_octets(path, KEY_OCTETS_MAX))
    except FileNotFoundError:
        raise ZaibeiError(Code.NOT_FOUND, f"{path} does not exist: no drill was run here yet. Next: zaibei drill list") from None
    except ValueError as exc:
        raise ZaibeiError(Code.DAMAGED, f"{path} is no public key") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise ZaibeiError(Code.DAMAGED, f"{path} holds another kind of key than Ed25519")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _slug(parts: Sequence[Part]) -> str:
    drill = next(one for one in parts if isinstance(one, Drill))
    verdict = next(one.verdict for one in parts if isinstance(one, Said))
    words = [drill.scenario, "red" if drill.planted else "", str(verdict)]
    return re.sub(r"[^a-z0-9]+", "-", "-".join(word for word in words if word).lower()).strip("-")[-80:]


def _octets(path: Path, most: int = BUNDLE_OCTETS_MAX) -> bytes:
    with path.open("rb") as file:
        return file.read(most + 1)


def _write(path: Path, octets: bytes, mode: int) -> None:
    """Whole or not at all, and never over something."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)  # not replace: a bundle is written once
    finally:
        fresh.unlink()
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
