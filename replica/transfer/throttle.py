"""How fast a transfer may go: a bucket of octets that fills with time. Pure: time is an argument."""

from __future__ import annotations

from replica.model.errors import Code, ZaibeiError

UNLIMITED = 0  # octets a second
BURST_NS = 250_000_000  # what a bucket holds: the octets of so long
NS = 1_000_000_000


class TokenBucket:
    """Octets may be taken at any time; the answer is how long to wait before the next are.

    Args:
        octets_per_s: UNLIMITED or at least 1.
    """

    __slots__ = ("_at_ns", "_rate", "_stock")

    def __init__(self, octets_per_s: int, now_ns: int) -> None:
        self._rate, self._at_ns = _checked(octets_per_s), now_ns
        self._stock = self._burst()

    @property
    def octets_per_s(self) -> int:
        return self._rate

    def set_rate(self, octets_per_s: int, now_ns: int) -> None:
        """Another rate from now on; what was taken before is still owed, at the new one."""
        self._fill(now_ns)
        self._rate = _checked(octets_per_s)
        self._stock = min(self._stock, self._burst()) if self._rate else 0

    def take(self, octets: int, now_ns: int) -> int:
        """Take them; returns nanoseconds to wait."""
        if self._rate == UNLIMITED:
            return 0
        self._fill(now_ns)
        self._stock -= octets
        return 0 if self._stock >= 0 else -self._stock * NS // self._rate

    def _burst(self) -> int:
        return self._rate * BURST_NS // NS

    def _fill(self, now_ns: int) -> None:
        passed, self._at_ns = max(0, now_ns - self._at_ns), max(now_ns, self._at_ns)
        self._stock = min(self._burst(), self._stock + self._rate * passed // NS)


def _checked(octets_per_s: int) -> int:
    if octets_per_s < 0:
        raise ZaibeiError(Code.INVALID_CONFIG, f"a transfer's rate is 0 (unlimited) or more octets a second, not {octets_per_s}")
    return octets_per_s
