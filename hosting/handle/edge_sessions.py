"""Opens and ends sessions of the Handle protocol, and knows whether the key that was proved in one is still there.

| message | answer |
| --- | --- |
| set-up, mode 1 (a key of the client's) or 3 (a key of a handle) | a session with a key of ours, encrypted with that RSA key |
| set-up, mode 2 (the server's key) | a session without a key, and the public key of our site; 501 where it has none |
| exchange of keys, in that session | 1, with a MAC: it is the client's proof that the site's key has read it |
| set-up, mode 4 (DH) | 501: no octets of that exchange are known to us |
| end | 1, when its MAC is good |

The site's key signs answers too, so an exchange must tell nobody what it deciphers: whatever comes, readable or not, is answered
alike. Where there was no key in it, the session has one that nobody knows, and no message fits it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container

from cryptography.hazmat.primitives.asymmetric import padding, rsa

from hosting.guard.clients import client_of
from hosting.guard.windows import Window
from hosting.handle.edge_judge import Judge
from hosting.handle.edge_look import Sight
from hosting.handle.edits import Denied
from hosting.handle.sessions import Session, Sessions
from replica.model.handle.admin_bodies import (
    SessionSetup,
    SessionSetupAnswer,
    SetupMode,
    decode_exchange_key,
    decode_session_setup,
)
from replica.model.handle.codes import ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.macs import AES_128, KEY_OCTETS, can_sign, key_from_wire, key_on_wire
from replica.model.handle.message import Message
from replica.model.handle.proofs import public_key_of
from replica.model.handle.signatures import public_data
from replica.model.handle.values import Reference

OPENING_MAX = 16  # set-ups under way at once
EXPONENT_BITS_MAX = 64
TOO_MANY = Denied(ResponseCode.SERVER_TOO_BUSY, "too many sessions wait for a proof: again later")
OLD = Denied(ResponseCode.SESSION_FAILED, "sessions need protocol 2.8 or later")
EXCHANGED_MAX = 8  # exchanges under way at once, in threads: half a millisecond of a core each
EXCHANGES_PER_S, CLIENT_EXCHANGES_PER_S = 200, 20
CLIENTS_MAX = 65_536
NO_DH = Denied(ResponseCode.SESSION_FAILED, "sessions are opened with an RSA key: the client's (1), ours (2) or a handle's (3)")
NO_KEY = Denied(ResponseCode.SESSION_FAILED, "this site has no key of its own: open with the client's (1) or a handle's (3)")
GONE = Denied(ResponseCode.AUTHENTICATION_FAILED, "the key that was proved in this session is gone, or another now: it is over")
NEED_RSA = Denied(ResponseCode.NEED_RSAKEY, "a session's key is encrypted with an RSA key")


class SessionDesk:
    """All calls on one event loop. `random`: so many octets nobody can guess. `server_key`: of our site; None: it has none."""

    def __init__(self, judge: Judge, random: Callable[[int], bytes], server_key: rsa.RSAPrivateKey | None = None) -> None:
        self.sessions = Sessions()
        self._judge, self._random, self._server_key = judge, random, server_key
        self._opening = 0
        self._exchanging = 0
        self._exchanges = Window(EXCHANGES_PER_S, CLIENTS_MAX)
        self._clients = Window(CLIENT_EXCHANGES_PER_S, CLIENTS_MAX)

    async def open(
        self, message: Message, client: str, taken: Container[int], now_ms: Callable[[], int], *, datagram: bool = False
    ) -> tuple[Session, SessionSetupAnswer] | Denied:
        """A session and the body that tells its key, or ours.

        Args:
            taken: session ids that mean something else. datagram: the client's address may be forged.
        Raises:
            ProtocolFault: the body, or the key in it. ZaibeiError: the key's handle cannot be read.
        """
        setup = decode_session_setup(message.body)
        if not can_sign(message):
            return OLD
        if setup.mode is SetupMode.DIFFIE_HELLMAN:
            return NO_DH
        if setup.mode is SetupMode.SERVER_KEY:
            if self._server_key is None:
                return NO_KEY
            if not self.sessions.room(client, now_ms(), datagram=datagram):
                return TOO_MANY
            number, wished = self._free(taken), (_identity(setup), setup.timeout_s)
            session = self.sessions.open(number, client, b"", *wished, now_ms(), datagram=datagram)
            return session, SessionSetupAnswer(setup.mode, public_data(self._server_key.public_key()))
        if self._opening >= OPENING_MAX:
            return TOO_MANY
        self._opening += 1
        try:
            public = await self._public(setup, client, datagram)
        finally:
            self._opening -= 1
        if isinstance(public, Denied):
            return public
        if not self.sessions.room(client, now_ms(), datagram=datagram):
            return TOO_MANY
        key, session_id = self._random(KEY_OCTETS), self._free(taken)
        try:
            data = public.encrypt(key_on_wire(key), padding.PKCS1v15())
        except ValueError as exc:
            raise ProtocolFault(f"a public key that encrypts nothing: {exc}", ResponseCode.INVALID_SESSIONSETUP) from exc
        wished = (_identity(setup), setup.timeout_s)
        session = self.sessions.open(session_id, client, key, *wished, now_ms(), datagram=datagram)
        return session, SessionSetupAnswer(setup.mode, data)

    async def exchange(self, message: Message, client: str, now_ms: int) -> Session | Denied:
        """The session whose key came in this message, which needs no credential: there was no key for one.

        Raises:
            ProtocolFault: the body is none.
        """
        data, number = decode_exchange_key(message.body), message.envelope.session_id
        if self._server_key is None:
            return NO_KEY
        if not can_sign(message):
            return OLD
        session = self.sessions.keyless(number, client, now_ms)
        if isinstance(session, Denied):
            return session
        if self._exchanging >= EXCHANGED_MAX or not self._may_exchange(client, now_ms // 1_000):
            return TOO_MANY
        self._exchanging += 1
        try:
            nobodys = self._random(KEY_OCTETS)
            key, algorithm = await asyncio.to_thread(_deciphered, self._server_key, data, nobodys)
        finally:
            self._exchanging -= 1
        return self.sessions.keyed(session, key, algorithm) or session

    def _may_exchange(self, client: str, second: int) -> bool:
        network = client_of(client)
        mine = not network or self._clients.add(network, 1, second)
        return bool(mine) and bool(self._exchanges.add(b"all", 1, second))

    def proved(self, session: Session, kind: bytes, key: Reference, mark: bytes) -> None:
        """A key was proved in it. `mark`: as `mark` gave it before the proof was judged."""
        self.sessions.proved(session, key, kind + mark)

    async def mark(self, kind: bytes, key: Reference) -> bytes:
        """What a key looks like now; empty: there is none. Raises ZaibeiError."""
        return await self._judge.mark(kind, key)

    async def lapsed(self, session: Session, sight: Sight | None = None) -> Denied | None:
        """Is the key that was proved gone, or another one? Then so is the session. Raises ZaibeiError: it cannot be told."""
        kind, mark = session.proof[:-32], session.proof[-32:]
        if session.identity is not None and await self._judge.mark(kind, session.identity, sight) == mark:
            return None
        self.sessions.end(session)
        return GONE

    async def _public(self, setup: SessionSetup, client: str, datagram: bool) -> rsa.RSAPublicKey | Denied:
        data: bytes | None = setup.public_key
        if setup.key_at is not None:
            found = await self._judge.to_open(setup.key_at, client, forgeable=datagram)
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


def _identity(setup: SessionSetup) -> Reference | None:
    return setup.identity if setup.identity.handle and setup.identity.index else None


def _deciphered(private: rsa.RSAPrivateKey, data: bytes, nobodys: bytes) -> tuple[bytes, int]:
    """The key that a client sent and its algorithm; `nobodys` where there is none, and no word of why."""
    try:
        return key_from_wire(private.decrypt(data, padding.PKCS1v15()))
    except (ValueError, ProtocolFault):
        return nobodys, AES_128
