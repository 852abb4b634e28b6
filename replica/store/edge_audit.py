"""The audit's rows in a store: a record goes into the same write as the entry it tells of (replica/model/audit.py).

| key | value |
| --- | --- |
| AUDIT | number of the newest record, of the oldest one kept, chain after the newest |
| AUDIT + u64 number | the record's line |
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from rocksdict import WriteBatch

from replica.model.audit import AuditHead, Where, record, sealed_in
from replica.model.audit_personal import may_go
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import LogEntry
from replica.store.edge_generation import Change, Generation
from replica.store.edge_rocks import new_batch
from replica.store.rows import Kind, after_kind, numbered

RECORDS_MAX = 1_000_000  # of one source; beyond it the oldest go, GO_AT_ONCE for each new one, but none that is too young to
GO_AT_ONCE = 2
ROWS_AT_ONCE = 1_000
_HEAD = struct.Struct(">QQ32s")


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some records, ascending; `head` as it was read with them."""

    head: AuditHead
    lines: list[bytes]


def read_head(live: Generation) -> AuditHead:
    """Raises ZaibeiError(DAMAGED)."""
    octets = live.rocks.get(Kind.AUDIT)
    if octets is None:
        return AuditHead()
    if len(octets) != _HEAD.size:
        raise ZaibeiError(Code.DAMAGED, f"the head of the audit has {len(octets)} octets")
    number, first, chain = _HEAD.unpack(octets)
    return AuditHead(number, chain, first)


def read_page(live: Generation, after: int, limit: int) -> AuditPage:
    """Records behind a number. Raises ZaibeiError."""
    head = read_head(live)
    rows = live.rocks.rows(numbered(Kind.AUDIT, after + 1), numbered(Kind.AUDIT, head.number + 1))
    return AuditPage(head, [line for _, line in islice(rows, limit)])


def copy_audit(old: Generation, fresh: Generation) -> None:
    """A generation that becomes the live one goes on with the audit of the one before. Raises ZaibeiError."""
    rows = old.rocks.rows(Kind.AUDIT, after_kind(Kind.AUDIT))
    while chunk := [*islice(rows, ROWS_AT_ONCE)]:
        wb = new_batch()
        for key, octets in chunk:
            wb.put(key, octets)
        fresh.rocks.write(wb)


class AuditTrail:
    """The audit of one generation; on the apply thread."""

    __slots__ = ("_head", "of", "records_max")

    def __init__(self, live: Generation, records_max: int = RECORDS_MAX) -> None:
        self.of, self.records_max = live, records_max
        self._head = read_head(live)

    @property
    def head(self) -> AuditHead:
        return self._head

    def add(self, group: str, change: Change, entry: LogEntry, kind: str, message: Any, *, effect: bool) -> AuditHead:
        """Put the entry's record, where it leaves one, into its write. `wrote` takes the result once that went through."""
        where = Where(group, entry.index, entry.term, message.admitted_ms)
        body, sealed = getattr(message, kind), sealed_in(message)
        made = record(where, self._head, kind, body, entry.data, effect=effect, sealed=sealed)
        if made is None:
            return self._head
        line, head = made
        return self._put(change.wb, line, head, where.at_ms)

    def _put(self, wb: WriteBatch, line: bytes, head: AuditHead, now_ms: int) -> AuditHead:
        for _ in range(GO_AT_ONCE):
            if head.number - head.first < self.records_max or not self._may_go(head.first, now_ms):
                break
            wb.delete(numbered(Kind.AUDIT, head.first))
            head = replace(head, first=head.first + 1)
        wb.put(numbered(Kind.AUDIT, head.number), line)
        wb.put(Kind.AUDIT, _HEAD.pack(head.number, head.first, head.chain))
        return head

    def _may_go(self, number: int, now_ms: int) -> bool:
        oldest = self.of.rocks.get(numbered(Kind.AUDIT, number))
        return oldest is None or may_go(oldest, now_ms)

    def wrote(self, head: AuditHead) -> None:
        self._head = head
