"""Opens and ends sessions of the Handle protocol, and knows whether the key that was proved in one is still there.

| message | answer |
| --- | --- |
| set-up, mode 1 (a key of the client's) or 3 (a key of a handle) | a session with a key of ours, encrypted with that RSA key |
| set-up, mode 2 or 4 | 501: this server has no key of its own, and agrees on none |
| exchange of keys | 501 |
| end | 1, when its MAC is good |
"""

from __future__ import annotations

from collections.abc import Callable, Container
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import padding, rsa

from hosting.handle.edge_judge import Judge
from hosting.handle.edits import Denied
from hosting.handle.sessions import Session, Sessions
from replica.model.handle.admin_bodies import SessionSetup, SessionSetupAnswer, SetupMode, decode_session_setup
from replica.model.handle.codes import ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.macs import KEY_OCTETS, can_sign, key_on_wire
from replica.model.handle.message import Message
from replica.model.handle.proofs import public_key_of
from replica.model.handle.values import Reference

OPENING_MAX = 16  # set-ups under way at once
EXPONENT_BITS_MAX = 64
TOO_MANY = Denied(ResponseCode.SERVER_TOO_BUSY, "too many sessions wait for a proof: again later")
OLD = Denied(ResponseCode.SESSION_FAILED, "sessions need protocol 2.8 or later")
NOT_OFFERED = Denied(ResponseCode.SESSION_FAILED, "sessions are opened with an RSA key of the client's (1) or of a handle (3)")
GONE = Denied(ResponseCode.AUTHENTICATION_FAILED, "the key that was proved in this session is gone, or another now: it is over")
NEED_RSA = Denied(ResponseCode.NEED_RSAKEY, "a session's key is encrypted with an RSA key")


class SessionDesk:
    """All calls on one event loop. `random`: so many octets nobody can guess."""

    def __init__(self, judge: Judge, random: Callable[[int], bytes], sessions: Sessions | None = None) -> None:
        self.sessions = sessions or Sessions()
        self._judge, self._random = judge, random
        self._opening = 0

    async def open(
        self, message: Message, client: str, taken: Container[int], now_ms: Callable[[], int]
    ) -> tuple[Session, SessionSetupAnswer] | Denied:
        """A session and the body that tells its key.

        Args:
            taken: session ids that mean something else.
        Raises:
            ProtocolFault: the body, or the key in it. ZaibeiError: the key's handle cannot be read.
        """
        setup = decode_session_setup(message.body)
        if not can_sign(message):
            return OLD
        if setup.mode not in (SetupMode.CLIENT_KEY, SetupMode.KEY_OF_HANDLE):
            return NOT_OFFERED
        if self._opening >= OPENING_MAX:
            return TOO_MANY
        self._opening += 1
        try:
            public = await self._public(setup, client)
        finally:
            self._opening -= 1
        if isinstance(public, Denied):
            return public
        if not self.sessions.room(client, now_ms()):
            return TOO_MANY
        key, session_id = self._random(KEY_OCTETS), self._free(taken)
        try:
            data = public.encrypt(key_on_wire(key), padding.PKCS1v15())
        except ValueError as exc:
            raise ProtocolFault(f"a public key that encrypts nothing: {exc}", ResponseCode.INVALID_SESSIONSETUP) from exc
        identity = setup.identity if setup.identity.handle and setup.identity.index else None
        session = self.sessions.open(session_id, client, key, identity, setup.timeout_s, now_ms())
        return session, SessionSetupAnswer(setup.mode, data)

    def proved(self, session: Session, kind: bytes, key: Reference, mark: bytes) -> None:
        """A key was proved in it. `mark`: as `mark` gave it before the proof was judged."""
        self.sessions.proved(session, key, kind + mark)

    async def mark(self, kind: bytes, key: Reference) -> bytes:
        """What a key looks like now; empty: there is none. Raises ZaibeiError."""
        found = await self._judge.key(kind, key)
        return b"" if found is None else sha256(found).digest()

    async def lapsed(self, session: Session) -> Denied | None:
        """Is the key that was proved gone, or another one? Then so is the session. Raises ZaibeiError: it cannot be told."""
        kind, mark = session.proof[:-32], session.proof[-32:]
        if session.identity is not None and await self.mark(kind, session.identity) == mark:
            return None
        self.sessions.end(session)
        return GONE

    async def _public(self, setup: SessionSetup, client: str) -> rsa.RSAPublicKey | Denied:
        data: bytes | None = setup.public_key
        if setup.key_at is not None:
            found = await self._judge.to_open(setup.key_at, client)
            if isinstance(found, Denied):
                return found
            data = found
        try:
            public = public_key_of(data or b"")
        except ProtocolFault as fault:
            raise ProtocolFault(fault.detail, ResponseCode.INVALID_SESSIONSETUP) from fault
        if not isinstance(public, rsa.RSAPublicKey):
            return NEED_RSA
        if public.public_numbers().e.bit_length() > EXPONENT_BITS_MAX:  # it would cost us, not its sender
            raise ProtocolFault(f"a public exponent has at most {EXPONENT_BITS_MAX} bits", ResponseCode.INVALID_SESSIONSETUP)
        return public

    def _free(self, taken: Container[int]) -> int:
        while True:
            found = int.from_bytes(self._random(4), "big") & 0x7FFFFFFF
            if found and found not in taken and found not in self.sessions:
                return found
