"""Operations on the journal's rows, as values: queued by groups, written by the journal's thread. Repeating them is harmless."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replica.consensus.port import HardState
from replica.consensus.record import Marks
from replica.model.outcome import LogEntry


@dataclass(frozen=True, slots=True)
class Append:
    number: int
    entries: Sequence[LogEntry]
    hard: HardState | None
    octets: int
    save: int = 0  # told to the group when it is on disk; 0: nothing is


@dataclass(frozen=True, slots=True)
class DropAfter:
    number: int
    index: int
    marks: Marks  # what was marked as flushed behind the cut is no longer
    octets: int = 64


@dataclass(frozen=True, slots=True)
class DropTo:
    """Truncation: rows from old floor+1 to index go, the new floor is remembered; with `all_rows` those behind go too."""

    number: int
    old_floor: int
    index: int
    term: int
    flushed: int
    all_rows: bool = False
    octets: int = 128


@dataclass(frozen=True, slots=True)
class Register:
    number: int
    name: str
    octets: int = 128


@dataclass(frozen=True, slots=True)
class Retire:
    number: int
    name: str
    octets: int = 128


@dataclass(frozen=True, slots=True)
class SetMarks:
    number: int
    marks: Marks
    octets: int = 64


@dataclass(frozen=True, slots=True)
class Keep:
    """A row beside the log; see port.KEPT_KINDS."""

    number: int
    kind: bytes
    row: bytes

    @property
    def octets(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True)
class RaiseBoot:
    """Of the whole journal: `number` is no group's."""

    boot: int
    number: int = 0
    octets: int = 64


Op = Append | DropAfter | DropTo | Keep | RaiseBoot | Register | Retire | SetMarks
