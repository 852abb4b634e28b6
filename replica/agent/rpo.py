"""How old the oldest commit is that no receipt covers: what back-pressure waits for. Pure; times are arguments."""

from __future__ import annotations

from collections import deque

from replica.model.position import Position

COMMITS_MAX = 65_536  # remembered; beyond it two neighbours become one, the older one's moment stands


class RpoWindow:
    """Commits of one source in order. Times are seconds of CLOCK_BOOTTIME.

    Args:
        target_s: a commit may wait so long for the copy to have it before the next one is acknowledged; 0: none may.
    """

    __slots__ = ("_commits", "target_s")

    def __init__(self, target_s: float) -> None:
        self.target_s = target_s
        self._commits: deque[tuple[Position, float]] = deque()

    def committed(self, position: Position, now_s: float) -> None:
        """A commit is on the source's disk."""
        if len(self._commits) >= COMMITS_MAX:
            self._commits[-1] = (position, self._commits[-1][1])
            return
        if not self._commits or self._commits[-1][0] != position:
            self._commits.append((position, now_s))

    def covered(self, receipted: Position | None) -> None:
        """The newest quorum receipt."""
        while self._commits and receipted is not None and receipted.place >= self._commits[0][0].place:
            self._commits.popleft()

    def waits_for(self, now_s: float) -> Position | None:
        """The boundary whose receipt must come before another commit is acknowledged; None: it may be now."""
        if self._commits and now_s - self._commits[0][1] >= self.target_s:
            return self._commits[0][0]
        return None

    def age_s(self, now_s: float) -> float:
        """How long the oldest uncovered commit waits; 0.0: none does."""
        return max(0.0, now_s - self._commits[0][1]) if self._commits else 0.0

    def epoch_began(self) -> None:
        """A grant covers all before its start: the copy stands at its parent, or loads a snapshot."""
        self._commits.clear()
