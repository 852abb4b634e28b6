"""Handle messages that register, in; their answers, out: challenge, proof, permission, change.

| message | answer |
| --- | --- |
| create, delete, add, remove, modify, list | 402 with a challenge, always: nobody is told what is there before that |
| challenge answer (200) | of the request it was asked for, with the number of this message |
| every other operation | 5 |
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from hosting.handle.challenges import Challenges, Offered
from hosting.handle.codes import code_of, text_of
from hosting.handle.edge_look import Looks
from hosting.handle.edge_work import Done, Work
from hosting.handle.edits import Denied
from replica.model.errors import ZaibeiError
from replica.model.handle.admin_bodies import (
    HS_PUBKEY,
    HS_SECKEY,
    NONCE_OCTETS,
    ChallengeAnswer,
    challenge_to,
    decode_challenge_answer,
)
from replica.model.handle.bodies import ErrorResponse, decode_request
from replica.model.handle.codes import EXPIRATION_S, OpCode, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.message import Message, answer_to, decode_message, fault_answer
from replica.model.handle.proofs import judge_public, judge_secret

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
JUDGED_MAX = 2  # proofs judged at once, in threads: up to 0.1 s of a core each
JUDGED_WAITING_MAX = 64


@dataclass(frozen=True, slots=True)
class Sources:
    """Of time and randomness: Unix milliseconds, and so many octets nobody can guess."""

    now_ms: Callable[[], int]
    random: Callable[[int], bytes]


class Registrar:
    """See the module. All calls on one event loop."""

    def __init__(self, looks: Looks, sources: Sources, challenges: Challenges | None = None) -> None:
        self.challenges = challenges or Challenges()
        self._looks, self._sources = looks, sources
        self._work = Work(looks, sources.random)
        self._judging = asyncio.Semaphore(JUDGED_MAX)
        self._waiting = 0

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
        table.offer(session, client, message, octets, challenge, now_ms)
        return said

    async def _proved(self, message: Message, octets: bytes, client: str) -> list[bytes]:
        answer = decode_challenge_answer(message.body)
        offered = self.challenges.take(message.envelope.session_id, client, self._sources.now_ms())
        if offered is None:
            text = b"no challenge waits for this: it was answered, or its time is over"
            return [self._refused(message, octets, ResponseCode.AUTHEN_TIMEOUT, text)]
        asked = replace(offered.request, envelope=message.envelope)
        try:
            denied = await self._judged(answer, offered)
            done = denied or await self._work.do(decode_request(offered.request), asked, answer.key, self._sources.now_ms())
        except ProtocolFault as fault:
            return [self._refused(asked, offered.octets, fault.code or ResponseCode.ERROR, fault.detail.encode())]
        except ZaibeiError as exc:
            return [self._refused(asked, offered.octets, code_of(exc.trouble), text_of(exc.trouble))]
        if isinstance(done, Denied):
            return [self._refused(asked, offered.octets, done.code, done.text.encode())]
        return self._said(asked, offered.octets, done)

    async def _judged(self, answer: ChallengeAnswer, offered: Offered) -> Denied | None:
        """Is the proof good? Raises ProtocolFault, ZaibeiError: it cannot be told."""
        judge = {HS_SECKEY: judge_secret, HS_PUBKEY: judge_public}.get(answer.kind)
        if judge is None:
            return Denied(ResponseCode.AUTHENTICATION_FAILED, "keys are HS_SECKEY or HS_PUBKEY here")
        if self._waiting >= JUDGED_WAITING_MAX:
            return Denied(ResponseCode.SERVER_TOO_BUSY, "too many proofs wait to be judged: again later")
        values = await self._looks.values(answer.key.handle) or ()
        keys = [one.data for one in values if one.index == answer.key.index and one.type.upper() == answer.kind]
        if not keys or not answer.key.index:
            return Denied(ResponseCode.INVALID_ADMIN, "there is no such key")
        self._waiting += 1
        try:
            async with self._judging:
                challenge = offered.challenge
                good = await asyncio.to_thread(judge, keys[0], challenge.nonce, challenge.digest, answer.proof)
        finally:
            self._waiting -= 1
        return None if good else Denied(ResponseCode.AUTHENTICATION_FAILED, "the proof is not of this key")

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
