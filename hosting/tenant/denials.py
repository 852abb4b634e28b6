"""Refused registrations and sign-ins, counted: one row for each identity, reason, source and minute. Pure; time is an argument.

An attack makes counts grow, not rows: beyond KEYS_MAX different rows in a minute all others of a reason are one row, of nobody,
with their number. So the sum of the counts is the number of refusals, always; who each of them was is told for the first ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hosting.tenant.own_records import own_record
from replica.model.audit import AuditHead
from replica.model.audit_personal import DENIAL
from replica.model.audit_seal import NO_KEYS, AuditKeys
from replica.model.errors import Code

MINUTE_MS: Final = 60_000
KEYS_MAX: Final = 32  # rows of one minute, beside one of each reason for all others
NAME_CHARS_MAX: Final = 200
OTHERS: Final = "others"
NOBODY: Final = "nobody proved"  # refused before a proof was asked for
NOT_PROVED: Final = "a key was not proved"
NOT_HEARD: Final = "a proof was not judged: too many wrong ones"
NO_RIGHT: Final = "no right"
REASONS: Final = {
    Code.NOT_AUTHORISED: NO_RIGHT,
    Code.OVER_QUOTA: "over quota",
    Code.REFUSED: "registrations are refused",
}
"""What a refusal with this code is called. All other codes are no denials: malformed, in conflict, busy, another place's."""


@dataclass(slots=True)
class Denial:
    """A row. `who`: as claimed where `why` is NOT_PROVED. `client`: address of the first one; empty: not known."""

    source: str
    who: str
    why: str
    client: str
    count: int
    first_ms: int
    last_ms: int


class Denials:
    """Rows of the minute under way, and of those that are over and not taken yet."""

    def __init__(self) -> None:
        self.total = 0
        self._minute = -1
        self._rows: dict[tuple[str, str, str], Denial] = {}
        self._over: list[Denial] = []

    def refused(self, code: Code, source: str, who: str, now_ms: int, count: int = 1) -> None:
        """Something was refused with this code; nothing is noted where that is no denial."""
        why = REASONS.get(code)
        if why is not None:
            self.note(why, source, who, now_ms, count=count)

    def note(self, why: str, source: str, who: str, now_ms: int, client: str = "", count: int = 1) -> None:
        """So many refusals. Cheap, and never fails."""
        self.total += count
        self._turn(now_ms)
        key = (source, _shown(who), why)
        row = self._rows.get(key)
        if row is None and len(self._rows) >= KEYS_MAX:
            key, client = ("", OTHERS, why), ""
            row = self._rows.get(key)
        if row is None:
            self._rows[key] = Denial(*key, client[:NAME_CHARS_MAX], count, now_ms, now_ms)
            return
        row.count += count
        row.last_ms = now_ms

    def over(self, now_ms: int) -> list[Denial]:
        """Rows of the minutes that are over, each told once."""
        self._turn(now_ms)
        found, self._over = self._over, []
        return found

    def rest(self) -> list[Denial]:
        """All rows, that of the minute under way too: whoever counts them ends."""
        found, self._over, self._rows = [*self._over, *self._rows.values()], [], {}
        return found

    def back(self, rows: Sequence[Denial]) -> None:
        """Rows that could not be written: they are told again. What they would take beyond ROWS_KEPT_MAX is summed up."""
        self._over = summed([*rows, *self._over])

    def _turn(self, now_ms: int) -> None:
        minute = now_ms // MINUTE_MS
        if minute != self._minute:
            self._minute = minute
            self._over = summed([*self._over, *self._rows.values()])
            self._rows = {}


def _shown(who: str) -> str:
    """A name as a stranger claimed it: cut, and with nothing that a terminal would obey."""
    cut = who[:NAME_CHARS_MAX]
    return cut if cut.isprintable() else "".join(one if one.isprintable() else "?" for one in cut)


ROWS_KEPT_MAX: Final = 1_024  # that wait to be written


def summed(rows: list[Denial]) -> list[Denial]:
    """No more than ROWS_KEPT_MAX rows and one of each reason: what comes beyond is summed up by reason, no count is lost."""
    if len(rows) <= ROWS_KEPT_MAX:
        return rows
    sums: dict[str, Denial] = {}
    for row in rows[ROWS_KEPT_MAX:]:
        into = sums.setdefault(row.why, Denial("", OTHERS, row.why, "", 0, row.first_ms, row.last_ms))
        into.count += row.count
        into.first_ms, into.last_ms = min(into.first_ms, row.first_ms), max(into.last_ms, row.last_ms)
    return [*rows[:ROWS_KEPT_MAX], *sums.values()]


def record_of(denial: Denial, head: AuditHead, keys: AuditKeys = NO_KEYS) -> tuple[bytes, AuditHead]:
    """Its line in the member's own audit (own_records.py), and the head after it."""
    said = {
        "source": denial.source,
        "count": denial.count,
        "first_ms": denial.first_ms,
        "last_ms": denial.last_ms,
        "client": denial.client,
    }
    where = f" at {denial.source}" if denial.source else ""
    what = f"refused {denial.count} times in a minute{where}"
    return own_record(head, DENIAL, denial.last_ms, what, [denial.who], denial.why, said, keys)
