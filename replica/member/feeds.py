"""A member's ways to its sources: beats and pushes let in, pulls kept up, both where the source's group is led here."""

from __future__ import annotations

import asyncio
import logging
import time

from replica.feed.edge_driver import FeedDriver
from replica.feed.edge_puller import Puller
from replica.feed.edge_push_server import PushService
from replica.feed.edge_source_server import SourceService
from replica.feed.refusals import WatchedTrusts
from replica.member.copy import SourceCopy
from replica.member.differences import Differences
from replica.member.edge_broken import tell_end
from replica.member.edge_feed_port import FeedPort
from replica.member.reads import MemberReads
from replica.member.settings import SourceSettings
from replica.member.source_log import StoreSourceLog
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer
from replica.takeover.edge_beats import BeatTable, listen_for_beats

OBSERVE_S = 1.0

log = logging.getLogger("zaibei.member")


class MemberFeeds(MemberReads):
    """Servers and callers of the feed, and what they show of themselves."""

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
        watched = WatchedTrusts(lambda: self._trusts, self._refused)
        push = PushService(self._driver_for, lambda: watched, self._turn)
        source = SourceService(self._log_for, lambda: watched)
        self._feed = FeedPort(settings.identity, self._trusts, push, source)
        await self._feed.start(settings.feed_listen)
        self.feed_addresses = self._feed.addresses
        await self._tell_health()

    def _refused(self, reason: str) -> None:
        if self._around is not None and self._around.feed_metrics is not None:
            self._around.feed_metrics.refused.inc()
        if self.refusals.note(reason, time.time_ns() // 1_000_000):
            log.warning("caller of the feed refused", extra={"fields": {"why": reason, "total": self.refusals.total}})

    def refused_callers(self) -> list[str]:
        """A sentence for each reason for which callers were refused within the last hour."""
        recent = self.refusals.recent(time.time_ns() // 1_000_000)
        return [
            f"callers of the feed were refused {one.count} times, the last within the hour: {reason}" for reason, one in recent
        ]

    def two_senders(self) -> list[str]:
        """A sentence for each source under whose identity two living processes publish."""
        return [told for copy in self.copies.values() if (told := copy.driver.two_senders())]

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
            self._pullers[source.name] = task = asyncio.create_task(puller.run(), name=f"pull {source.name}")
            task.add_done_callback(tell_end)

    async def _end_pull(self, name: str) -> None:
        puller = self._pullers.pop(name, None)
        if puller is not None:
            puller.cancel()
            await asyncio.gather(puller, return_exceptions=True)

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
        if copy is None:
            raise ZaibeiError(Code.UNREACHABLE, f"{name} was taken out of this member: call again", retry=True)
        await copy.turn()

    async def _observe(self) -> None:
        """Without a stream too: a gauge that stands still would tell yesterday's lag for today's."""
        waiting: dict[str, ZaibeiError] = {}
        differences = Differences(self.warnings)
        try:
            while True:
                await asyncio.sleep(OBSERVE_S)
                for name, copy in self.copies.items():
                    copy.driver.observe()
                    differences.look(copy)
                    self._tell_waiting(name, copy, waiting)
                await self._tell_health()
        finally:
            await differences.stop()

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
