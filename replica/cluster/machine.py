"""The control group's state machine: entries change a value in memory, and one file keeps it whole.

The file is written by `flush`, never by `apply`: the journal holds what the file lacks and is cut behind `durable_applied` alone.
The file's octets are also what a member is sent whose journal lies too far behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Protocol

import msgspec
from google.protobuf.message import DecodeError

from replica.cluster.rules import apply_entry
from replica.cluster.state import CONTROL_NAME, ControlState
from replica.model.audit import Where, record, sealed_in
from replica.model.errors import Code, ZaibeiError, require
from replica.model.outcome import EntryKind, LogEntry, Outcome, OutcomeKind
from replica.v1 import entry_pb2

FILE_FORMAT = 1
FILE_OCTETS_MAX = 64 * 1024 * 1024


class Keep(Protocol):
    """Where the state is kept whole: one value, replaced at once or not at all."""

    def read(self) -> bytes | None:
        """What was written last; None: nothing ever was. Raises ZaibeiError."""
        ...

    def write(self, octets: bytes) -> None:
        """Durable when it returns. Raises ZaibeiError(DISK_FULL, retry; DISK_FAILED); then what was there stands."""
        ...

    @property
    def place(self) -> str:
        """For messages: the file's path."""
        ...


class MemoryKeep:
    """Memory twin of a Keep; `fail` is raised by the next write."""

    place = "memory"

    def __init__(self, octets: bytes | None = None) -> None:
        self.octets = octets
        self.fail: ZaibeiError | None = None
        self.writes = 0

    def read(self) -> bytes | None:
        return self.octets

    def write(self, octets: bytes) -> None:
        if self.fail is not None:
            raise self.fail
        self.octets, self.writes = octets, self.writes + 1


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    sha256: str
    state: msgspec.Raw


def encode_state(state: ControlState) -> bytes:
    """The state as octets with version and checksum; the same state always gives the same octets."""
    body = msgspec.json.encode(state)
    return msgspec.json.encode(_File(FILE_FORMAT, sha256(body).hexdigest(), msgspec.Raw(body)))


_decode_file = msgspec.json.Decoder(_File).decode  # made once: see replica/store/state_row.py
_decode_state = msgspec.json.Decoder(ControlState).decode


def decode_state(octets: bytes, place: str) -> ControlState:
    """The state back.

    Raises:
        ZaibeiError(DAMAGED): the octets are not what was written, or of another version; says what to do.
    """
    hint = "Next: zaibei cluster reseed control MEMBER, at a member that is in service"
    try:
        found = _decode_file(octets)
        if found.format != FILE_FORMAT:
            raise ZaibeiError(
                Code.DAMAGED, f"{place} is of format {found.format}, this version reads {FILE_FORMAT}. Next: update this member"
            )
        if sha256(bytes(found.state)).hexdigest() != found.sha256:
            raise ZaibeiError(Code.DAMAGED, f"{place} does not hold what was written into it. {hint}")
        return _decode_state(found.state)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ZaibeiError(Code.DAMAGED, f"{place} cannot be read ({exc}). {hint}") from exc


class ControlMachine:
    """Satisfies consensus.port.StateMachine. `state` may be read by any thread; it is a value and is replaced, never changed.

    Args:
        keep: where the state is kept.
    Raises:
        ZaibeiError(DAMAGED): what is kept fails its checks.
    """

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        octets = keep.read()
        self.state = ControlState() if octets is None else decode_state(octets, keep.place)
        self._durable = self.state.index
        self._flushing = threading.Lock()
        self._told: list[Callable[[ControlState], None]] = []

    def subscribe(self, told: Callable[[ControlState], None]) -> None:
        """`told` is called with the state after each change, on the apply thread (or of `install`)."""
        self._told.append(told)

    # -- consensus.port.StateMachine

    def applied(self) -> tuple[int, int]:
        state = self.state
        return state.index, state.term

    def durable_applied(self) -> int:
        return self._durable

    def keep_from(self) -> int | None:
        return None

    def apply(self, entries: Sequence[LogEntry]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        before = state = self.state
        for entry in entries:
            require(entry.index > state.index, f"entry {entry.index} comes behind applied {state.index}")
            state, outcome = _apply(state, entry)
            state = replace(state, index=entry.index, term=entry.term)
            outcomes.append(outcome)
        self.state = state
        self._tell(before)
        return outcomes

    def flush(self) -> int:
        with self._flushing:
            state = self.state
            if state.index > self._durable:
                self._keep.write(encode_state(state))
                self._durable = state.index
            return self._durable

    # -- transfer to another member

    def checkpoint(self) -> tuple[int, int, bytes]:
        """(index, term, octets) of the present state, for a member that is too far behind."""
        state = self.state
        return state.index, state.term, encode_state(state)

    def install(self, octets: bytes) -> tuple[int, int]:
        """Take over a checkpoint of another member; durable when it returns.

        Returns:
            (index, term) the log goes on behind.
        Raises:
            ZaibeiError(DAMAGED): not a checkpoint; REFUSED: of another cluster, or older than what is applied here.
        """
        found = decode_state(octets, "the checkpoint that was sent")
        with self._flushing:
            mine = self.state
            if mine.cluster and found.cluster != mine.cluster:
                raise ZaibeiError(Code.REFUSED, f"the checkpoint is of the cluster {found.cluster.hex()}, not of ours")
            if found.index < mine.index:
                raise ZaibeiError(Code.REFUSED, f"the checkpoint stands at {found.index}, this member at {mine.index} already")
            self._keep.write(octets)
            self.state, self._durable = found, found.index
        self._tell(mine)
        return found.index, found.term

    def _tell(self, before: ControlState) -> None:
        if replace(self.state, index=0, term=0) != replace(before, index=0, term=0):
            for told in self._told:
                told(self.state)


def _apply(state: ControlState, entry: LogEntry) -> tuple[ControlState, Outcome]:
    if entry.kind is not EntryKind.DATA or not entry.data:
        return state, Outcome(OutcomeKind.APPLIED)  # the log's own: a membership, or the first entry of a term
    try:
        parsed = entry_pb2.Entry.FromString(entry.data)
    except DecodeError:
        return state, Outcome(OutcomeKind.CONFLICT, detail="not an entry")
    match parsed.WhichOneof("body"):
        case "no_op":
            return state, Outcome(OutcomeKind.APPLIED)
        case "control":
            after, outcome = apply_entry(state, parsed.control)
            return (state if after is state else _audited(after, entry, parsed)), outcome
        case None:
            raise ZaibeiError(
                Code.REFUSED, "the control group holds an entry this version does not know. Next: update this member"
            )
        case other:
            return state, Outcome(OutcomeKind.CONFLICT, detail=f"an entry of kind {other} does not belong to the control group")


def _audited(state: ControlState, entry: LogEntry, parsed: entry_pb2.Entry) -> ControlState:
    """With the record of what was decided, in the same value as the decision."""
    where = Where(CONTROL_NAME, entry.index, entry.term, parsed.admitted_ms)
    made = record(where, state.audit_head, "control", parsed.control, entry.data, effect=True, sealed=sealed_in(parsed))
    return state if made is None else state.audited(*made)
