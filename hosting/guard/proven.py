"""Addresses that have shown that they are where they say: they finished a TCP handshake with us lately. Pure.

Kept in two generations, the older of which is forgotten when the younger is full or old: an address counts for PROVEN_S at least
and twice that at most, and memory is bounded however many come.
"""

from __future__ import annotations

from typing import Final

PROVEN_S: Final = 600
PROVEN_MAX: Final = 65_536  # addresses of a generation


class Proven:
    """See the module. Addresses are 4 or 16 octets."""

    __slots__ = ("_addresses_max", "_old", "_since_s", "_young")

    def __init__(self, addresses_max: int = PROVEN_MAX) -> None:
        self._addresses_max = addresses_max
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()
        self._since_s = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def add(self, address: bytes, now_s: int) -> None:
        self.turn(now_s)
        if address not in self._young and len(self._young) >= self._addresses_max:
            self._forget(now_s)
        self._young.add(address)

    def turn(self, now_s: int) -> None:
        """Forget what is too old. Call it before `has`, once for a batch."""
        late_s = now_s - self._since_s
        if late_s >= PROVEN_S:
            self._forget(now_s)
            if late_s >= 2 * PROVEN_S:
                self._old = set()

    def has(self, address: bytes) -> bool:
        return address in self._young or address in self._old

    def _forget(self, now_s: int) -> None:
        self._old, self._young, self._since_s = self._young, set(), now_s
