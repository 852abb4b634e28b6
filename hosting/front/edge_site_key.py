"""The key of a member's Handle site: made at the first start beside the identity, mode 0600, never shown.

It is of this site alone: no proof, certificate or feed hangs on it. A site that is published with another one is published anew,
so it may be replaced at any time: a new file and a restart, or another file named by `[site] key_file`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from replica.model.edge_identity import write_whole
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.signatures import public_data

SITE_KEY_FILE = "site.key"
SITE_KEY_BITS = 2_048
SITE_KEY_BITS_MAX = 4_096  # a signature of more costs over 3 ms, and no answer to it fits two datagrams
_EXPONENT = 65_537


@dataclass(frozen=True, slots=True)
class SiteKey:
    """A site's key. `public`: as an HS_SITE holds it; `mark`: tells one key from another and nothing of either."""

    private: rsa.RSAPrivateKey = field(repr=False)

    @property
    def public(self) -> bytes:
        return public_data(self.private.public_key())

    @property
    def mark(self) -> str:
        return sha256(self.public).hexdigest()[:16]


def ensure_site_key(path: Path) -> SiteKey:
    """The key in this file; made where there is none, which takes a moment of a core.

    Raises:
        ZaibeiError: NOT_AUTHORISED (others may read it), DAMAGED (it is no RSA key of 2,048 to 4,096 bits).
    """
    if not path.exists():
        made = rsa.generate_private_key(_EXPONENT, SITE_KEY_BITS)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return load_site_key(path)


def load_site_key(path: Path) -> SiteKey:
    """Raises ZaibeiError: as `ensure_site_key`; DAMAGED: there is no such file."""
    try:
        if path.stat().st_mode & 0o077:
            text = f"{path} can be read by others: chmod 600 it, or put a new key in its place"
            raise ZaibeiError(Code.NOT_AUTHORISED, text)
        found = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is no private key in PEM without a passphrase"
        raise ZaibeiError(Code.DAMAGED, f"the key of our site in {path} cannot be read: {why}. {_NEXT}") from exc
    if not isinstance(found, rsa.RSAPrivateKey) or not SITE_KEY_BITS <= found.key_size <= SITE_KEY_BITS_MAX:
        text = f"the key of our site in {path} is no RSA key of {SITE_KEY_BITS} to {SITE_KEY_BITS_MAX} bits. {_NEXT}"
        raise ZaibeiError(Code.DAMAGED, text)
    return SiteKey(found)


_NEXT = "Next: restore it, or move it away: a new one is made, and our site is published anew with it"
