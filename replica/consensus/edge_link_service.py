"""Calls of other members to us: who it is by certificate, Hello first in both directions, then what it sends is handed up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

import grpc

from replica.consensus.edge_link_call import now_ms
from replica.consensus.edge_link_metrics import STRANGER
from replica.consensus.edge_link_tls import METHOD, SERVICE, Context, chain_of, status_of
from replica.consensus.edge_link_writer import Writer
from replica.consensus.link_book import LinkBook, OwnHello
from replica.consensus.link_checks import read_link_message
from replica.consensus.link_frames import Outbox, Slot
from replica.consensus.link_port import LinkLimits, MemberTrust, Reason, Refused
from replica.model.errors import ZaibeiError
from replica.v1 import peer_pb2


class Gone(Exception):
    """The call is over, and that is nobody's fault."""


class TakenCall:
    """One call of a member to us, from its checked Hello to its end."""

    def __init__(
        self, context: Context, chain: tuple[bytes, ...], certified: tuple[int, str], hello: peer_pb2.Hello, limits: LinkLimits
    ) -> None:
        self.member, self.certified, self.hello, self.chain = hello.member, certified, hello, chain
        self.heard_ms = now_ms()
        self.stamp_ns = 0  # of its newest beat
        self._context = context
        self.writer = Writer(Outbox(limits), lambda octets: _write(context, octets))
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def end(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)

    def send_newest(self, slot: Slot, message: peer_pb2.LinkMessage) -> None:
        """Answer with what waits once."""
        self.writer.outbox.put_newest(slot, message)
        self.writer.wake()


class LinkService:
    """The server half. One live call a member: a newer one takes the place of the older.

    Args:
        on_greeted: told of each checked Hello that came on a call.
    """

    def __init__(
        self,
        book: LinkBook,
        trust: MemberTrust,
        own: OwnHello,
        limits: LinkLimits,
        on_greeted: Callable[[peer_pb2.Hello], None],
    ) -> None:
        self._book, self._trust, self._own, self._limits, self._on_greeted = book, trust, own, limits, on_greeted
        self.calls: dict[int, TakenCall] = {}
        self.open = False

    def add_to(self, server: grpc.aio.Server) -> str:
        """Put the service on a server whose credentials ask for certificates; returns its full name."""
        # Octets come as they are: what does not parse is refused and counted here, not inside the library.
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(self._link)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, {METHOD: handler}),))
        return SERVICE.full_name

    def close(self) -> None:
        """Take no calls any more and end those that stand."""
        self.open = False
        for call in list(self.calls.values()):
            call.end("this member stops")

    def tick(self, at_ms: float, *, late_ms: float, answered: Callable[[int], bool]) -> None:
        """Once in beat_ms: end calls on which nothing comes.

        Args:
            late_ms: how much too late this look itself came.
            answered: does that member answer our own call at present? Then a slow line may hold up its beats for a while.
        """
        for call in list(self.calls.values()):
            call.heard_ms += late_ms
            silent_ms = at_ms - call.heard_ms
            limit_ms = self._limits.slow_ms_max if answered(call.member) else self._limits.silent_ms_max
            if silent_ms > limit_ms:
                call.end(f"nothing came for {silent_ms:.0f} ms")

    def prove(self) -> None:
        """Are the certificates behind the calls still members'?"""
        for call in list(self.calls.values()):
            try:
                self._trust.member_of(call.chain)
            except ZaibeiError as exc:
                self._book.refuse(call.member, Refused(Reason.CERTIFICATE, str(exc)))
                call.end(str(exc))

    async def _link(self, _requests: object, context: Context) -> None:
        if not self.open:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this member is not ready, or stops")
        member = STRANGER
        try:
            chain = chain_of(context)
            certified = self._certified(chain)
            member = certified[0]
            call = TakenCall(context, chain, certified, await self._greet(context, certified), self._limits)
            await self._stand(call, context)
        except Refused as exc:
            self._book.refuse(member, exc)
            await context.abort(status_of(exc), str(exc))
        except Gone as exc:
            await context.abort(grpc.StatusCode.ABORTED, str(exc))
        except Exception as exc:
            self._book.broke(f"in a call of member {member}", exc)
            raise

    def _certified(self, chain: tuple[bytes, ...]) -> tuple[int, str]:
        try:
            return self._trust.member_of(chain)
        except ZaibeiError as exc:
            raise Refused(Reason.CERTIFICATE, exc.trouble.message) from exc

    async def _greet(self, context: Context, certified: tuple[int, str]) -> peer_pb2.Hello:
        """Hello in both directions. Raises Refused, Gone."""
        try:
            async with asyncio.timeout(self._limits.hello_ms_slow / 1_000):
                message = read_link_message(await _read(context))
        except TimeoutError:
            raise Refused(Reason.SILENT, f"no Hello within {self._limits.hello_ms_slow} ms") from None
        if not message.HasField("hello"):
            raise Refused(Reason.UNEXPECTED, "a call begins with a Hello")
        self._book.check(message.hello, certified)
        await _write(context, peer_pb2.LinkMessage(hello=self._own()).SerializeToString())
        return message.hello

    async def _stand(self, call: TakenCall, context: Context) -> NoReturn:
        older = self.calls.get(call.member)
        self.calls[call.member] = call
        if older is not None:
            older.end("a newer call of this member took its place")
        self._book.theirs(call.member)
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Future[Any]] = {loop.create_task(self._hear(call, context)), loop.create_task(call.writer.run())}
        why = "its call is over"
        try:
            self._greeted(call.hello)
            done, _ = await asyncio.wait({call.ended, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            if call.ended in done:
                raise Gone(call.ended.result())
            for task in done:
                task.result()
            raise Gone(why)
        except (Gone, Refused) as exc:
            why = str(exc)
            raise
        finally:
            if self.calls.get(call.member) is call:
                del self.calls[call.member]
                self._book.theirs_over(call.member, why)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _greeted(self, hello: peer_pb2.Hello, first: peer_pb2.Hello | None = None) -> None:
        self._book.greeted(hello, first)
        self._on_greeted(hello)

    async def _hear(self, call: TakenCall, context: Context) -> None:
        """What comes on a member's call. Raises Gone at its end, Refused."""
        while True:
            message = read_link_message(await _read(context))
            if call.ended.done():
                return  # what a call still brings after a newer one took its place is not handed up out of order
            call.heard_ms = now_ms()
            match message.WhichOneof("body"):
                case "beat":
                    call.stamp_ns = message.beat.stamp_ns
                    answer = peer_pb2.LinkBeat(serial=message.beat.serial, answer=True)
                    call.send_newest(Slot.BEAT, peer_pb2.LinkMessage(beat=answer))
                case "hello":
                    self._book.check(message.hello, call.certified)
                    self._greeted(message.hello, call.hello)
                case _:
                    self._book.hear(call.member, message)


async def _read(context: Context) -> bytes:
    """The next message. Raises Gone."""
    try:
        octets = await context.read()
    except (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError) as exc:
        raise Gone(f"its call broke: {exc}") from exc
    if not isinstance(octets, bytes):
        raise Gone("its call is over")
    return octets


async def _write(context: Context, octets: bytes) -> None:
    """Raises Gone."""
    try:
        await context.write(octets)
    except (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError) as exc:
        raise Gone(f"its call broke: {exc}") from exc
