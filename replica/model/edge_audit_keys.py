"""The file of the audit's keys, beside a member's other secrets: for its owner alone, the same at every member of a cluster."""

from __future__ import annotations

import secrets
from pathlib import Path

from replica.model.audit_seal import KEY_OCTETS, NO_KEYS, AuditKeys, keys_text, parse_keys
from replica.model.edge_identity import write_whole
from replica.model.errors import Code, ZaibeiError

AUDIT_KEY_FILE = "audit.key"


def load_audit_keys(path: Path) -> AuditKeys:
    """Its keys; none where there is no file. Raises ZaibeiError: DAMAGED, NOT_AUTHORISED (others can read it); OSError."""
    try:
        if path.stat().st_mode & 0o077:
            raise ZaibeiError(Code.NOT_AUTHORISED, f"{path} can be read by others: chmod 600 it")
        return parse_keys(path.read_text(encoding="ascii"), str(path))
    except FileNotFoundError:
        return NO_KEYS
    except UnicodeDecodeError as exc:
        raise ZaibeiError(Code.DAMAGED, f"{path} is no file of the audit's keys. Next: the file of another member") from exc


def ensure_audit_keys(path: Path) -> AuditKeys:
    """The same, made with one key where it is not there."""
    return load_audit_keys(path) if path.exists() else add_audit_key(path)


def add_audit_key(path: Path) -> AuditKeys:
    """A new key seals from now on, those before it go on to open; mode 0600, on the disk when it returns. Raises as `load`."""
    load_audit_keys(path)
    old = path.read_text(encoding="ascii") if path.exists() else ""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(path, (keys_text((secrets.token_bytes(KEY_OCTETS),)) + old).encode())
    return load_audit_keys(path)
