"""A member: journal, one copy per source, the feed's servers and pullers, beats, and what answering asks. Composition only.

Way of a start: journal opened -> each store opened -> logs replayed -> servers listen -> pullers call. A damaged store takes
only its own source out of service; a failed journal stops the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from replica.consensus.edge_apply import ApplyThread
from replica.consensus.edge_disk import DiskLimits as JournalDiskLimits
from replica.consensus.edge_journal import Journal, JournalLimits
from replica.consensus.edge_metrics import ApplyMetrics, JournalMetrics
from replica.feed.edge_driver import FeedDriver
from replica.feed.edge_metrics import FeedMetrics
from replica.feed.edge_puller import Puller
from replica.feed.edge_push_server import PushService
from replica.feed.edge_source_server import SourceService
from replica.member.answers import catalog_mark, catalog_of
from replica.member.cluster_life import ClusterLife
from replica.member.cluster_side import ClusterSide, check_card
from replica.member.copy import Around, SourceCopy, store_folder
from replica.member.edge_aside import next_aside, put_aside
from replica.member.edge_broken import stopping_on_broken
from replica.member.edge_feed_port import FeedPort
from replica.member.hosted import HostedPort
from replica.member.settings import Address, MemberSettings, SourceSettings
from replica.member.source_log import StoreSourceLog
from replica.model.catalog import Catalog
from replica.model.edge_trust import LiveTrust
from replica.model.errors import Code, InvariantBroken, ZaibeiError, require
from replica.model.group_state import GroupState
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.values import decode_record
from replica.model.identifier import END, ROUTE, PrefixTree, parent, prefix_key, prefix_text
from replica.model.identity import Peer, Trusts
from replica.model.position import LINEAGE_OCTETS
from replica.model.trust import Role
from replica.model.view import SourceView
from replica.store.edge_disk import DiskLimits as StoreDiskLimits
from replica.store.edge_disk import write_durable
from replica.store.edge_rocks import BudgetLimits, StoreBudget, check_open_files
from replica.store.edge_store import SourceStore
from replica.takeover.edge_beats import BeatTable, listen_for_beats
from replica.takeover.edge_metrics import TakeoverMetrics
from replica.takeover.ports import PublishedSites
from replica.takeover.service import TakeoverService
from replica.v1 import entry_pb2

LINEAGE_FILE = "lineage"
STORE_OPEN_FILES_MIN = 64
CATALOG_SETTLE_S = 0.002
OBSERVE_S = 1.0
ENROLLED_STORES = 8  # room in the budget for sources that are enrolled while we run
BRING_BACK_S = 2.0
HS_SITE_TYPES = frozenset({"HS_SITE", "HS_SITE.6"})

log = logging.getLogger("zaibei.member")


class Member:
    """See the module.

    Args:
        on_failed: called (any thread) when the process must stop: a failed journal or a broken invariant.
        registry: metrics go here; None: none are kept.
    """

    def __init__(
        self,
        settings: MemberSettings,
        on_failed: Callable[[BaseException], None],
        registry: CollectorRegistry | None = None,
    ) -> None:
        self.settings, self._on_failed, self._registry = settings, on_failed, registry
        self.copies: dict[str, SourceCopy] = {}
        self.broken: dict[str, ZaibeiError] = {}  # sources out of service, and why
        self.warnings: dict[str, str] = {}  # what a source's start found that a person must know; stays until the next start
        self._watching = contextlib.ExitStack()
        self.takeover = TakeoverService()
        self.feed_addresses: tuple[Address, ...] = ()
        self.beat_addresses: tuple[Address, ...] = ()
        self.catalog_changed: Callable[[], None] = lambda: None
        self._trusts: Trusts = settings.pins
        if settings.trust_files is not None:
            self._trusts = LiveTrust(lambda: self.settings.pins, settings.trust_files, frozenset({Role.SOURCE}))
        self._owners: PrefixTree[str] = PrefixTree()
        for source in settings.sources:
            self._own(source)
        self._catalog = Catalog(own_site=settings.own_site)
        self._catalog_mark: object = None
        self._catalog_due = False
        self._journal: Journal | None = None
        self._apply: ApplyThread | None = None
        self._feed: FeedPort | None = None
        self._beats: list[asyncio.DatagramTransport] = []
        self._pullers: dict[str, asyncio.Task[None]] = {}
        self._around: Around | None = None
        self.changing = asyncio.Lock()  # one source at a time is taken out and brought in
        self._said: dict[str, str] = {}  # why a source is out of service, as logged last
        self._observer: asyncio.Task[None] | None = None
        self._returner: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.life: ClusterLife | None = None  # None: this member works alone

    # -- life

    async def start(self) -> None:
        """Open, replay, listen, pull.

        Raises:
            ZaibeiError: the journal cannot be opened, an address is taken, the disk is full; says what to do.
        """
        self._loop = asyncio.get_running_loop()
        self._watching.enter_context(stopping_on_broken(self._loop, self._on_failed))
        settings = self.settings
        settings.data.mkdir(parents=True, exist_ok=True)
        registry = self._registry
        limits = _budget(settings)
        check_open_files(limits)
        budget = StoreBudget(settings.data, limits, _store_disk(settings))
        takeover_metrics = TakeoverMetrics(registry) if registry else None
        table = BeatTable(takeover_metrics)
        await self._listen_for_beats(table)
        self._journal = await asyncio.to_thread(
            lambda: Journal.open(
                settings.data / "journal",
                limits=JournalLimits(disk=_journal_disk(settings)),
                on_failed=self._on_failed,
                metrics=JournalMetrics(registry) if registry else None,
            )
        )
        self._apply = ApplyThread(on_broken=self._invariant, metrics=ApplyMetrics(registry) if registry else None)
        self._apply.start()
        await self._join_cluster(self._journal, self._apply)
        self._around = around = Around(
            settings=settings,
            journal=self._journal,
            apply=self._apply,
            budget=budget,
            lineage=_lineage(settings.data) if settings.cluster is None else settings.cluster.card.lineage,
            owner_of=self._owner_of,
            published=self._published,
            out_of_service=self._out_of_service,
            on_broken=self._on_failed,
            beats=table,
            beats_reach=settings.beats_reach or self.beat_addresses,
            feed_metrics=FeedMetrics(registry) if registry else None,
            takeover_metrics=takeover_metrics,
            side=None if self.life is None else self.life.side,
            on_lead=self._on_lead,
            propose_at=None if self.life is None else self.life.propose,
        )
        here = [source for source in settings.sources if self._lives_here(source.name)]
        await asyncio.gather(*(self._open(source, around) for source in here))  # the thread pool bounds it
        self._renew_catalog()
        await self._serve()
        for source in settings.sources:
            self._begin_pull(source)
        if self.life is not None:
            side = self.life.side
            side.feeds = side.feeds or tuple(_address(*address) for address in self.feed_addresses)
            await side.start()
            self.life.start()
        self._observer = asyncio.create_task(self._observe(), name="observe feeds")
        self._returner = asyncio.create_task(self._bring_back(), name="bring sources back")

    # -- as a member of a cluster

    async def _join_cluster(self, journal: Journal, apply: ApplyThread) -> None:
        """Replay what the cluster decided; it says which sources live here."""
        cluster = self.settings.cluster
        if cluster is None:
            return
        check_card(cluster)
        registry = self._registry or CollectorRegistry()
        side = ClusterSide(self.settings, cluster, journal, apply, registry, self._on_failed, self._store_of)
        await side.open()
        self.life = ClusterLife(side, self, journal.knows)

    def _lives_here(self, name: str) -> bool:
        if self.life is None:
            return True
        record = self.life.side.record(name)
        return record is not None and self.life.side.lives_here(record)

    def _store_of(self, name: str) -> SourceStore | None:
        copy = self.copies.get(name)
        return None if copy is None or name in self.broken else copy.store

    def configured(self, name: str) -> bool:
        """Satisfies cluster_life.Sources."""
        return any(source.name == name for source in self.settings.sources)

    async def open_source(self, name: str) -> None:
        """Satisfies cluster_life.Sources."""
        async with self.changing:
            if name not in self.copies and name not in self.broken:
                await self.bring_in(name)

    async def close_source(self, name: str, *, forget: bool) -> None:
        """Satisfies cluster_life.Sources."""
        async with self.changing:
            self.broken.setdefault(name, ZaibeiError(Code.STOPPING, f"{name} is taken out of this member", retry=True))
            await self.take_out(name)
            if forget:
                await self.forget_log(name)
                data = self.settings.data
                await asyncio.to_thread(put_aside, store_folder(data, name), next_aside(data, name))
            self.broken.pop(name, None)
            self._renew_catalog()

    async def _on_lead(self, name: str, leading: bool) -> None:
        """A source's group begins to be led here, or that ended: who fetches and who is pushed to follows."""
        if leading:
            source = next((one for one in self.settings.sources if one.name == name), None)
            if source is not None:
                self._begin_pull(source)
        else:
            await self._end_pull(name)
        await self._tell_health()

    async def _turn(self, name: str) -> None:
        """Returns when this member leads the source's group."""
        copy = self.copies.get(name)
        if copy is not None:
            await copy.led.wait()

    async def _bring_back(self) -> None:
        """What could not be opened on a full disk is tried again: when there is room, it comes into service by itself."""
        while True:
            await asyncio.sleep(BRING_BACK_S)
            for name in [name for name, error in self.broken.items() if error.trouble.retry]:
                async with self.changing:
                    error = self.broken.get(name)
                    if error is not None and error.trouble.retry:
                        await self.take_out(name)
                        await self.bring_in(name)

    async def _observe(self) -> None:
        """Without a stream too: a gauge that stands still would tell yesterday's lag for today's."""
        waiting: dict[str, ZaibeiError] = {}
        while True:
            await asyncio.sleep(OBSERVE_S)
            for name, copy in self.copies.items():
                copy.driver.observe()
                self._tell_waiting(name, copy, waiting)
            await self._tell_health()

    def _tell_waiting(self, name: str, copy: SourceCopy, told: dict[str, ZaibeiError]) -> None:
        """Say once that intake waits for room on a disk, and once that it goes on."""
        why = copy.log.waits
        if why is not None and name not in told:
            told[name] = why
            log.error("intake waits, answers go on", extra={"fields": {"source": name, "why": str(why)}})
        elif why is None and told.pop(name, None) is not None:
            log.warning("intake goes on", extra={"fields": {"source": name}})

    def waiting(self) -> dict[str, ZaibeiError]:
        """Sources whose intake waits until somebody makes room on a disk, and why."""
        return {name: why for name, copy in self.copies.items() if (why := copy.log.waits) is not None}

    async def _open(self, source: SourceSettings, around: Around, first: Sequence[entry_pb2.Entry] = ()) -> None:
        """One source; when its store is bad the others go on without it."""
        try:
            copy = await asyncio.to_thread(SourceCopy.open, source, around)
            self.copies[source.name] = copy
            copy.store.subscribe(self._on_state)
            report = await copy.start(first)
            if report.warning:
                self.warnings[source.name] = report.warning
                fields = {"source": source.name, "warning": report.warning, "loss_possible": report.loss_possible}
                log.warning("source in service, with a warning", extra={"fields": fields})
            log.info(
                "source in service", extra={"fields": {"source": source.name, "term": report.term, "replayed": report.replayed}}
            )
        except ZaibeiError as exc:
            if exc.code is Code.STOPPING:
                raise
            self._out_of_service(source.name, exc)
        else:
            if not source.hosted:
                self.takeover.runners[source.name] = copy.runner
            self._said.pop(source.name, None)

    async def take_out(self, name: str) -> None:
        """Stop one source that is out of service and close what is open of it; it is answered by code 2 from now on."""
        require(name in self.broken, f"{name} is in service: it is not taken out")
        await self._end_pull(name)
        copy = self.copies.pop(name, None)
        self.takeover.runners.pop(name, None)
        if copy is not None:
            await copy.stop()
            await self._close(name, copy)

    async def add_source(self, source: SourceSettings) -> None:
        """Take a further source into service while we run; one of the same settings is there already and stays.

        Raises:
            ZaibeiError(CONFLICT): its name, or one of its prefixes, is another's.
        """
        async with self.changing:
            if any(one.name == source.name for one in self.settings.sources):
                if source not in self.settings.sources:
                    raise ZaibeiError(Code.CONFLICT, f"source {source.name!r} runs with other settings: that takes a restart")
                return
            for prefix in source.prefixes:
                found = self._owners.longest(prefix_key(prefix))
                if found is not None and found[0] == prefix_key(prefix):
                    raise ZaibeiError(Code.CONFLICT, f"{prefix} belongs to {found[1]!r}: it cannot be {source.name!r}'s as well")
            self.settings = replace(self.settings, sources=(*self.settings.sources, source))
            self._own(source)
            if self.life is None:
                await self.bring_in(source.name)
            else:  # whoever leads the control group places it, and then it is opened where it lives
                self.life.side.sources_changed(self.settings)

    def _own(self, source: SourceSettings) -> None:
        for prefix in source.prefixes:
            self._owners.put(prefix_key(prefix), source.name)

    async def forget_log(self, name: str) -> None:
        """Its journal entries count no more. Raises ZaibeiError."""
        require(name not in self.copies and self._journal is not None, f"{name} is still open")
        if self._journal is not None:
            try:
                await asyncio.to_thread(self._journal.retire, name)
            except ZaibeiError as exc:
                if exc.code is not Code.NOT_FOUND:  # there is none: nothing to forget
                    raise

    async def bring_in(self, name: str, first: Sequence[entry_pb2.Entry] = ()) -> None:
        """Open a source that was taken out, and let its feed come; `broken` says whether that went well.

        Args:
            first: entries to commit before anything else.
        """
        around, source = self._around, next(one for one in self.settings.sources if one.name == name)
        require(around is not None and name not in self.copies, f"{name} is still open")
        if around is not None:
            self.broken.pop(name, None)
            self.warnings.pop(name, None)
            await self._open(source, around, first)
            self._renew_catalog()
            self._begin_pull(source)

    async def _close(self, name: str, copy: SourceCopy) -> None:
        try:
            await asyncio.to_thread(copy.close)
        except ZaibeiError as exc:
            log.error("store not closed in order", extra={"fields": {"source": name, "why": str(exc)}})

    async def stop(self) -> None:
        """In order: what is led here is handed over, no new streams, feeds end, logs drain, stores flush and close."""
        if self.life is not None:
            await self.life.stop()
        for chore in (self._observer, self._returner):
            if chore is not None:
                chore.cancel()
                await asyncio.gather(chore, return_exceptions=True)
        for name in list(self._pullers):
            await self._end_pull(name)
        for copy in self.copies.values():
            await copy.driver.stop()
        if self._feed is not None:
            await self._feed.stop()
        for transport in self._beats:
            transport.close()
        for copy in self.copies.values():
            await copy.stop()
        if self.life is not None:
            await self.life.side.stop()
        if self._apply is not None:
            await asyncio.to_thread(self._apply.stop)
        for name, copy in self.copies.items():
            await self._close(name, copy)
        if self._journal is not None:
            await asyncio.to_thread(self._journal.close)
        self._watching.close()

    def _invariant(self, broken: InvariantBroken) -> None:
        self._on_failed(broken)

    def _out_of_service(self, source: str, error: ZaibeiError) -> None:
        self.broken[source] = error
        if self._said.get(source) == str(error):
            return  # the group said it before its start failed with it, or it was tried again in vain
        self._said[source] = str(error)
        log.error("source out of service", extra={"fields": {"source": source, "why": str(error)}})

    # -- servers and callers

    async def _listen_for_beats(self, table: BeatTable) -> None:
        bound = []
        for host, port in self.settings.beats_listen:
            transport, taken = await listen_for_beats(table, host, port)
            self._beats.append(transport)
            bound.append((host, taken))
        self.beat_addresses = tuple(bound)

    async def _serve(self) -> None:
        settings = self.settings
        if not settings.feed_listen or not (settings.pins.peers or settings.trust_files):
            return  # nobody is pinned, so nobody could come in
        push = PushService(self._driver_for, lambda: self._trusts, self._turn)
        source = SourceService(self._log_for, lambda: self._trusts)
        self._feed = FeedPort(settings.identity, self._trusts, push, source)
        await self._feed.start(settings.feed_listen)
        self.feed_addresses = self._feed.addresses
        await self._tell_health()

    async def _tell_health(self) -> None:
        """Taking in needs one source with room on its disks; reading back one source in service."""
        if self._feed is not None:
            sound = [copy.log for name, copy in self.copies.items() if name not in self.broken and copy.log.leader]
            await self._feed.tell(takes=any(log.waits is None for log in sound), reads=bool(sound))

    def _driver_for(self, name: str) -> FeedDriver | None:
        """Who pushes. Raises ZaibeiError(CONFLICT): two ways at once would take the stream from each other for ever."""
        copy = self.copies.get(name)
        if copy is not None and copy.settings.pull:
            raise ZaibeiError(
                Code.CONFLICT,
                f"{name} is fetched by {self.settings.name} from {', '.join(copy.settings.pull)} and may not push as well: "
                f"take `pull` out of its [[source]] block here, or `push` out of the [[member]] block at the source",
            )
        return None if copy is None else copy.driver

    def _log_for(self, peer: Peer, wanted: str) -> StoreSourceLog | None:
        """A source may read its own registry back, and nobody another's."""
        copy = self.copies.get(peer.name) if wanted in ("", peer.name) else None
        return None if copy is None else StoreSourceLog(copy.store, self.settings.identity.signer, copy.settings.prefixes)

    def _begin_pull(self, source: SourceSettings) -> None:
        copy = self.copies.get(source.name)
        fits = copy is not None and copy.led.is_set() and source.name not in self._pullers and source.name not in self.broken
        if fits and copy is not None and source.peer is not None and source.pull:
            puller = Puller(copy.driver, source.pull, self.settings.identity, source.peer, self._trusts)
            self._pullers[source.name] = asyncio.create_task(puller.run(), name=f"pull {source.name}")

    async def _end_pull(self, name: str) -> None:
        puller = self._pullers.pop(name, None)
        if puller is not None:
            puller.cancel()
            await asyncio.gather(puller, return_exceptions=True)

    def hosted(self, name: str) -> HostedPort | None:
        """A hosted source's group, where it is in service here."""
        copy = self.copies.get(name)
        return None if copy is None or name in self.broken else copy.hosted

    # -- what answering asks

    def catalog(self) -> Catalog:
        """The same object until ownership or an overlay changes."""
        return self._catalog

    def read(self, wants: Mapping[str, Sequence[bytes]]) -> dict[str, tuple[list[bytes | None], SourceView]]:
        """Records of several sources with their views; sources that are not held here, or cannot be read, are left out."""
        found = {}
        for name, keys in wants.items():
            copy = self.copies.get(name)
            if copy is not None:
                try:
                    found[name] = copy.answers.read(keys)
                except ZaibeiError as exc:
                    if not exc.trouble.retry:
                        self.broken.setdefault(name, exc)
        return found

    def read_one(self, name: str, keys: Sequence[bytes]) -> tuple[list[bytes | None], SourceView]:
        """Satisfies cluster_life.Sources."""
        found = self.read({name: keys}).get(name)
        if found is None:
            raise ZaibeiError(Code.NOT_FOUND, f"{name} is not in service at this member", retry=True)
        return found

    async def read_anywhere(self, wants: Mapping[str, Sequence[bytes]]) -> dict[str, tuple[list[bytes | None], SourceView]]:
        """As `read`; sources that do not live here are read at a member that holds them."""
        found = self.read(wants)
        if self.life is None or len(found) == len(wants):
            return found
        away = {name: keys for name, keys in wants.items() if name not in found and name not in self.copies}
        return found | await self.life.elsewhere.read(away) if away else found

    def _on_state(self, _: GroupState) -> None:
        """On the apply thread, after each entry: look at the catalog soon, once for many."""
        loop = self._loop
        if not self._catalog_due and loop is not None:
            self._catalog_due = True
            with contextlib.suppress(RuntimeError):  # the loop is closing
                loop.call_soon_threadsafe(self._renew_soon)

    def _renew_soon(self) -> None:
        if self._loop is not None:
            self._loop.call_later(CATALOG_SETTLE_S, self._renew_catalog)

    def _renew_catalog(self) -> None:
        self._catalog_due = False
        states = {source.name: self._owned_by(source) for source in self.settings.sources}
        mark = catalog_mark(states)
        if mark != self._catalog_mark:
            self._catalog_mark = mark
            self._catalog = catalog_of(states.values(), self.settings.own_site, self._catalog.version + 1)
            self.catalog_changed()

    def _owned_by(self, source: SourceSettings) -> GroupState:
        """What is committed; of a source that never came into service what is configured.

        Its prefixes stay its own: "cannot say" sends a client to another site, "lives elsewhere" or a parent's "not found" ends
        its search.
        """
        copy = self.copies.get(source.name)
        state = GroupState(source.name) if copy is None else copy.store.state()
        if state.ownership_version:
            return state
        prefixes = tuple(prefix_key(prefix) for prefix in source.prefixes)
        sensitive = tuple(prefix_key(prefix) for prefix in source.case_sensitive)
        return replace(state, prefixes=prefixes, case_sensitive=sensitive, mode=source.mode)

    # -- what copies ask of each other

    def _owner_of(self, prefix: bytes) -> str | None:
        owned = self._owners.longest(prefix)
        return None if owned is None else owned[1]

    def _published(self, prefix: bytes) -> PublishedSites:
        """A prefix's sites as the copy of its parent's source holds them. Raises ZaibeiError."""
        owner = self._owner_of(parent(prefix))
        copy = self.copies.get(owner) if owner is not None else None
        if copy is None:
            return PublishedSites()
        (record,), _ = copy.store.get_many([ROUTE + prefix + END])
        if not record:
            return PublishedSites()
        try:
            values = decode_record(record).values
        except ProtocolFault as exc:
            raise ZaibeiError(Code.MALFORMED, f"the record of {prefix_text(prefix)} does not parse: {exc.detail}") from exc
        sites = [value for value in values if _type_of(value.type) in HS_SITE_TYPES]
        return PublishedSites(tuple(site.data for site in sites), min((site.ttl for site in sites), default=None))


