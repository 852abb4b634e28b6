"""Memory twin of the links: members of one event loop joined by a hub that delays, cuts and heals."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from replica.consensus.edge_link_metrics import LinkMetrics
from replica.consensus.link_book import LinkBook, OwnHello
from replica.consensus.link_checks import read_link_message
from replica.consensus.link_frames import Outbox, Slot
from replica.consensus.link_port import MESSAGE_OCTETS_MAX, LinkEars, LinkLimits, Place, Refused, Table
from replica.model.errors import require
from replica.v1 import peer_pb2


class MemoryHub:
    """The network. Calls are made by number; addresses count for nothing.

    Args:
        delay_s: how long a message is on its way.
        lost_after_s: how long a cut stays unnoticed.
    """

    def __init__(self, delay_s: float = 0.0, lost_after_s: float = 0.0) -> None:
        self.delay_s, self.lost_after_s = delay_s, lost_after_s
        self._cuts: set[frozenset[int]] = set()
        self._links: dict[int, MemoryLinks] = {}

    def links(
        self,
        certified: tuple[int, str],
        own: OwnHello,
        ears: LinkEars,
        limits: LinkLimits | None = None,
        registry: CollectorRegistry | None = None,
    ) -> MemoryLinks:
        """A member's links.

        Args:
            certified: its number and name as a certificate would say; `own` may say something else.
        """
        return MemoryLinks(self, certified, own, ears, limits or LinkLimits(), registry or CollectorRegistry())

    def cut(self, one: int, other: int) -> None:
        """Nothing passes between two members, in either direction; what is on its way is lost."""
        self._cuts.add(frozenset((one, other)))
        for member, to in ((one, other), (other, one)):
            if member in self._links:
                self._links[member].cut(to)

    def cut_off(self, member: int) -> None:
        """Cut a member off from all that are there now."""
        for other in [one for one in self._links if one != member]:
            self.cut(member, other)

    def heal(self, one: int, other: int) -> None:
        """Undo a cut; they meet again at once."""
        self._cuts.discard(frozenset((one, other)))
        self.poke()

    def heal_all(self) -> None:
        """Undo all cuts."""
        self._cuts.clear()
        self.poke()

    def poke(self) -> None:
        """Somebody came: all call those they miss."""
        for links in list(self._links.values()):
            links.call_missing()

    def attach(self, number: int, links: MemoryLinks) -> None:
        self._links[number] = links
        self.poke()

    def detach(self, number: int, links: MemoryLinks) -> None:
        if self._links.get(number) is links:
            del self._links[number]

    def reach(self, one: int, other: int) -> MemoryLinks | None:
        """The links of another member; None: cut off or not there."""
        return None if frozenset((one, other)) in self._cuts else self._links.get(other)


@dataclass(slots=True)
class _Line:
    """One member's call to another while it stands, and the Hellos that it began with."""

    caller: MemoryLinks
    to: MemoryLinks
    hello: peer_pb2.Hello
    answer: peer_pb2.Hello
    outbox: Outbox
    way: deque[bytes] = field(default_factory=deque)
    flushing: bool = False
    dead: bool = False


