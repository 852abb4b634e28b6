"""Feeding members that are too far behind for entries, or that forgot what they had promised: whole states, as files.

leader:   core wants a state sent -> offer (pinned checkpoint) -> SNAPSHOT says where it is, again and again until it is answered
receiver: SNAPSHOT -> fetch (verified, beside) -> switch -> core answers from there
Who is hungry (its store alone lacks content) takes the state of any member; `hint` of such a SNAPSHOT names the sender.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

from replica.consensus.hello import Recall, Standing, hard_when_fed
from replica.consensus.hosted import Hosted, Offer, Offered
from replica.consensus.port import HardState
from replica.consensus.raft.values import Kind, Message, Role, SnapshotMeta
from replica.consensus.wire import from_wire, to_wire
from replica.model.errors import Code, ZaibeiError
from replica.v1 import peer_pb2

log = logging.getLogger("zaibei.consensus")
Wire = peer_pb2.GroupMessage
SAY_AGAIN_S = 2.0  # a SNAPSHOT, or its answer, may be lost like any message
OFFER_AGAIN_S = 10.0  # a member that asks again and again gets no new checkpoint each time


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

    def offer_soon(self, hosted: Hosted, to: int, *, anew: bool = False) -> None:
        """A member needs the whole state; one offer at a time.

        Args:
            anew: the core says so: what was offered before is over.
        """
        running, offered = hosted.offering.get(to), hosted.offered.get(to)
        if not anew and offered is not None and _now_s() - offered.first_s < OFFER_AGAIN_S:
            return
        if (running is None or running.done()) and hosted.files is not None:
            hosted.offered.pop(to, None)
            hosted.offering[to] = spawn(self._offer(hosted, to))

    def remind(self, hosted: Hosted) -> None:
        """Now and then: say again what is on offer; a transfer of which nobody knows any more begins anew."""
        group, now_s = hosted.log, _now_s()
        for to, offered in list(hosted.offered.items()):
            wire = offered.wire
            over = wire.term != group.term or to not in group.membership.members or group.matched(to) >= wire.snapshot.index
            if over or (wire.hint and now_s - offered.first_s >= OFFER_AGAIN_S):
                del hosted.offered[to]
            elif not wire.hint and now_s - offered.said_s >= SAY_AGAIN_S:
                offered.said_s = now_s
                self._put(to, wire)
        for to in group.fed_by_state():
            running = hosted.offering.get(to)
            if to not in hosted.offered and (running is None or running.done()):
                group.snapshot_finished(to, ok=False)

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
        told.hint = 0 if group.core_role is Role.LEADER else self.member
        wire = to_wire(hosted.ident, told, offer.transfer)
        hosted.offered[to] = Offered(wire, _now_s(), _now_s())
        self._put(to, wire)

    def take(self, hosted: Hosted, sender: int, wire: Wire) -> None:
        if wire.reject:  # the other side could not fetch it
            hosted.offered.pop(sender, None)
            hosted.pinned.pop(sender, None)
            hosted.log.snapshot_finished(sender, ok=False)
            return
        recall, message = hosted.recall, from_wire(wire, sender, self.member)
        meta = message.snapshot
        if recall is None or meta is None or hosted.files is None or (hosted.fetching is not None and not hosted.fetching.done()):
            return
        if wire.hint:  # not the leader's: for a hungry store alone
            if hosted.hungry and meta.index > hosted.log.applied and recall.standing is not Standing.AMNESIAC:
                hosted.fetching = spawn(self._fetch(hosted, sender, message, wire.snapshot.transfer, led=False))
            return
        if recall.standing is Standing.AMNESIAC:
            if not self._heals(recall, meta):
                return
        elif recall.standing is Standing.ASKING and sender not in recall.heard:
            self._refuse(hosted, sender)  # an acknowledgement would cover up what it may remember of us
            return
        elif meta.index <= (hosted.log.applied if hosted.hungry else hosted.log.committed):
            if recall.rights.acknowledge:
                hosted.log.receive(message)  # it is told how far we are
            return
        hosted.fetching = spawn(self._fetch(hosted, sender, message, wire.snapshot.transfer, led=True))

    def _heals(self, recall: Recall, meta: SnapshotMeta) -> bool:
        return recall.may_be_fed(meta.index, meta.term, learner=self.member in meta.membership.learners)

    def _refuse(self, hosted: Hosted, sender: int) -> None:
        self._put(sender, Wire(group=hosted.ident, kind=Wire.KIND_SNAPSHOT, term=hosted.log.term, reject=True))

    async def _fetch(self, hosted: Hosted, sender: int, message: Message, transfer: bytes, *, led: bool) -> None:
        meta, files, recall = message.snapshot, hosted.files, hosted.recall
        if meta is None or files is None or recall is None:
            return
        offer = Offer(meta.index, meta.term, transfer)
        try:
            await files.fetch(sender, offer)
            if recall.standing is not Standing.AMNESIAC:
                await hosted.log.install(message, lambda: files.install(offer), led=led)
            elif self._heals(recall, meta):
                await self._be_fed(hosted, message, offer)
            else:  # it was found out meanwhile
                raise ZaibeiError(Code.REFUSED, "this member forgot more than that state holds, or has a vote in it", retry=True)
            hosted.hungry = False
        except ZaibeiError as exc:
            log.warning("transfer failed", extra={"fields": {"group": hosted.log.group, "from": sender, "why": str(exc)}})
            self._refuse(hosted, sender)

    async def _be_fed(self, hosted: Hosted, message: Message, offer: Offer) -> None:
        """What we had promised is in this state: with term and boot raised above it we may take part again, as a learner."""
        recall, files = hosted.recall, hosted.files
        if recall is None or files is None or message.snapshot is None:
            return
        boot = recall.boot
        hard = hard_when_fed(recall.told, HardState(hosted.log.hard_term, 0, boot), self.member, boot)
        hard = await self._fed(hard)
        await hosted.log.begin_anew(hard, message, lambda: files.install(offer))
        # Others may have reminded us of more meanwhile: then it is not enough, and is done again.
        if self._heals(recall, message.snapshot) and recall.above(hard.term):
            recall.fed(hard)
        self._look(hosted)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def spawn(work: Coroutine[None, None, None], name: str = "feeding a member") -> asyncio.Task[None]:
    """A task of a host of groups."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(_report)
    return task


def _report(task: asyncio.Task[None]) -> None:
    """A broken invariant must be heard of at once, whoever still holds the task."""
    if not task.cancelled() and (exc := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": f"{task.get_name()} broke off", "exception": exc, "task": task})
