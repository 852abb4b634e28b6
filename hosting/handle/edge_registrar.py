"""Handle messages that register, in; their answers, out: challenge, proof, permission, change.

| message | answer |
| --- | --- |
| create, delete, add, remove, modify, list | 402 with a challenge, always: nobody is told what is there before that |
| challenge answer (200) | of the request it was asked for, with the number of this message |
| every other operation | 5 |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hosting.handle.challenges import Challenges
from hosting.handle.codes import code_of, text_of
from hosting.handle.edge_json import JsonDesk
from hosting.handle.edge_judge import Judge
from hosting.handle.edge_look import Looks
from hosting.handle.edge_work import Done, Work
from hosting.handle.edits import Denied
from replica.model.errors import ZaibeiError
from replica.model.handle.admin_bodies import NONCE_OCTETS, Challenge, challenge_to, decode_challenge_answer
from replica.model.handle.bodies import ErrorResponse, decode_request
from replica.model.handle.codes import EXPIRATION_S, OpCode, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.message import Message, answer_to, decode_message, fault_answer

REGISTERS = frozenset(
    {
        OpCode.CREATE_HANDLE,
        OpCode.DELETE_HANDLE,
        OpCode.ADD_VALUE,
        OpCode.REMOVE_VALUE,
        OpCode.MODIFY_VALUE,
        OpCode.LIST_HANDLES,
        OpCode.CHALLENGE_RESPONSE,
    }
)


@dataclass(frozen=True, slots=True)
class Sources:
    """Of time and randomness: Unix milliseconds, and so many octets nobody can guess."""

    now_ms: Callable[[], int]
    random: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits for a proof, and what was asked of its sender."""

    request: Message
    octets: bytes
    challenge: Challenge


class Registrar:
    """See the module. All calls on one event loop.

    Args:
        basic_in_clear: the JSON API takes secrets where others may listen.
    """

    def __init__(self, looks: Looks, sources: Sources, *, basic_in_clear: bool = False) -> None:
        self.challenges: Challenges[Waiting] = Challenges()
        self.judge, self.work = Judge(looks), Work(looks, sources.random)
        self.json = JsonDesk(self.judge, self.work, sources.now_ms, sources.random, basic_in_clear=basic_in_clear)
        self._sources = sources

    async def answer(self, octets: bytes, client: str) -> list[bytes]:
        """The messages that answer one message; none: silence.

        Args:
            client: address it came from, without the port.
        """
        try:
            message = decode_message(octets)
            if message.header.response_code:
                return []
            if message.header.op_code == OpCode.CHALLENGE_RESPONSE:
                return await self._proved(message, octets, client)
            if message.header.op_code not in REGISTERS:
                return [self._refused(message, octets, ResponseCode.OPERATION_NOT_SUPPORTED, b"not offered here")]
            decode_request(message)  # malformed ones are told so, and not kept
            return [self._challenged(message, octets, client)]
        except ProtocolFault as fault:
            said = fault_answer(fault, expiration=self._expires())
            return [] if said is None else [said]

    def _challenged(self, message: Message, octets: bytes, client: str) -> bytes:
        now_ms, table = self._sources.now_ms(), self.challenges
        if not table.room(client, len(octets), now_ms):
            return self._refused(
                message, octets, ResponseCode.SERVER_TOO_BUSY, b"too many requests wait for a proof: again later"
            )
        session = table.session_id(int.from_bytes(self._sources.random(4), "big"))
        nonce = self._sources.random(NONCE_OCTETS)
        said, challenge = challenge_to(message, octets, nonce, session, expiration=self._expires())
        table.offer(session, client, Waiting(message, octets, challenge), len(octets), now_ms)
        return said

    async def _proved(self, message: Message, octets: bytes, client: str) -> list[bytes]:
        answer = decode_challenge_answer(message.body)
        waited = self.challenges.take(message.envelope.session_id, client, self._sources.now_ms())
        if waited is None:
            text = b"no challenge waits for this: it was answered, or its time is over"
            return [self._refused(message, octets, ResponseCode.AUTHEN_TIMEOUT, text)]
        request, challenge = waited.request, waited.challenge
        asked = replace(request, envelope=message.envelope)
        try:
            done: Done | Denied | None = await self.judge.proved(
                answer.kind, answer.key, challenge.nonce, challenge.digest, answer.proof
            )
            if done is None:
                done = await self.work.do(decode_request(request), request.header, answer.key, self._sources.now_ms())
        except ProtocolFault as fault:
            return [self._refused(asked, waited.octets, fault.code or ResponseCode.ERROR, fault.detail.encode())]
        except ZaibeiError as exc:
            return [self._refused(asked, waited.octets, code_of(exc.trouble), text_of(exc.trouble))]
        if isinstance(done, Denied):
            return [self._refused(asked, waited.octets, done.code, done.text.encode())]
        return self._said(asked, waited.octets, done)

    def _said(self, asked: Message, octets: bytes, done: Done) -> list[bytes]:
        last = len(done.bodies) - 1
        return [
            answer_to(
                asked, octets, ResponseCode.SUCCESS, body, expiration=self._expires(), authoritative=True, more=number < last
            )
            for number, body in enumerate(done.bodies)
        ]

    def _refused(self, message: Message, octets: bytes, code: ResponseCode, text: bytes) -> bytes:
        return answer_to(message, octets, code, ErrorResponse(text).encode(), expiration=self._expires())

    def _expires(self) -> int:
        return self._sources.now_ms() // 1_000 + EXPIRATION_S
