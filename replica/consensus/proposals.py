"""Who waits for what became of an entry: one future for each proposal, keyed by its index and term (RAFT.md rule 4)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from replica.model.errors import Code, ZaibeiError, require
from replica.model.outcome import LogEntry, Outcome, OutcomeKind, Proposal


@dataclass(slots=True)
class _Waiting:
    index: int
    term: int
    octets: int
    proposal: Proposal


class ProposalBook:
    """Proposals of this process in order of their index: first not committed, then not applied."""

    def __init__(self) -> None:
        self._pending: deque[_Waiting] = deque()  # not committed
        self._waiting: deque[_Waiting] = deque()  # committed, not applied
        self.octets = 0

    def __len__(self) -> int:
        return len(self._pending) + len(self._waiting)

    def add(self, index: int, term: int, octets: int) -> Proposal:
        loop = asyncio.get_running_loop()
        proposal = Proposal(loop.create_future(), loop.create_future())
        proposal.committed.add_done_callback(_retrieve)  # a caller may care for `applied` only
        self._pending.append(_Waiting(index, term, octets, proposal))
        self.octets += octets
        return proposal

    def committed(self, entries: Sequence[LogEntry]) -> None:
        """Entries were committed, in order."""
        for entry in entries:
            while self._pending and self._pending[0].index <= entry.index:
                ours = self._pending.popleft()
                require((ours.index, ours.term) == (entry.index, entry.term), "a step down ends what another leader may replace")
                self._waiting.append(ours)
                if not ours.proposal.committed.done():
                    ours.proposal.committed.set_result(entry.index)

    def applied(self, first: int, outcomes: Sequence[Outcome]) -> None:
        """Outcomes of the entries from index `first` on; most may have nobody waiting (replayed, or another member's)."""
        end = first + len(outcomes)
        while self._waiting and self._waiting[0].index < end:
            ours = self._waiting.popleft()
            self.octets -= ours.octets
            if not ours.proposal.applied.done():
                ours.proposal.applied.set_result(outcomes[ours.index - first])

    def skipped(self, index: int) -> None:
        """The machine was switched to another member's state at `index`: what was committed is in it, its outcome is not."""
        error = ZaibeiError(Code.UNKNOWN, "committed; its outcome came with another member's state", definite=False, retry=True)
        while self._waiting and self._waiting[0].index <= index:
            self._end(self._waiting.popleft(), error)

    def step_down(self, error: ZaibeiError) -> None:
        """What is not committed may still be committed by another leader, or not: its outcome is UNKNOWN. What is committed will
        be applied here as well."""
        while self._pending:
            self._end(self._pending.popleft(), error)

    def end(self, error: ZaibeiError) -> None:
        """Nothing more will be heard here of anything."""
        self.step_down(error)
        while self._waiting:
            self._end(self._waiting.popleft(), error)

    def _end(self, ours: _Waiting, error: ZaibeiError) -> None:
        self.octets -= ours.octets
        if not ours.proposal.committed.done():
            ours.proposal.committed.set_exception(
                ZaibeiError(error.code, error.trouble.message, definite=False, retry=error.trouble.retry)
            )
        if not ours.proposal.applied.done():
            ours.proposal.applied.set_result(Outcome(OutcomeKind.UNKNOWN, None, str(error)))


def _retrieve(future: asyncio.Future[int]) -> None:
    """Mark an exception as seen."""
    if not future.cancelled():
        future.exception()
