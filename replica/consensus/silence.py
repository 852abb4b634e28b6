"""When members were last heard, by our own clock: how silent a leader is, since when it has no majority; were we stopped?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

NEVER_MS = 2**31


@dataclass(slots=True)
class Contacts:
    """Times are CLOCK_BOOTTIME nanoseconds."""

    _heard_ns: dict[int, int] = field(default_factory=dict)
    _led_ns: int | None = None

    def heard(self, member: int, now_ns: int, *, leads: bool = False) -> None:
        """`leads`: it leads the group."""
        self._heard_ns[member] = now_ns
        if leads:
            self.led(now_ns)

    def led(self, at_ns: int) -> None:
        """Somebody led the group then: a leader was heard, or a majority heard us lead."""
        self._led_ns = at_ns if self._led_ns is None else max(at_ns, self._led_ns)

    def heard_all(self, members: Iterable[int], now_ns: int) -> None:
        for member in members:
            self._heard_ns[member] = now_ns

    def silent_ms(self, member: int, now_ns: int) -> int:
        """Since the member was heard; NEVER_MS: never."""
        return _since_ms(self._heard_ns.get(member), now_ns)

    def leaderless_ms(self, now_ns: int) -> int:
        """Since anybody led the group, as far as we know; NEVER_MS: nobody ever did."""
        return _since_ms(self._led_ns, now_ns)

    def quorum_silent_ms(self, me: int, voters: frozenset[int], now_ns: int) -> int:
        """How long ago a majority of the voters, ourselves included, had been heard."""
        silent = sorted(0 if voter == me else self.silent_ms(voter, now_ns) for voter in voters)
        return silent[len(voters) // 2] if voters else NEVER_MS


def _since_ms(at_ns: int | None, now_ns: int) -> int:
    return NEVER_MS if at_ns is None else max(0, now_ns - at_ns) // 1_000_000


class Promptness:
    """Was this process stopped or starved a moment ago? Then what it reads may have waited, and says nothing about now.

    A stop of `late_ns_max` or more is doubted for as long as it took, at most for `doubt_ns_max`: so long it may take until all
    that waited in sockets was taken. Whoever never looked is prompt.
    """

    __slots__ = ("_doubt_ns_max", "_doubt_until_ns", "_late_ns_max", "_looked_ns")

    def __init__(self, late_ns_max: int, doubt_ns_max: int) -> None:
        self._late_ns_max, self._doubt_ns_max = late_ns_max, doubt_ns_max
        self._looked_ns: int | None = None
        self._doubt_until_ns = 0

    def look(self, now_ns: int) -> None:
        """Called often, in time unless we were stopped."""
        late_ns = 0 if self._looked_ns is None else now_ns - self._looked_ns
        if late_ns >= self._late_ns_max:
            self._doubt_until_ns = max(self._doubt_until_ns, now_ns + min(late_ns, self._doubt_ns_max))
        self._looked_ns = now_ns

    def prompt(self, now_ns: int) -> bool:
        """Whether what comes now comes in its time."""
        late = self._looked_ns is not None and now_ns - self._looked_ns >= self._late_ns_max
        return not late and now_ns >= self._doubt_until_ns
