"""Is a source's host dead? One observer's evidence, and the decision over all observers' evidence (SEMANTICS 6).

Pure: boottime nanoseconds come in, numbers of probes to start go out. Silence only starts probes; failed probes decide, and any
sign of life (a beat, an answered probe) clears the window. A detector that was itself late knows nothing and starts anew.

Beats reach one observer, the one whose stream they belong to; all others live on probes alone. On a line that suddenly becomes
slow their probes fail before the first answer can come, all at the same time and for the same reason, so that only the beats tell
that the host lives. One lost beat must not take that word away: what was heard lately, by whomever, outvotes failed probes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from replica.model.errors import require

MS = 1_000_000
PAIR_SILENCE_MS = 300  # a flap of 240 ms and one beat fit below it


class Look(StrEnum):
    """What one observer sees."""

    WATCHING = "watching"  # signs of life arrive
    SILENT = "silent"  # the second beat is missing: probes run, none has failed yet
    FAILING = "failing"  # probes failed since the last sign of life, not enough to decide
    DEAD = "dead"  # this observer's evidence is complete


MOVES: dict[Look, frozenset[Look]] = {
    Look.WATCHING: frozenset({Look.SILENT}),
    Look.SILENT: frozenset({Look.WATCHING, Look.FAILING}),
    Look.FAILING: frozenset({Look.WATCHING, Look.DEAD}),
    Look.DEAD: frozenset({Look.WATCHING}),
}


class Verdict(StrEnum):
    """What all observers together say."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class DetectorLimits:
    """Numbers of SEMANTICS 6.

    Args:
        beat_interval_ns: as asked of the source; 0: 50 ms for armed hosts, 500 ms otherwise.
        armed: False: watches and shows, never votes.
        silent_beats: missed beats before probes start.
        pair_probes_failed, pair_silence_ns: each of two observers needs so many failed probes, the last one started so long after
            the last sign of life (a 240 ms flap and one beat fit below 300 ms).
        alone_probes_failed, alone_window_ns: a single observer needs so many, one of them started pair_silence_ns after the last
            sign of life, and one that failed so long after the first missed beat. Counted to where it failed: a refused probe
            fails where it starts, one that hangs has lasted meanwhile.
        late_ns_max: a detector later than this discards its window.
        probe_interval_ns: between probes while silent; `idle_interval_ns`: in peace, for readiness.
        probes_in_flight_max: bound on open probes, reached only when they time out.
    """

    beat_interval_ns: int = 0
    armed: bool = True
    silent_beats: int = 2
    pair_probes_failed: int = 2
    pair_silence_ns: int = PAIR_SILENCE_MS * MS
    alone_probes_failed: int = 3
    alone_window_ns: int = 500 * MS
    late_ns_max: int = 100 * MS
    tick_ns: int = 20 * MS
    probe_interval_ns: int = 100 * MS
    idle_interval_ns: int = 5_000 * MS
    probes_in_flight_max: int = 8

    def __post_init__(self) -> None:
        if not self.beat_interval_ns:
            object.__setattr__(self, "beat_interval_ns", (50 if self.armed else 500) * MS)


@dataclass(frozen=True, slots=True)
class Observation:
    """One observer's evidence, comparable between machines because it holds no times but an age.

    Args:
        observer: member name; machine: observers count as two only when this differs.
        look: what it sees.
        pair: its share of a decision by two is complete; alone: it could decide if it were the only one.
        heard_ms: since it last had a sign of life; None: never since it began, or it does not say.
    """

    observer: str
    machine: str
    look: Look
    pair: bool
    alone: bool
    heard_ms: int | None = None


def decide(observations: Iterable[Observation], heard_ms_max: int = PAIR_SILENCE_MS) -> tuple[Verdict, str]:
    """Join the evidence of all observers that report at present.

    Args:
        heard_ms_max: a sign of life that is younger outvotes all, whoever had it: failed probes count from "the last beat"
            of the host, and not from the last that this observer or that one had.
    Returns:
        The verdict and one sentence for evidence and status.
    Source: SEMANTICS 6. An observer that sees life outvotes all others: the fault is then between them and the source.
    """
    seen = list(observations)
    if not seen:
        return Verdict.SUSPECT, "nobody observes this source"
    alive = [one.observer for one in seen if one.look is Look.WATCHING or _lately(one, heard_ms_max)]
    if alive:
        return Verdict.ALIVE, f"signs of life at {', '.join(alive)}"
    agreed = sorted({one.machine for one in seen if one.pair})
    if len(agreed) >= 2:
        return Verdict.DEAD, f"probes failed from {len(agreed)} machines: {', '.join(agreed)}"
    lone = [one.observer for one in seen if one.alone]
    if lone and len({one.machine for one in seen}) == 1:
        return Verdict.DEAD, f"probes failed at {', '.join(lone)}; no other machine observes"
    return Verdict.SUSPECT, "silent, but not enough failed probes"


def _lately(one: Observation, heard_ms_max: int) -> bool:
    return one.heard_ms is not None and one.heard_ms < heard_ms_max


