"""Change log of a generation: raw batches in order, bounded; boundaries (chains) kept longer than the batches they end.

Both begin at a remembered row, because looking for the first one would step over every deletion since the last compaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, pairwise

from rocksdict import WriteBatch

from replica.model.batch import open_batch
from replica.model.position import Position
from replica.store.edge_rocks import BudgetLimits, Rocks
from replica.store.rows import Kind, after_kind, history_of, place_of, placed

PRUNE_ROWS = 64  # dropped at a time


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a write drops: (batches, octets, chains), and the first places kept."""

    batches: int = 0
    octets: int = 0
    chains: int = 0
    first_log: tuple[int, int] | None = None
    first_chain: tuple[int, int] | None = None


NOTHING = Pruned()


class ChangeLog:
    """Bookkeeping; the rows are written with each batch. Changed on the apply thread, read from any.

    Args:
        first_log: place of the oldest batch held; None: none is held.
        first_chain: place of the oldest boundary held.
    """

    __slots__ = ("_floor", "_limits", "_rocks", "batches", "chains", "first_chain", "first_log", "octets")

    def __init__(self, rocks: Rocks, limits: BudgetLimits) -> None:
        self._rocks, self._limits = rocks, limits
        self._floor: tuple[tuple[int, int], Position] | None = None  # asked for at each move of the head, and costs a whole batch
        self.batches = self.octets = self.chains = 0
        self.first_log: tuple[int, int] | None = None
        self.first_chain: tuple[int, int] | None = None

    def load(self) -> None:
        """Count what is there: one small row a boundary, no batch is read. Raises ZaibeiError."""
        self.batches = self.octets = self.chains = 0
        self._floor = None
        first = self._rocks.first_keys(Kind.LOG, after_kind(Kind.LOG), 1)
        self.first_log = place_of(first[0]) if first else None
        self.first_chain = None
        for key, value in self._rocks.rows(Kind.HISTORY, after_kind(Kind.HISTORY)):
            self.chains += 1
            place = place_of(key)
            self.first_chain = self.first_chain or place
            octets = history_of(key, value)[1]
            if octets and self.first_log is not None and place >= self.first_log:
                self.batches += 1
                self.octets += octets

    def prune(self, wb: WriteBatch) -> Pruned:
        """Put the deletion of the oldest rows into a write where a limit is passed; `wrote` then takes the result."""
        limits = self._limits
        batches = octets = chains = 0
        first_log, first_chain = self.first_log, self.first_chain
        if first_log is not None and (self.batches > limits.log_batches_max or self.octets > limits.log_octets_max):
            for place, length in self._boundaries(first_log):
                first_log = place
                left, octets_left = self.batches - batches, self.octets - octets
                if batches == PRUNE_ROWS or (left <= _low(limits.log_batches_max) and octets_left <= _low(limits.log_octets_max)):
                    break
                wb.delete(placed(Kind.LOG, *place))
                batches, octets = batches + (length > 0), octets + length
        if first_chain is not None and self.chains > limits.chains_max:
            for (place, _), (following, _) in pairwise(self._boundaries(first_chain)):
                first_chain = place
                enough = self.chains - chains <= _low(limits.chains_max)
                if enough or (first_log is not None and following >= first_log):  # the log's floor is kept
                    break
                wb.delete(placed(Kind.HISTORY, *place))
                chains, first_chain = chains + 1, following
        if not batches and not chains:
            return NOTHING
        return Pruned(batches, octets, chains, first_log, first_chain)

    def _boundaries(self, first: tuple[int, int]) -> list[tuple[tuple[int, int], int]]:
        rows = self._rocks.rows(placed(Kind.HISTORY, *first), after_kind(Kind.HISTORY))
        return [(place_of(key), history_of(key, value)[1]) for key, value in islice(rows, PRUNE_ROWS + 1)]

    def wrote(self, position: Position, octets: int, pruned: Pruned) -> None:
        """A write went through: a batch of `octets` ending at `position` (0: none), and what was pruned with it."""
        if pruned is not NOTHING:
            self.batches -= pruned.batches
            self.octets -= pruned.octets
            self.chains -= pruned.chains
            self.first_log, self.first_chain = pruned.first_log, pruned.first_chain
        if octets:
            self.batches += 1
            self.octets += octets
            self.chains += 1
            self.first_log = self.first_log or position.place
            self.first_chain = self.first_chain or position.place

    def boundary(self, position: Position) -> None:
        """A boundary without a batch was written."""
        self.chains += 1
        self.first_chain = self.first_chain or position.place

    def read(self, after: Position, octets_max: int) -> list[bytes]:
        """Raw batches behind a boundary of ours in its epoch, at least one where there is one. Raises ZaibeiError."""
        found: list[bytes] = []
        size = 0
        start, stop = placed(Kind.LOG, after.epoch, after.seq + 1), placed(Kind.LOG, after.epoch + 1, 0)
        for _, raw in self._rocks.rows(start, stop):
            size += len(raw)
            if found and size > octets_max:
                break
            found.append(raw)
        return found

    def floor(self, head: Position) -> Position:
        """The oldest boundary from which `read` reaches the head. Raises ZaibeiError."""
        first = max(self.first_log or (0, 0), (head.epoch, 0))
        seen = self._floor
        if seen is not None and seen[0] == first:
            return seen[1]
        for _, raw in self._rocks.rows(placed(Kind.LOG, *first), placed(Kind.LOG, head.epoch + 1, 0)):
            self._floor = (first, open_batch(raw, verify=False).before)
            return self._floor[1]
        return head

    def holds_after(self, after: Position, head: Position) -> bool:
        """True when every batch between a boundary of ours and the head is held."""
        if after == head:
            return True
        return after.epoch == head.epoch and self.first_log is not None and self._next_place(after) >= self.first_log

    def _next_place(self, after: Position) -> tuple[int, int]:
        rows = self._rocks.first_keys(placed(Kind.HISTORY, after.epoch, after.seq + 1), after_kind(Kind.HISTORY), 1)
        return place_of(rows[0]) if rows else (0, 0)


def _low(limit: int) -> int:
    """Pruning goes on down to here, so that not every batch looks for something to prune."""
    return limit - limit // 16
