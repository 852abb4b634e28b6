"""A member: journal, one copy per source, the feed's servers and pullers, beats, and what answering asks. Composition only.

Way of a start: journal opened -> each store opened -> logs replayed -> servers listen -> pullers call. A damaged store takes
only its own source out of service; a failed journal stops the process.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from replica.consensus.edge_apply import ApplyThread
from replica.consensus.edge_disk import DiskLimits as JournalDiskLimits
from replica.consensus.edge_journal import Journal, JournalLimits
from replica.consensus.edge_metrics import ApplyMetrics, JournalMetrics
from replica.feed.edge_metrics import FeedMetrics
from replica.member.cluster_life import ClusterLife
from replica.member.cluster_side import ClusterSide, check_card
from replica.member.copy import Around, SourceCopy, store_folder
from replica.member.edge_aside import next_aside, put_aside
from replica.member.edge_broken import stopping_on_broken, tell_end
from replica.member.feeds import MemberFeeds
from replica.member.outside import OutsideLooks
from replica.member.scrubs import Scrubs
from replica.member.settings import MemberSettings, SourceSettings
from replica.model.edge_threads import ended, ended_in_thread, made_or_ended
from replica.model.errors import Code, InvariantBroken, ZaibeiError, require
from replica.model.identifier import prefix_key
from replica.model.position import LINEAGE_OCTETS
from replica.store.edge_disk import DiskLimits as StoreDiskLimits
from replica.store.edge_disk import write_durable
from replica.store.edge_metrics import ScrubMetrics
from replica.store.edge_rocks import BudgetLimits, StoreBudget, check_open_files
from replica.store.edge_store import SourceStore
from replica.takeover.edge_beats import BeatTable
from replica.takeover.edge_families import FamilyWatch
from replica.takeover.edge_metrics import TakeoverMetrics
from replica.v1 import entry_pb2

LINEAGE_FILE = "lineage"
STORE_OPEN_FILES_MIN = 64
ENROLLED_STORES = 8  # room in the budget for sources that are enrolled while we run
BRING_BACK_S = 2.0

log = logging.getLogger("zaibei.member")


class Member(MemberFeeds):
    """See the module.

    Args:
        on_failed: called (any thread) when the process must stop: a failed disk or a broken invariant.
        registry: metrics go here; None: none are kept.
    """

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
        self._journal = await made_or_ended(
            lambda: Journal.open(
                settings.data / "journal",
                limits=JournalLimits(disk=_journal_disk(settings)),
                on_failed=self._on_failed,
                metrics=JournalMetrics(registry) if registry else None,
            ),
            Journal.close,
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
            out_of_service=self._group_ended,
            on_broken=self._on_failed,
            beats=table,
            beats_reach=settings.beats_reach or self.beat_addresses,
            feed_metrics=FeedMetrics(registry) if registry else None,
            takeover_metrics=takeover_metrics,
            side=None if self.life is None else self.life.side,
            on_lead=self._on_lead,
            propose_at=None if self.life is None else self.life.propose,
            addresses=self.addresses,
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
        self.scrubs = self._scrubs()
        await self.scrubs.start()
        self._observer = asyncio.create_task(self._observe(), name="observe feeds")
        self._returner = asyncio.create_task(self._bring_back(), name="bring sources back")
        outside = None if self.life is None else OutsideLooks(self.life.side)
        watch = FamilyWatch(self.addresses, outside, takeover_metrics)
        self._looker = asyncio.create_task(watch.run(), name="look at our addresses")
        for chore in (self._observer, self._returner, self._looker):
            chore.add_done_callback(tell_end)

    def _scrubs(self) -> Scrubs:
        settings, registry = self.settings, self._registry
        return Scrubs(
            settings.data,
            self,
            every_days=settings.scrub_days,
            mb_s=settings.scrub_mb_s,
            alone=settings.cluster is None,
            now_ms=lambda: time.time_ns() // 1_000_000,
            metrics=ScrubMetrics(registry) if registry else None,
        )

    def scrubbed_stores(self) -> dict[str, SourceStore]:
        """Satisfies scrubs.Stores."""
        return {name: copy.store for name, copy in self.copies.items() if name not in self.broken}

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
        side.machine.subscribe(lambda _: self._on_state(None))  # it records which prefixes moved

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
                data = self.settings.data  # the store first: a crash in between then refuses the log, and undoes nothing
                await ended_in_thread(lambda: put_aside(store_folder(data, name), next_aside(data, name)))
                await self.forget_log(name)
            self.broken.pop(name, None)
            self._renew_catalog()

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

    async def _open(self, source: SourceSettings, around: Around, first: Sequence[entry_pb2.Entry] = ()) -> None:
        """One source; when its store is bad the others go on without it."""
        try:
            copy = await made_or_ended(partial(SourceCopy.open, source, around), SourceCopy.close)
            self.copies[source.name] = copy
            copy.driver.on_twins = lambda told: self.on_twins(told)
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
            if source.peer is not None:
                self.takeover.runners[source.name] = copy.runner
            self._said.pop(source.name, None)

    async def take_out(self, name: str) -> None:
        """Stop one source that is out of service and close what is open of it; it is answered by code 2 from now on.

        As a whole, whoever is cancelled: what is open of it and nobody knows of any more could never be opened again.
        """
        require(name in self.broken, f"{name} is in service: it is not taken out")
        await ended(self._take_out(name))

    async def _take_out(self, name: str) -> None:
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
            try:
                await self._open(source, around, first)
            except asyncio.CancelledError:  # whoever asked is gone: it is taken out and opened again by itself
                self.broken[name] = ZaibeiError(Code.STOPPING, f"opening {name} was given up", retry=True)
                raise
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
        for chore in (self._observer, self._returner, self._looker):
            if chore is not None:
                chore.cancel()
                await asyncio.gather(chore, return_exceptions=True)
        if self.scrubs is not None:
            await self.scrubs.stop()
        for name in list(self._pullers):
            await self._end_pull(name)
        for copy in list(self.copies.values()):  # another member may still ask for one to be fed anew
            await copy.driver.stop()
        if self._feed is not None:
            await self._feed.stop()
        for transport in self._beats:
            transport.close()
        for copy in list(self.copies.values()):
            await copy.stop()
        if self.life is not None:
            await self.life.side.stop()
        if self._apply is not None:
            await asyncio.to_thread(self._apply.stop)
        for name, copy in list(self.copies.items()):
            await self._close(name, copy)
        if self._journal is not None:
            await asyncio.to_thread(self._journal.close)
        self._watching.close()

    def _invariant(self, broken: InvariantBroken) -> None:
        self._on_failed(broken)

    def _group_ended(self, source: str, error: ZaibeiError) -> None:
        """One group can no longer go on; where the disk failed it, this member stops: it is the disk of all of them."""
        self._out_of_service(source, error)
        if error.code is Code.DISK_FAILED:
            self._on_failed(error)

    def _out_of_service(self, source: str, error: ZaibeiError) -> None:
        self.broken[source] = error
        if self._said.get(source) == str(error):
            return  # the group said it before its start failed with it, or it was tried again in vain
        self._said[source] = str(error)
        log.error("source out of service", extra={"fields": {"source": source, "why": str(error)}})


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
