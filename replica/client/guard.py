"""The guard of a registry's write path: nothing is acknowledged without a lease of the cluster (SEMANTICS 5.1).

    guard = publisher.guard(rows=[…], on_alarm=page_somebody)
    ...
    database.commit()
    with guard.acknowledging():        # raises LeaseLost: do not acknowledge; the write is in the ledger of the next failback
        answer_the_client()

Asked *after* the registry's own commit and *before* its acknowledgement. While the cluster renews the lease, a question costs one
look at a clock. A process that was frozen, or a machine that was suspended, finds the lease ended: the clock goes on meanwhile.
What no library can see is a pause between the last question and the octets on the wire; `strict` covers that too: it waits until
the cluster vouches for the change itself.

In a planned switchover the cluster asks the guard to end the writing: no lease is held from then on, `on_drain` is called so that
what was acknowledged can still be committed with the publisher, and then the publisher's log takes nothing more. A lease that was
asked for after that says that the registry goes on.

The same lease can be put into the registry's database (`rows`), where triggers refuse a write without it inside the writer's own
transaction: guard_rows.py and the recipes in ops/sql/.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from replica.agent.write_lease import LeaseState, LeaseTimes, WriteLease
from replica.feed.source_port import WriteAsk
from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError

log = logging.getLogger("zaibei.guard")

LOOK_S = 0.05  # how often time is looked at while nothing happens
DRAINED_ASK_NS = 300_000_000  # drained, it asks so often: the switchover may have been given up
DRAINED_HURRY_NS = 10_000_000_000  # for so long; afterwards as ever
STRICT_S_MAX = 10.0


class LeaseLost(ZaibeiError):
    """The write path holds no lease: whatever was written must not be acknowledged."""

    def __init__(self, why: str) -> None:
        super().__init__(Code.FENCED, f"{why}. Next: do not acknowledge; keep the write, it is classified at failback")


class LeaseRow(Protocol):
    """The lease as a row of the registry's database, for its triggers. Calls block; one thread at a time."""

    def asked(self) -> int:
        """The database's own CLOCK_BOOTTIME in milliseconds, read before the question leaves."""
        ...

    def renewed(self, asked_ms: int, duration_ms: int) -> None:
        """The lease lasts so long from that moment on."""
        ...

    def cleared(self) -> None:
        """There is none."""
        ...


class Vouched(Protocol):
    """What `strict` waits for; satisfied by the receipt that Publisher.commit returns."""

    def wait(self, timeout_s: float) -> bool: ...