def _type_of(kind: str | bytes) -> str:
    return kind if isinstance(kind, str) else kind.decode("ascii", "replace")


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _lineage(data: Path) -> bytes:
    """This cluster's lineage: random at first start, kept for good."""
    path = data / LINEAGE_FILE
    if not path.exists():
        write_durable(path, secrets.token_bytes(LINEAGE_OCTETS))
    octets = path.read_bytes()
    if len(octets) != LINEAGE_OCTETS:
        raise ZaibeiError(Code.DAMAGED, f"{path} does not hold the {LINEAGE_OCTETS} octets of a lineage: restore it")
    return octets


def _budget(settings: MemberSettings) -> BudgetLimits:
    return BudgetLimits(
        cache_octets=settings.memory_octets // 2,
        write_buffer_octets=settings.memory_octets // 2,
        open_files=max(settings.open_files, STORE_OPEN_FILES_MIN),
        stores_max=max(1, 2 * len(settings.sources)) + (ENROLLED_STORES if settings.trust_files else 0),  # and a side generation
    )


def _store_disk(settings: MemberSettings) -> StoreDiskLimits:
    reserve = settings.disk_reserve_octets
    return StoreDiskLimits(reserve, reserve + reserve // 8, min(reserve // 2, 192 * 1024 * 1024))


def _journal_disk(settings: MemberSettings) -> JournalDiskLimits:
    reserve = settings.disk_reserve_octets
    return JournalDiskLimits(reserve, reserve + reserve // 8, min(reserve // 2, 96 * 1024 * 1024))
