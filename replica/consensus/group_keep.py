"""GroupKeep: a group's machine: applying, making it durable, cutting the journal behind it, switching it to another's state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

from replica.consensus.group_base import CHANGING, GroupBase
from replica.consensus.membership_row import encode_membership
from replica.consensus.port import (
    KEPT_MEMBERSHIP,
    GroupPhase,
)
from replica.consensus.pump import ApplyPump
from replica.consensus.raft.values import Message, SnapshotMeta
from replica.model.errors import Code, ZaibeiError, require
from replica.model.outcome import LogEntry, Outcome


class GroupKeep(GroupBase):
    """What is committed reaches the machine, what is durable leaves the journal."""

    def _new_pump(self, applied: int) -> None:
        self._machine_busy = False  # a new lane says it again, and what the one before it said is over
        lane = self._apply.lane(self._machine, LaneEars(self), self._reopen)
        self._pump = ApplyPump(
            self._log,
            lane,
            applied,
            self._limits,
            stand_in=self._first_entry(),
            run_blocking=self._run_blocking,
            run_task=self._run_task,
            broken=self._out_of_service,
            wait=asyncio.sleep,
        )

    def _on_applied(self, last: LogEntry, outcomes: Sequence[Outcome], octets: int) -> None:
        require(last.index == self.applied + len(outcomes), "entries are applied in order, each once")
        self._book.applied(self.applied + 1, outcomes)
        if self._pump is not None:
            self._pump.note_applied(last.index, octets)
        self._unflushed_octets += octets
        if self._core is not None:
            self._look_at_first_entry()
        self._moved.set()
        if self._unflushed_octets >= self._limits.flush_octets:
            self._maintain_soon()

    def _on_rewound(self, index: int) -> None:
        """The machine went back to what it had durably: the journal has the rest."""
        if index < self._durable:
            what = f"the store of {self._group} had made {self._durable} durable and stands at {index} after it was reopened"
            self._out_of_service(ZaibeiError(Code.DAMAGED, what))
            return
        if self._pump is not None:
            self._pump.rewind(index)
        self._moved.set()

    def _on_busy(self, waiting: bool) -> None:
        self._machine_busy = waiting

    async def maintain(self) -> None:
        """Make the store durable and drop the journal's entries behind it. Called by size and by time; harmless at any time."""
        if self._flushing or self.applied == self._durable or self._failure is not None:
            return
        self._flushing = True
        self._unflushed_octets = 0
        try:
            self._durable = await self._run_blocking(self._machine.flush)
        except ZaibeiError as exc:
            if not exc.trouble.retry:
                self._out_of_service(exc)
            return
        finally:
            self._flushing = False
        self._truncate()

    def _truncate(self) -> None:
        """Drop what the store holds durably, and nobody needs: neither a side generation nor a member that is behind."""
        keep = self._machine.keep_from()
        index = self._durable if keep is None else min(self._durable, keep - 1)
        index = min(index, self.seat.needed_from(self._log) - 1)
        if self._core is not None:  # a machine that was switched may be ahead of the log, and so of changes of the membership
            index = min(index, self._core.applied_index)
        if index <= self._log.floor:
            return
        place, membership = self._tail.membership
        if place <= index:
            self._log.keep(KEPT_MEMBERSHIP, encode_membership(index, membership))
        self._log.truncate(index)
        self._tail.truncated(self._log.floor)

    def _maintain_soon(self) -> None:
        if not self._flushing and self._phase in (*CHANGING, GroupPhase.REPLAYING):
            self._run_task(self.maintain())

    def _arm_timer(self, share: float = 1.0) -> None:
        self._timer = self._loop.call_later(self._limits.flush_interval_s * share, self._on_timer)

    def _first_share(self) -> float:
        """Of the interval, 0.5 to 1.5: groups that start together flush apart, since their stores share a disk and a budget."""
        return 0.5 + crc32(self._group.encode()) / (1 << 32)

    def _on_timer(self) -> None:
        if self._phase in CHANGING:
            self._maintain_soon()
            self._arm_timer()

    async def _switch(self, message: Message, switch: Callable[[], tuple[int, int]]) -> int:
        """Let the machine stand where the message says; returns what is committed by then. Raises ZaibeiError: it did not."""
        meta, pump = message.snapshot, self._pump
        require(meta is not None and pump is not None, "only a started group is fed, by a message that says what with")
        if meta is None or pump is None:
            return 0
        if self._phase not in CHANGING:  # it ended while the state was fetched: its machine may be closed already
            raise ZaibeiError(Code.STOPPING, f"group {self._group} takes no state any more: it is {self._phase}", retry=True)
        pump.close()
        self._switching = True
        try:
            return await self._switch_idle(meta, pump, switch)
        finally:
            self._switching = False
            self._moved.set()

    async def _switch_idle(self, meta: SnapshotMeta, pump: ApplyPump, switch: Callable[[], tuple[int, int]]) -> int:
        await self._run_blocking(pump.wait_idle)
        at, failure = pump.applied, None
        try:
            index, term = await self._run_blocking(switch)
            require((index, term) == (meta.index, meta.term), f"the machine was switched to {meta.index} and stands at {index}")
            at = self._durable = index
            self._unflushed_octets = 0
            self._book.skipped(index)
        except ZaibeiError as exc:
            failure = exc
        committed = pump.committed
        if self._phase in CHANGING:  # else the group ended meanwhile: nobody may touch the machine any more
            self._new_pump(at)
        if failure is not None:
            if self._pump is not None:
                self._pump.offer_held(committed)
            raise failure
        return committed


@dataclass(frozen=True, slots=True)
class JournalEars:
    """JournalListener of a group: hops to its event loop."""

    owner: GroupKeep

    def saved(self, number: int) -> None:
        self.owner.hop(self.owner._on_saved, number)

    def flushed(self, index: int) -> None:
        """Saves say it all."""

    def refused(self, error: ZaibeiError) -> None:
        self.owner.hop(self.owner._out_of_service, error)


@dataclass(frozen=True, slots=True)
class LaneEars:
    """LaneListener of a group: hops to its event loop."""

    owner: GroupKeep

    def applied(self, last: LogEntry, outcomes: Sequence[Outcome], octets: int) -> None:
        self.owner.hop(self.owner._on_applied, last, outcomes, octets)

    def busy(self, waiting: bool) -> None:
        self.owner.hop(self.owner._on_busy, waiting)

    def rewound(self, index: int) -> None:
        self.owner.hop(self.owner._on_rewound, index)

    def broken(self, error: ZaibeiError) -> None:
        self.owner.hop(self.owner._out_of_service, error)
