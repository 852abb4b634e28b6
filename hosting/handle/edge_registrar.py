"""Handle messages that register, in; their answers, out: challenge, proof, permission, change.

| message | answer |
| --- | --- |
| create, delete, add, remove, modify, list | 402 with a challenge: nobody is told what is there before a proof |
| home, unhome, list of homed prefixes | the same; see edge_homes |
| the same in a session with a proof | what became of it |
| challenge answer (200) | of the request it was asked for, with the number of this message |
| verification (201) | 1 or 0 |
| login (2001) | 402; then 1 where the key it names was proved, else 3001. What comes afterwards is asked for its proof as ever |
| session set-up, end, exchange of keys (400 to 402) | see edge_sessions |
| every other operation | 5 |
| any of these encrypted with its session's key, or with the flag ENC in a session | the same, encrypted |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import rsa

from hosting.guard.guesses import Guesses
from hosting.handle.challenges import Challenges
from hosting.handle.codes import code_of, text_of
from hosting.handle.edge_homes import HOMES
from hosting.handle.edge_json import JsonDesk
from hosting.handle.edge_judge import Judge
from hosting.handle.edge_look import Looks
from hosting.handle.edge_sessions import SessionDesk
from hosting.handle.edge_work import Done, Work
from hosting.handle.edits import Denied
from hosting.handle.sessions import Session, SessionState, wants_hidden
from replica.model.errors import ZaibeiError
from replica.model.handle.admin_bodies import (
    HS_SECKEY,
    NONCE_OCTETS,
    Challenge,
    ChallengeAnswer,
    challenge_to,
    decode_challenge_answer,
    decode_login,
    decode_verify_request,
)
from replica.model.handle.bodies import ErrorResponse, Request, decode_request
from replica.model.handle.ciphers import BLOCK_OCTETS, encrypted, is_encrypted
from replica.model.handle.codes import EXPIRATION_S, OpCode, OpFlag, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.macs import can_sign, sealed
from replica.model.handle.message import Message, answer_to, decode_message, fault_answer
from replica.model.handle.values import Reference

CHANGES = frozenset(
    {
        OpCode.CREATE_HANDLE,
        OpCode.DELETE_HANDLE,
        OpCode.ADD_VALUE,
        OpCode.REMOVE_VALUE,
        OpCode.MODIFY_VALUE,
        OpCode.LIST_HANDLES,
    }
)
REGISTERS = frozenset(
    {
        *CHANGES,
        *HOMES,
        OpCode.CHALLENGE_RESPONSE,
        OpCode.VERIFY_CHALLENGE,
        OpCode.LOGIN_ID_SYSTEM,
        OpCode.SESSION_SETUP,
        OpCode.SESSION_TERMINATE,
        OpCode.SESSION_EXCHANGEKEY,
    }
)


ANOTHER_KEY = Denied(ResponseCode.VERIFY_CREDENTIAL_FAILED, "this is no proof of the key that the login named")
_UNPROVED = (ResponseCode.AUTHENTICATION_FAILED,)


@dataclass(frozen=True, slots=True)
class Sources:
    """Of time and randomness: Unix milliseconds, and so many octets nobody can guess."""

    now_ms: Callable[[], int]
    random: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits for a proof, what was asked of its sender, and the session it is in."""

    request: Message
    octets: bytes
    challenge: Challenge
    session: Session | None = None


