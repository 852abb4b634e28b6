"""What of the log must stay: batches without a quorum receipt, and what a retention lease asks for. Pure; times are arguments."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from replica.agent.log import Segment
from replica.model.position import Position

LEASES_MAX = 64


@dataclass(frozen=True, slots=True)
class Spool:
    """Limits of what the log may hold.

    Args:
        octets_max: batches not yet covered by a quorum receipt; at this size intake stops.
        keep_octets: batches kept although receipted, so that a replica may resume without a snapshot.
    """

    octets_max: int = 1024 * 1024 * 1024
    keep_octets: int = 64 * 1024 * 1024


class Retention:
    """Receipts and leases of one source.

    In epoch 0 nothing is promised: first contact copies the content, not the log. A grant likewise covers all before its start:
    the replica stood at the parent, or loads a snapshot.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.receipted: Position | None = None
        self._granted: Position | None = None
        self._leases: dict[Position, float] = {}
        self._leasing = threading.Lock()  # they come on an event loop; whoever appends looks at them, in its own thread

    def receipt(self, position: Position) -> None:
        """A quorum receipt for a boundary of our history; an older one than known changes nothing."""
        if self.receipted is None or position.place > self.receipted.place:
            self.receipted = position

    def granted(self, start: Position) -> None:
        self._granted = start

    def lease(self, position: Position, until_s: float) -> None:
        """Keep what follows `position` until then. Over LEASES_MAX the one that ends first gives way."""
        with self._leasing:
            self._leases[position] = until_s
            if len(self._leases) > LEASES_MAX:
                del self._leases[min(self._leases, key=self._leases.__getitem__)]

    def waiting_octets(self, segments: Sequence[Segment]) -> int:
        """Octets of segments that no receipt covers."""
        return sum(segment.octets for segment in segments if self._promised(segment))

    def _promised(self, segment: Segment) -> bool:
        """Some batch of it still waits for a receipt. Epochs of one history never fall, so places compare."""
        covered = (self.receipted, self._granted)
        return segment.end.epoch > 0 and not any(mark is not None and segment.end.place <= mark.place for mark in covered)

    def releasable(self, segments: Sequence[Segment], now_s: float) -> list[Segment]:
        """Oldest segments that may be deleted: not promised, wanted by no lease, over `keep_octets`; never the newest."""
        with self._leasing:
            self._leases = {position: until_s for position, until_s in self._leases.items() if until_s > now_s}
            leases = tuple(self._leases)
        total = sum(segment.octets for segment in segments)
        chosen: list[Segment] = []
        for segment in segments[:-1]:
            wanted = any(segment.end.place > position.place for position in leases)
            if self._promised(segment) or wanted or total <= self.spool.keep_octets:
                break
            chosen.append(segment)
            total -= segment.octets
        return chosen
