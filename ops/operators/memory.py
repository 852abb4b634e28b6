"""Memory twin of a HeldGroup: one thing held, decided when a decision entry is carried out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from replica.model.group_state import GroupState
from replica.model.outcome import Outcome, OutcomeKind
from replica.v1 import entry_pb2


@dataclass(slots=True)
class MemoryGroup:
    """`outcome` is what the next entry gets; APPLIED lets go of what is held."""

    now: GroupState
    removed: int = 0
    rewritten: int = 0
    names: tuple[str, ...] = ()
    outcome: Outcome = field(default_factory=lambda: Outcome(OutcomeKind.APPLIED))
    entries: list[entry_pb2.Entry] = field(default_factory=list)

    def state(self) -> GroupState:
        return self.now

    def would_do(self) -> tuple[int, int]:
        return self.removed, self.rewritten

    def samples(self, count_max: int) -> list[str]:
        return list(self.names[:count_max])

    async def carry_out(self, entry: entry_pb2.Entry) -> Outcome:
        self.entries.append(entry)
        if self.outcome.kind is OutcomeKind.APPLIED:
            self.now = replace(self.now, hold=None)
        return self.outcome