class Registrar:
    """See the module. All calls on one event loop.

    Args:
        guesses: which clients are heard. basic_in_clear: the JSON API takes secrets where others may listen.
        server_key: of our site; None: it has none.
    """

    def __init__(
        self,
        looks: Looks,
        sources: Sources,
        guesses: Guesses | None = None,
        *,
        basic_in_clear: bool = False,
        server_key: rsa.RSAPrivateKey | None = None,
    ) -> None:
        self.challenges: Challenges[Waiting] = Challenges()
        self.judge, self.work = Judge(looks, sources.now_ms, guesses), Work(looks, sources.random)
        self.json = JsonDesk(self.judge, self.work, sources.now_ms, sources.random, basic_in_clear=basic_in_clear)
        self.desk = SessionDesk(self.judge, sources.random, server_key)
        self._looks, self._sources = looks, sources

    async def answer(self, octets: bytes, client: str, *, datagram: bool = False) -> list[bytes]:
        """The messages that answer one message; none: silence.

        Args:
            client: address it came from, without the port. datagram: that may be forged.
        """
        try:
            hidden = is_encrypted(octets)
            if hidden:
                octets = self.desk.sessions.readable(octets, self._sources.now_ms())
            message = decode_message(octets)
            if message.header.response_code:
                return []
            cipher = self.desk.sessions.cipher(message.envelope.session_id)
            answers = await self._answer(message, octets, client, datagram)
            if cipher is not None and (hidden or message.header.flags & OpFlag.ENCRYPT):
                return [self._hidden(one, *cipher) for one in answers]
            return answers
        except ProtocolFault as fault:
            said = fault_answer(fault, expiration=self._expires())
            return [] if said is None else [said]

    async def _answer(self, message: Message, octets: bytes, client: str, datagram: bool) -> list[bytes]:
        op = message.header.op_code
        if op == OpCode.CHALLENGE_RESPONSE:
            return await self._proved(message, octets, client)
        if op == OpCode.VERIFY_CHALLENGE:
            return await self._tested(message, octets, self._verified(message, client, datagram))
        if op == OpCode.SESSION_SETUP:
            return await self._opened(message, octets, client, datagram)
        if op == OpCode.SESSION_EXCHANGEKEY:
            return await self._exchanged(message, octets, client)
        if op == OpCode.SESSION_TERMINATE:
            return self._ended(message, octets)
        if op not in CHANGES | HOMES and op != OpCode.LOGIN_ID_SYSTEM and not wants_hidden(message):
            return [self._refused(message, octets, ResponseCode.OPERATION_NOT_SUPPORTED, b"not offered here")]
        try:
            request = decode_login(message.body) if op == OpCode.LOGIN_ID_SYSTEM else decode_request(message)
        except ProtocolFault as fault:  # malformed ones are told so, and not kept
            raise fault.within(message.envelope, op) from None
        number = message.envelope.session_id
        if not number or (op == OpCode.LOGIN_ID_SYSTEM and number not in self.desk.sessions):  # China's SDKs make one up
            reads = op not in CHANGES or op == OpCode.LIST_HANDLES
            full = None if reads or isinstance(request, Reference) else self.work.full(request, self._sources.now_ms())
            if full is not None:  # nothing would be done after the proof: so it is not asked for, and its key not looked up
                return [self._refused(message, octets, code_of(full), text_of(full))]
            return [self._challenged(message, octets, client, None, datagram)]
        session = self.desk.sessions.used(message, octets, self._sources.now_ms())
        if isinstance(session, Denied):
            return [self._denied(message, octets, session)]
        if session.state is SessionState.PROVED and session.identity is not None and not isinstance(request, Reference):
            found = await self._tested(message, octets, self._in_session(message, request, session, session.identity))
            return self._sealed(found, message, session)
        return self._sealed([self._challenged(message, octets, client, session, datagram)], message, session)

    # ------------------------------------------------------------------------------------------------- challenges
    def _challenged(self, message: Message, octets: bytes, client: str, session: Session | None, datagram: bool) -> bytes:
        now_ms, table = self._sources.now_ms(), self.challenges
        if not table.room(client, len(octets), now_ms, datagram=datagram):
            return self._refused(
                message, octets, ResponseCode.SERVER_TOO_BUSY, b"too many requests wait for a proof: again later"
            )
        number = self._free() if session is None else session.session_id
        nonce = self._sources.random(NONCE_OCTETS)
        said, challenge = challenge_to(message, octets, nonce, number, expiration=self._expires())
        table.offer(number, client, Waiting(message, octets, challenge, session), len(octets), now_ms, datagram=datagram)
        return said

    def _free(self) -> int:
        found = self.challenges.session_id(int.from_bytes(self._sources.random(4), "big"))
        while found in self.desk.sessions:
            found = self.challenges.session_id(found)
        return found

    async def _proved(self, message: Message, octets: bytes, client: str) -> list[bytes]:
        answer, number = decode_challenge_answer(message.body), message.envelope.session_id
        session: Session | Denied | None = None
        if number in self.desk.sessions:
            session = self.desk.sessions.used(message, octets, self._sources.now_ms())
            if isinstance(session, Denied):
                return [self._denied(message, octets, session)]
        waited = self.challenges.take(number, client, self._sources.now_ms())
        if waited is None or waited.session is not session:
            text = b"no challenge waits for this: it was answered, or its time is over"
            return [self._refused(message, octets, ResponseCode.AUTHEN_TIMEOUT, text)]
        asked = replace(waited.request, envelope=message.envelope)
        if asked.header.op_code == OpCode.LOGIN_ID_SYSTEM:
            carried = self._logged_in(waited, answer, client)
        else:
            carried = self._carried_out(waited.request, answer.key, self._judged(answer, waited, client))
        return self._sealed(await self._tested(asked, waited.octets, carried), asked, waited.session)

    async def _judged(self, answer: ChallengeAnswer, waited: Waiting, client: str) -> Denied | None:
        """Is the proof good? Then it counts for the session too. Raises ProtocolFault, ZaibeiError: it cannot be told."""
        session, challenge = waited.session, waited.challenge
        mark = b"" if session is None else await self.desk.mark(answer.kind, answer.key)
        asked = (challenge.nonce, challenge.digest, answer.proof)
        denied = await self.judge.proved(answer.kind, answer.key, *asked, client)
        if denied is None and session is not None:
            self.desk.proved(session, answer.kind, answer.key, mark)
        return denied

    async def _logged_in(self, waited: Waiting, answer: ChallengeAnswer, client: str) -> Done | Denied:
        """The key that a login named was proved, and no other. No right comes of it: nothing later shows who sends."""
        if answer.key != decode_login(waited.request.body):
            return ANOTHER_KEY
        denied = await self._judged(answer, waited, client)
        if denied is None:
            return Done((b"",))
        return replace(denied, code=ResponseCode.VERIFY_CREDENTIAL_FAILED) if denied.code in _UNPROVED else denied

    async def _verified(self, message: Message, client: str, datagram: bool) -> Done:
        valid = await self.judge.valid(HS_SECKEY, decode_verify_request(message.body), client, forgeable=datagram)
        return Done((bytes((valid,)),))

    # ------------------------------------------------------------------------------------------------- sessions
    async def _opened(self, message: Message, octets: bytes, client: str, datagram: bool) -> list[bytes]:
        async def opening() -> Done | Denied:
            found = await self.desk.open(message, client, self.challenges, self._sources.now_ms, datagram=datagram)
            if isinstance(found, Denied):
                return found
            numbers.append(found[0].session_id)
            return Done((found[1].encode(),))

        numbers: list[int] = []
        said = await self._tested(message, octets, opening())
        return [one[:4] + numbers[0].to_bytes(4, "big") + one[8:] for one in said] if numbers else said

    async def _exchanged(self, message: Message, octets: bytes, client: str) -> list[bytes]:
        async def exchanging() -> Done | Denied:
            found = await self.desk.exchange(message, client, self._sources.now_ms())
            if isinstance(found, Denied):
                return found
            sessions.append(found)
            return Done((b"",))

        sessions: list[Session] = []
        said = await self._tested(message, octets, exchanging())
        if message.header.flags & OpFlag.CERTIFY:  # the site signs it (hosting/front/edge_certify.py): there was no key yet
            return said
        return self._sealed(said, message, sessions[0] if sessions else None)

    def _ended(self, message: Message, octets: bytes) -> list[bytes]:
        session = self.desk.sessions.used(message, octets, self._sources.now_ms())
        if isinstance(session, Denied):
            return [self._denied(message, octets, session)]
        self.desk.sessions.end(session)
        return self._sealed(self._said(message, octets, Done((b"",))), message, session)

    def _hidden(self, answer: bytes, key: bytes, algorithm: int) -> bytes:
        """Encrypted if it has a MAC: then it is for who has the key."""
        if not decode_message(answer).credential:
            return answer
        return encrypted(answer, key, self._sources.random(BLOCK_OCTETS), algorithm)

    def _sealed(self, answers: list[bytes], request: Message, session: Session | None) -> list[bytes]:
        if session is None or not can_sign(request):
            return answers
        return [sealed(one, session.key, session.count()) for one in answers]

    # ------------------------------------------------------------------------------------------------- answers
    async def _in_session(self, message: Message, request: Request, session: Session, key: Reference) -> Done | Denied:
        """The key must still be there; that is read behind the same barrier as what the request is about."""
        sight = self._looks.sight()
        denied = await self.desk.lapsed(session, sight)
        if denied is not None:
            return denied
        return await self.work.do(request, message.header, key, self._sources.now_ms(), sight)

    async def _carried_out(self, request: Message, key: Reference, test: Awaitable[Denied | None]) -> Done | Denied:
        denied = await test
        if denied is not None:
            return denied
        return await self.work.do(decode_request(request), request.header, key, self._sources.now_ms())

    async def _tested(self, asked: Message, octets: bytes, work: Awaitable[Done | Denied]) -> list[bytes]:
        """The messages that tell what became of some work."""
        try:
            done = await work
        except ProtocolFault as fault:
            return [self._refused(asked, octets, fault.code or ResponseCode.ERROR, fault.detail.encode())]
        except ZaibeiError as exc:
            return [self._refused(asked, octets, code_of(exc.trouble), text_of(exc.trouble))]
        if isinstance(done, Denied):
            return [self._denied(asked, octets, done)]
        return self._said(asked, octets, done)

    def _said(self, asked: Message, octets: bytes, done: Done) -> list[bytes]:
        last = len(done.bodies) - 1
        return [
            answer_to(
                asked, octets, ResponseCode.SUCCESS, body, expiration=self._expires(), authoritative=True, more=number < last
            )
            for number, body in enumerate(done.bodies)
        ]

    def _denied(self, message: Message, octets: bytes, denied: Denied) -> bytes:
        return self._refused(message, octets, denied.code, denied.text.encode())

    def _refused(self, message: Message, octets: bytes, code: ResponseCode, text: bytes) -> bytes:
        return answer_to(message, octets, code, ErrorResponse(text).encode(), expiration=self._expires())

    def _expires(self) -> int:
        return self._sources.now_ms() // 1_000 + EXPIRATION_S
