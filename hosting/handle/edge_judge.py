"""Judges who proves a key: looks the key up, and tests the proof in a thread, few at once. One judge for all protocols."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable

from hosting.guard.guesses import Guesses
from hosting.handle.certified import Certified, same_public
from hosting.handle.edge_look import Looks
from hosting.handle.edits import Denied
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.admin_bodies import HS_PUBKEY, HS_SECKEY, VerifyRequest
from replica.model.handle.codes import ResponseCode
from replica.model.handle.proofs import judge_public, judge_secret, public_key_of
from replica.model.handle.values import Reference

JUDGED_MAX = 2  # proofs judged at once, in threads: up to 0.1 s of a core each
JUDGED_WAITING_MAX = 64

NO_KEY = Denied(ResponseCode.INVALID_ADMIN, "there is no such key")
GUESSES = Denied(ResponseCode.SERVER_TOO_BUSY, "too many wrong proofs came from your network: again in a minute")
NOT_PROVED = Denied(ResponseCode.AUTHENTICATION_FAILED, "the proof is not of this key")


class Judge:
    """All calls on one event loop. `guesses`: which clients are heard. `now_ms`: Unix milliseconds."""

    def __init__(self, looks: Looks, now_ms: Callable[[], int], guesses: Guesses | None = None) -> None:
        self._looks, self._now_ms, self.guesses = looks, now_ms, guesses or Guesses()
        self._judging = asyncio.Semaphore(JUDGED_MAX)
        self._waiting = 0

    async def proved(self, kind: bytes, key: Reference, nonce: bytes, digest: bytes, proof: bytes, client: str) -> Denied | None:
        """Is the proof good? None: it is.

        Args:
            kind: HS_SECKEY or HS_PUBKEY.
            nonce, digest: what was signed, one behind the other.
            proof: see `replica.model.handle.proofs`.
            client: address it came from, without the port.
        Raises:
            ProtocolFault: it is no proof. ZaibeiError: it cannot be told.
        """
        judge = {HS_SECKEY: judge_secret, HS_PUBKEY: judge_public}.get(kind)
        if judge is None:
            return Denied(ResponseCode.AUTHENTICATION_FAILED, "keys are HS_SECKEY or HS_PUBKEY here")
        if not self.guesses.hears(client, self._now_ms() // 1_000):
            return GUESSES
        if self._waiting >= JUDGED_WAITING_MAX:
            return Denied(ResponseCode.SERVER_TOO_BUSY, "too many proofs wait to be judged: again later")
        self._waiting += 1
        try:
            found = await self.key(kind, key)
            if found is None:
                return self._wrong(client, NO_KEY)
            async with self._judging:
                good = await asyncio.to_thread(judge, found, nonce, digest, proof)
        finally:
            self._waiting -= 1
        return None if good else self._wrong(client, NOT_PROVED)

    async def secret(self, key: Reference, given: bytes, client: str) -> Denied | None:
        """Is this the secret key itself? None: it is. Raises ZaibeiError: it cannot be told."""
        if not self.guesses.hears(client, self._now_ms() // 1_000):
            return GUESSES
        found = await self.key(HS_SECKEY, key)
        if found is None:
            return self._wrong(client, NO_KEY)
        return None if found and hmac.compare_digest(found, given) else self._wrong(client, NOT_PROVED)

    async def certified(self, shown: Certified) -> Denied | None:
        """Is what was shown over TLS the key it names? None: it is. Raises ProtocolFault, ZaibeiError: it cannot be told."""
        found = await self.key(HS_PUBKEY, shown.key)
        if found is None:
            return NO_KEY
        return None if same_public(public_key_of(found), shown.public) else NOT_PROVED

    def _wrong(self, client: str, denied: Denied) -> Denied:
        self.guesses.wrong(client, self._now_ms() // 1_000)
        return denied

    async def valid(self, kind: bytes, wanted: VerifyRequest, client: str) -> bool:
        """Was this proved by the key? A key that is not there proves nothing, and no more is said of it.

        Raises:
            ProtocolFault: it is no proof. ZaibeiError: it cannot be told now.
        """
        denied = await self.proved(kind, wanted.key, wanted.nonce, wanted.digest, wanted.proof, client)
        if denied is not None and denied.code is ResponseCode.SERVER_TOO_BUSY:
            raise ZaibeiError(Code.BUSY, denied.text, retry=True)
        return denied is None

    async def key(self, kind: bytes, key: Reference) -> bytes | None:
        """Data of a key value; None: there is none. Raises ZaibeiError: it cannot be told."""
        values = await self._looks.values(key.handle) or ()
        keys = [one.data for one in values if one.index == key.index and one.type.upper() == kind]
        return keys[0] if keys and key.index else None