class Sealed(Protocol):
    """The publisher's log, as far as a switchover ends it; satisfied by replica.agent.edge_seal.Seal."""

    def seal(self) -> ContentDigest: ...

    def unseal(self) -> None: ...


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Guard:
    """One write path's guard. Every method may be called from any thread; satisfies replica.feed.source_port.LeaseHolder.

    Args:
        epoch: the epoch the source writes in; 0: none was granted yet, nothing is asked for.
        rows: where triggers look; cleared before anything is asked, so that a longer lease of an earlier process ends.
        on_alarm: called with a sentence when the lease was not renewed for a while, is lost, or is back; None: logged.
        strict: `acknowledging` waits for the receipt it is given.
        history: what is sealed in a planned switchover; None: this source is never switched over.
        on_drain: called then, on a worker thread, when nothing is acknowledged any more and before the log is sealed.
    """

    def __init__(
        self,
        epoch: Callable[[], int],
        times: LeaseTimes | None = None,
        *,
        rows: Sequence[LeaseRow] = (),
        on_alarm: Callable[[str], None] | None = None,
        strict: bool = False,
        history: Sealed | None = None,
        on_drain: Callable[[], None] = lambda: None,
        clock: Callable[[], int] = boottime_ns,
    ) -> None:
        self.strict = strict
        self._history, self._on_drain = history, on_drain
        self._rows_turn = threading.Lock()  # of rows: a renewal that is being written, or their end
        self._drained = 0  # number of the newest question when it was drained; 0: it is not
        self._drained_ns = self._asked_ns = 0
        self.lease = WriteLease(times or LeaseTimes())
        self._epoch, self._rows, self._on_alarm, self._clock = epoch, tuple(rows), on_alarm or log.warning, clock
        self._turn = threading.Condition()
        self._asks: dict[int, list[int | None]] = {}  # number -> each row's moment
        self._given: tuple[int, int] | None = None  # number, duration: rows are behind it
        self._told = LeaseState.NONE
        self._closing = False
        for row in self._rows:
            row.cleared()
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)
        self._thread.start()

    # -- the registry's side

    @property
    def valid(self) -> bool:
        """Something may be acknowledged at this moment."""
        return not self._closing and self.lease.valid(self._clock())

    @property
    def left_ms(self) -> int:
        return 0 if self._closing else self.lease.left_ms(self._clock())

    @property
    def state(self) -> LeaseState:
        with self._turn:
            return self.lease.look(self._clock())

    def check(self) -> None:
        """Raises LeaseLost."""
        if not self.valid:
            raise LeaseLost(self._why())

    @contextmanager
    def acknowledging(self, receipt: Vouched | None = None, timeout_s: float = STRICT_S_MAX) -> Iterator[None]:
        """Around the acknowledgement of one write.

        Args:
            receipt: of the publisher's commit; needed with `strict`, which waits for it so long.
        Raises:
            LeaseLost: before the block: do not acknowledge. After it: what was sent may have come after the lease's end; the
                registry must count this write as not acknowledged, and end the connection where it still can.
        """
        if self.strict:
            if receipt is None:
                raise ZaibeiError(Code.MALFORMED, "a strict guard needs the receipt of the publisher's commit")
            if not receipt.wait(timeout_s):
                raise LeaseLost(f"the cluster did not vouch for the change within {timeout_s} s")
        self.check()
        yield
        self.check()

    def wait(self, timeout_s: float) -> bool:
        """Block until there is a lease; False: not within the time."""
        with self._turn:
            return self._turn.wait_for(lambda: self.valid or self._closing, timeout_s) and self.valid

    def close(self) -> None:
        """Give the lease up and stop. Calling twice is harmless."""
        with self._turn:
            if self._closing:
                return
            self._closing = True
            self.lease.drop(self._clock())
            self._turn.notify_all()
        self._thread.join()
        for row in self._rows:
            with suppress(Exception):  # the database is gone: its row ends by its own clock
                row.cleared()

    def _why(self) -> str:
        if self._closing:
            return "the guard is closed"
        if self._drained:
            return "the source is being switched over"
        if self.lease.refused:
            return f"the cluster gives no lease: {self.lease.refused}"
        return "the cluster has not renewed the lease in time"

    # -- the feed's side

    def wanted(self) -> WriteAsk | None:
        newest = self.lease.newest
        if newest is None or self._closing or newest.number not in self._asks:
            return None
        return WriteAsk(newest.number, newest.epoch, newest.duration_ms)

    def given(self, number: int, epoch: int, duration_ms: int) -> None:
        with self._turn:
            if self._closing or number <= self._drained:  # an answer to what was asked before it was drained
                return
            if not self.lease.given(number, epoch, duration_ms, self._clock()):
                return
            if self._drained and self._history is not None:
                self._drained = 0
                self._history.unseal()
            self._given = (number, duration_ms)
            self._turn.notify_all()

    def denied(self, number: int, why: str) -> None:
        with self._turn:
            self.lease.denied(number, why)

    def drain(self) -> ContentDigest:
        """A planned switchover: acknowledge nothing more, take nothing more, say where that was.

        Raises:
            ZaibeiError: STOPPING; REFUSED (a lease row could not be cleared, or `on_drain` failed): the next lease goes on.
        """
        with self._turn:
            if self._closing or self._history is None:
                raise ZaibeiError(Code.STOPPING, "its guard is closed" if self._closing else "its guard seals no log")
            newest = self.lease.newest
            self._drained, self._drained_ns = max(1, 0 if newest is None else newest.number), self._clock()
            self._given = None
            self.lease.drop(self._drained_ns)
        try:
            with self._rows_turn:
                for row in self._rows:
                    row.cleared()
            self._on_drain()
        except Exception as exc:  # whatever a database or a registry does: it goes on with its next lease
            log.exception("the source could not be drained")
            raise ZaibeiError(Code.REFUSED, f"its write path could not be ended: {exc}", retry=True) from exc
        digest = self._history.seal()
        with self._turn:
            if not self._drained:  # a lease came in between: it was given up, and goes on
                self._history.unseal()
                raise ZaibeiError(Code.REFUSED, "a lease was given meanwhile", retry=True)
        return digest

    # -- its own thread: asks, rows, alarms

    def _run(self) -> None:
        while not self._closing:
            self._ask()
            self._write_rows()
            self._tell()
            with self._turn:
                if self._given is None and not self._closing:
                    self._turn.wait(LOOK_S)

    def _ask(self) -> None:
        epoch, now_ns = self._epoch(), self._clock()
        if not epoch or not (self.lease.due(now_ns) or epoch != self.lease.epoch or self._hopes(now_ns)):
            return
        self._asked_ns = now_ns
        moments: list[int | None] = []
        for row in self._rows:
            try:
                moments.append(row.asked())
            except Exception:  # whatever a database does: its row runs out, the guard goes on
                log.exception("the lease row could not be asked")
                moments.append(None)
        with self._turn:
            ask = self.lease.ask(epoch, now_ns)
            self._asks = {number: each for number, each in self._asks.items() if number > ask.number - 8}
            self._asks[ask.number] = moments

    def _hopes(self, now_ns: int) -> bool:
        """Drained a moment ago: a lease would say that it goes on."""
        lately = self._drained and now_ns - self._drained_ns < DRAINED_HURRY_NS
        return bool(lately) and now_ns - self._asked_ns >= DRAINED_ASK_NS

    def _write_rows(self) -> None:
        with self._rows_turn:
            with self._turn:
                given, self._given = self._given, None
                moments = self._asks.get(given[0], []) if given is not None else []
            if given is None:
                return
            for row, moment in zip(self._rows, moments, strict=False):
                if moment is None:
                    continue
                try:
                    row.renewed(moment, given[1])
                except Exception:  # as above
                    log.exception("the lease row could not be renewed")

    def _tell(self) -> None:
        with self._turn:
            state = self.lease.look(self._clock())
        if state is self._told:
            return
        before, self._told = self._told, state
        if state is LeaseState.WARNED:
            self._on_alarm(f"the write lease was not renewed lately, it ends in {self.left_ms} ms: {self._why()}")
        elif state is LeaseState.ENDED:
            self._on_alarm(f"the write lease has ended, nothing is acknowledged: {self._why()}")
        elif before in (LeaseState.WARNED, LeaseState.ENDED):
            self._on_alarm("the write lease is renewed again")
