"""A rate as a token bucket: what one tenant may register or have resolved a second, with a little more at once; pure."""

from __future__ import annotations

from math import ceil

WAIT_MS_MAX = 86_400_000  # told to who is refused, however slow the rate
HELD_MS_MAX = 1_000  # a refusal is told at most so late


class Bucket:
    """Tokens that come back with time.

    Who is refused is told so late as if all who were refused before came again first: one request too many waits for one token,
    and who sends a hundred times its rate waits HELD_MS_MAX for every answer.

    Args:
        per_s: tokens a second, 0 or more; 0: none ever.
        burst_s: it holds what so many seconds give, and at least one token.
        now_ms: a clock that may be set back or forward: backward nothing comes, forward it is full.
    """

    __slots__ = ("_at_ms", "_full", "_left", "_refused", "per_s")

    def __init__(self, per_s: float, burst_s: float, now_ms: int) -> None:
        self.per_s = per_s
        self._full = max(1.0, per_s * burst_s) if per_s else 0.0
        self._left, self._at_ms = self._full, now_ms
        self._refused = 0.0  # since tokens last sufficed, less one for each that came back

    def take(self, now_ms: int) -> int | None:
        """One token. 0: taken. Over 0: not taken, one is there after so many milliseconds. None: not taken, none will come."""
        wait_ms = self.wait_ms(now_ms)
        if wait_ms == 0:
            self._left -= 1
        return wait_ms

    def take_most(self, count: int, now_ms: int) -> int:
        """As many of `count` tokens as there are."""
        self._come_back(now_ms)
        taken = min(count, int(self._left))
        self._left -= taken
        return taken

    def wait_ms(self, now_ms: int) -> int | None:
        """What `take` would say, with nothing taken."""
        if not self.per_s:
            return None
        self._come_back(now_ms)
        return 0 if self._left >= 1 else max(1, ceil(min(WAIT_MS_MAX, (1 - self._left) * 1_000 / self.per_s)))

    def refused(self, now_ms: int, count: int = 1) -> int:
        """So many were refused: for how many milliseconds the answer to the last of them is held back."""
        wait_ms = self.wait_ms(now_ms)
        if wait_ms is None:
            return HELD_MS_MAX
        most = self.per_s * HELD_MS_MAX / 1_000
        before = min(self._refused + count - 1, most)
        held_ms = int(min(HELD_MS_MAX, wait_ms + before * 1_000 / self.per_s))
        self._refused = min(before + 1, most)
        return held_ms

    def _come_back(self, now_ms: int) -> None:
        back = max(0, now_ms - self._at_ms) * self.per_s / 1_000
        self._at_ms = now_ms
        self._left = min(self._full, self._left + back)
        self._refused = max(0.0, self._refused - back)
