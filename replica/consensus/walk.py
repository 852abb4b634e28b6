"""Which entries of a group are sound: an unbroken run of indexes from the floor, each record with its checksum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from replica.consensus import record
from replica.consensus.port import Cut, HardState, Recovered
from replica.model.errors import Code, ZaibeiError


def walk(number: int, rows: Iterable[tuple[int, bytes]], marks: record.Marks, hard: HardState) -> tuple[Recovered, int]:
    """Walk a group's rows.

    Args:
        rows: (index, row octets) ascending, from floor+1 on. The iterable may raise ZaibeiError(DAMAGED) where a file is
            unreadable: what follows is then behind the cut.
    Returns:
        What the group may trust, and the octets of its sound entries.
    """
    last, term, octets = marks.floor, marks.floor_term, 0
    spans: list[tuple[int, int]] = []
    cut: Cut | None = None
    steps = iter(rows)
    try:
        for index, row in steps:
            fault = "" if index == last + 1 else f"index {last + 1} is missing"
            if not fault:
                try:
                    entry = record.decode_entry(number, index, row)
                    fault = f"term {entry.term} at index {index} follows term {term}" if entry.term < term else ""
                except ZaibeiError as exc:
                    fault = exc.trouble.message
            if fault:
                cut = _rest(Cut(last + 1, fault, 1, index), steps)
                break
            if entry.term != term or not spans:
                spans.append((index, entry.term))
            last, term, octets = index, entry.term, octets + len(row)
    except ZaibeiError as exc:
        if exc.code is not Code.DAMAGED:
            raise
        cut = Cut(last + 1, exc.trouble.message)
    return Recovered(True, marks.floor, marks.floor_term, last, marks.flushed, hard, cut, tuple(spans)), octets


def _rest(cut: Cut, steps: Iterator[tuple[int, bytes]]) -> Cut:
    """Count what lies behind the cut, as far as it can be read."""
    rows, highest = cut.rows, cut.highest
    try:
        for index, _ in steps:
            rows, highest = rows + 1, index
    except ZaibeiError as exc:
        return Cut(cut.first_missing, f"{cut.reason}; and further on: {exc.trouble.message}", rows, highest)
    return Cut(cut.first_missing, cut.reason, rows, highest)