class MemoryLinks:
    """Links of one member; made by the hub."""

    def __init__(
        self,
        hub: MemoryHub,
        certified: tuple[int, str],
        own: OwnHello,
        ears: LinkEars,
        limits: LinkLimits,
        registry: CollectorRegistry,
    ) -> None:
        self._hub, self.certified, self._own, self._limits = hub, certified, own, limits
        self.number = certified[0]
        self.book = LinkBook(own, ears, LinkMetrics(registry))
        self._places: dict[int, Place] = {}
        self._lines: dict[int, _Line] = {}
        self.taken: dict[int, _Line] = {}  # lines of others to us
        self._calling: set[int] = set()
        self._started = False
        self._told, self._told_boot = b"", 0

    @property
    def connected(self) -> frozenset[int]:
        return self.book.connected

    @property
    def failure(self) -> Exception | None:
        return self.book.failure

    def start(self) -> None:
        """Be there, and call."""
        require(not self._started and not self.book.closed, "links are started once")
        self._started, self._told, self._told_boot = True, self._hello_octets(), self._own().boot
        self._hub.attach(self.number, self)

    def set_places(self, places: Mapping[int, Place]) -> None:
        """All other members."""
        self._places = {member: place for member, place in places.items() if member != self._own().member}
        for member in [one for one in self._lines if one not in self._places]:
            self._break(self._lines[member], "it is no member any more", "its call is over")
        for member in self.book.places(self._places):
            for line in (self._lines.get(member), self.taken.get(member)):
                if line is not None:
                    self._break(line, "the cluster knows it with another journal", "its call is over")
        self.call_missing()

    def hello_changed(self) -> None:
        """Tell our Hello again to all, if it differs."""
        octets = self._hello_octets()
        if octets == self._told:
            return
        self._told = octets
        own = self._own()
        if own.boot != self._told_boot:
            self._told_boot = own.boot
            for line in (*self._lines.values(), *self.taken.values()):
                self._break(line, "this member's journal began a new life", "its call is over")
            return
        message = peer_pb2.LinkMessage(hello=own)
        for line in self._lines.values():
            self._put_newest(line, Slot.HELLO, message)
        for line in self.taken.values():
            asyncio.get_running_loop().call_later(self._hub.delay_s, line.caller.answered, line, message)

    def _hello_octets(self) -> bytes:
        return self._own().SerializeToString(deterministic=True)

    # -- send

    def send(self, member: int, message: peer_pb2.GroupMessage) -> bool:
        """See the port. Raises InvariantBroken: the message is over MESSAGE_OCTETS_MAX."""
        octets = message.SerializeToString()
        require(
            len(octets) <= MESSAGE_OCTETS_MAX, f"a message of {len(octets)} octets for a member, at most {MESSAGE_OCTETS_MAX}"
        )
        line = self._lines.get(member)
        if line is None or not line.outbox.put(octets, message.group):
            self.book.metrics.dropped(member, 1)
            return False
        self.book.metrics.sent(member, 1, len(octets))
        self._flush_soon(line)
        return True

    def send_table(self, member: int, table: Table) -> bool:
        line = self._lines.get(member)
        if line is None:
            return False
        if isinstance(table, peer_pb2.FreshnessTable):
            message = peer_pb2.LinkMessage(freshness=table)
            message.freshness.echo_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)  # one machine: a beat that came this moment
            self._put_newest(line, Slot.FRESHNESS, message)
        else:
            self._put_newest(line, Slot.PROBES, peer_pb2.LinkMessage(probes=table))
        return True

    def _put_newest(self, line: _Line, slot: Slot, message: peer_pb2.LinkMessage) -> None:
        line.outbox.put_newest(slot, message)
        self._flush_soon(line)

    def _flush_soon(self, line: _Line) -> None:
        if not line.flushing:
            line.flushing = True
            asyncio.get_running_loop().call_soon(self._flush, line)

    def _flush(self, line: _Line) -> None:
        line.flushing = False
        while (octets := line.outbox.take()) is not None:
            line.way.append(octets)
            asyncio.get_running_loop().call_later(self._hub.delay_s, self._arrive, line)

    def trouble(self, member: int) -> str:
        return self.book.trouble(member)

    async def stop(self) -> None:
        """The others lose us at once."""
        self.book.closed = True
        self._hub.detach(self.number, self)
        for line in [*self._lines.values(), *self.taken.values()]:
            self._break(line, "its process ended", "its process ended")

    # -- calls

    def call_missing(self) -> None:
        """Call all that are not called yet, in the next turn of the loop."""
        if not self._started or self.book.closed:
            return
        for member in self._places.keys() - self._lines.keys() - self._calling:
            self._call_later(member, 0.0)

    def _call_later(self, member: int, pause_s: float) -> None:
        self._calling.add(member)
        asyncio.get_running_loop().call_later(pause_s, self._call, member)

    def _call(self, member: int) -> None:
        self._calling.discard(member)
        if self.book.closed or member in self._lines or member not in self._places:
            return
        other = self._hub.reach(self.number, member)
        if other is None:
            self.book.ours_over(member, "nobody answers there")  # the hub pokes when somebody comes
            return
        hello, answer = self._own(), other.greeting()
        if fault := other.refusal_of(hello, self.certified):
            self.book.ours_over(member, f"it refuses us: {fault}")
        elif fault := self.refusal_of(answer, other.certified):
            self.book.ours_over(member, f"we refuse it: {fault}")
        else:
            line = self._lines[member] = _Line(self, other, hello, answer, Outbox(self._limits))
            other.take(line)
            self.book.ours(member, answer)
            return
        self._call_later(member, self._limits.backoff_ms_max / 1_000)

    def greeting(self) -> peer_pb2.Hello:
        """Our Hello, as an answer."""
        return self._own()

    def refusal_of(self, hello: peer_pb2.Hello, certified: tuple[int, str]) -> str:
        """Why a Hello is not taken, counted; "": it is."""
        try:
            self.book.check(hello, certified)
        except Refused as exc:
            self.book.refuse(certified[0], exc)
            return str(exc)
        return ""

    def take(self, line: _Line) -> None:
        """A checked call to us; it takes the place of an older one."""
        member = line.caller.number
        self.taken[member] = line
        self.book.theirs(member)
        self.book.greeted(line.hello)

    def answered(self, line: _Line, message: peer_pb2.LinkMessage) -> None:
        """A later Hello on the answer stream of our call."""
        if line.dead:
            return
        try:
            self.book.check(message.hello, line.to.certified)
            self.book.greeted(message.hello, line.answer)
        except Refused as exc:
            self.book.refuse(line.to.number, exc)
            self._break(line, f"we refuse it: {exc}", str(exc))

    def _arrive(self, line: _Line) -> None:
        octets = line.way.popleft()
        if not line.dead:
            line.to.hear(line, octets)

    def hear(self, line: _Line, octets: bytes) -> None:
        """What came on a call to us."""
        member = line.caller.number
        try:
            message = read_link_message(octets)
            if message.HasField("hello"):
                self.book.check(message.hello, line.caller.certified)
                self.book.greeted(message.hello, line.hello)
            else:
                self.book.hear(member, message)
        except Refused as exc:
            self.book.refuse(member, exc)
            self._break(line, f"it refuses us: {exc}", str(exc))
            if not line.caller.book.closed:
                line.caller.again(self.number)

    def again(self, member: int) -> None:
        """Call a member again after a pause."""
        if member not in self._calling:
            self._call_later(member, self._limits.backoff_ms_max / 1_000)

    def cut(self, member: int) -> None:
        """Our call to a member is cut; it is noticed by both after a while."""
        line = self._lines.get(member)
        if line is not None:
            line.dead = True
            loop = asyncio.get_running_loop()
            loop.call_later(self._hub.lost_after_s, self._break, line, "no answer", "nothing came")

    def _break(self, line: _Line, ours: str, theirs: str) -> None:
        """End a call for both sides, each with its reason."""
        line.dead = True
        caller, to = line.caller, line.to
        if caller._lines.get(to.number) is line:
            del caller._lines[to.number]
            caller.book.ours_over(to.number, ours)
        if to.taken.get(caller.number) is line:
            del to.taken[caller.number]
            to.book.theirs_over(caller.number, theirs)
        caller.call_missing()
