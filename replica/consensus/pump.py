"""Committed entries on their way to the machine: a bounded part in memory, the rest read from the journal in its turn.

applied <= submitted <= committed        submitted - applied is what the apply thread holds
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence

from replica.consensus.group_limits import GroupLimits, RunBlocking
from replica.consensus.port import GroupJournal, Lane
from replica.model.errors import ZaibeiError, require
from replica.model.outcome import EntryKind, LogEntry


class ApplyPump:
    """Hands a group's committed entries to its lane.

    Args:
        applied: index the machine stands at.
        stand_in: octets a machine gets for an entry that concerns the log alone, so that its index goes on.
        run_task: runs a coroutine of ours to its end.
        broken: the group cannot go on.
        wait: sleeps before the journal is read again.
    """

    def __init__(
        self,
        journal: GroupJournal,
        lane: Lane,
        applied: int,
        limits: GroupLimits,
        *,
        stand_in: bytes,
        run_blocking: RunBlocking,
        run_task: Callable[[Coroutine[None, None, None]], None],
        broken: Callable[[ZaibeiError], None],
        wait: Callable[[float], Coroutine[None, None, None]],
    ) -> None:
        self._journal, self._lane, self._limits, self._stand_in = journal, lane, limits, stand_in
        self._run_blocking, self._run_task, self._broken, self._wait = run_blocking, run_task, broken, wait
        self.applied = self._submitted = self.committed = applied
        self._backlog_octets = 0
        self._reading = self._closed = False
        self._rewinds = 0

    @property
    def waits(self) -> ZaibeiError | None:
        """Why the machine asked to wait."""
        return self._lane.waits

    def offer(self, entries: Sequence[LogEntry]) -> None:
        """Entries that were committed behind `committed`."""
        require(entries[0].index == self.committed + 1, "entries are committed in order, each once")
        self.committed = entries[-1].index
        if self._reading or self._submitted != entries[0].index - 1 or self._full:
            self._go_on()
        else:
            self._submit(entries)

    def offer_held(self, committed: int) -> None:
        """All entries the journal holds up to `committed` are committed."""
        self.committed = max(self.committed, committed)
        self._go_on()

    def note_applied(self, last: int, octets: int) -> None:
        """The lane says that it applied up to `last`."""
        self.applied = last
        self._backlog_octets -= octets
        self._go_on()

    def rewind(self, index: int) -> None:
        """The machine went back to what it had durably: the journal has the rest."""
        self.applied = self._submitted = index
        self._backlog_octets = 0
        self._rewinds += 1
        self._go_on()

    def wait_idle(self) -> None:
        """After `close`: wait until the machine is left alone; blocks, in a thread."""
        self._lane.wait_idle()

    def close(self) -> None:
        self._closed = True
        self._lane.close()

    @property
    def _full(self) -> bool:
        return self._backlog_octets >= self._limits.backlog_octets_max

    def _submit(self, entries: Sequence[LogEntry]) -> None:
        self._submitted = entries[-1].index
        handed = [self._for_machine(entry) for entry in entries]
        self._backlog_octets += sum(len(entry.data) for entry in handed)
        self._lane.submit(handed)

    def _for_machine(self, entry: LogEntry) -> LogEntry:
        return entry if entry.kind is EntryKind.DATA else LogEntry(entry.index, entry.term, self._stand_in)

    def _go_on(self) -> None:
        if self._submitted < self.committed and not self._reading and not self._closed and not self._full:
            self._reading = True
            self._run_task(self._read())

    async def _read(self) -> None:
        try:
            while self._submitted < self.committed and not self._closed and not self._full:
                # Behind what is committed now the journal may hold entries that a cut takes away while they are read.
                first, last, rewinds = self._submitted + 1, self.committed, self._rewinds
                chunk = await self._run_blocking(lambda: self._journal.read(first, self._limits.replay_octets_max))  # noqa: B023
                chunk = [entry for entry in chunk if entry.index <= last]
                if self._rewinds == rewinds and not self._closed:
                    self._submit(chunk)
        except ZaibeiError as exc:
            if self._closed:  # the machine goes on from another state, and the log may have begun anew there
                return
            if not exc.trouble.retry:
                self._broken(exc)
                return
            await self._wait(self._limits.read_retry_s)
        finally:
            self._reading = False
        self._go_on()
