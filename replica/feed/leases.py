"""Write-path leases on one stream: the source's guard asks, the group commits, then we answer (SEMANTICS 5.2). Pure.

The answer leaves only after the outcome of the entry: every member that could lead knows of the lease before the source does.
"""

from __future__ import annotations

from replica.feed.desk import Desk
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.outcome import Outcome, OutcomeKind
from replica.v1 import entry_pb2, source_pb2

INTERVAL_NS_MIN = 200_000_000  # a source that asks oftener is answered this often: each answer is an entry of the group
DURATION_MS_MAX = 600_000
REASON_CHARS_MAX = 400


class Leases:
    """One stream's questions; one at a time is proposed."""

    __slots__ = ("_desk", "_flying", "_proposed_ns", "given")

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._flying = False
        self._proposed_ns: int | None = None
        self.given = 0

    def asked(self, ask: source_pb2.LeaseAsk) -> None:
        """A question of the source's guard.

        Raises:
            ZaibeiError(MALFORMED): a lease of no length, or over the limit; the stream ends.
        """
        if not 0 < ask.duration_ms <= DURATION_MS_MAX:
            raise ZaibeiError(Code.MALFORMED, f"a lease of {ask.duration_ms} ms: it lasts 1 to {DURATION_MS_MAX} ms")
        now_ns = self._desk.now.boot_ns
        if self._flying or (self._proposed_ns is not None and now_ns - self._proposed_ns < INTERVAL_NS_MIN):
            return  # it asks again
        self._flying, self._proposed_ns = True, now_ns
        number, epoch, duration_ms = ask.number, ask.epoch, ask.duration_ms

        def then(outcome: Outcome | Trouble) -> None:
            self._flying = False
            if isinstance(outcome, Trouble):
                return  # not known, or not now: no answer is no lease
            if outcome.kind is OutcomeKind.APPLIED:
                self.given += 1
                self._answer(number, epoch, duration_ms, "")
            elif outcome.kind is not OutcomeKind.UNKNOWN:
                self._answer(number, epoch, 0, outcome.detail or "a rule of the group says no")

        self._desk.propose(entry_pb2.Entry(lease=entry_pb2.LeaseRenewal(epoch=epoch, duration_ms=duration_ms)), then)

    def _answer(self, number: int, epoch: int, duration_ms: int, why: str) -> None:
        lease = source_pb2.Lease(
            kind=source_pb2.Lease.KIND_WRITE, epoch=epoch, duration_ms=duration_ms, number=number, reason=why[:REASON_CHARS_MAX]
        )
        self._desk.send(source_pb2.ReplicaMessage(lease=lease))
