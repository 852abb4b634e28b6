"""When is a function of a source unavailable for so long that a takeover may be declared (DOMAIN: 51 % of the probes)?

Pure: readings of probes come in with the moment; what they amount to comes out. The time T is cut into windows. A window in which
most readings failed makes the function suspect; T of such windows without a break, at least 5 readings and 51 % of them failed,
is the threshold. A window without a reading says nothing, and nothing is not a failure: the count begins anew. So it does when
the meter itself was late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from replica.model.ladder import Function
from replica.v1 import entry_pb2

MS = 1_000_000
FAILING_PERCENT_MIN = 51
READINGS_MIN = 5
REPORTER = "top-level node"


class Level(StrEnum):
    """What the readings of one function amount to."""

    UNKNOWN = "unknown"  # nothing was read of late
    WELL = "well"  # most readings of the last window were answered
    SUSPECT = "suspect"
    THRESHOLD = "threshold"


@dataclass(frozen=True, slots=True)
class ThresholdLimits:
    """Numbers of the docking agreement.

    Args:
        time_ms: T, the given time; windows: into how many it is cut.
        late_ms_max: a meter that was not looked at for a window and so much more begins anew.
    """

    time_ms: int = 300_000
    windows: int = 10
    late_ms_max: int = 100

    @property
    def window_ns(self) -> int:
        """Length of one window."""
        return self.time_ms * MS // self.windows


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one function now.

    Args:
        readings, failing: within the time that counts.
        lasting_ms: since when windows fail without a break.
        failing_at: machines, and the top-level node, whose readings failed; read_at: all that read.
    """

    function: Function
    level: Level = Level.UNKNOWN
    readings: int = 0
    failing: int = 0
    lasting_ms: int = 0
    failing_at: frozenset[str] = frozenset()
    read_at: frozenset[str] = frozenset()

    @property
    def several(self) -> bool:
        """Several places found it so, or the one that declares: who blocks the probes of one of ours decides nothing."""
        return len(self.failing_at) >= 2 or REPORTER in self.failing_at

    def text(self) -> str:
        """One sentence for the committed reason."""
        if self.level is Level.UNKNOWN:
            return f"{self.function.name.lower()}: nothing was read of late"
        where = ", ".join(sorted(self.failing_at)) or "nobody"
        return (
            f"{self.function.name.lower()}: {self.failing} of {self.readings} probes failed over {self.lasting_ms // 1_000} s, "
            f"seen by {where}"
        )


@dataclass(slots=True)
class _Window:
    readings: int = 0
    failing: int = 0
    failing_at: set[str] = field(default_factory=set)
    read_at: set[str] = field(default_factory=set)

    @property
    def bad(self) -> bool:
        return 2 * self.failing > self.readings


class Meter:
    """One function of one source, on the member that leads it."""

    def __init__(self, function: Function, limits: ThresholdLimits, now_ns: int) -> None:
        self.function, self._limits = function, limits
        self._closed: deque[_Window] = deque(maxlen=limits.windows)
        self._open = _Window()
        self._began_ns = self._looked_ns = now_ns
        self._last: _Window | None = None
        self._report: tuple[entry_pb2.Findings, int] | None = None
        self.discarded = 0

    def read(self, machine: str, failing: bool, now_ns: int) -> None:
        """One probe of one observer ended."""
        self.look(now_ns)
        self._open.readings += 1
        self._open.read_at.add(machine)
        if failing:
            self._open.failing += 1
            self._open.failing_at.add(machine)

    def report(self, findings: entry_pb2.Findings, until_ns: int) -> None:
        """A probe report of the top-level node, judged by orders.py, that holds until then; a newer one replaces it."""
        self._report = (findings, until_ns)

    def look(self, now_ns: int) -> None:
        """Time passed: call it at least once a window."""
        window_ns = self._limits.window_ns
        if now_ns - self._looked_ns > window_ns + self._limits.late_ms_max * MS:
            self.forget(now_ns)
            self.discarded += 1
        self._looked_ns = now_ns
        while now_ns - self._began_ns >= window_ns:
            self._last = self._open
            if self._open.bad:
                self._closed.append(self._open)
            else:
                self._closed.clear()
            self._open, self._began_ns = _Window(), self._began_ns + window_ns

    def forget(self, now_ns: int) -> None:
        """Begin anew: after an act ended, or when nobody looked for too long."""
        self._closed.clear()
        self._open, self._last, self._report = _Window(), None, None
        self._began_ns = self._looked_ns = now_ns

    def evidence(self, now_ns: int) -> Evidence:
        """What is known now."""
        self.look(now_ns)
        last, reported = self._last, self._reported(now_ns)
        if reported is not None:
            return reported
        if last is None or not last.readings:
            return Evidence(self.function)
        if not last.bad:
            return self._sum(Level.WELL, [last])
        summed = self._sum(Level.SUSPECT, self._closed)
        long_enough = len(self._closed) == self._limits.windows
        if long_enough and reached(summed.readings, summed.failing):
            return self._sum(Level.THRESHOLD, self._closed)
        return summed

    def _reported(self, now_ns: int) -> Evidence | None:
        """The top-level node's findings, where they are the threshold by themselves: it is who declares."""
        if self._report is None or now_ns > self._report[1]:
            return None
        found = self._report[0]
        if found.lasting_ms < self._limits.time_ms or not reached(found.probes, found.failing):
            return None
        ours = set().union(*(window.failing_at for window in self._closed)) if self._closed else set()
        machines = frozenset(ours | {REPORTER})
        return Evidence(self.function, Level.THRESHOLD, found.probes, found.failing, found.lasting_ms, machines, machines)

    def _sum(self, level: Level, windows: Iterable[_Window]) -> Evidence:
        kept = list(windows)
        return Evidence(
            self.function,
            level,
            sum(window.readings for window in kept),
            sum(window.failing for window in kept),
            len(kept) * self._limits.window_ns // MS,
            frozenset().union(*(window.failing_at for window in kept)),
            frozenset().union(*(window.read_at for window in kept)),
        )


def reached(readings: int, failing: int) -> bool:
    """At least 51 % of at least 5."""
    return readings >= READINGS_MIN and failing * 100 >= readings * FAILING_PERCENT_MIN
