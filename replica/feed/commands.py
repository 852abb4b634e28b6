"""What the pure session asks of its edge, as values. The edge carries them out in order and reports back by methods."""

from __future__ import annotations

from dataclasses import dataclass

from replica.model.errors import Code, Trouble
from replica.model.position import Position
from replica.v1 import entry_pb2, source_pb2


@dataclass(frozen=True, slots=True)
class Now:
    """Both clocks of one moment: CLOCK_BOOTTIME for every duration, Unix milliseconds only to be shown and stored."""

    boot_ns: int
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Send:
    """Put a message on the stream."""

    message: source_pb2.ReplicaMessage


@dataclass(frozen=True, slots=True)
class Propose:
    """Propose an entry to the group; report with `outcome(tag, …)`."""

    tag: int
    entry: entry_pb2.Entry


@dataclass(frozen=True, slots=True)
class Prove:
    """Ask the source whether its history holds a position; report with `proved(…)`."""

    position: Position


@dataclass(frozen=True, slots=True)
class FetchSnapshot:
    """Open the source's snapshot and report its header with `snapshot_header(…)`; read no further yet."""


@dataclass(frozen=True, slots=True)
class LoadParts:
    """Load the opened snapshot into the side generation; report with `loaded(…)` or `load_failed(…)`."""

    side: int
    position: Position


@dataclass(frozen=True, slots=True)
class DropSnapshot:
    """Close an opened snapshot, and abandon its loader."""


@dataclass(frozen=True, slots=True)
class Compare:
    """Count what differs between the live and the side generation; report with `difference(…)`."""

    side: int


@dataclass(frozen=True, slots=True)
class LookUp:
    """Which of these keys does the live generation hold? Report with `looked(…)`; give no message of the source before that."""

    keys: list[bytes]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Tell a person."""

    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class Close:
    """End the stream; the fault, if any, was sent before."""

    trouble: Trouble | None


Command = Send | Propose | Prove | FetchSnapshot | LoadParts | DropSnapshot | Compare | LookUp | Alarm | Close


def fault(trouble: Trouble, position: Position | None = None) -> source_pb2.Fault:
    """The wire form of a trouble."""
    return source_pb2.Fault(
        code=str(trouble.code),
        message=trouble.message,
        definite=trouble.definite,
        retry=trouble.retry,
        position=None if position is None else position.to_wire(),
    )


def trouble_of(message: source_pb2.Fault) -> Trouble:
    """A peer's fault as our value; an unknown code (a newer peer's) reads as UNKNOWN with the code in the text."""
    try:
        code = Code(message.code)
    except ValueError:
        return Trouble(Code.UNKNOWN, f"{message.code[:64]}: {message.message[:1_000]}", message.definite, message.retry)
    return Trouble(code, message.message[:1_000], message.definite, message.retry)
