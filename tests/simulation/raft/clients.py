"""Clients of a simulated cluster: writes and reads with their history."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replica.consensus.raft.values import Role
from tests.simulation.raft.seat import CALM

if TYPE_CHECKING:
    from tests.simulation.raft.world import World

KEYS = 4


@dataclass(slots=True)
class Operation:
    """One call of a client. `ok`: None while the outcome is unknown."""

    number: int
    group: int
    key: bytes
    op: str
    value: bytes
    begun: float
    ended: float | None = None
    ok: bool | None = None
    index: int = 0
    shown: tuple[bytes, ...] = ()

    def line(self) -> str:
        """One line of a history."""
        nanoseconds = 1_000_000
        return json.dumps(
            {
                "c": self.number,
                "k": f"{self.group}/{self.key.decode()}",
                "op": self.op,
                "v": self.value.decode(),
                "out": [value.decode() for value in self.shown],
                "ok": self.ok,
                "t0": int(self.begun * nanoseconds),
                "t1": None if self.ended is None else int(self.ended * nanoseconds),
            }
        )


class Clients:
    """All clients of a world; each operation is a client of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.operations: list[Operation] = []
        self.padding = b""

    def _seat(self, group: int, *, reads: bool) -> object:
        rng = self.world.rng
        seats = [member.seats[group] for member in self.world.alive() if member.seats[group].recall.standing in CALM]
        leaders = [seat for seat in seats if seat.role is Role.LEADER]
        if leaders and rng.random() < (0.6 if reads else 0.9):
            return rng.choice(leaders)
        return rng.choice(seats) if seats else None

    def begin(self, group: int) -> int:
        """Number of a write that somebody else makes."""
        number = len(self.operations)
        self.operations.append(Operation(number, group, b"k0", "append", b"behead%d" % (number + 1), self.world.now))
        return number

    def write(self, group: int) -> Operation:
        """Append a value to a key."""
        number = len(self.operations)
        key = b"k%d" % self.world.rng.randrange(KEYS)
        value = b"%d" % number + self.padding
        operation = Operation(number, group, key, "append", value, self.world.now)
        self.operations.append(operation)
        seat = self._seat(group, reads=False)
        if seat is None:
            self.done(number, False, 0)
        else:
            seat.propose(number, key + b"=" + value)  # type: ignore[attr-defined]
        return operation

    def read(self, group: int) -> Operation:
        number = len(self.operations)
        key = b"k%d" % self.world.rng.randrange(KEYS)
        operation = Operation(number, group, key, "get", b"", self.world.now)
        self.operations.append(operation)
        seat = self._seat(group, reads=True)
        if seat is not None:
            seat.read(b"%d" % number)  # type: ignore[attr-defined]
        return operation

    def done(self, number: int, ok: bool | None, index: int) -> None:
        """A write ended. It may be told more than once that it is unknown."""
        operation = self.operations[number]
        if operation.ended is None:
            operation.ended, operation.ok, operation.index = self.world.now, ok, index

    def shown(self, context: bytes, index: int, content: dict[bytes, tuple[bytes, ...]]) -> None:
        operation = self.operations[int(context)]
        if operation.ended is None:
            operation.ended, operation.ok, operation.index = self.world.now, True, index
            operation.shown = content.get(operation.key, ())

    def history(self) -> list[str]:
        return [operation.line() for operation in self.operations]
