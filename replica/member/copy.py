"""One source on one member: its group, feed, answers and takeover, joined. Built and connected here, nothing decided."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from replica.consensus.edge_apply import ApplyThread
from replica.consensus.edge_journal import Journal
from replica.consensus.group import GroupLog
from replica.consensus.group_limits import GroupLimits
from replica.consensus.port import StartReport
from replica.consensus.recovery import RESEED_COMMAND
from replica.consensus.seat import ALONE
from replica.feed.desk import Setup
from replica.feed.edge_driver import FeedDriver
from replica.feed.edge_metrics import FeedMetrics
from replica.feed.limits import FeedLimits
from replica.feed.ports import OwnerOf
from replica.member.answers import SourceAnswers
from replica.member.cluster_side import ClusterSide
from replica.member.failback import failback_of
from replica.member.group_port import GroupPort, propose_and_wait
from replica.member.hosted import HostedPort, found
from replica.member.placed import Placed
from replica.member.settings import Address, MemberSettings, SourceSettings
from replica.member.staging import Staging
from replica.model.audit import seal_entry
from replica.model.drained import Drained
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import prefix_key, prefix_text
from replica.model.identity import ends_s_of
from replica.model.node import Endpoint
from replica.model.outcome import Proposal
from replica.model.prefix_moves import MoveStep, newest, with_moves
from replica.model.signing import Signer
from replica.store.edge_rocks import StoreBudget
from replica.store.edge_store import SourceStore
from replica.takeover.detector import DetectorLimits, Observation
from replica.takeover.edge_beats import BeatTable
from replica.takeover.edge_ladder import LadderSettings
from replica.takeover.edge_metrics import TakeoverMetrics
from replica.takeover.edge_probe import PacedProbe
from replica.takeover.edge_runner import RunnerConfig, TakeoverRunner, boottime_ns
from replica.takeover.families import Families
from replica.takeover.machine import Policy
from replica.takeover.ports import Heard, PublishedSites, heard_of
from replica.takeover.threshold import ThresholdLimits
from replica.v1 import entry_pb2, source_pb2

ARMED_BEAT_MS = 50  # SEMANTICS 6
UNARMED_BEAT_MS = 500
OWNERSHIP_S_MAX = 10.0
PROBE_FRESH_NS = 2_000_000_000
NOBODYS_KEY = bytes(32)  # of a hosted source: no stream of it is ever let in

LEAD_AGAIN_S = 0.2
BARRIER_S_MAX = 3.0
CLUSTER_RESEED_COMMAND = "zaibei cluster reseed plan {group} MEMBER"

log = logging.getLogger("zaibei.member")

Published = Callable[[bytes], PublishedSites]


@dataclass(frozen=True, slots=True)
class Around:
    """What all copies of a member share.

    Args:
        owner_of: longest owned prefix of the whole cluster -> source.
        published: a prefix's own sites as its parent's copy holds them.
        out_of_service: called when only this group can no longer go on; on_broken: when the process must stop.
        lineage: of this cluster.
        beats: who may send datagram beats; beats_reach: addresses sources send them to.
        side: this member's side of its cluster; None: it works alone.
        on_lead: called when a source's group begins to be led here, and when that ends.
        propose_at: commits an entry of a group (by its id) at whatever member leads it.
    """

    settings: MemberSettings
    journal: Journal
    apply: ApplyThread
    budget: StoreBudget
    lineage: bytes
    owner_of: OwnerOf
    published: Published
    out_of_service: Callable[[str, ZaibeiError], None]
    on_broken: Callable[[BaseException], None]
    beats: BeatTable
    beats_reach: tuple[Address, ...] = ()
    feed_metrics: FeedMetrics | None = None
    takeover_metrics: TakeoverMetrics | None = None
    side: ClusterSide | None = None
    on_lead: Callable[[str, bool], Awaitable[None]] | None = None
    propose_at: Callable[[int, entry_pb2.Entry], Awaitable[object]] | None = None
    addresses: Families = field(default_factory=lambda: Families(b"", 0))


class SourceCopy:
    """See the module. `store`, `log`, `driver`, `answers` and `runner` are read by status, metrics and tests."""

    def __init__(self, settings: SourceSettings, around: Around, store: SourceStore) -> None:
        self.settings, self._around, self.store = settings, around, store
        member = around.settings
        self.placed = placed = None if around.side is None else Placed.at(around.side, settings, self)
        self.led = asyncio.Event()  # proposals are admitted here, and what the group lacked was committed
        self._ended = asyncio.Event()
        self._role_moved = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None
        self._staging: asyncio.Task[None] | None = None
        self.log = GroupLog(
            settings.name,
            around.journal,
            store,
            around.apply,
            limits=GroupLimits(keep_octets_max=member.journal_keep_octets),
            on_out_of_service=around.out_of_service,
            on_role=self._on_role,
            reopen=store.reopen,
            seat=ALONE if placed is None else placed.seat,
            reseed_command=RESEED_COMMAND if placed is None else CLUSTER_RESEED_COMMAND,
            prepare=lambda entry: seal_entry(settings.name, entry, member.audit_keys),
        )
        self.group = GroupPort(self.log, store)
        self.hosted = self._hosted()
        metrics = around.feed_metrics.of(settings.name) if around.feed_metrics is not None else None
        target = None if settings.peer is None else settings.rpo
        self.driver = FeedDriver(self._setup(), self.group, metrics, beats=self, target=target)
        self.answers = SourceAnswers(
            store,
            self.driver.age,
            settings.horizon_ms,
            probes_alive=self.probes_alive,
            in_service=self._in_service,
            boottime_ns=boottime_ns,
            leader_silent_ms=(lambda: 0) if placed is None else placed.silent_ms,
        )
        self.runner = TakeoverRunner(
            TakeoverView(self),
            RunnerConfig(
                own_site=member.own_site if settings.operable else b"",
                observer=member.name,
                machine=member.machine,
                policy=Policy(automatic=settings.automatic and settings.operable),
                limits=DetectorLimits(armed=settings.armed),
                shadow_prefix=member.shadow_prefix,
                identity_ends_s=lambda: ends_s_of(member.identity.latest().certificate_pem),
                ladder=self._ladder(),
                addresses=around.addresses,
                registration_probe=PacedProbe(),
            ),
            member.publishers,
            PacedProbe(late=self._answered_late),
            around.takeover_metrics,
            on_broken=around.on_broken,
        )
        self.failback = failback_of(self, settings.name, member.data, member.ask)

    def _answered_late(self) -> None:
        self.runner.answered_late()

    def _ladder(self) -> LadderSettings | None:
        """How its registrations may be taken over; None: they may not."""
        member, settings = self._around.settings, self.settings
        if settings.peer is None or not settings.operable:
            return None
        return LadderSettings(
            holder=member.name,
            signer=member.identity.signer,
            issuers=member.issuers,
            registration=settings.registration_probes,
            limits=ThresholdLimits(time_ms=settings.unavailable_ms),
        )

    def _hosted(self) -> HostedPort:
        """What registration needs of it, wherever it is the authority: hosted, or taken over."""
        placed = self.placed
        if placed is None:
            return HostedPort(self.log, self.store, self.settings, self._around.owner_of)
        return HostedPort(
            self.log,
            self.store,
            self.settings,
            self._around.owner_of,
            barrier=lambda: self.log.barrier(BARRIER_S_MAX),
            leaders=lambda: placed.side.leader_answers(placed.ident),
        )

    @staticmethod
    def open(settings: SourceSettings, around: Around) -> SourceCopy:
        """Open the store. Raises ZaibeiError(DAMAGED, DISK_FULL, DISK_FAILED, CONFLICT)."""
        folder = store_folder(around.settings.data, settings.name)
        return SourceCopy(settings, around, SourceStore.open(folder, settings.name, around.budget))

    def _setup(self) -> Setup:
        member, settings = self._around.settings, self.settings
        return Setup(
            source=settings.name,
            source_key=NOBODYS_KEY if settings.peer is None else settings.peer.signing_key,
            pinned=settings.written,
            member=member.name,
            signer=member.identity.signer,
            lineage=self._around.lineage,
            random=secrets.token_bytes,
            owner_of=self._around.owner_of,
            limits=FeedLimits(beat_interval_ms=ARMED_BEAT_MS if settings.armed else UNARMED_BEAT_MS),
            members_needed=lambda: len(self.log.membership.voters) // 2 + 1,
            beat_to=tuple(
                source_pb2.Endpoint(protocol="udp", address=host, port=port) for host, port in self._around.beats_reach
            ),
        )

    @property
    def lineage(self) -> bytes:
        """Of this cluster; in every epoch it grants."""
        return self._around.lineage

    @property
    def signer(self) -> Signer:
        """Signs grants for this source."""
        return self._around.settings.identity.signer

    # -- life

    async def start(self, first: Sequence[entry_pb2.Entry] = ()) -> StartReport:
        """Replay what the store lacks, then state what this source owns. Raises ZaibeiError.

        Args:
            first: entries of ours to commit before anything else.
        """
        if self.placed is not None:
            self.placed.add(self)
        report = await self.log.start()
        for entry in first:
            await propose_and_wait(self.log, entry, OWNERSHIP_S_MAX)
        if self.placed is None:
            await self._begin_to_lead()
            self.led.set()
        else:
            self.placed.started()
            self._begin_staging(self.placed)
            self._follower = self._kept_up(self._follow_role(), f"role of {self.settings.name}")
        if self.settings.peer is not None:  # else it has no node that could die, or that it could leave for
            await self.runner.start()
            self.failback.start()
        return report

    def _begin_staging(self, placed: Placed) -> None:
        if self.settings.peer is None or self._around.propose_at is None:
            return
        propose_at, side = self._around.propose_at, placed.side
        self.store.fed = True

        def number_of(name: str) -> int:
            member = side.state.member_named(name)
            return 0 if member is None else member.number

        staging = Staging(
            self.store,
            placed.files,
            self._around.settings.name,
            number_of,
            lambda entry: propose_at(placed.ident, entry),
            lambda: side.host.hungry(placed.ident),
        )
        self._staging = self._kept_up(staging.run(), f"staging {self.settings.name}")

    def _kept_up(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """A task that runs as long as this copy does: the process stops with whatever ends it otherwise."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._on_ended)
        return task

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.critical("a fault of this program", exc_info=exc, extra={"fields": {"where": task.get_name()}})
            self._around.on_broken(exc)

    async def _begin_to_lead(self) -> None:
        """Commit what the group lacks: that it is hosted, what it owns."""
        state = self.store.state()
        left = self.settings.peer is not None and state.granted is not None and not state.lives_here
        if self.settings.hosted and not left:
            await found(self.log, self.store, self.lineage, self.signer)
        await self._state_ownership()

    def _on_role(self, _leading: bool) -> None:
        self._role_moved.set()

    async def _follow_role(self) -> None:
        """One after the other: begin to lead, or let go of what only a leader does. Until cancelled."""
        while True:
            await self._role_moved.wait()
            self._role_moved.clear()
            try:
                if self.log.leader and not self.led.is_set():
                    await self._begin_to_lead()
                    if self.log.leader:
                        self.led.set()
                        await self._tell_lead(True)
                elif not self.log.leader and self.led.is_set():
                    self.led.clear()
                    await self._tell_lead(False)
                    await self.driver.stop()
            except ZaibeiError as exc:
                log.warning("source not led yet", extra={"fields": {"source": self.settings.name, "why": str(exc)}})
                await asyncio.sleep(LEAD_AGAIN_S)
                self._role_moved.set()

    async def turn(self) -> None:
        """Returns when this member leads the source. Raises ZaibeiError(UNREACHABLE, retry): this copy was taken out."""
        while not self.led.is_set():
            waits = [asyncio.ensure_future(event.wait()) for event in (self.led, self._ended)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if self._ended.is_set():
                raise ZaibeiError(Code.UNREACHABLE, f"{self.settings.name} was taken out of this member: call again", retry=True)

    async def _tell_lead(self, leading: bool) -> None:
        if self._around.on_lead is not None:
            await self._around.on_lead(self.settings.name, leading)

    def _in_service(self) -> bool:
        """What is held here may be answered: the store is whole, and this member remembers what it promised."""
        answers = self.placed is None or self.placed.answers()
        return answers and self.log.failure is None and not self.store.behind

    async def _state_ownership(self) -> None:
        """Commit the configured prefixes when they differ from the committed ones (SEMANTICS 9)."""
        state, settings = self.store.state(), self.settings
        prefixes = with_moves(tuple(prefix_key(prefix) for prefix in settings.prefixes), state.moves)
        sensitive = tuple(prefix_key(prefix) for prefix in settings.case_sensitive)
        came = newest(state.moves).values()
        sensitive += tuple(
            one.prefix for one in came if one.step is MoveStep.ACQUIRED and one.case_sensitive and one.prefix not in sensitive
        )
        same = (sorted(state.prefixes), sorted(state.case_sensitive), state.mode) == (
            sorted(prefixes),
            sorted(sensitive),
            settings.mode,
        )
        if state.ownership_version and same:
            return
        ownership = entry_pb2.Ownership(
            version=state.ownership_version + 1,
            prefixes=[prefix_text(prefix) for prefix in prefixes],
            mode=source_pb2.Description.Mode.ValueType(int(settings.mode)),
            case_sensitive=[prefix_text(prefix) for prefix in sensitive],
        )
        entry = entry_pb2.Entry(format=1, admitted_ms=time.time_ns() // 1_000_000, ownership=ownership)
        await propose_and_wait(self.log, entry, OWNERSHIP_S_MAX)

    async def stop(self) -> None:
        """Feed first, then takeover, then the log; the store is closed last."""
        self._ended.set()
        for task in (self._follower, self._staging):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self.led.clear()
        await self.driver.stop()
        await self.failback.stop()
        await self.runner.stop()
        await self.log.stop()
        if self.placed is not None:
            self.placed.remove()

    def close(self) -> None:
        """After the apply thread stopped."""
        self.store.close()

    # -- datagram beats: a key for each stream of the feed (replica.feed.ports.BeatGate)

    def allow(self, key: bytes) -> None:
        self._around.beats.allow(key, frozenset({self.settings.name}), lambda _head, at_ns: self.runner.beat(at_ns))

    def revoke(self, key: bytes) -> None:
        self._around.beats.revoke(key)

    # -- reads

    def probes_alive(self) -> bool | None:
        """What our own probes found, newest first; None: nothing recent."""
        detector = self.runner.detector
        if detector.probe_failures_running:
            return False
        answered = detector.probe_answered_ns
        return True if answered is not None and boottime_ns() - answered <= PROBE_FRESH_NS else None

    def endpoints(self) -> Sequence[Endpoint]:
        """Where the node itself answers: configured, or as its source last described it, on whichever member that was."""
        return self.settings.probes or self.store.state().node


class TakeoverView:
    """Satisfies replica.takeover.ports.SourcePort."""

    def __init__(self, copy: SourceCopy) -> None:
        self._copy = copy

    def state(self) -> GroupState:
        return self._copy.store.state()

    def age_ms(self) -> int | None:
        return self._copy.driver.age.age_ms(boottime_ns())

    def heard(self) -> Heard:
        return heard_of(self._copy.driver.age.heard, self._copy.store.state().position, boottime_ns())

    def leads(self) -> bool:
        return self._copy.log.leader

    def propose(self, entry: entry_pb2.Entry) -> Proposal:
        return self._copy.group.propose(entry)

    def endpoints(self) -> Sequence[Endpoint]:
        return self._copy.endpoints()

    def observations(self) -> Sequence[Observation]:
        side = self._copy._around.side
        return () if side is None else side.observations(self._copy.settings.name)

    def drain(self, act: str, epoch: int) -> None:
        with suppress(ZaibeiError):  # not connected: it is asked again
            self._copy.driver.say(source_pb2.ReplicaMessage(drain=source_pb2.Drain(act=act, epoch=epoch)))

    def drained(self) -> Drained | None:
        return self._copy.driver.drained

    async def published(self, prefix: bytes) -> PublishedSites:
        return self._copy._around.published(prefix)


def store_folder(data: Path, source: str) -> Path:
    """Folder of a source's generations."""
    return data / "stores" / source
