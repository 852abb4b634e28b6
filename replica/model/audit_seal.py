"""Personal words of the audit, encrypted before a record is made: AES-256-GCM, the key is the same at all members. Pure.

    sealed words = 12 random octets | AES-256-GCM(key, canonical JSON of the words, associated data)
    associated data = "zaibei-audit-seal-1\\0" | group | 0 | kind | 0 | at_ms in decimal
    id of a key = first 16 hex digits of SHA-256("zaibei-audit-key-1\\0" | key)

The chain is over the sealed words, so it is verified without the key; the tag binds the words to the key, the id to one key. The
entry has 16 random octets beside, which the record has within the sealed words alone: the entry's SHA-256 is no help to whoever
tries names. Whoever lacks the key loses the words and nothing else.

    file of keys: one line for each, newest first:  zaibei-audit-key-1 <64 hex digits>
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from replica.model.errors import Code, ZaibeiError

KEY_OCTETS: Final = 32
NONCE_OCTETS: Final = 12
SALT_OCTETS: Final = 16
KEYS_MAX: Final = 64  # of one file
KEY_LINE: Final = "zaibei-audit-key-1"
ALGORITHM: Final = "aes-256-gcm"


@dataclass(frozen=True, slots=True)
class Sealed:
    """Sealed words. `key`: id of the key; `salt`: to stand in the entry, and nowhere else in the clear."""

    key: str
    words: bytes
    salt: bytes

    def told(self) -> dict[str, str]:
        """As a record says it."""
        return {"algorithm": ALGORITHM, "key": self.key, "words": base64.b64encode(self.words).decode()}


class AuditKeys:
    """Keys of a cluster's audit; the first one seals, all open. `random`: octets that nobody can foretell."""

    def __init__(self, keys: tuple[bytes, ...], random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        self._ids = [id_of(key) for key in keys]
        self._ciphers = {name: AESGCM(key) for name, key in zip(self._ids, keys, strict=True)}

    def __repr__(self) -> str:
        return f"AuditKeys({', '.join(self._ids) or 'none'})"

    def __bool__(self) -> bool:
        return bool(self._ids)

    @property
    def ids(self) -> tuple[str, ...]:
        """The one in use first."""
        return tuple(self._ids)

    def seal(self, group: str, kind: str, at_ms: int, words: Mapping[str, Any]) -> Sealed | None:
        """None: there is no key."""
        if not self._ids:
            return None
        key, nonce, salt = self._ids[0], self._random(NONCE_OCTETS), self._random(SALT_OCTETS)
        octets = json.dumps({**words, "salt": salt.hex()}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        return Sealed(key, nonce + self._ciphers[key].encrypt(nonce, octets, _beside(group, kind, at_ms)), salt)

    def open(self, fields: Mapping[str, Any]) -> dict[str, Any] | None:
        """The personal words of a record: of a plain one, none beside it; None: its key is not here.

        Raises:
            ZaibeiError(VERIFICATION_FAILED): its key is here, and these words were not sealed with it for this record.
        """
        if "sealed" not in fields:
            return {}
        try:
            sealed = fields["sealed"]
            if (cipher := self._ciphers.get(sealed["key"])) is None:
                return None
            octets = base64.b64decode(sealed["words"], validate=True)
            beside = _beside(fields["group"], fields["kind"], fields["at_ms"])
            words = json.loads(cipher.decrypt(octets[:NONCE_OCTETS], octets[NONCE_OCTETS:], beside))
        except (KeyError, TypeError, ValueError, InvalidTag) as exc:
            raise ZaibeiError(
                Code.VERIFICATION_FAILED, f"the personal words of record {fields.get('number')} are not what was sealed"
            ) from exc
        return {name: value for name, value in words.items() if name != "salt"}


NO_KEYS: Final = AuditKeys(())


def id_of(key: bytes) -> str:
    return sha256(b"zaibei-audit-key-1\0" + key).hexdigest()[:16]


def _beside(group: str, kind: str, at_ms: int) -> bytes:
    return b"\0".join((b"zaibei-audit-seal-1", group.encode(), kind.encode(), str(at_ms).encode()))


def keys_text(keys: tuple[bytes, ...]) -> str:
    """A file of keys."""
    return "".join(f"{KEY_LINE} {key.hex()}\n" for key in keys)


def parse_keys(text: str, place: str) -> AuditKeys:
    """A file of keys back. Raises ZaibeiError(DAMAGED): says which line; never shows one."""
    keys: list[bytes] = []
    for number, line in enumerate(filter(None, map(str.strip, text.splitlines())), 1):
        word, _, digits = line.partition(" ")
        try:
            key = bytes.fromhex(digits)
        except ValueError:
            key = b""
        if word != KEY_LINE or len(key) != KEY_OCTETS or number > KEYS_MAX:
            raise ZaibeiError(
                Code.DAMAGED,
                f"{place}: key {number} is none of the audit (at most {KEYS_MAX}, each `{KEY_LINE} <64 hex digits>`). "
                "Next: the file of another member",
            )
        keys.append(key)
    return AuditKeys(tuple(dict.fromkeys(keys)))
