"""A member's side of its cluster: the control group, the host of all groups, links to others. Composition; rules are elsewhere.

Way of a start: control group replayed (it says at once which groups live here) -> sources opened on their seats -> links begin to
call -> Hellos decide who may vote -> leaders tell, care begins.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version

from prometheus_client import CollectorRegistry

from replica.cluster.edge_keep import control_keep
from replica.cluster.machine import ControlMachine
from replica.cluster.state import CONTROL_ID, CONTROL_NAME, FIRST_MEMBER, ControlState, GroupRecord, MemberState
from replica.consensus.edge_apply import ApplyThread
from replica.consensus.edge_journal import Journal
from replica.consensus.edge_link import GrpcLinks, LinkServer
from replica.consensus.edge_link_trust import TrustedMembers
from replica.consensus.group import GroupLog
from replica.consensus.host import GroupHost
from replica.consensus.host_limits import HostLimits
from replica.consensus.link_port import Place
from replica.consensus.raft.membership import Membership
from replica.member.edge_asks import Answerer, AskService
from replica.member.edge_peers import Peers
from replica.member.group_files import ControlFiles, StoresHolder
from replica.member.settings import Address, ClusterSettings, MemberSettings
from replica.model.audit import seal_entry
from replica.model.errors import Code, ZaibeiError
from replica.model.position import LINEAGE_OCTETS
from replica.store.edge_store import SourceStore
from replica.takeover.detector import Look, Observation
from replica.takeover.edge_runner import boottime_ns
from replica.transfer.edge_serve import TransferService
from replica.v1 import peer_pb2
from replica.v1.transfer_pb2_grpc import add_TransferServicer_to_server

log = logging.getLogger("zaibei.cluster")
NS_PER_MS = 1_000_000
OBSERVED_NS_MAX = 1_000_000_000  # what another observer said longer ago is no evidence


class ClusterSide:
    """See the module.

    Args:
        on_failed: the process must stop.
        store_of: a source's store in service here.
    `on_control` is called on the event loop when the control group decided something, `answer` with questions of members.
    """

    def __init__(
        self,
        settings: MemberSettings,
        cluster: ClusterSettings,
        journal: Journal,
        apply: ApplyThread,
        registry: CollectorRegistry,
        on_failed: Callable[[BaseException], None],
        store_of: Callable[[str], SourceStore | None],
    ) -> None:
        self.settings, self.cluster, self._on_failed = settings, cluster, on_failed
        self._journal = journal
        self.me = cluster.card.number
        self.trust = TrustedMembers(settings.identity, lambda: cluster.trusts)
        self.hellos: dict[int, peer_pb2.Hello] = {}
        self.observed: dict[int, tuple[int, peer_pb2.ProbeTable]] = {}
        self.feeds: tuple[str, ...] = cluster.feeds
        self.answers: tuple[str, ...] = cluster.answers
        self.on_control: Callable[[ControlState], None] = lambda _state: None
        self.answer: Answerer | None = None
        self._places: dict[int, Place] = {}
        self.links = GrpcLinks(self.hello, self.trust, self, registry)
        self.peers = Peers(self.trust, lambda: self._places)
        self.probed_by = Peers(self.trust, lambda: self._places)  # their own: a look that fails ends nobody else's call
        limits = HostLimits(journal_keep_octets=settings.journal_keep_octets)
        self.host = GroupHost(self.me, journal.boot, self.links, boottime_ns, limits=limits, raise_boot=journal.raise_boot)
        self.host.name_of = self._name_of
        self.host.risen = self.links.hello_changed
        self.machine = ControlMachine(control_keep(settings.data))
        self.control_files = ControlFiles(self.machine, self.peers, CONTROL_ID)
        self.control = GroupLog(
            CONTROL_NAME,
            journal,
            self.machine,
            apply,
            on_out_of_service=self._control_lost,
            seat=self.host.seat(CONTROL_ID, Membership(voters=frozenset({FIRST_MEMBER}))),
            reseed_command="zaibei cluster reseed plan {group} MEMBER",
            prepare=lambda entry: seal_entry(CONTROL_NAME, entry, settings.audit_keys),
        )
        self.transfers = TransferService(StoresHolder(store_of), self.trust, cluster.card.cluster, self._source_of)
        self.asks = AskService(self.trust, self._answer)
        self._server: LinkServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.link_addresses: tuple[Address, ...] = ()

    # -- life

    async def open(self) -> None:
        """Replay the control group; nobody is called yet. Raises ZaibeiError."""
        self._loop = asyncio.get_running_loop()
        self.machine.subscribe(self._on_state)
        self.host.add(CONTROL_ID, self.control, self.control_files)
        await self.control.start()
        self.host.started(CONTROL_ID)
        self._look_at_places(self.state)

    async def start(self) -> None:
        """Listen, call the others, let time pass. Raises ZaibeiError(INVALID_CONFIG): an address is taken."""
        add = [self.links.service.add_to, self.asks.add_to, lambda server: add_TransferServicer_to_server(self.transfers, server)]
        self._server = LinkServer(self.trust, add)
        await self._server.start(self.cluster.links_listen)
        self.link_addresses = self._server.addresses
        self.links.start()
        self.links.set_places(self._places)
        self.host.start()

    async def stop(self) -> None:
        """Links first, so that others hear that we go; the control group last."""
        await self.links.stop()
        if self._server is not None:
            await self._server.stop()
        await self.transfers.close()
        await self.peers.close()
        await self.probed_by.close()
        await self.control.stop()
        await self.host.stop()

    def _control_lost(self, _group: str, error: ZaibeiError) -> None:
        log.error("control group out of service", extra={"fields": {"why": str(error)}})
        if error.code is Code.DISK_FAILED:  # it is the disk of all groups, and none of its flushes is trusted any more
            self._on_failed(error)

    # -- the control group's decisions

    @property
    def state(self) -> ControlState:
        return self.machine.state

    def record(self, source: str) -> GroupRecord | None:
        """A source's group; None: the control group has not made it yet."""
        return self.state.group(source)

    def lives_here(self, record: GroupRecord) -> bool:
        """True when the group shall be open at this member: it holds a place, or still is in the log's membership."""
        if self.me in record.wanted.everyone:
            return True
        told = self.host.stands(record.ident)
        if told is None:
            return self._journal.knows(record.name)
        voters = told.row.voters
        return self.me in {*voters.voters, *voters.outgoing, *voters.learners, *voters.learners_next}

    def _name_of(self, number: int) -> str:
        member = self.state.member(number)
        return f"member {number}" if member is None else member.name

    def _source_of(self, ident: int) -> str:
        name = next((group.name for group in self.state.groups if group.ident == ident), None)
        if name is None:
            raise ZaibeiError(Code.NOT_FOUND, f"no group {ident} is known at this member", retry=True)
        return name

    def _on_state(self, state: ControlState) -> None:
        """On the apply thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._decided, state)

    def _decided(self, state: ControlState) -> None:
        self._look_at_places(state)
        self.on_control(state)

    def _look_at_places(self, state: ControlState) -> None:
        """Who may be called, and where: the card first, what the control group knows over it."""
        places = {one.number: Place(one.addresses) for one in self.cluster.card.others() if one.addresses}
        for hello in self.hellos.values():
            for place in hello.places:
                if place.links and place.member not in places:
                    places[place.member] = Place(tuple(place.links))
        for member in state.members:
            if member.state is MemberState.REMOVED:
                places.pop(member.number, None)
            elif member.links:
                places[member.number] = Place(member.links, member.journal)
        places.pop(self.me, None)
        self._places = places
        if self._server is not None:
            self.links.set_places(places)

    # -- what we say of ourselves

    def hello(self) -> peer_pb2.Hello:
        """Our own Hello as it is now."""
        card = self.cluster.card
        return peer_pb2.Hello(
            format=1,
            cluster=card.cluster,
            lineage=card.lineage,
            member=self.me,
            name=card.name,
            journal=self._journal.identity,
            boot=self.host.boot,
            zone=self.cluster.zone,
            version=version("zaibei"),
            groups=self.host.memory(),
            sources=self._sources_hash(),
            places=[self._own_place(), *self._known_places()],
        )

    def _own_place(self) -> peer_pb2.MemberPlace:
        reach = self.cluster.reach or tuple(_text(*address) for address in self.link_addresses)
        return peer_pb2.MemberPlace(
            member=self.me,
            name=self.cluster.card.name,
            zone=self.cluster.zone,
            links=reach,
            feeds=self.feeds,
            answers=self.answers,
        )

    def _known_places(self) -> list[peer_pb2.MemberPlace]:
        return [
            peer_pb2.MemberPlace(member=one.number, name=one.name, zone=one.zone, links=one.links)
            for one in self.state.living()
            if one.number != self.me and one.links
        ]

    def _sources_hash(self) -> bytes:
        """Differs when two members' files name different sources, or the same ones otherwise."""
        rows = sorted(
            f"{one.name}\0{sorted(one.prefixes)}\0{sorted(one.case_sensitive)}\0{one.mode}\0{bool(one.hosted)}"
            for one in self.settings.sources
        )
        return sha256("\n".join(rows).encode()).digest()

    def sources_changed(self, settings: MemberSettings) -> None:
        """A source was added while we run."""
        self.settings = settings
        self.links.hello_changed()

    def tell_answers(self, answers: tuple[str, ...]) -> None:
        """Where programs reach this member's registration; told to all others."""
        self.answers = self.answers or answers
        self.links.hello_changed()

    # -- LinkEars

    def connected(self, member: int, hello: peer_pb2.Hello) -> None:
        """See LinkEars."""
        self.hellos[member] = hello
        self.host.connected(member, hello)
        self._look_at_places(self.state)

    def lost(self, member: int, why: str) -> None:
        """See LinkEars."""
        self.observed.pop(member, None)
        self.host.lost(member, why)

    def received(self, member: int, messages: Sequence[peer_pb2.GroupMessage]) -> None:
        """See LinkEars."""
        self.host.received(member, messages)

    def freshness(self, member: int, table: peer_pb2.FreshnessTable) -> None:
        """See LinkEars."""
        self.host.freshness(member, table)

    def probes(self, member: int, table: peer_pb2.ProbeTable) -> None:
        """See LinkEars."""
        self.observed[member] = (boottime_ns(), table)

    def tell_probes(self, observations: Mapping[str, Observation]) -> None:
        """Tell all others what our observer finds of each source."""
        table = peer_pb2.ProbeTable(observer=self.settings.name, machine=self.settings.machine)
        for source, seen in observations.items():
            table.findings.add(source=source, look=seen.look.value, pair=seen.pair, alone=seen.alone, heard_ms=seen.heard_ms)
        if table.findings:
            for member in self.links.connected:
                self.links.send_table(member, table)

    def observations(self, source: str) -> list[Observation]:
        """What the observers of other members find of a source now.

        Their last sign of life is counted on as if the table had taken no time: it is called younger than it is, never older.
        """
        found, now_ns = [], boottime_ns()
        for at_ns, table in self.observed.values():
            if now_ns - at_ns > OBSERVED_NS_MAX:
                continue
            for one in table.findings:
                if one.source == source and one.look in set(Look):
                    heard_ms = one.heard_ms + (now_ns - at_ns) // NS_PER_MS if one.HasField("heard_ms") else None
                    found.append(Observation(table.observer, table.machine, Look(one.look), one.pair, one.alone, heard_ms))
        return found

    async def _answer(self, member: int, question: peer_pb2.MemberQuestion) -> peer_pb2.MemberAnswer:
        if question.WhichOneof("body") == "control":
            return peer_pb2.MemberAnswer(octets=self.control_files.offered(question.control))
        if self.answer is None:
            raise ZaibeiError(Code.STOPPING, "this member is starting", retry=True)
        return await self.answer(member, question)

    # -- for sources

    def holders(self, source: str) -> list[int]:
        """Other members that hold a source and are connected, the one that leads it first."""
        record = self.record(source)
        if record is None:
            return []
        told = self.host.stands(record.ident)
        leader = 0 if told is None else told.leader
        there = (record.wanted.everyone & self.links.connected) - {self.me}
        return sorted(there, key=lambda number: (number != leader, number))

    def leader_feeds(self, ident: int) -> tuple[str, ...]:
        """Where a group's leader takes the feed; empty: not known."""
        told = self.host.stands(ident)
        member = None if told is None else self.state.member(told.leader)
        return () if member is None else member.feeds

    def leader_answers(self, ident: int) -> tuple[str, ...]:
        """Where a group's leader answers programs; empty: not known."""
        told = self.host.stands(ident)
        member = None if told is None else self.state.member(told.leader)
        return () if member is None else member.answers


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_card(settings: ClusterSettings) -> None:
    """Raises ZaibeiError(DAMAGED)."""
    if len(settings.card.lineage) != LINEAGE_OCTETS:
        raise ZaibeiError(Code.DAMAGED, "the card names no lineage: restore it")


def now_ms() -> int:
    """Unix milliseconds, for shown times."""
    return time.time_ns() // 1_000_000
