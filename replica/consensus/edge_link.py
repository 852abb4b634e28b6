"""Links between members over gRPC: our calls to all others, their calls to us, one clock for the beats of all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random, SystemRandom
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from replica.consensus.edge_link_call import MemberCall, now_ms
from replica.consensus.edge_link_metrics import LinkMetrics
from replica.consensus.edge_link_service import LinkService
from replica.consensus.edge_link_tls import SERVER_OPTIONS, server_credentials
from replica.consensus.link_book import LinkBook, OwnHello
from replica.consensus.link_frames import Slot
from replica.consensus.link_port import MESSAGE_OCTETS_MAX, LinkEars, LinkLimits, MemberTrust, Place, Table
from replica.consensus.link_watch import Punctuality
from replica.model.errors import Code, ZaibeiError, require
from replica.v1 import peer_pb2

PROVE_MS = 1_000  # how often the certificates behind standing calls are judged again
SERVER_GRACE_S = 0.2
Address = tuple[str, int]  # host, port


class GrpcLinks:
    """Links over gRPC. `service` is put on the server that others call; see LinkServer.

    Args:
        own: our own Hello as it is now; read at each new call.
        registry: where the metrics go.
    """

    def __init__(
        self,
        own: OwnHello,
        trust: MemberTrust,
        ears: LinkEars,
        registry: CollectorRegistry,
        limits: LinkLimits | None = None,
        random: Random | None = None,
    ) -> None:
        self._own, self._trust, self._limits = own, trust, limits or LinkLimits()
        self._random = random or SystemRandom()
        self._book = LinkBook(own, ears, LinkMetrics(registry))
        self.service = LinkService(self._book, trust, own, self._limits, self._greeted)
        self._calls: dict[int, MemberCall] = {}
        self._places: dict[int, Place] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._told, self._told_boot = b"", 0

    @property
    def connected(self) -> frozenset[int]:
        return self._book.connected

    @property
    def failure(self) -> Exception | None:
        return self._book.failure

    def start(self) -> None:
        """Begin to call, and to take calls."""
        require(self._ticking is None and not self._book.closed, "links are started once")
        self._told, self._told_boot = self._hello_octets(), self._own().boot
        self.service.open = True
        self._ticking = self._run(self._tick(), "in their clock")
        self.set_places(self._places)

    def set_places(self, places: Mapping[int, Place]) -> None:
        """All other members, and where they are reached; takes effect at once."""
        own = self._own().member
        self._places = {member: place for member, place in places.items() if member != own}
        if self._ticking is None or self._book.closed:
            return
        for member in [one for one in self._calls if one not in self._places]:
            call, task = self._calls.pop(member), self._tasks.pop(member)
            call.end("it is no member any more")
            self._book.ours_over(member, "it is no member any more")
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        for member, place in self._places.items():
            if member in self._calls:
                self._calls[member].move(place)
                continue
            call = MemberCall(member, place, self._book, self._trust, self._own, self._limits, self._random)
            self._calls[member] = call
            self._tasks[member] = self._run(call.run(), f"calling member {member}")
        for member in self._book.places(self._places):
            for one in (self._calls.get(member), self.service.calls.get(member)):
                if one is not None:
                    one.end("the cluster knows it with another journal")

    def hello_changed(self) -> None:
        """Tell our Hello again on all calls, if it differs from the one told last."""
        octets = self._hello_octets()
        if octets == self._told:
            return
        self._told = octets
        own = self._own()
        if own.boot != self._told_boot:  # a new life: a call carries one alone, so all begin anew
            self._told_boot = own.boot
            why = "this member's journal began a new life"
            for call in self._calls.values():
                call.end(why)
            for taken in self.service.calls.values():
                taken.end(why)
            return
        message = peer_pb2.LinkMessage(hello=own)
        for call in self._calls.values():
            call.send_newest(Slot.HELLO, message)
        for taken in self.service.calls.values():
            taken.send_newest(Slot.HELLO, message)

    def _hello_octets(self) -> bytes:
        return self._own().SerializeToString(deterministic=True)

    def send(self, member: int, message: peer_pb2.GroupMessage) -> bool:
        """See the port. Raises InvariantBroken: the message is over MESSAGE_OCTETS_MAX."""
        octets = message.SerializeToString()
        require(
            len(octets) <= MESSAGE_OCTETS_MAX, f"a message of {len(octets)} octets for a member, at most {MESSAGE_OCTETS_MAX}"
        )
        call = self._calls.get(member)
        return call is not None and call.send(octets, message.group)

    def send_table(self, member: int, table: Table) -> bool:
        call = self._calls.get(member)
        if call is None:
            return False
        if isinstance(table, peer_pb2.FreshnessTable):
            message, taken = peer_pb2.LinkMessage(freshness=table), self.service.calls.get(member)
            message.freshness.echo_ns = 0 if taken is None else taken.stamp_ns
            return call.send_newest(Slot.FRESHNESS, message)
        return call.send_newest(Slot.PROBES, peer_pb2.LinkMessage(probes=table))

    def trouble(self, member: int) -> str:
        return self._book.trouble(member)

    async def stop(self) -> None:
        """End all calls; the server of the other half is stopped by its owner."""
        self._book.closed = True
        self.service.close()
        tasks = [*self._tasks.values(), *self._ending, *([self._ticking] if self._ticking is not None else [])]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _greeted(self, hello: peer_pb2.Hello) -> None:
        """A member calls us: so it can be called, and one that was started again is another process than the one we called."""
        call = self._calls.get(hello.member)
        if call is None:
            return
        if call.stands and call.boot != hello.boot:
            call.end("it was started again")
        call.poke()

    def _answers(self, member: int) -> bool:
        call = self._calls.get(member)
        return call is not None and call.stands

    async def _tick(self) -> None:
        punctuality = Punctuality(self._limits, now_ms())
        proved_ms = now_ms()
        while True:
            await asyncio.sleep(self._limits.beat_ms / 1_000)
            at_ms = now_ms()
            late_ms = punctuality.late_ms(at_ms)
            self.service.tick(at_ms, late_ms=late_ms, answered=self._answers)
            for call in self._calls.values():
                taken = self.service.calls.get(call.member)
                call.heard_ms = None if taken is None else taken.heard_ms
                call.tick(at_ms, late_ms)
            if at_ms - proved_ms >= PROVE_MS:
                proved_ms = at_ms
                self.service.prove()
                for call in self._calls.values():
                    call.prove()

    def _run(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)

        def over(done: asyncio.Task[None]) -> None:
            exc = None if done.cancelled() else done.exception()
            if isinstance(exc, Exception):
                self._book.broke(what, exc)

        task.add_done_callback(over)
        return task


class LinkServer:
    """The port other members call: `[cluster] listen`. `addresses`: as bound, in the order asked for.

    Args:
        add: put services on the server: links, and what else members offer each other.
    """

    def __init__(self, trust: MemberTrust, add: Sequence[Callable[[grpc.aio.Server], object]]) -> None:
        self.addresses: tuple[Address, ...] = ()
        self._trust = trust
        self._server = grpc.aio.server(options=list(SERVER_OPTIONS))
        for put in add:
            put(self._server)

    async def start(self, listen: Sequence[Address]) -> None:
        """Raises ZaibeiError(INVALID_CONFIG): an address is taken or not ours."""
        bound = []
        for host, port in listen:
            text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            try:
                bound.append((host, self._server.add_secure_port(text, server_credentials(self._trust))))
            except RuntimeError as exc:
                raise ZaibeiError(Code.INVALID_CONFIG, f"cannot listen for members on {text}: {exc}") from exc
        await self._server.start()
        self.addresses = tuple(bound)

    async def stop(self) -> None:
        """After `GrpcLinks.stop`, so that others hear why."""
        await self._server.stop(SERVER_GRACE_S)
