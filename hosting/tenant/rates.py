"""A rate as a token bucket: what one tenant may do a second, with a little more at once; pure."""

from __future__ import annotations


class Bucket:
    """Tokens that come back with time.

    Args:
        per_s: tokens a second, 0 or more; 0: none ever.
        burst_s: it holds what so many seconds give, and at least one token.
        now_ms: a clock that may be set back or forward: backward nothing comes, forward it is full.
    """

    __slots__ = ("_at_ms", "_full", "_left", "per_s")

    def __init__(self, per_s: float, burst_s: float, now_ms: int) -> None:
        self.per_s = per_s
        self._full = max(1.0, per_s * burst_s) if per_s else 0.0
        self._left, self._at_ms = self._full, now_ms

    def take(self, now_ms: int) -> int | None:
        """One token. 0: taken. Over 0: not taken, one is there after so many milliseconds. None: not taken, none will come."""
        if not self.per_s:
            return None
        gone_ms, self._at_ms = max(0, now_ms - self._at_ms), now_ms
        self._left = min(self._full, self._left + gone_ms * self.per_s / 1_000)
        if self._left >= 1:
            self._left -= 1
            return 0
        return max(1, -int(-(1 - self._left) * 1_000 // self.per_s))
