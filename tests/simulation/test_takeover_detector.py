"""Seeded: flapping links never take over, dead sources are decided in time, and each rule of the detector is needed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from replica.takeover.detector import MS, Detector, DetectorLimits, Verdict, decide

FLAPS = 1_000
SEEDS = range(6)
PROBE_LIMIT_MS = 250
ALONE_FLAP_MS = 420  # what one observer alone bears


@dataclass
class Net:
    """A source host behind a link that is down in some windows, one or two observers, a virtual clock of 1 ms.

    Args:
        observers: machine of each observer.
        refused: a probe over a cut link fails at once (else after the time limit).
        stalls: (from ms, length): the observers' own process stands still.
    """

    seed: int
    limits: DetectorLimits
    observers: tuple[str, ...] = ("m1",)
    refused: bool = True
    stalls: tuple[tuple[int, int], ...] = ()
    dead_from_ms: int | None = None
    beats: bool = True  # False: beats are lost for good, probes are answered
    answers_ms: tuple[int, int] = (1, 20)  # how long that takes, at least and at most
    takeovers: int = 0
    decided_ms: int | None = None
    down: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.detectors = [Detector(f"o{place}", machine, self.limits, 0) for place, machine in enumerate(self.observers)]
        self.tick_at = [place * 7 for place in range(len(self.observers))]
        self.events: list[tuple[int, int, int, bool]] = []  # (at, observer, probe, alive)
        self.window = 0

    def is_down(self, now: int) -> bool:
        if self.dead_from_ms is not None and now >= self.dead_from_ms:
            return True
        while self.window < len(self.down) and self.down[self.window][1] <= now:
            self.window += 1
        return self.window < len(self.down) and self.down[self.window][0] <= now

    def stalled(self, now: int) -> bool:
        return any(start <= now < start + length for start, length in self.stalls)

    def run(self, until_ms: int) -> Net:
        beat_at = 0
        for now in range(until_ms):
            down = self.is_down(now)
            if now >= beat_at:
                beat_at = now + 50 + self.random.randint(-2, 4)
                if self.beats and not down and not self.stalled(now):
                    for detector in self.detectors:
                        detector.beat(now * MS)
            if not self.stalled(now):
                self._observe(now, down)
            if decide([detector.observation(now * MS) for detector in self.detectors])[0] is Verdict.DEAD:
                self.takeovers += 1
                if self.decided_ms is None:
                    self.decided_ms = now
        return self

    def _observe(self, now: int, down: bool) -> None:
        for event in [event for event in self.events if event[0] <= now]:
            self.events.remove(event)
            self.detectors[event[1]].probe_ended(event[2], event[3], now * MS)
        for place, detector in enumerate(self.detectors):
            if now < self.tick_at[place]:
                continue
            self.tick_at[place] = now + self.random.randint(10, 18)
            for number in detector.tick(now * MS):
                wait = (1 if self.refused else PROBE_LIMIT_MS) if down else self.random.randint(*self.answers_ms)
                # A time-out that runs off during our own pause is delivered like any other.
                self.events.append((now + wait, place, number, not down and not self.stalled(now + wait)))


def flaps(seed: int, count: int, longest_ms: int = 240) -> list[tuple[int, int]]:
    chance, at, found = random.Random(f"flaps {seed}"), 1_000, []
    for _ in range(count):
        length = chance.randint(100, longest_ms)
        found.append((at, at + length))
        at += length + chance.randint(60, 400)
    return found


def flapping(
    limits: DetectorLimits, seed: int, observers: tuple[str, ...], refused: bool, count: int = FLAPS // 4, longest_ms: int = 240
) -> Net:
    net = Net(seed, limits, observers, refused)
    net.down = flaps(seed, count, longest_ms)
    return net.run(net.down[-1][1] + 1_000)


@pytest.mark.parametrize("observers", [("m1",), ("m1", "m2")])
@pytest.mark.parametrize("refused", [True, False])
def test_a_link_that_flaps_1000_times_takes_nothing_over(observers: tuple[str, ...], refused: bool) -> None:
    for seed in range(4):
        assert flapping(DetectorLimits(), seed, observers, refused).takeovers == 0, f"seed {seed}"


@pytest.mark.parametrize(
    ("observers", "refused", "bound_ms"),
    [(("m1",), True, 650), (("m1",), False, 650), (("m1", "m2"), True, 400), (("m1", "m2"), False, 650)],
)
def test_a_dead_source_is_decided_within_the_bound(observers: tuple[str, ...], refused: bool, bound_ms: int) -> None:
    for seed in SEEDS:
        net = Net(seed, DetectorLimits(), observers, refused, dead_from_ms=2_000 + seed).run(4_000)
        assert net.decided_ms is not None, f"seed {seed}"
        assert net.decided_ms - (2_000 + seed) <= bound_ms, f"seed {seed}: {net.decided_ms}"


def lost_beats(limits: DetectorLimits, seed: int) -> bool:
    """And one probe at a time, whose answers are slow: its last sign of life is older than any that outvotes."""
    slow = replace(limits, probes_in_flight_max=1)
    return Net(seed, slow, beats=False, answers_ms=(400, 450)).run(20_000).takeovers == 0


def flaps_alone(limits: DetectorLimits, seed: int) -> bool:
    """One observer has nobody who contradicts it: it bears longer flaps than two do."""
    return all(flapping(limits, seed, ("m1",), refused, 60, ALONE_FLAP_MS).takeovers == 0 for refused in (True, False))


def flaps_pair(limits: DetectorLimits, seed: int) -> bool:
    return flapping(limits, seed, ("m1", "m2"), True, 60).takeovers == 0


def own_pauses(limits: DetectorLimits, seed: int) -> bool:
    """The source is well; the observer stands still for 310 of 320 ms, so that beats and answers come while nobody reads them."""
    net = Net(seed, limits, refused=False)
    net.stalls = tuple((2_000 + 320 * count, 310) for count in range(40))
    return net.run(16_000).takeovers == 0


# rule of SEMANTICS 6 -> (limits with the rule taken out, the check that must then fail)
PLANTED: dict[str, tuple[DetectorLimits, Callable[[DetectorLimits, int], bool]]] = {
    "pair: last probe started 300 ms after the last beat": (replace(DetectorLimits(), pair_silence_ns=0), flaps_pair),
    "alone: over 500 ms from the first missed beat": (
        replace(DetectorLimits(), alone_window_ns=0, alone_probes_failed=2),
        flaps_alone,
    ),
    "failed probes, not silence": (
        replace(
            DetectorLimits(), pair_probes_failed=0, pair_silence_ns=-(10**15), alone_probes_failed=0, alone_window_ns=-(10**15)
        ),
        lost_beats,
    ),
    "a detector late by 100 ms discards its window": (replace(DetectorLimits(), late_ns_max=10**18), own_pauses),
}


@pytest.mark.parametrize("rule", PLANTED)
def test_each_rule_is_needed(rule: str) -> None:
    limits, check = PLANTED[rule]
    assert all(check(DetectorLimits(), seed) for seed in SEEDS), "holds with the rule"
    assert not all(check(limits, seed) for seed in SEEDS), f"{rule}: nothing noticed that it was off"
