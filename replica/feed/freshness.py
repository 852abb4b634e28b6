"""Age of a copy by echoed nonces (SEMANTICS 4): no two machines' clocks are ever compared.

age = CLOCK_BOOTTIME now minus when *we* sent the nonce echoed by the newest beat whose stated head our applied position has
reached. Unknown until the first such beat. A beat that lay in a buffer over a pause echoes an old nonce and so counts for
nothing. One object per source; it lives across streams, nonces do not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from replica.model.position import ORIGIN, Position
from replica.model.states import Authority, Freshness
from replica.model.view import FRESH_AGE_MS_MAX, LEADERLESS_ANSWER_MS_MAX, STALE_HORIZON_MS

NONCES_MAX = 64  # outstanding; at one in 500 ms the oldest is 32 s old, past any use
BEATS_MAX = 256  # heads not reached yet; the oldest is dropped, which can only make the age look greater
LAG_SILENCE_NS_MAX = 2_000_000_000  # promise 9: lag becomes UNKNOWN within 2 s of losing its input


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the applied position is behind the source's newest stated head; None: UNKNOWN."""

    changes: int | None
    age_ms: int | None


class CopyAge:
    """Keeps what age and lag need. Times are CLOCK_BOOTTIME nanoseconds."""

    __slots__ = ("_applied", "_base_ns", "_compared_ns", "_heads", "_heard_ns", "_newest", "_nonces")

    def __init__(self) -> None:
        self._nonces: dict[bytes, int] = {}
        self._heads: deque[tuple[Position, int]] = deque(maxlen=BEATS_MAX)
        self._applied: Position = ORIGIN
        self._base_ns: int | None = None
        self._newest: Position | None = None
        self._heard_ns: int | None = None  # when we sent the nonce of the newest beat
        self._compared_ns: int | None = None  # a certificate that compared equal was made later than this

    def stream_opened(self) -> None:
        """Nonces of an earlier stream count no more; what they proved stands."""
        self._nonces.clear()
        self._heads.clear()

    def nonce_sent(self, nonce: bytes, boot_ns: int) -> None:
        self._nonces[nonce] = boot_ns
        while len(self._nonces) > NONCES_MAX:
            del self._nonces[next(iter(self._nonces))]

    def beat(self, head: Position, nonce: bytes) -> bool:
        """A beat of this stream.

        Returns:
            False when it echoes no nonce of ours on this stream (it says nothing about age).
        """
        sent_ns = self._nonces.get(nonce)
        if sent_ns is None:
            return False
        self._newest = head
        self._heard_ns = max(sent_ns, self._heard_ns or sent_ns)
        self._heads.append((head, sent_ns))
        self._settle()
        return True

    @property
    def heard(self) -> tuple[Position, int] | None:
        """The newest head a beat stated, and when we sent the nonce it echoed; None: no beat yet."""
        return None if self._newest is None or self._heard_ns is None else (self._newest, self._heard_ns)

    def told(self, head: Position, base_ns: int) -> None:
        """What another member heard: the source's head, and the moment on our clock it counts from, never later than the true."""
        if self._heard_ns is None or base_ns > self._heard_ns:
            self._newest, self._heard_ns = head, base_ns
            self._heads.append((head, base_ns))
            self._settle()

    def compared(self) -> None:
        """A certificate of this stream equals our content; it came behind the newest beat, so it is younger than its nonce."""
        self.compared_told(self._heard_ns)

    def compared_told(self, base_ns: int | None) -> None:
        """What another member compared; the moment on our clock, never later than the true one."""
        if base_ns is not None:
            self._compared_ns = max(base_ns, self._compared_ns or base_ns)

    @property
    def compared_ns(self) -> int | None:
        return self._compared_ns

    def compared_age_ms(self, boot_ns: int) -> int | None:
        """None: nothing was compared here."""
        return None if self._compared_ns is None else max(0, boot_ns - self._compared_ns) // 1_000_000

    def applied(self, position: Position) -> None:
        """The live generation's applied position, after each apply."""
        self._applied = position
        self._settle()

    def _settle(self) -> None:
        while self._heads and self._applied.covers(self._heads[0][0]):
            sent_ns = self._heads.popleft()[1]
            self._base_ns = max(sent_ns, self._base_ns or sent_ns)

    def age_ms(self, boot_ns: int) -> int | None:
        """None: unknown."""
        return None if self._base_ns is None else max(0, boot_ns - self._base_ns) // 1_000_000

    def lag(self, boot_ns: int) -> Lag:
        """Lag in changes and milliseconds; UNKNOWN within 2 s of losing its input."""
        if self._newest is None or self._heard_ns is None or boot_ns - self._heard_ns > LAG_SILENCE_NS_MAX:
            return Lag(None, None)
        behind = self._newest.seq - self._applied.seq if self._newest.lineage == self._applied.lineage else None
        return Lag(None if behind is None else max(0, behind), self.age_ms(boot_ns))


@dataclass(frozen=True, slots=True)
class Vouching:
    """What else decides about an answer on one member.

    Args:
        leader_silent_ms: since our group's leader was last heard; 0 on the leader.
        probes_alive: our own probes of the source: True alive, False dead, None not known.
        horizon_ms: per source.
    """

    authority: Authority = Authority.SOURCE
    leader_silent_ms: int = 0
    probes_alive: bool | None = None
    horizon_ms: int = STALE_HORIZON_MS


def freshness_of(age_ms: int | None, how: Vouching) -> Freshness:
    """Named freshness of an answer (SEMANTICS 4).

    Args:
        age_ms: taken after the values were read; None: unknown.
    """
    if how.authority is Authority.REGISTRATION:
        return Freshness.FRESH
    if how.authority is Authority.RESOLUTION:
        return Freshness.DEGRADED
    if age_ms is not None and age_ms <= FRESH_AGE_MS_MAX:
        return Freshness.FRESH
    if age_ms is not None and age_ms <= how.horizon_ms:
        return Freshness.STALE_BOUNDED
    if how.leader_silent_ms > FRESH_AGE_MS_MAX and how.probes_alive is False and how.leader_silent_ms <= LEADERLESS_ANSWER_MS_MAX:
        return Freshness.DEGRADED
    return Freshness.EXPIRED
