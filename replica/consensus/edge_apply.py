"""The one thread of a member that applies committed entries, for all groups in turn.

Fair: the groups that have entries stand in a ring; each turn ends after `turn_octets_max`. A machine that says BUSY or DISK_FULL
waits alone, the others go on. One entry a call: BUSY then never leaves half a call applied.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replica.consensus.edge_metrics import ApplyMetrics
from replica.consensus.port import Lane, LaneListener, Reopen, StateMachine
from replica.model.errors import Code, InvariantBroken, ZaibeiError, require
from replica.model.outcome import LogEntry, Outcome

RETRY_CODES = frozenset({Code.BUSY, Code.DISK_FULL})


@dataclass(frozen=True, slots=True)
class ApplyLimits:
    """turn_octets_max: applied of one group before the next has its turn; back-off doubles from _min to _max."""

    turn_octets_max: int = 1024 * 1024
    busy_wait_s_min: float = 0.001
    busy_wait_s_max: float = 0.064
    full_wait_s: float = 0.5


class _Lane:
    """A group's queue; all fields but `machine` and `listener` under the thread's lock."""

    def __init__(self, thread: ApplyThread, machine: StateMachine, listener: LaneListener, reopen: Reopen | None) -> None:
        self.thread, self.machine, self.listener, self.reopen = thread, machine, listener, reopen
        self.queue: deque[LogEntry] = deque()
        self.closed = self.in_ring = self.busy = self.was_full = False
        self.waits: ZaibeiError | None = None
        self.expected: int | None = None  # after the machine went back: only entries from here on are taken
        self.wait_s = 0.0
        self.not_before_s = 0.0

    def submit(self, entries: Sequence[LogEntry]) -> None:
        self.thread.put(self, entries)

    def close(self) -> None:
        self.thread.drop(self)

    def wait_idle(self) -> None:
        self.thread.wait_idle(self)


class ApplyThread:
    """Satisfies ApplyPort. `start` and `stop` are the process composition's to call.

    Args:
        on_broken: a broken invariant inside a machine's apply; the process must stop.
    """

    def __init__(
        self,
        *,
        limits: ApplyLimits | None = None,
        on_broken: Callable[[InvariantBroken], None] | None = None,
        metrics: ApplyMetrics | None = None,
    ) -> None:
        self._limits = limits or ApplyLimits()
        self._on_broken = on_broken
        self._metrics = metrics
        self._wake = threading.Condition()
        self._ring: deque[_Lane] = deque()
        self._running: _Lane | None = None
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="zaibei-apply", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop after the call that runs now; blocks for it."""
        with self._wake:
            self._stop = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def lane(self, machine: StateMachine, listener: LaneListener, reopen: Reopen | None = None) -> Lane:
        """See ApplyPort."""
        return _Lane(self, machine, listener, reopen)

    def put(self, lane: _Lane, entries: Sequence[LogEntry]) -> None:
        with self._wake:
            if lane.closed or not entries or lane.expected not in (None, entries[0].index):
                return
            lane.expected = None
            lane.queue.extend(entries)
            if not lane.in_ring and self._running is not lane:
                lane.in_ring = True
                self._ring.append(lane)
            self._wake.notify_all()

    def drop(self, lane: _Lane) -> None:
        with self._wake:
            lane.closed = True
            lane.queue.clear()

    def wait_idle(self, lane: _Lane) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._running is not lane)

    # ------------------------------------------------------------------------------------------------------- the thread
    def _run(self) -> None:
        while (turn := self._next_turn()) is not None:
            lane, entries = turn
            done, outcomes, octets = 0, list[Outcome](), 0
            try:
                if lane.was_full and self._rewound(lane, entries):
                    continue
                for entry in entries:
                    results = lane.machine.apply((entry,))
                    require(len(results) == 1, "a machine returns one outcome for one entry")
                    outcomes += results
                    done, octets = done + 1, octets + len(entry.data)
                    if lane.closed:
                        break
            except ZaibeiError as exc:
                self._end_turn(lane, entries, done, octets, outcomes, exc)
            except InvariantBroken as exc:
                self._end_turn(lane, entries, done, octets, outcomes, _translated(exc))
                if self._on_broken is not None:
                    self._on_broken(exc)
            except Exception as exc:  # noqa: BLE001  a bug in one machine must not stop the others
                self._end_turn(lane, entries, done, octets, outcomes, _translated(exc))
            else:
                self._end_turn(lane, entries, done, octets, outcomes, None)

    def _rewound(self, lane: _Lane, entries: list[LogEntry]) -> bool:
        """After a full disk: let the machine reopen. True when it went back, so that these entries no longer follow."""
        stands = lane.reopen() if lane.reopen is not None else None
        lane.was_full = False
        if stands is None or stands[0] == entries[0].index - 1:
            return False
        with self._wake:
            lane.queue.clear()  # they come again from the journal, behind those that the machine lost
            lane.expected = stands[0] + 1
        lane.listener.rewound(stands[0])
        with self._wake:  # whoever waits until the machine is left alone has been told before
            self._running = None
            self._wake.notify_all()
            if lane.queue and not lane.in_ring:
                lane.in_ring = True
                self._ring.append(lane)
        return True

    def _next_turn(self) -> tuple[_Lane, list[LogEntry]] | None:
        """The next group that may go on, and what it applies in its turn; waits; None: stop."""
        with self._wake:
            while not self._stop:
                now_s = time.monotonic()
                for _ in range(len(self._ring)):
                    lane = self._ring.popleft()
                    if not lane.queue:
                        lane.in_ring = False
                    elif lane.not_before_s > now_s:
                        self._ring.append(lane)
                    else:
                        lane.in_ring = False
                        self._running = lane
                        return lane, self._take(lane)
                soonest_s = min((lane.not_before_s for lane in self._ring), default=None)
                self._wake.wait(None if soonest_s is None else max(0.0, soonest_s - now_s))
            return None

    def _take(self, lane: _Lane) -> list[LogEntry]:
        taken, octets = [lane.queue.popleft()], 0
        octets += len(taken[0].data)
        while lane.queue and octets + len(lane.queue[0].data) <= self._limits.turn_octets_max:
            taken.append(lane.queue.popleft())
            octets += len(taken[-1].data)
        return taken

    def _end_turn(
        self,
        lane: _Lane,
        entries: list[LogEntry],
        done: int,
        octets: int,
        outcomes: list[Outcome],
        error: ZaibeiError | None,
    ) -> None:
        if done:
            if self._metrics is not None:
                self._metrics.entries.inc(done)
                self._metrics.octets.inc(octets)
            lane.listener.applied(entries[done - 1], outcomes, octets)
        waits = error is not None and error.trouble.retry and error.code in RETRY_CODES
        lane.was_full = error is not None and error.code is Code.DISK_FULL
        lane.waits = error if waits else None
        if waits != lane.busy:
            lane.busy = waits
            lane.listener.busy(waits)
        if error is not None and not waits:
            lane.listener.broken(error)
        with self._wake:
            self._running = None
            self._wake.notify_all()
            if error is not None and not waits:
                lane.closed = True
                lane.queue.clear()
            if lane.closed:
                return
            lane.queue.extendleft(reversed(entries[done:]))
            lane.wait_s = self._next_wait_s(lane, error, done)
            lane.not_before_s = time.monotonic() + lane.wait_s if waits else 0.0
            if lane.queue:
                lane.in_ring = True
                self._ring.append(lane)

    def _next_wait_s(self, lane: _Lane, error: ZaibeiError | None, done: int) -> float:
        if error is None:
            return 0.0
        if error.code is Code.DISK_FULL:
            return self._limits.full_wait_s
        if done:
            return self._limits.busy_wait_s_min
        return min(max(lane.wait_s * 2, self._limits.busy_wait_s_min), self._limits.busy_wait_s_max)


def _translated(exc: Exception) -> ZaibeiError:
    return ZaibeiError(
        Code.DAMAGED, f"applying an entry failed in the store: {exc!r}. This is a fault of this program: report it"
    )
