"""Judges who proves a key: looks the key up, and tests the proof in a thread, few at once. One judge for all protocols.

Whoever did not prove a key is told one thing: whether it is there, may be seen, or is another. Where there is none, the proof
is tested with a key nobody has, so that the time tells little more than the words.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from hashlib import sha256

from hosting.guard.guesses import Guesses
from hosting.guard.windows import Window
from hosting.handle.certified import Certified, same_public
from hosting.handle.edge_look import Looks, Sight
from hosting.handle.edits import Denied
from hosting.tenant.denials import NOT_HEARD
from hosting.tenant.denials import NOT_PROVED as UNPROVED
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.admin_bodies import HS_PUBKEY, HS_SECKEY, VerifyRequest
from replica.model.handle.codes import ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.keys import encode_key
from replica.model.handle.proofs import SECRET_OCTETS_MAX, judge_public, judge_secret, public_key_of
from replica.model.handle.values import HandleValue, Permission, Reference

JUDGED_MAX = 2  # proofs judged at once, in threads: up to 0.1 s of a core each
JUDGED_WAITING_MAX = 64
FORGEABLE_PER_S = 5  # whose sender may be forged, by all together: half a core at most

GUESSES = Denied(ResponseCode.SERVER_TOO_BUSY, "too many wrong proofs came from your network: again in a minute")
NOT_PROVED = Denied(ResponseCode.AUTHENTICATION_FAILED, "this key was not proved: there is none, or the proof is of another")
BUSY = Denied(ResponseCode.SERVER_TOO_BUSY, "too many proofs wait to be judged: again later, or over TCP")
NOBODYS_SECRET = bytes(32)  # tested where there is no key: the proof is wrong whatever comes of that
NOBODYS_PUBLIC = encode_key("RSA", {"e": b"\1\0\1", "n": ((1 << 2_047) | 1).to_bytes(256, "big")})
NO_KEY_TO_OPEN = Denied(ResponseCode.SESSION_FAILED, "there is no key there that everybody may read, to open a session with")
_KINDS: dict[bytes, tuple[Callable[..., bool], bytes]] = {
    HS_SECKEY: (judge_secret, NOBODYS_SECRET),
    HS_PUBKEY: (judge_public, NOBODYS_PUBLIC),
}


class Judge:
    """All calls on one event loop. `guesses`: which clients are heard. `now_ms`: Unix milliseconds."""

    def __init__(self, looks: Looks, now_ms: Callable[[], int], guesses: Guesses | None = None) -> None:
        self._looks, self._now_ms, self.guesses = looks, now_ms, guesses or Guesses()
        self._judging = asyncio.Semaphore(JUDGED_MAX)
        self._waiting = 0
        self._forgeable = Window(FORGEABLE_PER_S, 1)

    async def proved(
        self,
        kind: bytes,
        key: Reference,
        nonce: bytes,
        digest: bytes,
        proof: bytes,
        client: str,
        *,
        forgeable: bool = False,
    ) -> Denied | None:
        """Is the proof good? None: it is.

        Args:
            kind: HS_SECKEY or HS_PUBKEY.
            nonce, digest: what was signed, one behind the other.
            proof: see `replica.model.handle.proofs`.
            client: address it came from, without the port.
            forgeable: the address may be another's.
        Raises:
            ProtocolFault: it is no proof. ZaibeiError: it cannot be told.
        """
        known = _KINDS.get(kind)
        if known is None:
            return Denied(ResponseCode.AUTHENTICATION_FAILED, "keys are HS_SECKEY or HS_PUBKEY here")
        judge, nobodys = known
        if not self._hears(client, key, forgeable):
            return GUESSES
        if self._waiting >= JUDGED_WAITING_MAX or (forgeable and not self._forgeable.add(b"", 1, self._now_ms() // 1_000)):
            return BUSY
        self._waiting += 1
        try:
            found = await self.key(kind, key)
            if kind == HS_SECKEY and len(found or b"") > SECRET_OCTETS_MAX:
                found = None  # no secret that anything is proved by
            async with self._judging:
                good = await asyncio.to_thread(_good, judge, found or nobodys, nonce, digest, proof)
        finally:
            self._waiting -= 1
        return None if good and found else self._wrong(client, key, forgeable)

    async def secret(self, key: Reference, given: bytes, client: str) -> Denied | None:
        """Is this the secret key itself? None: it is. Raises ZaibeiError: it cannot be told."""
        if not self._hears(client, key):
            return GUESSES
        found = await self.key(HS_SECKEY, key)
        good = hmac.compare_digest(found or NOBODYS_SECRET, given)
        return None if good and found else self._wrong(client, key)

    async def certified(self, shown: Certified, client: str) -> Denied | None:
        """Is what was shown over TLS the key it names? None: it is. Raises ZaibeiError: it cannot be told."""
        if not self._hears(client, shown.key):
            return GUESSES
        found = await self.key(HS_PUBKEY, shown.key)
        try:
            good = same_public(public_key_of(found or NOBODYS_PUBLIC), shown.public)
        except ProtocolFault:  # what stands there is no key: whoever is not its owner must not know
            good = False
        return None if good and found else self._wrong(client, shown.key)

    async def to_open(self, key: Reference, client: str, *, forgeable: bool = False) -> bytes | Denied:
        """Data of a public key by which anybody may open a session; one that the public may not read is nobody's here.

        Raises ZaibeiError: it cannot be told.
        """
        if not self._hears(client, key, forgeable):
            return GUESSES
        found = await self._value(HS_PUBKEY, key)
        if found is None or not found.permissions & Permission.PUBLIC_READ:
            self._wrong(client, key, forgeable)
            return NO_KEY_TO_OPEN
        return found.data

    def _wrong(self, client: str, key: Reference, forgeable: bool = False) -> Denied:
        self.guesses.wrong(client, self._now_ms() // 1_000, forgeable=forgeable)
        self._note(UNPROVED, client, key)
        return NOT_PROVED

    def _hears(self, client: str, key: Reference, forgeable: bool = False) -> bool:
        if self.guesses.hears(client, self._now_ms() // 1_000, forgeable=forgeable):
            return True
        self._note(NOT_HEARD, client, key)
        return False

    def _note(self, why: str, client: str, key: Reference) -> None:
        who = f"{key.index}:{key.handle.decode('utf-8', 'replace')}"
        self._looks.denials.note(why, "", who, self._now_ms(), client)

    async def valid(self, kind: bytes, wanted: VerifyRequest, client: str, *, forgeable: bool = False) -> bool:
        """Was this proved by the key? A key that is not there proves nothing, and no more is said of it.

        Raises:
            ProtocolFault: it is no proof. ZaibeiError: it cannot be told now.
        """
        shown = (wanted.nonce, wanted.digest, wanted.proof)
        denied = await self.proved(kind, wanted.key, *shown, client, forgeable=forgeable)
        if denied is not None and denied.code is ResponseCode.SERVER_TOO_BUSY:
            raise ZaibeiError(Code.BUSY, denied.text, retry=True)
        return denied is None

    async def mark(self, kind: bytes, key: Reference, sight: Sight | None = None) -> bytes:
        """What a key looks like, now or as a request sees it; empty: there is none. Raises ZaibeiError."""
        found = await self.key(kind, key, sight)
        return b"" if found is None else sha256(found).digest()

    async def key(self, kind: bytes, key: Reference, sight: Sight | None = None) -> bytes | None:
        """Data of a key value; None: there is none. Raises ZaibeiError: it cannot be told."""
        found = await self._value(kind, key, sight)
        return None if found is None else found.data

    async def _value(self, kind: bytes, key: Reference, sight: Sight | None = None) -> HandleValue | None:
        values = await (sight or self._looks).values(key.handle) or ()
        keys = [one for one in values if one.index == key.index and one.type.upper() == kind]
        return keys[0] if keys and key.index else None


def _good(judge: Callable[..., bool], key: bytes, nonce: bytes, digest: bytes, proof: bytes) -> bool:
    """Is it? Raises ProtocolFault(AUTHENTICATION_FAILED): it is no proof, whatever the key; of the key nothing is said."""
    try:
        return judge(key, nonce, digest, proof)
    except ProtocolFault as fault:
        if fault.code is not ResponseCode.INVALID_VALUE:
            raise
        return False
