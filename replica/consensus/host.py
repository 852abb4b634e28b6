"""All groups of a member: time, messages, memory of promises, sleep, and how silent a group's leader is. On the event loop.

    links -> host.received -> recall (may we take part?) -> group's core -> duties -> links
Nothing here waits: what takes long (a transfer of files) is a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random

from replica.consensus.group import GroupLog
from replica.consensus.hello import RIGHTS, Memory, Promise, Recall, Row, Standing, acknowledged
from replica.consensus.host_limits import HostLimits
from replica.consensus.host_told import HostTold
from replica.consensus.host_transfers import HostTransfers, spawn
from replica.consensus.hosted import Heard, Hosted, HostLinks, MemberFiles, Told
from replica.consensus.notices import Notices, is_notice
from replica.consensus.port import KEPT_MEMORY, GroupJournal, GroupPhase, HardState
from replica.consensus.raft.membership import Membership
from replica.consensus.raft.values import Kind, Message
from replica.consensus.seat import NEEDED_BY_NONE, GroupSeat
from replica.consensus.turns import Turns
from replica.consensus.wire import from_wire, to_wire
from replica.model.errors import ZaibeiError, require
from replica.v1 import peer_pb2

log = logging.getLogger("zaibei.consensus")
Wire = peer_pb2.GroupMessage
QUIET = frozenset({Wire.KIND_HEARTBEAT, Wire.KIND_HEARTBEAT_REPLY})  # these keep no group awake
QUIET_KINDS = frozenset({Kind.HEARTBEAT, Kind.HEARTBEAT_REPLY})


class GroupHost:
    """See the module.

    Args:
        member: our number; boot: of the journal.
        links: None: a member without others (nothing is ever sent).
        now_ns: CLOCK_BOOTTIME.
        on_unknown: a message for a group that is not open here.
    """

    def __init__(
        self,
        member: int,
        boot: int,
        links: HostLinks | None,
        now_ns: Callable[[], int],
        *,
        limits: HostLimits | None = None,
        random: Random | None = None,
        raise_boot: Callable[[int], int] = lambda boot: boot,
    ) -> None:
        self.member, self.boot, self._links, self._now_ns = member, boot, links, now_ns
        self._limits, self._random, self._raise_boot = limits or HostLimits(), random or Random(), raise_boot
        self.name_of: Callable[[int], str] = "member {}".format
        self.risen: Callable[[], None] = lambda: None  # our boot number was raised: others must hear of it
        self.groups: dict[int, Hosted] = {}
        self.boots: dict[int, int] = {}  # as the others' Hellos said
        self.up_since_ns: dict[int, int] = {}
        self.transfers = HostTransfers(member, self._put, self._rise, self._look)
        self.unknown = 0  # messages for groups that are not open here
        self._ticker: asyncio.Task[None] | None = None
        self._tellings = HostTold(member, links, self._limits)
        self._notices, self._turns = Notices(), Turns()
        self._told_ns = self._kept_ns = 0

    # ----------------------------------------------------------------------------------------------------------- groups
    def seat(self, ident: int, birth: Membership) -> GroupSeat:
        """A group's seat here, for its GroupLog; `add` follows."""
        return GroupSeat(
            self.member,
            birth,
            send=partial(self._send, ident),
            changed=partial(self._changed, ident),
            needed_from=partial(self._needed_from, ident),
            active=partial(self.wake, ident),
            name_of=lambda member: self.name_of(member),
            random=Random(self._random.getrandbits(64)),
            election_ticks=self._limits.election_ticks,
            heartbeat_ticks=self._limits.heartbeat_ticks,
        )

    def add(
        self,
        ident: int,
        group: GroupLog,
        files: MemberFiles | None = None,
        heard: Heard | None = None,
        octets: Callable[[], int] = lambda: 0,
    ) -> None:
        """Take a group on; before its `start`. `octets`: size of its copy, about."""
        require(ident not in self.groups, f"group id {ident} is open already")
        self.groups[ident] = Hosted(
            ident, group, files, heard or Heard(), octets, busy_ns=self._now_ns(), added_ns=self._now_ns()
        )

    def started(self, ident: int) -> None:
        """The group's log has started: from now on it takes part as far as its memory of promises allows."""
        hosted = self.groups[ident]
        group = hosted.log
        recovered = group.recovered
        memory = Memory.decode(recovered.kept.get(KEPT_MEMORY, b""))
        voters = group.membership
        alone = voters.voters == {self.member} and not voters.joint
        lost = ""
        if recovered.flushed > recovered.last and not alone:
            lost = f"entries {recovered.last + 1} to {recovered.flushed} had been flushed, and are gone"
        hosted.recall = Recall(
            self.member, self.boot, group.found_state, memory, lost=lost, flushed=recovered.flushed, alone=alone
        )
        self._look(hosted)
        self._ask_to_be_reminded(hosted)

    def remove(self, ident: int) -> None:
        hosted = self.groups.pop(ident, None)
        if hosted is not None:
            for task in (hosted.fetching, *hosted.offering.values()):
                if task is not None:
                    task.cancel()

    def standing(self, ident: int) -> Standing | None:
        """How far we take part; None: not started."""
        hosted = self.groups.get(ident)
        return hosted.recall.standing if hosted is not None and hosted.recall is not None else None

    def answers(self, ident: int) -> bool:
        """May the copy be answered from? Not where we forgot what we had promised, nor before HostTold.recalls."""
        hosted, standing = self.groups.get(ident), self.standing(ident)
        allowed = hosted is not None and standing is not None and RIGHTS[standing].answer
        return allowed and self._tellings.recalls(hosted, self._now_ns())

    # ------------------------------------------------------------------------------------------------------------- time
    def start(self) -> None:
        self._tellings.look(self._now_ns())
        self._ticker = spawn(self._tick_on(), "ticks of all groups")

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        for ident in list(self.groups):
            self.remove(ident)

    async def _tick_on(self) -> None:
        """A host that comes late counts one tick only: time in which we could hear nobody says nothing about others."""
        while True:
            await asyncio.sleep(self._limits.tick_s)
            now_ns = self._now_ns()
            self._tellings.look(now_ns)
            self._tick_groups()
            if now_ns - self._told_ns >= self._limits.tell_ms * 1_000_000:
                self._told_ns = now_ns
                self._tellings.tell(self.groups.values(), now_ns)
            if now_ns - self._kept_ns >= self._limits.keep_ms * 1_000_000:
                self._kept_ns = now_ns
                for hosted in list(self.groups.values()):
                    self._keep(hosted)
                    self._rest(hosted, now_ns)

    def _tick_groups(self) -> None:
        """For groups without a leader time passes in turns when they are many: they elect later, but they do elect."""
        seeking = []
        for hosted in self.groups.values():
            if hosted.asleep:
                continue
            if hosted.log.leader_id:
                hosted.log.tick()
            else:
                seeking.append(hosted)
        for hosted in self._turns.take(seeking, self._limits.seeking_max):
            hosted.log.tick()

    def _keep(self, hosted: Hosted) -> None:
        """Memory of promises goes to the journal now and then, with the flushes of others."""
        recall = hosted.recall
        if recall is None:
            return
        if not hosted.asleep or hosted.offered:
            self.transfers.remind(hosted)
        if recall.memory.changed and hosted.log.part is not None:
            recall.memory.changed = False
            hosted.log.part.keep(KEPT_MEMORY, recall.memory.encode())
        if recall.standing is Standing.AMNESIAC:
            self._cry(hosted)
        elif recall.standing is Standing.ASKING:
            self._ask_to_be_reminded(hosted)
        if hosted.amnesiac and not hosted.log.leader:
            hosted.amnesiac.clear()  # of an earlier time in office
        if hosted.hungry:
            self._say(hosted, Wire.KIND_HUNGRY, index=hosted.log.applied)

    def _cry(self, hosted: Hosted) -> None:
        """We forgot what we had promised: whoever leads must make us a learner and feed us anew."""
        self._say(hosted, Wire.KIND_AMNESIAC, index=hosted.log.last)

    def _ask_to_be_reminded(self, hosted: Hosted) -> None:
        """A group asks for itself: what Hellos said of it before it was opened here may be old by now."""
        self._say(hosted, Wire.KIND_REMIND)

    def _say(self, hosted: Hosted, kind: Wire.Kind.ValueType, index: int = 0) -> None:
        """To everybody: with the log the knowledge is lost of who takes part, and the leader may be none of the first voters."""
        message = Wire(group=hosted.ident, kind=kind, term=hosted.log.term, index=index)
        for member in self._connected - {self.member}:
            self._put(member, message)

    def hungry(self, ident: int) -> None:
        """A group's store cannot go on by entries alone: others are asked for their state until one came."""
        hosted = self.groups.get(ident)
        if hosted is not None:
            hosted.hungry = True

    # ------------------------------------------------------------------------------------------------------------ sleep
    def _rest(self, hosted: Hosted, now_ns: int) -> None:
        """A group with nothing to do sleeps when all voters hold and applied all of it (SEMANTICS 6)."""
        group = hosted.log
        if group.leader:
            self._tellings.silent_ms(hosted, now_ns)  # remembers when a majority last heard us lead
        if hosted.asleep or not group.leader or now_ns - hosted.busy_ns < self._limits.sleep_after_ms * 1_000_000:
            return
        others = group.membership.members - {self.member}
        if not others or group.membership.joint or not others <= self._connected:
            return
        last = group.last
        if not group.applied == group.committed == last or any(group.matched(member) != last for member in others):
            return
        message = Wire(group=hosted.ident, kind=Wire.KIND_SLEEP, term=group.term, index=last)
        sent = [self._put(member, message) for member in others]
        hosted.asleep = all(sent)

    def _fall_asleep(self, hosted: Hosted, sender: int, message: Wire) -> None:
        group = hosted.log
        same = group.term == message.term and group.leader_id == sender and group.last == message.index
        hosted.asleep = same and group.committed == message.index and group.phase is GroupPhase.FOLLOWING

    def wake(self, ident: int) -> None:
        """Something happens in the group."""
        hosted = self.groups.get(ident)
        if hosted is not None:
            hosted.busy_ns = self._now_ns()
            hosted.asleep = False

    # ------------------------------------------------------------------------------------------------------------ links
    @property
    def _connected(self) -> frozenset[int]:
        return self._links.connected if self._links is not None else frozenset()

    def connected(self, member: int, hello: peer_pb2.Hello) -> None:
        """A Hello of another member: on a new connection, or because something in it changed."""
        if self.boots.get(member, hello.boot) != hello.boot:
            for one in self.groups.values():
                one.log.forgotten(member)
        self.boots[member] = hello.boot
        self.up_since_ns.setdefault(member, self._now_ns())
        for told in hello.groups:
            hosted = self.groups.get(told.group)
            if hosted is not None:
                self._reminded(hosted, member, hello.boot, told.term, told.promises, forgot=told.forgot)

    def _reminded(
        self, hosted: Hosted, member: int, boot: int, term: int, promises: Iterable[peer_pb2.Promise], *, forgot: bool
    ) -> None:
        """A member told what it remembers of a group, as of now. One that forgot warns, and does not count as asked."""
        if hosted.recall is None:
            return
        rows: list[Row] = [(one.member, Promise(one.boot, one.term, one.index)) for one in promises]
        rows.append((member, Promise(boot, term, 0)))
        group, before = hosted.log, hosted.recall.standing
        if forgot:
            hosted.recall.told_of_us(rows, group.saved_state)
        else:
            hosted.recall.hello(member, rows, hosted.halves(), group.saved_state)
        if before is not hosted.recall.standing:
            self._look(hosted)

    def lost(self, member: int, why: str) -> None:
        """The connection of a member ended: its groups wake, and whom it led is free to elect."""
        self.up_since_ns.pop(member, None)
        for hosted in self.groups.values():
            hosted.pinned.pop(member, None)  # nothing says that it is being fed still; it says so itself when it is back
            if member in hosted.log.membership.members:
                if hosted.asleep and hosted.log.leader_id == member:
                    hosted.contacts.led(self._now_ns())  # that it was connected until now was all there was to hear
                hosted.asleep = False
            if hosted.log.leader_id == member:
                hosted.log.suspect()
            elif hosted.log.leader:
                hosted.log.unreachable(member)
        log.info("member not reached", extra={"fields": {"member": member, "why": why}})

    def memory(self) -> list[peer_pb2.GroupMemory]:
        """What our Hello says of each group."""
        found = []
        for hosted in self.groups.values():
            if hosted.recall is None:
                continue
            rows = (peer_pb2.Promise(member=m, boot=p.boot, term=p.term, index=p.index) for m, p in hosted.recall.memory.rows())
            found.append(
                peer_pb2.GroupMemory(
                    group=hosted.ident,
                    term=hosted.log.hard_term,
                    last=hosted.log.last,
                    promises=list(rows),
                    forgot=hosted.recall.standing is Standing.AMNESIAC,
                )
            )
        return found

    def received(self, sender: int, messages: Sequence[Wire]) -> None:
        """Messages of another member, checked by the link."""
        for message in messages:
            hosted = self.groups.get(message.group)
            if hosted is None or hosted.recall is None:
                self.unknown += 1
                continue
            try:
                self._take(hosted, sender, message)
            except ZaibeiError as exc:
                log.warning("message refused", extra={"fields": {"group": hosted.log.group, "member": sender, "why": str(exc)}})

    def _take(self, hosted: Hosted, sender: int, message: Wire) -> None:
        recall = hosted.recall
        require(recall is not None, "a group that was not started takes no message")
        if recall is None:
            return
        match message.kind:
            case Wire.KIND_REMIND:
                answer = hosted.reminder(recall)
                self._add_promises(hosted, answer)
                self._put(sender, answer)
                return
            case Wire.KIND_REMINDED:
                hosted.learn_membership(message)
                boot = self.boots.get(sender, 0)
                self._reminded(hosted, sender, boot, message.term, message.promises, forgot=message.reject)
                return
            case Wire.KIND_HUNGRY:
                if hosted.log.applied > message.index and recall.rights.answer:
                    self.transfers.offer_soon(hosted, sender)
                return
            case Wire.KIND_SLEEP:
                self._fall_asleep(hosted, sender, message)
                return
            case Wire.KIND_AMNESIAC:
                hosted.asleep = False
                if hosted.log.leader:  # others hear of no healing: they would hold it against that member when they come to lead
                    hosted.amnesiac.add(sender)
                if hosted.log.leader and sender in hosted.log.membership.learners:
                    self.transfers.offer_soon(hosted, sender)  # entries would not do: it must get all that it had promised
                return
        if hosted.asleep and message.kind == Wire.KIND_HEARTBEAT_REPLY:
            return  # to a heartbeat of before the group slept
        hosted.asleep = False
        if message.kind not in QUIET:
            hosted.busy_ns = self._now_ns()
        if message.promises:
            before = recall.standing
            rows = [(one.member, Promise(one.boot, one.term, one.index)) for one in message.promises]
            recall.told_of_us(rows, hosted.log.saved_state)
            if before is not recall.standing:
                self._look(hosted)
        self._note(hosted, sender, message)
        if message.kind == Wire.KIND_SNAPSHOT:
            self.transfers.take(hosted, sender, message)
        elif recall.rights.acknowledge:
            hosted.log.receive(from_wire(message, sender, self.member))

    def _note(self, hosted: Hosted, sender: int, message: Wire) -> None:
        """Who was heard, and what it promised."""
        now_ns = self._now_ns()
        if message.term == hosted.log.term and self._tellings.prompt(now_ns):
            hosted.contacts.heard(sender, now_ns, leads=sender == hosted.log.leader_id)
        recall = hosted.recall
        if recall is None or message.reject:
            return
        boot = self.boots.get(sender, 0)
        if message.kind == Wire.KIND_APPEND_REPLY:
            recall.memory.record(sender, acknowledged(boot, message.term, message.index, hosted.log.first_of_term))
            hosted.amnesiac.discard(sender)  # one that forgot acknowledges nothing before it was fed
            if hosted.pinned and message.index >= hosted.pinned.get(sender, NEEDED_BY_NONE):
                hosted.pinned.pop(sender, None)
        elif message.kind == Wire.KIND_VOTE_REPLY:
            recall.memory.record(sender, Promise(boot, message.term, 0))
            hosted.amnesiac.discard(sender)

    # ------------------------------------------------------------------------------------------------------------- send
    def _put(self, member: int, message: Wire) -> bool:
        return self._links is not None and self._links.send(member, message)

    def _send(self, ident: int, messages: Sequence[Message]) -> None:
        hosted = self.groups.get(ident)
        if hosted is None:
            return
        for message in messages:
            if message.kind is Kind.SNAPSHOT:
                self.transfers.offer_soon(hosted, message.to, anew=True)
                continue
            if hosted.asleep and message.kind is Kind.HEARTBEAT:
                continue  # of the tick in which the group fell asleep: behind SLEEP it would wake the others, and not us
            if is_notice(message, hosted.log.core.progress(message.to)):
                self._hold(ident, message)
                continue
            if message.kind is Kind.READ_INDEX_REPLY and (held := self._notices.take_of(ident, message.to)) is not None:
                self._put(held.to, to_wire(ident, held))  # who reads there waits for what it tells
            self._notices.told(ident, message)
            wire = to_wire(ident, message)
            if message.kind is Kind.HEARTBEAT and self._random.random() < self._limits.promises_share:
                self._add_promises(hosted, wire)
            if message.kind not in QUIET_KINDS:
                hosted.busy_ns = self._now_ns()
            self._put(message.to, wire)

    def _hold(self, ident: int, message: Message) -> None:
        if not len(self._notices):
            asyncio.get_running_loop().call_later(self._limits.notice_ms / 1_000, self._send_notices)
        self._notices.hold(ident, message)

    def _send_notices(self) -> None:
        for ident, message in self._notices.take():
            if ident in self.groups:
                self._put(message.to, to_wire(ident, message))

    def _add_promises(self, hosted: Hosted, wire: Wire) -> None:
        """The leader's match table rides on some heartbeats."""
        if hosted.recall is not None:
            for member, promise in hosted.recall.memory.rows():
                wire.promises.add(member=member, boot=promise.boot, term=promise.term, index=promise.index)

    # ------------------------------------------------------------------------------------------------------- transfers
    def _needed_from(self, ident: int, journal: GroupJournal) -> int:
        """First index that another member may still need from our journal; those too far behind get files instead."""
        hosted = self.groups[ident]
        group = hosted.log
        others = group.membership.members - {self.member}
        if not others:
            return NEEDED_BY_NONE
        if journal.octets > self._limits.journal_keep_octets:
            return NEEDED_BY_NONE
        if not group.leader:
            hosted.needed_since_ns.clear()  # of an earlier time in office: who was behind then is looked at anew
            return journal.index_keeping(self._limits.follower_keep_octets) + 1
        now_ns, needed = self._now_ns(), NEEDED_BY_NONE
        for member in others:
            matched = group.matched(member)
            if matched >= group.committed:
                hosted.needed_since_ns.pop(member, None)
            since_ns = hosted.needed_since_ns.setdefault(member, now_ns)
            if now_ns - since_ns <= self._limits.behind_ms_max * 1_000_000:
                needed = min(needed, max(matched, hosted.pinned.get(member, 0)) + 1)
        return needed

    # -------------------------------------------------------------------------------------------------------- standing
    async def _rise(self, hard: HardState) -> HardState:
        """A group was fed anew: the boot number rises above what had been promised, for all groups of this member."""
        self.boot = await asyncio.to_thread(self._raise_boot, hard.boot)
        for one in self.groups.values():
            if one.recall is not None:
                one.recall.raised(self.boot)
        self.risen()
        return HardState(hard.term, hard.vote, self.boot)

    def _look(self, hosted: Hosted) -> None:
        """What our standing allows, carried to the core."""
        recall = hosted.recall
        if recall is None:
            return
        hosted.log.allow_elections(recall.rights.vote)
        fields = {"group": hosted.log.group, "standing": recall.standing.value, "why": recall.reason}
        log.log(logging.ERROR if recall.standing is Standing.AMNESIAC else logging.INFO, "standing", extra={"fields": fields})

    def _changed(self, ident: int, membership: Membership) -> None:
        hosted = self.groups.get(ident)
        if hosted is None or hosted.recall is None:
            return
        for gone in (hosted.pinned.keys() | hosted.needed_since_ns.keys()) - membership.members:
            hosted.pinned.pop(gone, None)
            hosted.needed_since_ns.pop(gone, None)
        hosted.recall.memory.retain(membership.members | {self.member})
        hosted.amnesiac &= membership.members
        if membership.votes(self.member) and hosted.recall.standing is Standing.FED:
            hosted.recall.promoted()
            self._look(hosted)

    # ------------------------------------------------------------------------------------------------------- freshness
    def silent_ms(self, ident: int) -> int:
        """See HostTold."""
        return self._tellings.silent_ms(self.groups.get(ident), self._now_ns())

    def freshness(self, sender: int, table: peer_pb2.FreshnessTable) -> None:
        """Another member's table."""
        self._tellings.take(self.groups, sender, table, self._now_ns())

    def stands(self, ident: int) -> Told | None:
        """See HostTold."""
        return self._tellings.stands(ident, self.groups.get(ident), self._now_ns())
