"""A source's place in a cluster: its group's seat on this member's host, its files, what it tells and is told of freshness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from replica.consensus.group import GroupLog
from replica.consensus.hosted import Heard
from replica.consensus.raft.membership import Membership
from replica.consensus.seat import GroupSeat
from replica.feed.edge_driver import FeedDriver
from replica.member.cluster_side import ClusterSide
from replica.member.group_files import StoreFiles
from replica.member.settings import SourceSettings
from replica.model.errors import Code, ZaibeiError
from replica.store.edge_store import SourceStore


class Copy(Protocol):
    """What is needed of a source's copy."""

    store: SourceStore
    log: GroupLog
    driver: FeedDriver


@dataclass(frozen=True, slots=True)
class Placed:
    """See the module. `ident`: the group's id."""

    side: ClusterSide
    ident: int
    seat: GroupSeat
    files: StoreFiles

    @staticmethod
    def at(side: ClusterSide, settings: SourceSettings, copy: Copy) -> Placed:
        """Raises ZaibeiError(NOT_FOUND, retry): the control group has not made this source's group yet."""
        record = side.record(settings.name)
        if record is None:
            raise ZaibeiError(Code.NOT_FOUND, f"{settings.name} has no group yet: the control group makes it", retry=True)
        seat = side.host.seat(record.ident, Membership(voters=frozenset(record.first)))
        files = StoreFiles(
            record.ident, settings.name, side.cluster.card.cluster, side.me, side.transfers, side.peers, lambda: copy.store
        )
        return Placed(side, record.ident, seat, files)

    def add(self, copy: Copy) -> None:
        """Before the log starts."""
        age = copy.driver.age
        heard = Heard(lambda: age.heard, age.told, lambda: age.compared_ns, age.compared_told)
        self.side.host.add(self.ident, copy.log, self.files, heard)

    def started(self) -> None:
        """The log has started."""
        self.side.host.started(self.ident)
        self.side.links.hello_changed()

    def remove(self) -> None:
        self.side.host.remove(self.ident)

    def silent_ms(self) -> int:
        """How long the group's leader was not heard."""
        return self.side.host.silent_ms(self.ident)

    def answers(self) -> bool:
        """See GroupHost."""
        return self.side.host.answers(self.ident)
