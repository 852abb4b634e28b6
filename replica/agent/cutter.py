"""Cuts transactions into batches: last write of a key wins, what changes nothing is dropped, limits of SEMANTICS 1.1 are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from replica.model.batch import (
    BATCH_CHANGES_MAX,
    BATCH_COLUMNS_OCTETS_MAX,
    KEY_OCTETS_MAX,
    OP_DELETE,
    OP_PUT,
    RECORD_OCTETS_MAX,
    Batch,
    Change,
    columns_of,
    cut_batch,
)
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position

FIELD_OVERHEAD_OCTETS = 9  # tag and length of a key (1 + 2) and a value (1 + 4), one op


@dataclass(frozen=True, slots=True)
class Piece:
    """Changes of one batch with the values they replace; keys are unique."""

    changes: tuple[Change, ...]
    olds: tuple[bytes | None, ...]
    continues: bool

    @property
    def keys(self) -> list[bytes]:
        return [change.key for change in self.changes]


def check(change: Change) -> None:
    """Raises ZaibeiError(MALFORMED): a change that no batch may carry."""
    if not 1 <= len(change.key) <= KEY_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a key has 1 to {KEY_OCTETS_MAX} octets, not {len(change.key)}")
    if len(change.value) > RECORD_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a record of {len(change.value)} octets is over {RECORD_OCTETS_MAX}")
    if change.op not in (OP_PUT, OP_DELETE) or (change.op == OP_DELETE) != (not change.value):
        raise ZaibeiError(Code.MALFORMED, "a change is a put with a value or a delete without one")


def compact(changes: Sequence[Change]) -> list[Change]:
    """The last change of each key, in the order of those last changes."""
    last: dict[bytes, Change] = {}
    for change in changes:
        last.pop(change.key, None)
        last[change.key] = change
    return list(last.values())


def effective(changes: Sequence[Change], olds: Mapping[bytes, bytes]) -> Iterator[Change]:
    """Changes that change something: no put of what is there, no delete of what is not (deletes are exact)."""
    for change in changes:
        old = olds.get(change.key)
        if (old is not None) if change.op == OP_DELETE else (old != change.value):
            yield change


def pieces(changes: Sequence[Change], olds: Mapping[bytes, bytes], *, more: bool = False) -> Iterator[Piece]:
    """Divide one transaction into batches.

    Args:
        changes: of unique keys, each effective.
        olds: values replaced, by key; absent: none.
        more: True when the transaction goes on after these changes.
    Returns:
        Pieces within both limits of a batch; `continues` on all but the transaction's last.
    """
    start, octets = 0, 0
    for number, change in enumerate(changes):
        size = len(change.key) + len(change.value) + FIELD_OVERHEAD_OCTETS
        if number > start and (number - start == BATCH_CHANGES_MAX or octets + size > BATCH_COLUMNS_OCTETS_MAX):
            yield _piece(changes[start:number], olds, continues=True)
            start, octets = number, 0
        octets += size
    if start < len(changes):
        yield _piece(changes[start:], olds, continues=more)


def _piece(changes: Sequence[Change], olds: Mapping[bytes, bytes], *, continues: bool) -> Piece:
    return Piece(tuple(changes), tuple([olds.get(change.key) for change in changes]), continues)


def cut(source: str, before: Position, piece: Piece, stated_ms: int) -> Batch:
    """The batch of one piece."""
    return cut_batch(source, before, columns_of(piece.changes), len(piece.changes), stated_ms, continues=piece.continues)
