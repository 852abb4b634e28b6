"""Ledgers of failbacks in a source's store: lines beside the records and outside of every digest (SEMANTICS 8).

Rows are keyed by ledger and line, so that a history that is fetched twice, or by two leaders, makes the same ledger. A line
that is settled stays as it is. Whatever an entry holds, it ends in a definite outcome, the same on every member.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from replica import native
from replica.model.batch import BATCH_COLUMNS_OCTETS_MAX, OP_DELETE, OP_PUT, columns_of, cut_batch
from replica.model.batch import Change as Model
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import SEP, owning_prefix
from replica.model.ladder import Stage
from replica.model.ledger import DONE, OPEN, Kind, Ledger, Line, Verdict, kept
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.position import Position
from replica.store.edge_generation import Change, Generation
from replica.store.edge_rocks import new_batch
from replica.store.rows import Kind as Row
from replica.store.rows import after_kind, placed
from replica.store.state_row import Stored
from replica.v1 import entry_pb2

LINES_MAX = 1_000  # of one entry
IDENT_OCTETS = 16
ROWS_AT_ONCE = 1_000
FRAME_OCTETS = 16  # tags and lengths of a change beside its octets
PERSON = "person:"
NOT_OWNER = "not_owner"  # as at admission
TAKEN_IN = frozenset({Stage.SERVING, Stage.RETURN_REQUESTED, Stage.CATCHING_UP})  # the freeze closes the ledger


def row_key(common: Position, ident: bytes) -> bytes:
    """Where a line lies."""
    return placed(Row.LEDGER, *common.place) + ident


def read_line(live: Generation, common: Position, ident: bytes) -> Line | None:
    """Raises ZaibeiError: reading failed, or the row does not parse."""
    octets = live.rocks.get(row_key(common, ident))
    return None if octets is None else _stored_line(octets)


def _stored_line(octets: bytes) -> Line:
    try:
        return Line.unpack(octets)
    except ZaibeiError as exc:
        raise ZaibeiError(Code.DAMAGED, f"a stored ledger line does not parse: {exc}") from exc


def read_lines(live: Generation, common: Position, after: bytes, limit: int) -> list[Line]:
    """Lines of a ledger behind an ident (b"": from the first), at most `limit`, in the order of the source's history."""
    first, stop = row_key(common, after), row_key(common, b"\xff" * (IDENT_OCTETS + 1))
    rows = live.rocks.rows(first + b"\0" if after else first, stop)
    return [_stored_line(octets) for _, octets in islice(rows, limit)]


def copy_ledgers(old: Generation, fresh: Generation) -> None:
    """A generation that becomes the live one has the ledgers of the one before."""
    rows = old.rocks.rows(Row.LEDGER, after_kind(Row.LEDGER))
    while chunk := [*islice(rows, ROWS_AT_ONCE)]:
        wb = new_batch()
        for key, octets in chunk:
            wb.put(key, octets)
        fresh.rocks.write(wb)


def apply_ledger(kind: str, message: entry_pb2.Entry, live: Generation, stored: Stored) -> tuple[Stored, Change, Outcome]:
    """Lines, a person's decision about lines, or lines that enter.

    Returns:
        The new state, the write with the rows (and for lines that enter with their batch), and the outcome.
    """
    change = live.begin()
    try:
        if kind == "ledger_enter":
            return _enter(message, live, stored)
        ledger = (_take_lines if kind == "ledger" else _decide)(message, live, stored.group, change)
    except _Refused as exc:
        return stored, live.begin(), Outcome(OutcomeKind.CONFLICT, change.position, str(exc))
    except ZaibeiError as exc:
        if exc.code is not Code.MALFORMED:
            raise
        return stored, live.begin(), Outcome(OutcomeKind.CONFLICT, change.position, str(exc))
    if ledger == stored.group.ledger:
        return stored, change, Outcome(OutcomeKind.ALREADY, change.position, "said before")
    return stored.with_group(ledger=ledger), change, Outcome(OutcomeKind.APPLIED, change.position)


def _owned(group: GroupState, key: bytes) -> bool:
    """A source writes below its own prefixes, whenever it wrote."""
    part = owning_prefix(key)
    return not part or any(part == prefix or part.startswith(prefix + SEP) for prefix in group.prefixes)


class _Refused(Exception):
    """The entry breaks a rule: it does nothing."""


