"""Memory twin of a hosted source's group: a log in steps the caller takes, and the rules of apply over a dictionary."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from hosting.tenant.papers import is_paper
from replica import native
from replica.model.batch import OP_PUT, open_batch
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.outcome import Outcome, OutcomeKind, Proposal
from replica.model.position import ORIGIN, Position, epoch_start
from replica.model.precondition import Precondition
from replica.model.states import Authority
from replica.v1 import entry_pb2


class MemoryContent:
    """What a store would hold: records, boundaries, and the rule of a registration."""

    def __init__(self, start: Position) -> None:
        self.records: dict[bytes, bytes] = {}
        self.position = start
        self.boundaries: dict[tuple[int, int], Position] = {start.place: start}

    def apply(self, entry: entry_pb2.Entry) -> Outcome:
        """Carry a registration out, or nothing of it."""
        body = entry.registration
        batch = open_batch(body.batch)
        if batch.before != self.position:
            there = self.boundaries.get(batch.after.place)
            if there is not None:
                kind = OutcomeKind.ALREADY if there == batch.after else OutcomeKind.CONFLICT
                return Outcome(kind, self.position, f"stands at {self.position.short()}")
            return Outcome(OutcomeKind.GAP, self.position, f"stands at {self.position.short()}")
        keys, values, ops = native.split(batch.columns)
        made = dict(self.records)
        for key, value, op, wire in zip(keys, values, ops, body.preconditions, strict=True):
            if not Precondition.from_wire(wire).met_by(made.get(key)):
                return Outcome(OutcomeKind.CONFLICT, self.position, f"{key!r}: its precondition does not hold")
            if op == OP_PUT:
                made[key] = value
            else:
                made.pop(key, None)
        self.records, self.position = made, batch.after
        self.boundaries[batch.after.place] = batch.after
        return Outcome(OutcomeKind.APPLIED, self.position)


class MemoryGroup:
    """Satisfies HostedGroup. With `at_once` an entry is applied in the next turn of the event loop; otherwise by `step`.

    Args:
        prefixes: key parts it owns.
    """

    def __init__(self, source: str, prefixes: Sequence[bytes], *, at_once: bool = True, lineage: bytes = b"L" * 16) -> None:
        self.source, self.leader, self._at_once = source, True, at_once
        self.content = MemoryContent(epoch_start(ORIGIN, lineage, 1))
        self.elsewhere: tuple[str, ...] = ()
        self.refusal: ZaibeiError | None = None  # of the next proposals
        self.barrier_refusal: ZaibeiError | None = None
        self.barriers = 0
        self.counted = True  # its octets are known
        self.pending: list[tuple[entry_pb2.Entry, Proposal]] = []
        self._state = GroupState(
            source,
            ready=True,
            position=self.content.position,
            granted=self.content.position,
            grant_taken=True,
            authority=Authority.REGISTRATION,
            authority_act="hosted",
            ownership_version=1,
            prefixes=tuple(prefixes),
        )

    def leaders(self) -> Sequence[str]:
        return self.elsewhere

    def state(self) -> GroupState:
        return replace(self._state, position=self.content.position, records=len(self.content.records))

    def octets(self) -> int | None:
        rows = self.content.records.items()
        held = sum(len(key) + len(value) for key, value in rows if not is_paper(key))
        return held if self.counted else None

    def change_state(self, **changes: object) -> None:
        """As entries of other kinds would."""
        self._state = replace(self._state, **changes)  # type: ignore[arg-type]

    def allows(self, part: bytes) -> bool:
        part = part.removeprefix(b"p")
        return any(part == owned or part.startswith(owned + b"\x01") for owned in self._state.prefixes)

    def get_many(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], Position]:
        return [self.content.records.get(key) for key in keys], self.content.position

    async def scan(self, start: bytes, stop: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return sorted((key, value) for key, value in self.content.records.items() if start <= key < stop)[:limit]

    def chain_at(self, epoch: int, seq: int) -> Position | None:
        return self.content.boundaries.get((epoch, seq))

    async def wait(self) -> None:
        self.barriers += 1
        await asyncio.sleep(0)
        if self.barrier_refusal is not None:
            raise self.barrier_refusal
        if not self.leader:
            raise ZaibeiError(Code.UNREACHABLE, "not the leader", retry=True)

    def propose(self, entry: entry_pb2.Entry) -> Proposal:
        if self.refusal is not None:
            raise self.refusal
        loop = asyncio.get_running_loop()
        proposal = Proposal(loop.create_future(), loop.create_future())
        self.pending.append((entry, proposal))
        if self._at_once:
            loop.call_soon(self.step)
        return proposal

    def step(self) -> None:
        """The oldest entry is committed and applied."""
        if self.pending:
            entry, proposal = self.pending.pop(0)
            if not proposal.committed.done():
                proposal.committed.set_result(1)
            proposal.applied.set_result(self.content.apply(entry))

    def lose(self) -> None:
        """The leader steps down: what is in flight ends UNKNOWN."""
        self.leader = False
        for _, proposal in self.pending:
            if not proposal.committed.done():
                proposal.committed.set_exception(ZaibeiError(Code.UNKNOWN, "stepped down", definite=False))
                proposal.committed.exception()
            proposal.applied.set_result(Outcome(OutcomeKind.UNKNOWN, None, "stepped down"))
        self.pending.clear()
