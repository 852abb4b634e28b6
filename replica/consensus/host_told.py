"""What leaders tell all members: how their groups' logs stand, and how fresh their sources are; and who was heard lately.

Whoever was stopped finds old words in its sockets, which look like new ones: until it has caught up it believes none of them
(SEMANTICS 4: what was buffered over a pause counts for nothing).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from replica.consensus.group_base import CHANGING
from replica.consensus.host_limits import HostLimits
from replica.consensus.hosted import Hosted, HostLinks, Told
from replica.consensus.raft.values import Role
from replica.consensus.silence import NEVER_MS, Promptness
from replica.consensus.wire import voters_to_wire
from replica.model.errors import ZaibeiError
from replica.model.position import Position
from replica.v1 import peer_pb2

NS_IN_MS = 1_000_000


class HostTold:
    """See the module. Times are CLOCK_BOOTTIME nanoseconds; `look` is called with each tick.

    Args:
        member: our number. links: None: a member without others.
    """

    def __init__(self, member: int, links: HostLinks | None, limits: HostLimits) -> None:
        self._member, self._links, self._limits = member, links, limits
        self._told: dict[int, Told] = {}  # group id -> what its leader said last
        self._prompt = Promptness(limits.late_ms_max * NS_IN_MS, limits.doubt_ms_max * NS_IN_MS)
        self._turn = 0

    def look(self, now_ns: int) -> None:
        """Time passes as it should, or did not."""
        self._prompt.look(now_ns)

    def prompt(self, now_ns: int) -> bool:
        """False: what comes now may have waited while we were stopped."""
        return self._prompt.prompt(now_ns)

    @property
    def _connected(self) -> frozenset[int]:
        return self._links.connected if self._links is not None else frozenset()

    def silent_ms(self, hosted: Hosted | None, now_ns: int) -> int:
        """How long a group's leader was not heard; on the leader, a majority; without one, since somebody led."""
        if hosted is None:
            return NEVER_MS
        group = hosted.log
        voters = group.membership.voters
        if voters == {self._member} and group.phase in CHANGING:
            return 0
        if hosted.asleep and self.prompt(now_ns):
            hosted.contacts.heard_all(self._connected, now_ns)
        if group.core_role is Role.LEADER:
            silent_ms = hosted.contacts.quorum_silent_ms(self._member, voters, now_ns)
        elif group.leader_id:
            silent_ms = hosted.contacts.silent_ms(group.leader_id, now_ns)
        else:
            return hosted.contacts.leaderless_ms(now_ns)
        if silent_ms < NEVER_MS:
            hosted.contacts.led(now_ns - silent_ms * NS_IN_MS)
        return silent_ms

    def recalls(self, hosted: Hosted | None, now_ns: int) -> bool:
        """No answer here would be older than one given before a restart (SEMANTICS 4: monotonic at each member): all is applied
        again that may have been. Where no leader tells within `recall_ms_max` what of it is committed, an older answer, marked
        degraded, is better than none."""
        if hosted is None:
            return False
        waited_ms = (now_ns - hosted.added_ns) // NS_IN_MS
        return hosted.log.caught_up or min(waited_ms, self.silent_ms(hosted, now_ns)) >= self._limits.recall_ms_max

    def tell(self, groups: Iterable[Hosted], now_ns: int) -> None:
        """How our groups' logs stand and what they hear of their sources, for all members; of sleeping groups less often."""
        self._turn += 1
        table = peer_pb2.FreshnessTable()
        for hosted in groups:
            if hosted.log.leader and (not hosted.asleep or self._turn % self._limits.asleep_turns == 0):
                table.groups.append(self._row(hosted, now_ns))
        if self._links is not None and table.groups:
            for member in self._connected:
                self._links.send_table(member, table)

    def _row(self, hosted: Hosted, now_ns: int) -> peer_pb2.Freshness:
        group, heard = hosted.log, hosted.heard.newest()
        row = peer_pb2.Freshness(
            group=hosted.ident,
            term=group.term,
            voters=voters_to_wire(group.membership),
            last=group.last,
            octets=hosted.octets(),
            matched=[
                peer_pb2.Matched(member=one, index=group.matched(one), amnesiac=one in hosted.amnesiac)
                for one in group.membership.members - {self._member}
            ],
        )
        if heard is not None:
            row.head.CopyFrom(heard[0].to_wire())
            row.age_ms, row.known = -(-max(0, now_ns - heard[1]) // NS_IN_MS), True  # rounded up: never younger than it is
        if (compared_ns := hosted.heard.compared()) is not None:
            row.compared_ms, row.compared = -(-max(0, now_ns - compared_ns) // NS_IN_MS), True
        return row

    def take(self, groups: Mapping[int, Hosted], sender: int, table: peer_pb2.FreshnessTable, now_ns: int) -> None:
        """Another member's table. It left after the beat of ours that it echoes: its ages count from there, on our own clock."""
        if not self.prompt(now_ns):
            return
        left_ns = table.echo_ns if table.echo_ns <= now_ns else 0
        for row in table.groups:
            told = self._told.get(row.group)
            if told is None or row.term >= told.row.term:
                self._told[row.group] = Told(sender, now_ns, row)
            hosted = groups.get(row.group)
            if hosted is None or not left_ns or not row.known:
                continue
            if row.term == hosted.log.term and hosted.log.leader_id == sender:
                try:
                    head = Position.from_wire(row.head)
                except ZaibeiError:
                    continue
                hosted.heard.told(head, left_ns - row.age_ms * NS_IN_MS)
                if row.compared:
                    hosted.heard.compared_told(left_ns - row.compared_ms * NS_IN_MS)

    def stands(self, ident: int, hosted: Hosted | None, now_ns: int) -> Told | None:
        """How a group's log stands: as its leader says, or as we lead it; None: nobody said so lately."""
        if hosted is not None and hosted.log.leader:
            return Told(self._member, now_ns, self._row(hosted, now_ns))
        told = self._told.get(ident)
        fresh = told is not None and now_ns - told.at_ns <= self._limits.told_ms_max * NS_IN_MS
        return told if fresh else None
