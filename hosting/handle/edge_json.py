"""The JSON API's requests that change, list or verify: who asks proves it, and then the same judgement as for Handle messages.

| request | answer |
| --- | --- |
| without a credential, or when its challenge is over | 401, a fresh challenge: nobody is told what is there before a proof |
| without a credential, over TLS with a certificate of the client's | its key is proved if the certificate holds it |
| Basic where others may listen | 403, and the secret is not looked at; `basic_in_clear` lets it in |
| with a proof that is good | what `Work` says, as JSON |
| in a session whose key was proved (edge_json_sessions.py) | the same, as that key |
| /api/sessions | opened, proved, told, ended; over TLS alone |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from hosting.handle.certified import read_certificate
from hosting.handle.challenges import ChallengeLimits, Challenges
from hosting.handle.codes import code_of, text_of
from hosting.handle.edge_json_sessions import HEADERS as SESSION_HEADERS
from hosting.handle.edge_json_sessions import NEED_TLS, JsonSessions
from hosting.handle.edge_judge import Judge
from hosting.handle.edge_work import LIST_NAMES_MAX, Work
from hosting.handle.edits import Denied
from hosting.handle.json_asks import (
    SESSIONS,
    VERIFICATIONS,
    JsonAsked,
    Page,
    is_homes,
    read_change,
    read_homes,
    read_page,
    read_verification,
)
from hosting.handle.json_auth import Basic, InSession, Proof, challenge_headers, read_authorization
from replica.model.errors import ZaibeiError
from replica.model.handle.admin_bodies import HS_PUBKEY, HS_SECKEY, NONCE_OCTETS
from replica.model.handle.codes import OpCode, ResponseCode, http_status
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.json_api import error_json
from replica.model.handle.values import Reference

IN_CLEAR = "a secret would travel in clear here: use TLS, the machine itself, or the Handle scheme, which sends a proof of it"
CHALLENGE = "prove a key of yours, by a credential in the Authorization header"
STALE = "no challenge waits for this proof: it was answered, or its time is over; here is a fresh one"
BUSY = Denied(ResponseCode.SERVER_TOO_BUSY, "too many requests wait for a proof: again later")
NO_SUCH_WAY = Denied(ResponseCode.PROTOCOL_ERROR, "POST /api/sessions opens; GET, PUT, POST and DELETE are of /api/sessions/this")
NAME_IT = Denied(ResponseCode.AUTHENTICATION_NEEDED, 'say which session: Authorization: Handle sessionId="..."')


@dataclass(frozen=True, slots=True)
class JsonSaid:
    """A response. `headers`: whole lines."""

    status: int
    body: bytes
    headers: bytes = b""


class JsonDesk:
    """All calls on one event loop.

    Args:
        now_ms: Unix milliseconds. random: so many octets nobody can guess.
        basic_in_clear: secrets are taken where others may listen.
    """

    def __init__(
        self,
        judge: Judge,
        work: Work,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
        *,
        basic_in_clear: bool = False,
        limits: ChallengeLimits | None = None,
    ) -> None:
        self.challenges: Challenges[bytes] = Challenges(limits)
        self.sessions = JsonSessions(judge, now_ms, random)
        self._judge, self._work, self._now_ms, self._random = judge, work, now_ms, random
        self._basic_in_clear = basic_in_clear

    async def answer(self, asked: JsonAsked) -> JsonSaid:
        """The response to one request. It says no more of what is here than who asks may know."""
        try:
            if asked.url.startswith(SESSIONS):
                return await self._in_session(asked) if asked.tls else _refused(asked, NEED_TLS)
            if asked.url.startswith(VERIFICATIONS):
                return await self._verified(asked)
            key = await self._key(asked)
            if isinstance(key, JsonSaid):
                return key
            if is_homes(asked.url.partition(b"?")[0]):
                return await self._homed(asked, key)
            if asked.method in (b"GET", b"HEAD"):
                return await self._listed(asked, read_page(asked), key)
            return await self._changed(asked, key)
        except ProtocolFault as fault:
            return _refused(asked, Denied(fault.code or ResponseCode.PROTOCOL_ERROR, fault.detail))
        except ZaibeiError as exc:
            return _refused(asked, Denied(code_of(exc.trouble), text_of(exc.trouble).decode()))

    async def _key(self, asked: JsonAsked) -> Reference | JsonSaid:
        """The key that was proved, or what to say. Raises ProtocolFault, ZaibeiError."""
        return await self._proved_by(asked, read_authorization(asked.authorization))

    async def _proved_by(self, asked: JsonAsked, given: Basic | Proof | InSession | None) -> Reference | JsonSaid:
        """The same, by what was read. Raises ProtocolFault, ZaibeiError."""
        if isinstance(given, InSession) or (isinstance(given, Proof) and given.in_session):
            return await self._by_session(asked, given)
        if given is None and asked.certificate:
            shown = read_certificate(asked.certificate, self._now_ms())
            denied = await self._judge.certified(shown, asked.client)
            return shown.key if denied is None else _refused(asked, denied)
        if given is None:
            return self._challenged(asked, CHALLENGE)
        if isinstance(given, Basic):
            if not self._takes_basic(asked):
                return _refused(asked, Denied(ResponseCode.AUTHENTICATION_FAILED, IN_CLEAR))
            denied = await self._judge.secret(given.key, given.secret, asked.client)
        else:
            nonce = self.challenges.take(given.session, asked.client, self._now_ms())
            if nonce is None:
                return self._challenged(asked, STALE)
            denied = await self._judge.proved(given.kind, given.key, nonce, given.cnonce, given.octets, asked.client)
        return given.key if denied is None else _refused(asked, denied)

    async def _by_session(self, asked: JsonAsked, given: Proof | InSession) -> Reference | JsonSaid:
        work = self.sessions.key(asked, given) if isinstance(given, InSession) else self.sessions.prove(asked, given)
        found = await work
        if not isinstance(found, Denied):
            return found
        if found.code is ResponseCode.AUTHENTICATION_NEEDED:  # a 401 says how to go on
            return self._challenged(asked, found.text)
        return _refused(asked, found)

    async def _in_session(self, asked: JsonAsked) -> JsonSaid:
        """Open, prove, tell or end a session. Raises ProtocolFault, ZaibeiError."""
        given = read_authorization(asked.authorization)
        if not asked.this_session:
            return await self._opened(asked, given) if asked.method == b"POST" else _refused(asked, NO_SUCH_WAY)
        if not isinstance(given, Proof | InSession):
            return self._challenged(asked, NAME_IT.text)
        if asked.method in (b"PUT", b"POST") and isinstance(given, Proof):
            proved = await self._proved_by(asked, given)
            if isinstance(proved, JsonSaid):
                return proved
        elif asked.method not in (b"GET", b"HEAD", b"DELETE", b"PUT", b"POST"):
            return _refused(asked, NO_SUCH_WAY)
        session = self.sessions.find(asked, given.session)
        if isinstance(session, Denied):
            return self._challenged(asked, session.text)
        if asked.method == b"DELETE":
            self.sessions.table.end(session)
            return JsonSaid(200, b'{"responseCode":1}', SESSION_HEADERS)
        lapsed = await self.sessions.lapsed(session)
        if lapsed is not None:
            return _refused(asked, lapsed)
        said = self.sessions.told(session)
        return JsonSaid(said.status, said.body, said.headers)

    async def _opened(self, asked: JsonAsked, given: Basic | Proof | InSession | None) -> JsonSaid:
        shown: tuple[bytes, Reference, bytes] | None = None
        if isinstance(given, InSession):  # the number of another session is no proof
            given = None
        claimed = self._claimed(asked, given)
        if claimed is not None:
            mark = await self._judge.mark(*claimed)  # before it is judged: a key that is replaced meanwhile must not count
            proved = await self._proved_by(asked, given)
            if isinstance(proved, JsonSaid):
                return proved
            shown = *claimed, mark
        session = self.sessions.open(asked)
        if isinstance(session, Denied):
            return _refused(asked, session)
        if shown is not None and isinstance(denied := self.sessions.become(session, *shown), Denied):
            return _refused(asked, denied)
        said = self.sessions.told(session, created=True)
        return JsonSaid(said.status, said.body, said.headers)

    def _claimed(self, asked: JsonAsked, given: Basic | Proof | None) -> tuple[bytes, Reference] | None:
        """Kind and place of the key a session is to be opened with; None: with none. Raises ProtocolFault: the certificate."""
        if given is None:
            return (HS_PUBKEY, read_certificate(asked.certificate, self._now_ms()).key) if asked.certificate else None
        return (HS_SECKEY if isinstance(given, Basic) else given.kind), given.key

    def _challenged(self, asked: JsonAsked, text: str) -> JsonSaid:
        now_ms, table = self._now_ms(), self.challenges
        if not table.room(asked.client, NONCE_OCTETS, now_ms):
            return _refused(asked, BUSY)
        session, nonce = table.session_id(int.from_bytes(self._random(4), "big")), self._random(NONCE_OCTETS)
        table.offer(session, asked.client, nonce, NONCE_OCTETS, now_ms)
        headers = challenge_headers(session, nonce, basic=self._takes_basic(asked))
        return _refused(asked, Denied(ResponseCode.AUTHENTICATION_NEEDED, text), headers)

    def _takes_basic(self, asked: JsonAsked) -> bool:
        return asked.private or self._basic_in_clear

    async def _changed(self, asked: JsonAsked, key: Reference) -> JsonSaid:
        change = read_change(asked)
        done = await self._work.do(change.request, change.header, key, self._now_ms())
        if isinstance(done, Denied):
            return _refused(asked, done)
        created = change.header.op_code in (OpCode.CREATE_HANDLE, OpCode.ADD_VALUE) and not done.replaced
        body = {"responseCode": int(ResponseCode.SUCCESS), "handle": done.handle.decode("utf-8", "replace")}
        return JsonSaid(http_status(ResponseCode.SUCCESS, created=created), msgspec.json.encode(body))

    async def _homed(self, asked: JsonAsked, key: Reference) -> JsonSaid:
        change = read_homes(asked)
        done = await self._work.do(change.request, change.header, key, self._now_ms())
        if isinstance(done, Denied):
            return _refused(asked, done)
        body: dict[str, object] = {"responseCode": int(ResponseCode.SUCCESS)}
        if change.header.op_code == OpCode.LIST_HOMED_NAS:
            body["prefixes"] = [name.decode("utf-8", "replace") for name in done.names]
        else:
            body["handle"] = done.handle.decode("utf-8", "replace")
        return JsonSaid(http_status(ResponseCode.SUCCESS), msgspec.json.encode(body))

    async def _listed(self, asked: JsonAsked, page: Page, key: Reference) -> JsonSaid:
        most = LIST_NAMES_MAX if page.size is None else page.size
        listed = await self._work.names(page.prefix, key, self._now_ms(), first=page.first, most=most)
        if isinstance(listed, Denied):
            return _refused(asked, listed)
        if page.size is None and listed.total > LIST_NAMES_MAX:
            text = f"{listed.total} handles: ask for pages of at most {LIST_NAMES_MAX} by page and pageSize"
            return _refused(asked, Denied(ResponseCode.PROTOCOL_ERROR, text))
        body: dict[str, object] = {
            "responseCode": int(ResponseCode.SUCCESS),
            "prefix": page.said.decode("utf-8", "replace"),
            "totalCount": str(listed.total),
        }
        if page.size is not None:
            body |= {"page": page.page, "pageSize": page.size}
        body["handles"] = [name.decode("utf-8", "replace") for name in listed.names]
        return JsonSaid(http_status(ResponseCode.SUCCESS), msgspec.json.encode(body))

    async def _verified(self, asked: JsonAsked) -> JsonSaid:
        kind, wanted = read_verification(asked)
        valid = await self._judge.valid(kind, wanted, asked.client)
        return JsonSaid(200, msgspec.json.encode({"responseCode": int(ResponseCode.SUCCESS), "isValid": valid}))


def _refused(asked: JsonAsked, denied: Denied, headers: bytes = b"") -> JsonSaid:
    status = http_status(denied.code, op_code=OpCode.ADD_VALUE)
    return JsonSaid(status, error_json(denied.code, asked.handle, denied.text), headers)
