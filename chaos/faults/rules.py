"""What a proxy does to one direction of a link, as values; seeded, without input or output."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from replica.model.errors import require

DELAY_MS_MAX = 60_000
US_PER_MS = 1_000


@dataclass(frozen=True, slots=True)
class StreamRule:
    """One direction of TCP connections. Octets are late or wait, but never lost nor out of order: TCP itself sees to that.

    Args:
        cut: nothing passes; what was sent waits for the heal, as it does in a sender's kernel.
        delay_ms, jitter_ms: each piece is late by delay_ms plus 0..jitter_ms.
        octets_per_s: rate; 0: no limit.
    """

    cut: bool = False
    delay_ms: float = 0
    jitter_ms: float = 0
    octets_per_s: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.delay_ms + self.jitter_ms <= DELAY_MS_MAX, f"a delay is 0 to {DELAY_MS_MAX} ms")
        require(self.octets_per_s >= 0, "a rate is not negative")


@dataclass(frozen=True, slots=True)
class DatagramRule:
    """One direction of UDP.

    Args:
        cut: all are lost.
        lost, doubled, late: share of datagrams, 0..1, that are lost, come twice, or come late_ms after those sent behind them.
        delay_ms, jitter_ms: as for streams; jitter alone puts datagrams out of order.
    """

    cut: bool = False
    lost: float = 0
    doubled: float = 0
    late: float = 0
    late_ms: float = 20
    delay_ms: float = 0
    jitter_ms: float = 0

    def __post_init__(self) -> None:
        require(all(0 <= share <= 1 for share in (self.lost, self.doubled, self.late)), "a share is 0 to 1")
        require(0 <= self.delay_ms + self.jitter_ms + self.late_ms <= DELAY_MS_MAX, f"a delay is 0 to {DELAY_MS_MAX} ms")


OPEN = StreamRule()
CUT = StreamRule(cut=True)
OPEN_DATAGRAMS = DatagramRule()
CUT_DATAGRAMS = DatagramRule(cut=True)


def due_ns(rule: StreamRule, now_ns: int, before_ns: int, octets: int, chance: Random) -> int:
    """When a piece of a stream may leave.

    Args:
        before_ns: when the piece before it leaves; streams keep their order.
        octets: its length; with a rate it also takes that long on the wire.
    """
    late_ns = int((rule.delay_ms + chance.random() * rule.jitter_ms) * 1_000_000)
    wire_ns = octets * 1_000_000_000 // rule.octets_per_s if rule.octets_per_s else 0
    return max(now_ns + late_ns, before_ns + wire_ns)


def fates_ms(rule: DatagramRule, chance: Random) -> tuple[float, ...]:
    """What becomes of one datagram: after how many ms each of its copies arrives; () when it is lost.

    The same number of chances is drawn whatever becomes of it, so that a seed tells the same story under a changed rule.
    """
    lost, doubled, late, first, second = (chance.random() for _ in range(5))
    if rule.cut or lost < rule.lost:
        return ()
    behind = rule.late_ms if late < rule.late else 0
    one = rule.delay_ms + first * rule.jitter_ms + behind
    return (one, rule.delay_ms + second * rule.jitter_ms) if doubled < rule.doubled else (one,)
