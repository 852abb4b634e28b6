"""Answers signed with the site's key (CT): made as every other answer is, then signed in one thread, few at once.

| a request with CT | answer |
| --- | --- |
| outside of sessions | as without CT, signed |
| in a session, with its MAC | as without CT, with the session's MAC: no signature is made |
| of protocol 2.6 or older | 5: nothing that a signature of theirs covers is worth one |
| where the site has no key, too many wait, its client or all of them ask too often, or many questions wait | 2 and why |

What cannot be signed is never given unsigned: it is refused, without the flag, and 2 sends a client to another site. A signature
costs half a millisecond of a core, so these are the first to be refused under load. Datagrams, whose sender may be forged, have a
small part of the room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from hosting.answer.question import Answer, Question
from hosting.answer.standing import Standing
from hosting.front.edge_site_key import SiteKey
from hosting.guard.clients import client_of
from hosting.guard.guard import Guard
from hosting.guard.windows import Window
from hosting.handle.codes import code_of, text_of
from hosting.handle.edge_registrar import REGISTERS, Registrar
from hosting.handle.edits import Denied
from hosting.handle.sessions import Session, SessionState, wants_hidden
from replica.model.errors import ZaibeiError
from replica.model.handle.bodies import ErrorResponse
from replica.model.handle.codes import OpCode, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.macs import can_sign, sealed
from replica.model.handle.message import Message, answer_to, decode_message, fault_answer
from replica.model.handle.signatures import has_signatures, signed

CLIENTS_MAX: Final = 65_536
WORK_S_MAX: Final = 30.0  # until what is to be signed is there: a place is given back whatever happens
ALL: Final = b"all"
DATAGRAMS: Final = b"datagrams"
NO_KEY: Final = "this site has no key to sign with; ask another site, or without CT"
OLD: Final = "messages before 2.7 are not signed here: suggest a newer protocol, or ask without CT"
TOO_MANY: Final = "too many answers are to be signed here now; ask another site, or without CT"
_ANSWERED: Final = (OpCode.RESOLUTION, OpCode.GET_SITE_INFO)
TOO_LONG: Final = "the signed answer is too long for UDP; ask over TCP"


@dataclass(frozen=True, slots=True)
class CertifyLimits:
    """Of one front.

    Args:
        per_s: signatures asked for in a second: at most 0.3 s of a core.
        client_per_s: by one client's network; who is trusted has no such limit.
        datagrams_per_s: over UDP, by all together.
        waiting_max, datagrams_waiting_max: requests under way at once.
    """

    per_s: int = 500
    client_per_s: int = 100
    datagrams_per_s: int = 100
    waiting_max: int = 64
    datagrams_waiting_max: int = 16


@dataclass(slots=True)
class CertifyCounters:
    """`signed`: messages; `refused`: requests that were told to ask elsewhere."""

    signed: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Begun:
    """A request that is answered.

    Args:
        signs: its answer is to be signed, for which it has a place. Else `session` vouches, or the registrar, who judges its MAC.
        lapsed: is the key gone that was proved in `session`? Raises ZaibeiError: it cannot be told.
    """

    message: Message
    octets: bytes
    signs: bool
    session: Session | None = None
    datagram: bool = False
    lapsed: Callable[[Session], Awaitable[Denied | None]] | None = None


class Certifier:
    """See the module. All calls on one event loop.

    Args:
        key: of this site; None: it has none.
        expires: the expiration time of an answer made now.
        crowded: do so many questions wait that nothing dear is done?
    """

    def __init__(
        self,
        key: SiteKey | None,
        expires: Callable[[], int],
        guard: Guard,
        crowded: Callable[[], bool] = lambda: False,
        limits: CertifyLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or CertifyLimits()
        self.counters = CertifyCounters()
        self._key, self._expires, self._guard, self._crowded, self._clock = key, expires, guard, crowded, clock
        self._pool = ThreadPoolExecutor(1, "sign")  # its thread begins with the first signature
        self._waiting = self._datagrams = 0
        self._clients = Window(self.limits.client_per_s, CLIENTS_MAX)
        self._all = Window(self.limits.per_s, CLIENTS_MAX)
        self._forgeable = Window(self.limits.datagrams_per_s, CLIENTS_MAX)

    def close(self) -> None:
        """Signatures that were not begun are not made."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def begin(self, octets: bytes, client: str, datagram: bool, registrar: Registrar | None, now_ms: int) -> Begun | list[bytes]:
        """The request as it is to be answered; or at once its answers. Who begins ends it, by `answers`.

        Args:
            client: address it came from, without the port.
        """
        try:
            message = decode_message(octets)
        except ProtocolFault as fault:
            said = fault_answer(fault, expiration=self._expires())
            return [] if said is None else [said]
        if message.header.response_code:
            return []
        if registrar is not None and message.credential and message.envelope.session_id in registrar.desk.sessions:
            if message.header.op_code in REGISTERS or wants_hidden(message):
                return Begun(message, octets, False)
            found = registrar.desk.sessions.used(message, octets, now_ms)
            if isinstance(found, Denied):
                return [self.refusal(message, octets, found.code, found.text)]
            if can_sign(message):
                return Begun(message, octets, False, found, lapsed=registrar.desk.lapsed)
        code, why = self._why_not(message, client, datagram)
        if why:
            self.counters.refused += 1
            return [self.refusal(message, octets, code, why)]
        self._waiting += 1
        self._datagrams += datagram
        return Begun(message, octets, True, datagram=datagram)

    def _why_not(self, message: Message, client: str, datagram: bool) -> tuple[ResponseCode, str]:
        """Why a signature is not made; an empty text: it is."""
        if not has_signatures(message.envelope.answer_version):
            return ResponseCode.OPERATION_NOT_SUPPORTED, OLD
        if self._key is None:
            known = message.header.op_code in REGISTERS or message.header.op_code in _ANSWERED
            return (ResponseCode.ERROR, NO_KEY) if known else (ResponseCode.SUCCESS, "")  # 5, whoever says it
        limits, second = self.limits, int(self._clock())
        if self._waiting >= limits.waiting_max or (datagram and self._datagrams >= limits.datagrams_waiting_max):
            return ResponseCode.ERROR, TOO_MANY
        network = client_of(client)
        limited = bool(network) and not self._guard.trusts(client)
        if self._crowded() or (limited and not self._clients.add(network, 1, second)):
            return ResponseCode.ERROR, TOO_MANY
        if (datagram and not self._forgeable.add(DATAGRAMS, 1, second)) or not self._all.add(ALL, 1, second):
            return ResponseCode.ERROR, TOO_MANY
        return ResponseCode.SUCCESS, ""

    async def answers(self, begun: Begun, work: Callable[[], Awaitable[list[bytes]]]) -> list[bytes]:
        """What the work says, vouched for."""
        try:
            if begun.session is not None:
                gone = await self._gone(begun)
                found = await self._worked(begun, work) if gone is None else [gone]
                return [sealed(one, begun.session.key, begun.session.count()) for one in found]
            found = await self._worked(begun, work)
            return [await self._vouched(one) for one in found] if begun.signs else found
        except TimeoutError:
            self.counters.refused += 1
            return [self.refusal(begun.message, begun.octets, ResponseCode.ERROR, TOO_MANY)]
        finally:
            self._waiting -= begun.signs
            self._datagrams -= begun.datagram

    async def _gone(self, begun: Begun) -> bytes | None:
        """Why its session vouches for nothing more: its key is gone, as every other message in it finds out. None: it vouches."""
        if begun.session is None or begun.session.state is not SessionState.PROVED or begun.lapsed is None:
            return None
        try:
            denied = await begun.lapsed(begun.session)
        except ZaibeiError as exc:
            return self.refusal(begun.message, begun.octets, code_of(exc.trouble), text_of(exc.trouble).decode())
        return None if denied is None else self.refusal(begun.message, begun.octets, denied.code, denied.text)

    async def _worked(self, begun: Begun, work: Callable[[], Awaitable[list[bytes]]]) -> list[bytes]:
        """A registration has its own limit of time, and is never cut off: whether it was done would not be known."""
        if begun.message.header.op_code in REGISTERS:
            return await work()
        async with asyncio.timeout(WORK_S_MAX):
            return await work()

    async def _vouched(self, answer: bytes) -> bytes:
        if self._key is None or decode_message(answer).credential:  # of a session: it has its MAC
            return answer
        self.counters.signed += 1
        return await asyncio.get_running_loop().run_in_executor(self._pool, signed, answer, self._key.private)

    def refusal(self, message: Message, octets: bytes, code: ResponseCode, why: str) -> bytes:
        """An answer without a signature, and without the flag that promises one."""
        return answer_to(message, octets, code, ErrorResponse(why.encode()).encode(), expiration=self._expires())

    def too_long(self, octets: bytes) -> bytes:
        """What is said over UDP instead of an answer that is too long for it. `octets`: of the request."""
        return self.refusal(decode_message(octets), octets, ResponseCode.ERROR, TOO_LONG)


class Waiter:
    """The sink of one question that is asked on behalf of a request to be signed."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.views: asyncio.Future[tuple[list[Standing], str]] = asyncio.get_running_loop().create_future()

    def answered(self, context: Any, question: Question, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def finish(self) -> None:
        """Each answer was handed on by itself."""

    def views_read(self, context: Any, standings: list[Standing], trouble: str) -> None:
        if not self.views.done():
            self.views.set_result((standings, trouble))
