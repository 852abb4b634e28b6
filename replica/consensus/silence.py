"""When members of a group were last heard, by our own clock: how silent a leader is, and since when it has no majority."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

NEVER_MS = 2**31


@dataclass(slots=True)
class Contacts:
    """Times are CLOCK_BOOTTIME nanoseconds."""

    _heard_ns: dict[int, int] = field(default_factory=dict)

    def heard(self, member: int, now_ns: int) -> None:
        self._heard_ns[member] = now_ns

    def heard_all(self, members: Iterable[int], now_ns: int) -> None:
        for member in members:
            self._heard_ns[member] = now_ns

    def silent_ms(self, member: int, now_ns: int) -> int:
        """Since the member was heard; NEVER_MS: never, or nobody (0) leads."""
        at_ns = self._heard_ns.get(member)
        return NEVER_MS if at_ns is None else max(0, now_ns - at_ns) // 1_000_000

    def quorum_silent_ms(self, me: int, voters: frozenset[int], now_ns: int) -> int:
        """How long ago a majority of the voters, ourselves included, had been heard."""
        silent = sorted(0 if voter == me else self.silent_ms(voter, now_ns) for voter in voters)
        return silent[len(voters) // 2] if voters else NEVER_MS
