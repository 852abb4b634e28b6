"""SEMANTICS 6, sentence by sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replica.model.errors import InvariantBroken
from replica.takeover.detector import MOVES, MS, Detector, DetectorLimits, Look, Observation, Verdict, decide

LIMITS = DetectorLimits()


class Rig:
    """A detector with a clock in milliseconds, ticking every 10 ms; probes end as `answers` says after `takes_ms`."""

    def __init__(self, limits: DetectorLimits = LIMITS) -> None:
        self.detector = Detector("a", "m1", limits, 0)
        self.now = 0
        self.answers = False
        self.takes_ms = 2
        self.open: list[tuple[int, int]] = []
        self.started: list[int] = []

    def run(self, until_ms: int, *, beats: bool = False) -> None:
        while self.now < until_ms:
            self.now += 10
            if beats and self.now % 50 == 0:
                self.detector.beat(self.now * MS)
            for at, number in [probe for probe in self.open if probe[0] <= self.now]:
                self.open.remove((at, number))
                self.detector.probe_ended(number, self.answers, self.now * MS)
            for number in self.detector.tick(self.now * MS):
                self.started.append(self.now)
                self.open.append((self.now + self.takes_ms, number))

    @property
    def seen(self) -> Observation:
        return self.detector.observation(self.now * MS)


def test_beats_keep_it_watching_and_peace_probes_are_rare() -> None:
    rig = Rig()
    rig.run(10_000, beats=True)
    assert rig.detector.look is Look.WATCHING
    assert len(rig.started) == 2


def test_probes_start_from_the_second_missed_beat() -> None:
    rig = Rig()
    rig.run(1_000, beats=True)
    rig.started.clear()
    rig.run(1_090)
    assert rig.started == []
    rig.run(1_100)
    assert rig.started == [1_100]
    assert rig.detector.look is Look.SILENT


def test_where_nothing_can_be_probed_silence_stays_silence() -> None:
    detector = Detector("a", "m1", LIMITS, 0)
    for now in range(10, 5_000, 10):
        assert detector.tick(now * MS, can_probe=False) == []
    assert detector.look is Look.SILENT
    assert decide([detector.observation(now * MS)])[0] is Verdict.SUSPECT
    assert detector.tick(5_000 * MS) != []  # an address became known


def test_silence_alone_never_takes_over() -> None:
    rig = Rig()
    rig.answers = True
    rig.run(1_000, beats=True)
    rig.run(60_000)
    assert decide([rig.seen])[0] is not Verdict.DEAD
    assert rig.detector.look in (Look.WATCHING, Look.SILENT)
    hung = Rig()
    hung.takes_ms = 10**9  # no probe ever ends
    hung.run(60_000)
    assert decide([hung.seen])[0] is Verdict.SUSPECT
    assert len(hung.started) <= LIMITS.probes_in_flight_max


def test_two_observers_need_two_failed_probes_the_last_started_300_ms_after_the_last_beat() -> None:
    rig = Rig()
    rig.run(1_000, beats=True)
    rig.run(1_300)
    assert not rig.seen.pair, "the probe started at 300 ms has not ended yet"
    rig.run(1_310)
    assert rig.seen.pair
    assert not rig.seen.alone


def test_one_observer_needs_three_failed_over_500_ms_from_the_first_missed_beat() -> None:
    rig = Rig()
    rig.run(1_000, beats=True)
    rig.run(1_550)
    assert not rig.seen.alone
    rig.run(1_560)
    assert rig.seen.alone
    assert rig.detector.look is Look.DEAD
    assert decide([rig.seen])[0] is Verdict.DEAD


def test_probes_that_hang_have_lasted_meanwhile() -> None:
    """Started 100, 200 and 300 ms after the last beat, failed at 350, 450 and 550: as soon as refused ones decide."""
    rig = Rig()
    rig.takes_ms = 250
    rig.run(1_000, beats=True)
    rig.run(1_540)
    assert not rig.seen.alone
    rig.run(1_560)
    assert rig.seen.alone


def test_probes_that_began_early_and_failed_late_say_nothing_of_now() -> None:
    rig = Rig(replace(LIMITS, probe_interval_ns=50 * MS))
    rig.takes_ms = 600
    rig.run(1_000, beats=True)
    rig.run(1_890)
    assert rig.detector._failed >= 3
    assert not rig.seen.alone, "each of them began less than 300 ms after the last beat"
    rig.run(1_920)
    assert rig.seen.alone


def test_number_of_failed_probes_counts_too() -> None:
    rig = Rig(DetectorLimits(probes_in_flight_max=1))
    rig.takes_ms = 400  # the second one ends 800 ms later
    rig.run(1_000, beats=True)
    rig.open.clear()
    rig.detector._started.clear()
    rig.run(1_000 + 100 + 410 + 410)
    assert not rig.seen.alone
    rig.run(1_000 + 100 + 1_250)
    assert rig.seen.alone


@pytest.mark.parametrize("sign", ["beat", "probe"])
def test_any_success_clears(sign: str) -> None:
    rig = Rig()
    rig.run(1_000, beats=True)
    rig.run(1_520)
    assert rig.seen.pair
    if sign == "beat":
        rig.detector.beat(rig.now * MS)
    else:
        rig.detector.probe_ended(rig.detector._probe_next - 1, True, rig.now * MS)
    assert rig.detector.look is Look.WATCHING
    assert not rig.seen.pair
    rig.run(1_800)
    assert not rig.seen.pair, "the whole window begins again"
    rig.run(2_200)
    assert rig.seen.alone


def test_a_probe_started_before_the_last_sign_of_life_proves_nothing() -> None:
    rig = Rig()
    rig.takes_ms = 240
    rig.run(1_000, beats=True)
    rig.run(1_200)
    assert rig.open
    rig.detector.beat(1_210 * MS)
    rig.run(1_340)
    assert rig.detector.look is Look.SILENT, "old probes failed, none of them counts"


def test_a_late_detector_discards_its_window() -> None:
    rig = Rig()
    rig.run(1_000, beats=True)
    rig.run(1_500)
    assert rig.seen.pair
    rig.detector.tick(1_621 * MS)
    assert rig.detector.discarded == 1
    assert rig.detector.look is Look.WATCHING
    assert not rig.seen.pair


def test_time_outs_delivered_after_a_pause_do_not_decide() -> None:
    rig = Rig()
    rig.run(1_000, beats=True)
    rig.takes_ms = 300
    rig.run(1_520)
    assert rig.detector.look is Look.FAILING
    assert len(rig.open) >= 3
    for _, number in rig.open:
        rig.detector.probe_ended(number, False, 9_000 * MS)  # before any tick could see the pause
    assert rig.detector.look is Look.WATCHING
    assert rig.detector.discarded == 1


def test_a_punctual_detector_keeps_its_window() -> None:
    rig = Rig()
    rig.run(1_500)
    rig.detector.tick(1_619 * MS)
    assert rig.detector.discarded == 0


def test_it_says_how_old_its_last_sign_of_life_is() -> None:
    rig = Rig()
    assert rig.seen.heard_ms is None, "its own start is no sign of life"
    rig.run(1_000, beats=True)
    rig.run(1_240)
    assert rig.seen.heard_ms == 240
    rig.detector.probe_ended(rig.started and len(rig.started), True, 1_250 * MS)
    assert rig.detector.observation(1_260 * MS).heard_ms == 10
    rig.detector.tick(2_000 * MS)
    assert rig.detector.discarded == 1
    assert rig.detector.observation(2_000 * MS).heard_ms == 750, "nor is a window that it discarded"


def test_unarmed_never_votes() -> None:
    rig = Rig(DetectorLimits(armed=False))
    rig.run(5_000)
    assert rig.detector.look is Look.DEAD
    assert not rig.seen.pair
    assert decide([rig.seen])[0] is Verdict.SUSPECT


def see(
    observer: str, machine: str, look: Look = Look.DEAD, *, pair: bool = True, alone: bool = False, heard_ms: int | None = None
) -> Observation:
    return Observation(observer, machine, look, pair, alone, heard_ms)


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        ([], Verdict.SUSPECT),
        ([see("a", "m1")], Verdict.SUSPECT),
        ([see("a", "m1", alone=True)], Verdict.DEAD),
        ([see("a", "m1"), see("b", "m2")], Verdict.DEAD),
        ([see("a", "m1"), see("b", "m1")], Verdict.SUSPECT),  # one machine is one observer
        ([see("a", "m1", alone=True), see("b", "m1")], Verdict.DEAD),
        ([see("a", "m1", alone=True), see("b", "m2", Look.FAILING, pair=False)], Verdict.SUSPECT),
        ([see("a", "m1", alone=True), see("b", "m2", Look.WATCHING, pair=False)], Verdict.ALIVE),
        ([see("a", "m1"), see("b", "m2"), see("c", "m3", Look.WATCHING, pair=False)], Verdict.ALIVE),
        ([see("a", "m1", Look.SILENT, pair=False)], Verdict.SUSPECT),
        # beats reach c alone, and one was lost: the others' probes fail because the line is slow
        ([see("a", "m1"), see("b", "m2"), see("c", "m3", Look.SILENT, pair=False, heard_ms=299)], Verdict.ALIVE),
        ([see("a", "m1"), see("b", "m2"), see("c", "m3", Look.SILENT, pair=False, heard_ms=300)], Verdict.DEAD),
        ([see("a", "m1", heard_ms=800), see("b", "m2", heard_ms=900), see("c", "m3", Look.SILENT, pair=False)], Verdict.DEAD),
        ([see("a", "m1", alone=True, heard_ms=700), see("b", "m1", Look.FAILING, pair=False, heard_ms=150)], Verdict.ALIVE),
    ],
)
def test_decision_table(seen: list[Observation], verdict: Verdict) -> None:
    assert decide(seen)[0] is verdict


def test_moves_outside_the_table_stop_the_process() -> None:
    detector = Detector("a", "m", LIMITS, 0)
    for old in Look:
        for new in Look:
            detector.look = old
            if new in MOVES[old] or new is old:
                detector._move(new)
            else:
                with pytest.raises(InvariantBroken):
                    detector._move(new)
