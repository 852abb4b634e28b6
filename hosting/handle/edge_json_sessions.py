"""Sessions of the JSON API: who has one, and whose key was proved in it. Over TLS alone: the session's number is all it takes.

| request | answer |
| --- | --- |
| without TLS | 403, before anything is looked at |
| POST /api/sessions | 201 and a session with a nonce; with Basic, a proof or a client certificate its key is proved at once |
| GET /api/sessions/this | what the session is |
| PUT, POST /api/sessions/this with a proof over the session's nonce | the key is proved, and the session has another nonce |
| DELETE /api/sessions/this | the session is over |
| any other request with `Authorization: Handle sessionId=…` | as the key that was proved; a proof beside it counts first |

A session is its address's, its number cannot be guessed, a nonce is judged once. States, times and limits are those of sessions
of the Handle protocol (sessions.py). The key is looked up for each request, those about the session too: one that is gone, or
another now, ends the session.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from hosting.handle.edge_judge import Judge
from hosting.handle.edits import Denied
from hosting.handle.json_asks import JsonAsked
from hosting.handle.json_auth import InSession, Proof
from hosting.handle.sessions import Session, SessionLimits, Sessions, SessionState
from replica.model.handle.admin_bodies import NONCE_OCTETS
from replica.model.handle.codes import ResponseCode
from replica.model.handle.values import Reference

NUMBER_OCTETS = 16
IDLE_S = 3_600
MARK_OCTETS = 32  # of what the judge says a key looks like
HEADERS = b"Cache-Control: no-store\r\n"
LOCATION = b"Location: /api/sessions/this\r\n"
NEED_TLS = Denied(ResponseCode.AUTHENTICATION_FAILED, "sessions need TLS: whoever reads a session's number has the session")
NO_SESSION = Denied(ResponseCode.AUTHENTICATION_NEEDED, "there is no such session, or its time is over: open one")
NOT_PROVED = Denied(ResponseCode.AUTHENTICATION_NEEDED, "no key was proved in this session: PUT a proof to /api/sessions/this")
TOO_MANY = Denied(ResponseCode.SERVER_TOO_BUSY, "too many sessions wait for a proof: again later")
GONE = Denied(ResponseCode.AUTHENTICATION_FAILED, "the key that was proved in this session is gone, or another now: it is over")


@dataclass(frozen=True, slots=True)
class SessionSaid:
    """A response without an error. `headers`: whole lines."""

    status: int
    body: bytes
    headers: bytes = HEADERS


class JsonSessions:
    """See the module. All calls on one event loop."""

    def __init__(
        self, judge: Judge, now_ms: Callable[[], int], random: Callable[[int], bytes], limits: SessionLimits | None = None
    ) -> None:
        self.table = Sessions(limits)
        self._judge, self._now_ms, self._random = judge, now_ms, random

    def open(self, asked: JsonAsked) -> Session | Denied:
        """A session in which nothing was proved yet."""
        now_ms = self._now_ms()
        if not self.table.room(asked.client, now_ms):
            return TOO_MANY
        number = int.from_bytes(self._random(NUMBER_OCTETS), "big") | 1 << (8 * NUMBER_OCTETS - 1)
        return self.table.open(number, asked.client, self._random(NONCE_OCTETS), None, IDLE_S, now_ms)

    def find(self, asked: JsonAsked, number: int) -> Session | Denied:
        """The session with this number, if it is this client's."""
        if not asked.tls:
            return NEED_TLS
        return self.table.of_client(number, asked.client, self._now_ms()) or NO_SESSION

    async def key(self, asked: JsonAsked, given: InSession) -> Reference | Denied:
        """The key that was proved in a session. Raises ZaibeiError: it cannot be told whether it is still there."""
        session = self.find(asked, given.session)
        if isinstance(session, Denied):
            return session
        if session.state is not SessionState.PROVED or session.identity is None:
            return NOT_PROVED
        return await self.lapsed(session) or session.identity

    async def lapsed(self, session: Session) -> Denied | None:
        """Is the key that was proved gone, or another one? Then so is the session. Raises ZaibeiError: it cannot be told."""
        if session.state is not SessionState.PROVED or session.identity is None:
            return None
        kind, mark = session.proof[:-MARK_OCTETS], session.proof[-MARK_OCTETS:]
        if mark and await self._judge.mark(kind, session.identity) == mark:
            return None
        self.table.end(session)
        return GONE

    async def prove(self, asked: JsonAsked, given: Proof) -> Reference | Denied:
        """Judge a proof over a session's nonce. Raises ProtocolFault, ZaibeiError: as the judge."""
        session = self.find(asked, given.session)
        if isinstance(session, Denied):
            return session
        nonce, session.key = session.key, self._random(NONCE_OCTETS)  # judged once, whatever comes of it
        mark = await self._judge.mark(given.kind, given.key)
        denied = await self._judge.proved(given.kind, given.key, nonce, given.cnonce, given.octets, asked.client)
        if denied is not None:
            return denied
        return self.become(session, given.kind, given.key, mark)

    def become(self, session: Session, kind: bytes, key: Reference, mark: bytes) -> Reference | Denied:
        """A key was proved in it. A session is one key's for good. `mark`: what the key looked like before it was judged."""
        if session.state is SessionState.ENDED:
            return NO_SESSION
        if not mark:  # nothing by which it could be told later that the key is gone
            self.table.end(session)
            return GONE
        if session.state is SessionState.OPENED:
            session.identity = key
            self.table.proved(session, key, kind + mark)
        elif session.identity != key:
            self.table.end(session)
            return GONE
        return key

    def told(self, session: Session, *, created: bool = False) -> SessionSaid:
        """What a client reads of its session."""
        said: dict[str, object] = {
            "responseCode": int(ResponseCode.SUCCESS),
            "sessionId": f"{session.session_id:032x}",
            "nonce": binascii.b2a_base64(session.key, newline=False).decode(),
            "authenticated": session.state is SessionState.PROVED,
        }
        if session.identity is not None and session.state is SessionState.PROVED:
            said["id"] = f"{session.identity.index}:{session.identity.handle.decode('utf-8', 'replace')}"
        headers = HEADERS + LOCATION if created else HEADERS
        return SessionSaid(201 if created else 200, msgspec.json.encode(said), headers)
