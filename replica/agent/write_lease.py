"""The write-path lease of a source, as its holder counts it (SEMANTICS 5.1, 5.2). Pure: CLOCK_BOOTTIME comes in as nanoseconds.

| state | what the registry may do | how it is left |
| --- | --- | --- |
| NONE | nothing is acknowledged: no lease was ever given | a renewal |
| HELD | acknowledge | time: no renewal for WARN_PART of the lease |
| WARNED | acknowledge; an alarm is out | a renewal, or time: the lease ends |
| ENDED | nothing is acknowledged | a renewal |

The holder counts from the moment *before* it asked, the cluster from its commit, which comes later: at the holder a lease never
lasts longer. Time is read when a question is asked, never stored as "valid": a process that was frozen, or a machine that was
suspended, finds its lease ended at the first question afterwards, because CLOCK_BOOTTIME went on. The duration is fixed for the
life of a holder: a shorter one whose answer was lost would leave it believing in the longer one before.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

from replica.model.errors import require

MS = 1_000_000
DURATION_MS_MIN, DURATION_MS_MAX = 1_000, 600_000
ASKS_OPEN_MAX = 64  # questions whose answer may still come; an older one's answer counts for nothing


class LeaseState(Enum):
    """See the table of the module."""

    NONE = "none"
    HELD = "held"
    WARNED = "warned"
    ENDED = "ended"


LEASE_MOVES: dict[LeaseState, frozenset[LeaseState]] = {
    LeaseState.NONE: frozenset({LeaseState.HELD, LeaseState.WARNED, LeaseState.ENDED}),  # the answer may come late
    LeaseState.HELD: frozenset({LeaseState.WARNED, LeaseState.ENDED}),
    LeaseState.WARNED: frozenset({LeaseState.HELD, LeaseState.ENDED}),
    LeaseState.ENDED: frozenset({LeaseState.HELD, LeaseState.WARNED}),
}


@dataclass(frozen=True, slots=True)
class LeaseAsk:
    """One question for a lease: put on every stream. `number` rises; `epoch`: the one the source writes in."""

    number: int
    epoch: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """When the holder asks and warns.

    Args:
        duration_ms: of one lease; renew_ms: between two questions; warn_ms: without a renewal for so long it alarms.
    """

    duration_ms: int = 30_000
    renew_ms: int = 5_000
    warn_ms: int = 15_000

    def __post_init__(self) -> None:
        require(
            DURATION_MS_MIN <= self.duration_ms <= DURATION_MS_MAX, f"a lease lasts {DURATION_MS_MIN} to {DURATION_MS_MAX} ms"
        )
        require(0 < self.renew_ms < self.warn_ms < self.duration_ms, "renewed first, then warned, then ended")


class WriteLease:
    """The lease of one source at its holder. Methods that change it belong to one thread; `valid` and `left_ms` to any."""

    def __init__(self, times: LeaseTimes) -> None:
        self.times = times
        self.state = LeaseState.NONE
        self.epoch = 0
        self.newest: LeaseAsk | None = None  # the question that streams shall carry
        self.refused = ""  # why the newest question was refused; empty: it was not
        self._asked: OrderedDict[int, tuple[int, int]] = OrderedDict()  # number -> (when, epoch)
        self._number = 0
        self._until_ns = 0
        self._since_ns: int | None = None  # when the question of the lease in force was asked

    def ask(self, epoch: int, now_ns: int) -> LeaseAsk:
        """A new question; `now_ns` must be read before anything of it leaves. A lease of another epoch ends at once."""
        if epoch != self.epoch:
            self.epoch, self._until_ns, self._since_ns = epoch, 0, None
            self._asked.clear()
        self._number += 1
        self._asked[self._number] = (now_ns, epoch)
        while len(self._asked) > ASKS_OPEN_MAX:
            self._asked.popitem(last=False)
        self.newest = LeaseAsk(self._number, epoch, self.times.duration_ms)
        self.look(now_ns)
        return self.newest

    def due(self, now_ns: int) -> bool:
        """It is time for the next question."""
        newest = self._asked.get(self._number)
        return newest is None or now_ns - newest[0] >= self.times.renew_ms * MS

    def given(self, number: int, epoch: int, duration_ms: int, now_ns: int) -> bool:
        """The cluster committed a renewal. True when it counts: ours, of this epoch, of the length we asked for."""
        asked = self._asked.get(number)
        if asked is None or asked[1] != epoch or epoch != self.epoch or duration_ms != self.times.duration_ms:
            return False
        until_ns = asked[0] + duration_ms * MS
        if until_ns <= self._until_ns:
            return False
        self._until_ns, self._since_ns, self.refused = until_ns, asked[0], ""
        for older in [one for one in self._asked if one < number]:
            del self._asked[older]
        self.look(now_ns)
        return True

    def denied(self, number: int, why: str) -> None:
        """The cluster gives no lease (it is taking over, or another epoch is in force): the last one runs out."""
        if number == self._number:
            self.refused = why

    def drop(self, now_ns: int) -> None:
        """The holder gives it up itself: it is stopping."""
        self._until_ns = 0
        self.look(now_ns)

    def valid(self, now_ns: int) -> bool:
        """May be acknowledged at this moment. Any thread."""
        return now_ns < self._until_ns

    def left_ms(self, now_ns: int) -> int:
        """Milliseconds it still lasts; 0: none. Any thread."""
        return max(0, self._until_ns - now_ns) // MS

    def look(self, now_ns: int) -> LeaseState:
        """Let the state follow the clock."""
        if self._since_ns is None and self.state is LeaseState.NONE:
            return self.state
        if not self.valid(now_ns):
            self._move(LeaseState.ENDED)
        elif self._since_ns is not None and now_ns - self._since_ns >= self.times.warn_ms * MS:
            self._move(LeaseState.WARNED)
        else:
            self._move(LeaseState.HELD)
        return self.state

    def _move(self, state: LeaseState) -> None:
        require(state is self.state or state in LEASE_MOVES[self.state], f"a lease cannot go from {self.state} to {state}")
        self.state = state
