"""Feeding members that are too far behind for entries, or that forgot what they had promised: whole states, as files.

leader:   core wants a state sent -> offer (pinned checkpoint) -> SNAPSHOT says where it is
receiver: SNAPSHOT -> fetch (verified, beside) -> switch -> core answers from there
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

from replica.consensus.hello import Standing, hard_when_fed
from replica.consensus.hosted import Hosted, Offer
from replica.consensus.port import HardState
from replica.consensus.raft.values import Kind, Message, SnapshotMeta
from replica.consensus.wire import from_wire, to_wire
from replica.model.errors import ZaibeiError
from replica.v1 import peer_pb2

log = logging.getLogger("zaibei.consensus")
Wire = peer_pb2.GroupMessage


class HostTransfers:
    """Of all groups of a member; one at a time into each group.

    Args:
        put: sends a message to a member.
        fed: raises the boot number of this member before it takes part again; returns the hard state it begins with.
        look: a group's standing changed.
    """

    def __init__(
        self,
        member: int,
        put: Callable[[int, Wire], bool],
        fed: Callable[[HardState], Awaitable[HardState]],
        look: Callable[[Hosted], None],
    ) -> None:
        self.member, self._put, self._fed, self._look = member, put, fed, look

    def offer_soon(self, hosted: Hosted, to: int) -> None:
        """A member needs the whole state; one offer at a time."""
        running = hosted.offering.get(to)
        if (running is None or running.done()) and hosted.files is not None:
            hosted.offering[to] = _spawn(self._offer(hosted, to))

    async def _offer(self, hosted: Hosted, to: int) -> None:
        """Pin the state as it is now, and say where it is."""
        group, files = hosted.log, hosted.files
        if files is None:
            return
        try:
            offer = await files.offer()
            membership = group.membership_at(offer.index)
        except ZaibeiError as exc:
            log.warning("no transfer offered", extra={"fields": {"group": group.group, "to": to, "why": str(exc)}})
            group.snapshot_finished(to, ok=False)
            return
        if group.matched(to) < offer.index:  # otherwise its own log has what follows, and nothing it says would unpin ours
            hosted.pinned[to] = offer.index
        meta = SnapshotMeta(offer.index, offer.term, membership)
        told = Message(Kind.SNAPSHOT, to, self.member, group.term, snapshot=meta)
        self._put(to, to_wire(hosted.ident, told, offer.transfer))

    def take(self, hosted: Hosted, sender: int, wire: Wire) -> None:
        if wire.reject:  # the other side could not fetch it
            hosted.log.snapshot_finished(sender, ok=False)
            return
        recall, message = hosted.recall, from_wire(wire, sender, self.member)
        meta = message.snapshot
        if recall is None or meta is None or hosted.files is None or (hosted.fetching is not None and not hosted.fetching.done()):
            return
        learner = self.member in meta.membership.learners
        if recall.standing is Standing.AMNESIAC and not recall.may_be_fed(meta.index, meta.term, learner=learner):
            return
        if recall.standing is not Standing.AMNESIAC and meta.index <= hosted.log.committed and not hosted.hungry:
            hosted.log.receive(message)  # it is told how far we are
            return
        if hosted.hungry and meta.index <= hosted.log.applied:
            return
        hosted.fetching = _spawn(self._fetch(hosted, sender, message, wire.snapshot.transfer))

    async def _fetch(self, hosted: Hosted, sender: int, message: Message, transfer: bytes) -> None:
        meta, files, recall = message.snapshot, hosted.files, hosted.recall
        if meta is None or files is None or recall is None:
            return
        offer = Offer(meta.index, meta.term, transfer)
        try:
            await files.fetch(sender, offer)
            if recall.standing is Standing.AMNESIAC:
                await self._be_fed(hosted, message, offer)
            else:
                await hosted.log.install(message, lambda: files.install(offer))
            hosted.hungry = False
        except ZaibeiError as exc:
            log.warning("transfer failed", extra={"fields": {"group": hosted.log.group, "from": sender, "why": str(exc)}})
            self._put(sender, Wire(group=hosted.ident, kind=Wire.KIND_SNAPSHOT, term=hosted.log.term, reject=True))

    async def _be_fed(self, hosted: Hosted, message: Message, offer: Offer) -> None:
        """What we had promised is in this state: with term and boot raised above it we may take part again, as a learner."""
        recall, files = hosted.recall, hosted.files
        if recall is None or files is None or message.snapshot is None:
            return
        boot = recall.boot
        hard = hard_when_fed(recall.told, HardState(hosted.log.hard_term, 0, boot), self.member, boot)
        hard = await self._fed(hard)
        await hosted.log.begin_anew(hard, message, lambda: files.install(offer))
        recall.fed(hard)
        self._look(hosted)


def _spawn(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)