def _take_lines(message: entry_pb2.Entry, live: Generation, group: GroupState, change: Change) -> Ledger:
    body, ladder = message.ledger, group.ladder
    common, theirs = Position.from_wire(body.common), Position.from_wire(body.theirs)
    if ladder.stage not in TAKEN_IN:
        raise _Refused(f"the ladder stands at {ladder.stage.name}: no lines are taken in")
    if common != ladder.closed_at:
        raise _Refused(f"a ledger begins where the source's epoch was closed, not at {common.short()}")
    if len(body.lines) > LINES_MAX:
        raise _Refused(f"an entry has at most {LINES_MAX} lines, not {len(body.lines)}")
    lines = [Line.unpack(octets) for octets in body.lines]
    before = group.ledger if group.ledger is not None and group.ledger.common == common else Ledger(common)
    counts, seen = before.counts, dict[bytes, Line]()
    for line in lines:
        if line.verdict in DONE.values():
            raise _Refused(f"line {line.name} says that its change is applied: only the change itself says so")
        old = seen.get(line.ident) or read_line(live, common, line.ident)
        if old is not None and not _replaces(line, old):
            continue
        counts = (counts if old is None else counts.plus(old, -1)).plus(line)
        seen[line.ident] = line
    for ident, line in seen.items():
        change.wb.put(row_key(common, ident), line.pack())
    return replace(before, theirs=theirs, complete=body.complete, counts=counts)


def _replaces(line: Line, old: Line) -> bool:
    """May a line that was judged again take an old one's place? Only while that is open, and never against a person's word."""
    if old.verdict not in OPEN or (line.key, line.seq, line.theirs) != (old.key, old.seq, old.theirs):
        return False
    return line.kind is Kind.SUPERSEDED or not old.by.startswith(PERSON) or line.ours != old.ours


def _decide(message: entry_pb2.Entry, live: Generation, group: GroupState, change: Change) -> Ledger:
    body, ledger = message.ledger_decision, group.ledger
    if ledger is None or ledger.common != Position.from_wire(body.common):
        raise _Refused("that is not the ledger of the failback under way")
    if group.ladder.stage not in TAKEN_IN:
        raise _Refused(f"the ladder stands at {group.ladder.stage.name}: nothing is decided any more")
    if not body.approval.operator or not 0 < len(body.lines) <= LINES_MAX:
        raise _Refused(f"a decision names a person and 1 to {LINES_MAX} lines")
    counts = ledger.counts
    for ident in dict.fromkeys(body.lines):
        old = read_line(live, ledger.common, ident) if len(ident) == IDENT_OCTETS else None
        if old is None or old.verdict is not Verdict.HOLD:
            raise _Refused(f"line {ident.hex()} does not wait for a person")
        verdict = Verdict.ACCEPT if body.accept else kept(old.written)
        line = replace(old, verdict=verdict, by=PERSON + body.approval.operator[:100])
        counts = counts.plus(old, -1).plus(line)
        change.wb.put(row_key(ledger.common, ident), line.pack())
    return replace(ledger, counts=counts)


def _enter(message: entry_pb2.Entry, live: Generation, stored: Stored) -> tuple[Stored, Change, Outcome]:
    """One batch, cut here, the same on every member; its lines are settled in the same write."""
    body, group, position = message.ledger_enter, stored.group, live.row.position
    ledger = group.ledger
    if ledger is None or ledger.common != Position.from_wire(body.common):
        raise _Refused("that is not the ledger of the failback under way")
    if group.ladder.stage not in TAKEN_IN:
        raise _Refused(f"the ladder stands at {group.ladder.stage.name}: nothing enters any more")
    if len(body.lines) > LINES_MAX:
        raise _Refused(f"an entry has at most {LINES_MAX} lines, not {len(body.lines)}")
    asked = [read_line(live, ledger.common, ident) for ident in body.lines if len(ident) == IDENT_OCTETS]
    lines = {line.key: line for line in asked if line is not None and line.verdict in DONE}
    changes, settled, counts, octets = list[Model](), list[Line](), ledger.counts, 0
    for line, now in zip(lines.values(), live.stored(list(lines)), strict=True):
        value = line.theirs if line.verdict is Verdict.ACCEPT else now
        octets += len(line.key) + len(value or b"") + FRAME_OCTETS
        if (line.verdict is Verdict.ACCEPT and now != line.ours) or octets > BATCH_COLUMNS_OCTETS_MAX:
            continue
        changes.append(Model(OP_DELETE if value is None else OP_PUT, line.key, value or b""))
        done = replace(line, verdict=DONE[line.verdict], later=position.seq + len(changes))
        counts = counts.plus(line, -1).plus(done)
        settled.append(done)
    if not changes:
        raise _Refused("none of these lines has a change to make: judge them again")
    batch = cut_batch(group.source, position, columns_of(changes), len(changes), message.admitted_ms)
    faults = dict(native.scan(batch.columns, batch.count).faults)
    faults |= {place: NOT_OWNER for place, line in enumerate(settled) if not _owned(group, line.key)}
    change = live.begin_batch(batch, sorted(faults.items()))
    for line in settled:
        change.wb.put(row_key(ledger.common, line.ident), line.pack())
    return stored.with_group(ledger=replace(ledger, counts=counts)), change, Outcome(OutcomeKind.APPLIED, change.position)
