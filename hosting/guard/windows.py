"""Counts within one second, for whole batches of keys at a time. Pure; time is an argument.

A window begins anew with each second, so across its border a client may take twice its limit within one second: for the price
of one look-up a key, which the C side of `Counter` does for a whole batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


class Window:
    """How often each key came in the present second.

    Args:
        limit: a key that came more often is over; 0: none ever is.
        keys_max: counted at once; beyond it all are counted from 0 again.
    """

    __slots__ = ("_counts", "_keys_max", "_second", "limit", "overflows")

    def __init__(self, limit: int, keys_max: int) -> None:
        self.limit, self._keys_max = limit, keys_max
        self._counts: Counter[bytes] = Counter()
        self._second = -1
        self.overflows = 0

    def count(self, keys: Sequence[bytes], second: int) -> set[bytes]:
        """Count a batch; those of its keys that are over by now."""
        if not self.limit:
            return set()
        self._turn(second)
        counts, limit = self._counts, self.limit
        counts.update(keys)
        if max(map(counts.__getitem__, keys), default=0) <= limit:
            return set()
        return {key for key in set(keys) if counts[key] > limit}

    def add(self, key: bytes, amount: int, second: int) -> int:
        """Count `amount` of one key; how much of it is within the limit."""
        if not self.limit:
            return amount
        self._turn(second)
        before = self._counts[key]
        self._counts[key] = before + amount
        return max(0, min(amount, self.limit - before))

    def has_room(self, key: bytes, second: int) -> bool:
        """May this key come once more?"""
        if not self.limit:
            return True
        self._turn(second)
        return self._counts[key] < self.limit

    def _turn(self, second: int) -> None:
        if second != self._second:
            self._second = second
            self._counts.clear()
        elif len(self._counts) > self._keys_max:
            self.overflows += 1
            self._counts.clear()
