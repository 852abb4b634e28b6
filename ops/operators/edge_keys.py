"""Operators' private keys: one Ed25519 key a file, NAME.key, mode 0600, with a passphrase if wished; never overwritten."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from replica.model.errors import Code, ZaibeiError
from replica.model.signing import Signer

SUFFIX = ".key"
KEY_OCTETS_MAX = 16 * 1024


def default_folder() -> Path:
    """Where keys lie unless somebody says otherwise: in the person's own configuration folder."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "zaibei" / "operators"


def create(path: Path, passphrase: bytes = b"") -> Signer:
    """Make a key file.

    Raises:
        ZaibeiError(CONFLICT): it exists; ZaibeiError(NOT_AUTHORISED): it cannot be written here.
    """
    private = Ed25519PrivateKey.generate()
    locking: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    octets = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locking)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ZaibeiError(Code.CONFLICT, f"{path} exists and stays as it is. Next: another NAME, or --out another file") from None
    except OSError as exc:
        raise ZaibeiError(Code.NOT_AUTHORISED, f"cannot write {path}: {exc.strerror}. Next: --out a file you may write") from exc
    with os.fdopen(handle, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    return Signer(private)


def load(path: Path, ask_passphrase: Callable[[], str], *, made_by: str = "zaibei operator add NAME") -> Signer:
    """A key file's signer. `made_by`: the command that makes such a key, for messages.

    Raises:
        ZaibeiError(NOT_FOUND); ZaibeiError(NOT_AUTHORISED): readable by others, not by us, or a wrong passphrase;
        ZaibeiError(MALFORMED): not an Ed25519 key.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ZaibeiError(
                Code.NOT_AUTHORISED, f"{path} can be read by others. Next: make a new key, or chmod 600 if nobody did"
            )
        with path.open("rb") as file:
            octets = file.read(KEY_OCTETS_MAX)
    except FileNotFoundError:
        raise ZaibeiError(Code.NOT_FOUND, f"{path} does not exist. Next: {made_by}") from None
    except OSError as exc:
        raise ZaibeiError(Code.NOT_AUTHORISED, f"cannot read {path}: {exc.strerror}") from exc
    locked = b"ENCRYPTED" in octets
    try:
        private = load_pem_private_key(octets, ask_passphrase().encode() if locked else None)
    except (ValueError, TypeError) as exc:
        if locked:
            raise ZaibeiError(Code.NOT_AUTHORISED, f"the passphrase does not open {path}") from exc
        raise ZaibeiError(Code.MALFORMED, f"{path} is not a key file. Next: {made_by}") from exc
    if not isinstance(private, Ed25519PrivateKey):
        raise ZaibeiError(Code.MALFORMED, f"{path} holds another kind of key than Ed25519. Next: {made_by}")
    return Signer(private)


def listing(folder: Path) -> list[Path]:
    """Key files of a folder, by name."""
    return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