class Detector:
    """One observer of one source host."""

    __slots__ = (
        "_alive_ns",
        "_failed",
        "_failed_end_ns",
        "_failed_start_ns",
        "_heard_ns",
        "_limits",
        "_machine",
        "_observer",
        "_probe_last_ns",
        "_probe_next",
        "_started",
        "_tick_last_ns",
        "beats",
        "discarded",
        "look",
        "probe_answered_ns",
        "probe_failures_running",
    )

    def __init__(self, observer: str, machine: str, limits: DetectorLimits, now_ns: int) -> None:
        """The start counts as a sign of life: a new detector has to gather its whole evidence itself."""
        self._observer, self._machine, self._limits = observer, machine, limits
        self._alive_ns = now_ns
        self._heard_ns: int | None = None  # a true sign of life; `_alive_ns` also begins anew when a window is discarded
        self._tick_last_ns = now_ns
        self._probe_last_ns: int | None = None
        self._probe_next = 1
        self._started: dict[int, int] = {}
        self._failed = 0  # probes since the last sign of life
        self._failed_start_ns = 0  # when the latest-started of them was started
        self._failed_end_ns = 0  # when the newest of them was known to have failed
        self.look = Look.WATCHING
        self.beats = 0
        self.discarded = 0
        self.probe_answered_ns: int | None = None
        self.probe_failures_running = 0

    def beat(self, now_ns: int) -> None:
        """An authenticated, new beat arrived."""
        self.beats += 1
        self._heard(now_ns)

    def tick(self, now_ns: int, *, idle_interval_ns: int | None = None, can_probe: bool = True) -> list[int]:
        """Look at the clock; call it every `tick_ns`.

        Args:
            idle_interval_ns: time between probes while nothing is suspect; None: the limit's.
            can_probe: False: no address of the node is known. Then silence stays silence: what was not asked has not failed.
        Returns:
            Numbers of probes to start now; each ends in one `probe_ended`.
        """
        limits = self._limits
        self._discard_if_late(now_ns)
        self._tick_last_ns = now_ns
        if self.look is Look.WATCHING and now_ns - self._alive_ns >= limits.silent_beats * limits.beat_interval_ns:
            self._move(Look.SILENT)
        idle_ns = limits.idle_interval_ns if idle_interval_ns is None else idle_interval_ns
        if not can_probe or not self._probe_due(now_ns, idle_ns):
            return []
        number = self._probe_next
        self._probe_next += 1
        self._probe_last_ns = self._started[number] = now_ns
        return [number]

    def probe_ended(self, number: int, alive: bool, now_ns: int) -> None:
        """A probe got a well-formed answer (alive) or did not. A probe of a discarded window is not counted as a failure."""
        self._discard_if_late(now_ns)  # after a pause of ours, time-outs are delivered before the next tick
        started = self._started.pop(number, None)
        if alive:
            self.probe_answered_ns = now_ns
            self.probe_failures_running = 0
            self._heard(now_ns)
            return
        self.probe_failures_running += 1
        # In peace a failed probe is readiness' business; started before the last sign of life it proves nothing.
        if started is None or self.look is Look.WATCHING or started <= self._alive_ns:
            return
        self._failed += 1
        self._failed_start_ns = max(self._failed_start_ns, started)
        self._failed_end_ns = now_ns
        if self.look is Look.SILENT:
            self._move(Look.FAILING)
        if self.look is Look.FAILING and (self._pair() or self._alone()):
            self._move(Look.DEAD)

    def observation(self, now_ns: int) -> Observation:
        """Evidence at this moment, for `decide` and for other members."""
        armed, heard_ns = self._limits.armed, self._heard_ns
        heard_ms = None if heard_ns is None else max(0, now_ns - heard_ns) // MS
        return Observation(self._observer, self._machine, self.look, armed and self._pair(), armed and self._alone(), heard_ms)

    def silence_ns(self, now_ns: int) -> int:
        """Time since the last sign of life."""
        return now_ns - self._alive_ns

    def _pair(self) -> bool:
        limits = self._limits
        return self._failed >= limits.pair_probes_failed and self._failed_start_ns - self._alive_ns >= limits.pair_silence_ns

    def _alone(self) -> bool:
        limits = self._limits
        first_missed_ns = self._alive_ns + limits.beat_interval_ns
        lasted = self._failed_end_ns - first_missed_ns >= limits.alone_window_ns
        begun_late = self._failed_start_ns - self._alive_ns >= limits.pair_silence_ns
        return self._failed >= limits.alone_probes_failed and lasted and begun_late

    def _probe_due(self, now_ns: int, idle_interval_ns: int) -> bool:
        limits, last = self._limits, self._probe_last_ns
        if len(self._started) >= limits.probes_in_flight_max:
            return False
        decided = self.look is Look.DEAD and self._alone()
        if self.look is Look.WATCHING or decided:
            return last is None or now_ns - last >= idle_interval_ns
        if last is None or last <= self._alive_ns or now_ns - last >= limits.probe_interval_ns:
            return True
        # A probe exactly at the moments from which one can count: waiting for the interval would delay every takeover.
        moments = (
            self._alive_ns + limits.pair_silence_ns,
            self._alive_ns + limits.beat_interval_ns + limits.alone_window_ns,
        )
        return any(last < moment <= now_ns for moment in moments)

    def _heard(self, now_ns: int) -> None:
        self._heard_ns = max(self._heard_ns or 0, now_ns)
        self._alive(now_ns)

    def _alive(self, now_ns: int) -> None:
        self._alive_ns = max(self._alive_ns, now_ns)
        self._failed = self._failed_start_ns = self._failed_end_ns = 0
        self._move(Look.WATCHING)

    def _discard_if_late(self, now_ns: int) -> None:
        if now_ns - self._tick_last_ns <= self._limits.tick_ns + self._limits.late_ns_max:
            return
        self.discarded += 1
        self._tick_last_ns = now_ns
        self._started.clear()
        self._alive(now_ns)

    def _move(self, look: Look) -> None:
        require(look is self.look or look in MOVES[self.look], f"a detector cannot move from {self.look} to {look}")
        self.look = look
