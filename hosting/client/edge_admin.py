"""Reads and changes records at one Handle server over TCP, with the key of an administrator."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence

from hosting.client.admin import AdminKey, add_request, answer_of, challenge_in, judge_answer, modify_request, remove_request
from hosting.client.edge_tcp import TcpPool
from hosting.client.lookup import FLAGS_PLAIN, Question, Rc, Server
from hosting.client.wire import REQUEST_ID_MAX, decode_reply, encode_question
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.codes import OpFlag
from replica.model.handle.faults import CodecMisuse, ProtocolFault
from replica.model.handle.proofs import SALT_OCTETS
from replica.model.handle.values import HandleValue

ANSWER_S_MAX = 2.0
Key = Callable[[], AdminKey]


class HandleAdmin:
    """One server and one key; one per event loop. Close it when done.

    A change that was sent and not answered has an unknown outcome: read before it is repeated.
    """

    def __init__(self, server: Server, key: Key | None = None, answer_s_max: float = ANSWER_S_MAX) -> None:
        """`key`: asked at each change, so that its file may be replaced; None: it only reads."""
        self.server, self._key = server, key
        self._pool = TcpPool(answer_s_max, answer_s_max)

    async def close(self) -> None:
        """End its connection."""
        await self._pool.close()

    async def read(self, handle: str, types: Sequence[str] = ()) -> tuple[HandleValue, ...] | None:
        """Values anybody may read, as this server itself has them; None: it has no such record.

        Raises:
            ZaibeiError(UNREACHABLE): it cannot say. ZaibeiError(MALFORMED): nobody can be asked for that.
        """
        # Whoever changes a record wants the authority's word; whoever looks what clients find wants what they are told.
        number, flags = _number(), FLAGS_PLAIN | (OpFlag.AUTHORITATIVE if self._key is not None else 0)
        try:
            request = encode_question(Question(handle, types=tuple(types), flags=flags), number)
            reply = decode_reply(await self._pool.ask(self.server, request, number), request, int(time.time()))
        except ProtocolFault as fault:
            raise ZaibeiError(Code.UNREACHABLE, f"{self.server}: {fault.detail}", definite=False, retry=True) from fault
        except (CodecMisuse, UnicodeEncodeError) as exc:
            raise ZaibeiError(Code.MALFORMED, f"cannot ask for {handle[:80]!r}: {exc}") from exc
        if reply.code == Rc.NOT_FOUND:
            return None
        if reply.code not in (Rc.SUCCESS, Rc.VALUES_NOT_FOUND):
            text = f"{self.server} cannot say what {handle} is: code {reply.code} {reply.message[:200]}"
            raise ZaibeiError(Code.UNREACHABLE, text, retry=True)
        return reply.values

    async def add(self, handle: str, values: Sequence[HandleValue]) -> None:
        """Raises ZaibeiError: as admin.judge_answer says; UNREACHABLE and not definite: it is not known whether it was done."""
        await self._change(f"add to {handle}", lambda number: add_request(handle, values, number))

    async def modify(self, handle: str, values: Sequence[HandleValue]) -> None:
        """Raises ZaibeiError: as `add`."""
        await self._change(f"modify {handle}", lambda number: modify_request(handle, values, number))

    async def remove(self, handle: str, indexes: Sequence[int]) -> None:
        """Raises ZaibeiError: as `add`."""
        await self._change(f"remove from {handle}", lambda number: remove_request(handle, indexes, number))

    async def _change(self, what: str, request_of: Callable[[int], bytes]) -> None:
        if self._key is None:
            raise ZaibeiError(Code.NOT_AUTHORISED, f"no key is configured for {self.server}: it is only read")
        key, number = self._key(), _number()
        said = f"{self.server}, {what}"
        request = request_of(number)
        try:
            answer = await self._pool.ask(self.server, request, number)
            found = challenge_in(answer, request)
            if found is not None:
                number = _number()
                salt = secrets.token_bytes(SALT_OCTETS)
                proof = await asyncio.to_thread(answer_of, key, *found, number, salt)  # PBKDF2: 10 ms, and bounded
                answer = await self._pool.ask(self.server, proof, number)
            judge_answer(answer, said)
        except ProtocolFault as fault:
            raise ZaibeiError(Code.UNREACHABLE, f"{said}: {fault.detail}", definite=False, retry=True) from fault


def _number() -> int:
    return secrets.randbelow(REQUEST_ID_MAX) + 1
