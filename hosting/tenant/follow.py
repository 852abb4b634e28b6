"""Do documents that were read still hold? Pure: positions in, yes or no out.

Documents are read once and kept; reading them for every registration would cost more than the registration. They hold as long as
every batch since then was one of ours without a document in it. A position ends a chain of hashes, so where we stand at the end
of a batch we cut, we know all that lies before it: a leader that was replaced and came back finds a position it never cut.
"""

from __future__ import annotations

from collections import OrderedDict

from replica.model.position import Position

OWN_KEPT_MAX = 4_096  # batches; older ones are forgotten, and documents are then read again


class Follow:
    """What this process itself wrote since the documents were read."""

    def __init__(self) -> None:
        self._own: OrderedDict[Position, tuple[Position, bool]] = OrderedDict()  # after -> before, with a document in it
        self._read_at: Position | None = None

    def cut(self, before: Position, after: Position, *, papers: bool) -> None:
        """A batch of ours was proposed."""
        self._own[after] = (before, papers)
        if len(self._own) > OWN_KEPT_MAX:
            self._own.popitem(last=False)

    def read(self, at: Position) -> None:
        """Documents were read, and hold at this position."""
        self._read_at = at

    def holds(self, at: Position) -> bool:
        """Do they hold here too? Walks back over our own batches; what was walked is not walked again."""
        if self._read_at is None:
            return False
        if not self.same(self._read_at, at):
            return False
        self._read_at = at
        return True

    def same(self, before: Position, after: Position) -> bool:
        """Is it certain that no document changed between these two positions?"""
        place = after
        for _ in range(OWN_KEPT_MAX + 1):
            if place == before:
                return True
            step = self._own.get(place)
            if step is None or step[1]:
                return False
            place = step[0]
        return False
