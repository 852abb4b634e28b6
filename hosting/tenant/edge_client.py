"""A client of registration: finds the leader, repeats what is safe to repeat, and never calls an unknown outcome failed.

Safe is what reads; what was never sent, because no connection stood; and what was refused definitely with `retry`. A change whose
answer was lost on the way has `ok = None`: look with `get`, then repeat it with a precondition.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeVar

import grpc
from google.protobuf.message import DecodeError

from hosting.tenant.edge_service import REFUSAL_KEY
from hosting.tenant.limits import REQUEST_OCTETS_MAX, RESPONSE_OCTETS_MAX
from hosting.v1 import registration_pb2, registration_pb2_grpc
from replica.model.edge_identity import Identity
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.handle.values import HandleValue, decode_values, encode_values
from replica.model.identity import TLS_NAME
from replica.model.position import Position
from replica.model.precondition import ABSENT, NOTHING, Must, Precondition

PAUSE_S_MIN, PAUSE_S_MAX = 0.01, 0.5
CONNECT_S_MAX = 1.0
HOPS_MAX = 2  # from one named leader to the next without a pause: during an election members may name each other
ATTEMPT_S_MIN = 0.1  # with less patience left nothing is sent again
READ_S_MIN = 1.0  # a member that is frozen or cut off keeps its connections: a read is asked elsewhere then, first after this
SEPARATOR = b","
OPTIONS = (
    ("grpc.max_receive_message_length", RESPONSE_OCTETS_MAX),
    ("grpc.max_send_message_length", REQUEST_OCTETS_MAX),
    ("grpc.ssl_target_name_override", TLS_NAME),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),  # what is safe to repeat is decided here alone
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
)
R = TypeVar("R")


class Done(NamedTuple):
    """What became of a change.

    Args:
        ok: True carried out; False not carried out, for certain; None not known.
        position: boundary at which it took effect. value_hash: of the record as stored.
        trouble: why not, or why it is not known.
        tries: times it was sent.
    """

    ok: bool | None
    position: Position | None = None
    value_hash: bytes = b""
    trouble: Trouble | None = None
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Found:
    """A record. `value_hash` is empty, and `values` too, when there is none."""

    identifier: str
    found: bool
    values: tuple[HandleValue, ...] = ()
    value_hash: bytes = b""
    position: Position | None = None

    @property
    def unchanged(self) -> Precondition:
        """The precondition that nobody changed it since."""
        return Precondition(Must.EQUAL, self.value_hash) if self.found else ABSENT


class Put(NamedTuple):
    """A change for `put_many`. `values`: or their octets, u32 count and the values; none: a delete."""

    identifier: str
    values: Sequence[HandleValue] | bytes = ()
    need: Precondition = NOTHING


class _Failed(Exception):
    """A call that ended without an answer. `sent`: it may have reached a member. Never leaves this file."""

    def __init__(self, trouble: Trouble, sent: bool, leaders: Sequence[str] = ()) -> None:
        super().__init__(str(trouble))
        self.trouble, self.sent, self.leaders = trouble, sent, leaders


class RegistrationClient:
    """Use as an async context manager.

    Args:
        addresses: `host:port` of one or more members; IPv6 as `[::1]:port`.
        identity: of a registrar.
        members: certificates (PEM) of the members; whoever else answers is not believed.
        patience_s: for one change or read, repetitions included.
    """

    def __init__(
        self, addresses: Sequence[str], identity: Identity, members: Sequence[bytes], *, patience_s: float = 10.0
    ) -> None:
        if not addresses or not members:
            raise ZaibeiError(Code.MALFORMED, "a client needs an address and a member's certificate")
        self._addresses, self._patience_s = [*addresses], patience_s
        self._credentials = grpc.ssl_channel_credentials(b"".join(members), identity.tls_key_pem, identity.certificate_pem)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._at = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    # ------------------------------------------------------------------------------------------------- changes
    async def put(self, identifier: str, values: Sequence[HandleValue], need: Precondition = NOTHING) -> Done:
        """Register or replace an identifier."""
        request = registration_pb2.PutRequest(identifier=identifier, values=encode_values(values), precondition=_wire(need))
        return await self._change(lambda stub, limit_s: stub.Put(request, timeout=limit_s))

    async def delete(self, identifier: str, need: Precondition = NOTHING) -> Done:
        """Remove an identifier; without a precondition harmless when it is not there."""
        request = registration_pb2.DeleteRequest(identifier=identifier, precondition=_wire(need))
        return await self._change(lambda stub, limit_s: stub.Delete(request, timeout=limit_s))

    async def append(self, identifier: str, element: str, *, kind: bytes = b"LIST") -> Done:
        """Add an element to the list in a record's value 1: read, then put if nobody changed it meanwhile."""
        try:
            [was] = await self.get([identifier])
        except ZaibeiError as exc:
            return Done(False, trouble=exc.trouble)  # nothing was sent that changes anything
        data = SEPARATOR.join([*(value.data for value in was.values[:1] if value.data), element.encode()])
        return await self.put(identifier, [HandleValue(1, kind, data)], was.unchanged)

    async def put_many(self, changes: Sequence[Put], *, at_once: int = 1_000) -> list[Done]:
        """Many changes over one stream, in the order given; one that was refused definitely is not repeated here. Where another
        member leads, or the stream was lost, the next call goes elsewhere.

        Args:
            at_once: changes a message.
        """
        done: list[Done | None] = [None] * len(changes)
        try:
            address = await self._connected(time.monotonic() + self._patience_s)
        except _Failed as failed:
            return [Done(False, trouble=failed.trouble, tries=0)] * len(changes)

        async def messages() -> AsyncIterator[registration_pb2.PutManyRequest]:
            for start in range(0, len(changes), at_once):
                part = enumerate(changes[start : start + at_once], start)
                yield registration_pb2.PutManyRequest(changes=[_change_wire(number, one) for number, one in part])

        positions: dict[bytes, Position] = {}  # by chain: one for all changes of a batch
        lost = Trouble(Code.UNKNOWN, "the stream ended without an outcome", definite=False)
        elsewhere, leaders = False, list[str]()
        try:
            async for response in self._stub(address).PutMany(messages()):
                for result in response.results:
                    done[result.number] = one = _result(result, positions)
                    if one.trouble is not None and one.trouble.code is Code.NOT_LEADER:
                        elsewhere, leaders = True, leaders or [*result.refusal.leaders]
        except grpc.aio.AioRpcError as exc:
            lost, elsewhere = Trouble(Code.UNKNOWN, _failed(exc, address).trouble.message, definite=False), True
        if elsewhere and not self._led(leaders):
            self._at += 1
        return [one or Done(None, trouble=lost) for one in done]

    async def _change(self, call: Callable[[Any, float], Awaitable[Any]]) -> Done:
        """Send a change until it has an outcome, as long as repeating it is safe."""
        tries = 0
        end = time.monotonic() + self._patience_s

        async def counted(stub: Any, limit_s: float) -> Any:
            nonlocal tries
            tries += 1
            return await call(stub, limit_s)

        try:
            answer = await self._try(counted, end, repeat_sent=False)
        except _Failed as failed:
            return Done(None if failed.sent else False, trouble=failed.trouble, tries=tries)
        return Done(True, Position.from_wire(answer.position), getattr(answer, "value_hash", b""), tries=tries)

    # ------------------------------------------------------------------------------------------------- reads
    async def get(self, identifiers: Sequence[str], *, stale: bool = False) -> list[Found]:
        """Records of identifiers of one source, all read at one moment. Raises ZaibeiError; nothing was changed."""
        request = registration_pb2.GetRequest(identifiers=identifiers, stale=stale)
        answer = await self._ask(lambda stub, limit_s: stub.Get(request, timeout=limit_s))
        position = Position.from_wire(answer.position)
        return [_found(record, position) for record in answer.records]

    async def list(
        self, prefix: str, *, page: int = 1_000, names_only: bool = False, stale: bool = False
    ) -> AsyncIterator[Found]:
        """All records of a prefix and below it, ascending. Raises ZaibeiError."""
        token = b""
        while True:
            request = registration_pb2.ListRequest(
                prefix=prefix, limit=page, page_token=token, names_only=names_only, stale=stale
            )
            answer = await self._ask(lambda stub, limit_s, request=request: stub.List(request, timeout=limit_s))  # type: ignore[misc]
            position = Position.from_wire(answer.position)
            for record in answer.records:
                yield _found(record, position)
            token = answer.next_page_token
            if not token:
                return

    async def _ask(self, call: Callable[[Any, float], Awaitable[Any]]) -> Any:
        try:
            return await self._try(call, time.monotonic() + self._patience_s, repeat_sent=True)
        except _Failed as failed:
            trouble = failed.trouble
            raise ZaibeiError(trouble.code, trouble.message, retry=trouble.retry, retry_ms=trouble.retry_ms) from None

    # ------------------------------------------------------------------------------------------------- where and how often
    async def _try(self, call: Callable[[Any, float], Awaitable[R]], end: float, *, repeat_sent: bool) -> R:
        """Raises _Failed."""
        pause_s, hops, read_s = PAUSE_S_MIN, 0, READ_S_MIN
        while True:
            address = await self._connected(end)
            try:
                left_s = max(0.001, end - time.monotonic())
                return await call(self._stub(address), min(left_s, read_s) if repeat_sent else left_s)
            except grpc.aio.AioRpcError as exc:
                read_s *= 2
                refused = _failed(exc, address)
            again = refused.trouble.retry if not refused.sent else repeat_sent
            wait_s = refused.trouble.retry_ms / 1_000  # before it a limit has no room, whoever asks
            if not again or time.monotonic() + wait_s >= end:
                if refused.sent and not refused.leaders:
                    self._at += 1  # whoever did not answer is not asked first again
                raise refused
            led = self._led(refused.leaders)
            if led and hops < HOPS_MAX:
                hops += 1
                continue
            if not led and refused.trouble.code not in (Code.BUSY, Code.OVER_QUOTA):
                self._at += 1
            pause = max(wait_s, pause_s * random.uniform(0.5, 1.5))
            await asyncio.sleep(min(pause, max(0.0, end - time.monotonic())))
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
            if end - time.monotonic() < ATTEMPT_S_MIN:
                raise refused  # definite; one more try in no time could only make it unknown

    def _led(self, leaders: Sequence[str]) -> bool:
        """Go where the leader is; False: nobody knows one."""
        for leader in leaders:
            if leader not in self._addresses:
                self._addresses.append(leader)
            self._at = self._addresses.index(leader)
            return True
        return False

    async def _connected(self, end: float) -> str:
        """An address with a connection that stands. Raises _Failed: nothing was sent."""
        while True:
            address = self._addresses[self._at % len(self._addresses)]
            try:
                async with asyncio.timeout(max(0.001, min(CONNECT_S_MAX, end - time.monotonic()))):
                    await self._channel(address).channel_ready()
                    return address
            except TimeoutError:
                if time.monotonic() >= end:
                    raise _Failed(
                        Trouble(Code.UNREACHABLE, f"{address} cannot be reached: nothing was sent", retry=True), False
                    ) from None
                self._at += 1

    def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = grpc.aio.secure_channel(address, self._credentials, options=OPTIONS)
        return channel

    def _stub(self, address: str) -> Any:
        return registration_pb2_grpc.RegistrationStub(self._channel(address))


