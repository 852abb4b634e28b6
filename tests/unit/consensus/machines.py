"""State machines for tests: a list with a durable beginning, and faults on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import LogEntry, Outcome, OutcomeKind

BUSY = ZaibeiError(Code.BUSY, "later", retry=True)


class ListMachine:
    """Applies by appending. `durable` entries survive `crashed()`; `faults` are raised before an entry is applied."""

    def __init__(self, entries: Sequence[LogEntry] = (), at: tuple[int, int] = (0, 0)) -> None:
        self.entries = list(entries)
        self.at = at  # (index, term) the list begins behind
        self.durable = len(self.entries)
        self.faults: list[BaseException] = []
        self.keep: int | None = None
        self.flushes = 0
        self.failed = False  # as a database after a disk error: `reopen` brings back what was durable
        self.before_apply: Callable[[LogEntry], None] = lambda entry: None
        self.before_flush: Callable[[], None] = lambda: None
        self.threads: set[str] = set()

    def applied(self) -> tuple[int, int]:
        return (self.entries[-1].index, self.entries[-1].term) if self.entries else self.at

    def durable_applied(self) -> int:
        return self.entries[self.durable - 1].index if self.durable else self.at[0]

    def keep_from(self) -> int | None:
        return self.keep

    def apply(self, entries: Sequence[LogEntry]) -> list[Outcome]:
        self.threads.add(threading.current_thread().name)
        outcomes = []
        for entry in entries:
            self.before_apply(entry)
            if self.faults:
                raise self.faults.pop(0)
            assert entry.index == self.applied()[0] + 1, f"{entry.index} after {self.applied()}"
            self.entries.append(entry)
            outcomes.append(Outcome(OutcomeKind.APPLIED, None, str(entry.index)))
        return outcomes

    def flush(self) -> int:
        self.threads.add(threading.current_thread().name)
        held = len(self.entries)
        self.before_flush()
        self.flushes += 1
        self.durable = held
        return self.durable_applied()

    def reopen(self) -> tuple[int, int] | None:
        if not self.failed:
            return None
        self.failed = False
        del self.entries[self.durable :]
        return self.applied()

    def crashed(self) -> ListMachine:
        """What a crash leaves of it."""
        return ListMachine(self.entries[: self.durable], self.at)

    def data(self) -> list[bytes]:
        return [entry.data for entry in self.entries]