def _failed(exc: grpc.aio.AioRpcError, address: str) -> _Failed:
    """How a call failed: by a member's refusal, or on the way, which leaves it open."""
    for key, octets in exc.trailing_metadata() or ():
        if key == REFUSAL_KEY:
            try:
                refusal = registration_pb2.Refusal.FromString(octets if isinstance(octets, bytes) else b"")
            except DecodeError:
                break
            return _Failed(_trouble(refusal), not refusal.definite, tuple(refusal.leaders))
    what = f"{address}: {exc.code().name.lower()}: {(exc.details() or '')[:300]}"
    return _Failed(Trouble(Code.UNKNOWN, f"{what}: the outcome is not known", definite=False, retry=True), True)


def _trouble(refusal: registration_pb2.Refusal) -> Trouble:
    known = refusal.code in Code._value2member_map_
    code = Code(refusal.code) if known else Code.UNKNOWN
    return Trouble(code, refusal.message, refusal.definite, refusal.retry, refusal.retry_after_ms)


def _result(result: registration_pb2.Result, positions: dict[bytes, Position]) -> Done:
    if result.HasField("position"):
        position = positions.get(result.position.chain)
        if position is None:
            position = positions[result.position.chain] = Position.from_wire(result.position)
        return Done(True, position, result.value_hash)
    return Done(False if result.refusal.definite else None, trouble=_trouble(result.refusal))


def _found(record: registration_pb2.Record, position: Position) -> Found:
    values = decode_values(record.values) if record.values else ()
    return Found(record.identifier, record.found, values, record.value_hash, position)


def _wire(need: Precondition) -> registration_pb2.Precondition:
    kind = registration_pb2.Precondition.Kind.ValueType(int(need.must))
    return registration_pb2.Precondition(kind=kind, value_hash=need.value_hash)


def _change_wire(number: int, one: Put) -> registration_pb2.Change:
    values = one.values if isinstance(one.values, bytes) else encode_values(one.values) if one.values else b""
    need = None if one.need is NOTHING else _wire(one.need)
    return registration_pb2.Change(
        number=number, identifier=one.identifier, values=values, delete=not one.values, precondition=need
    )
