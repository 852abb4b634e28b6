"""Is each scenario rehearsed as often as was promised? What is not known to be so is an alarm. Pure.

| standing | when | alarm |
| --- | --- | --- |
| fresh | the newest run passed, its bundle is sound, and it is young enough | no |
| due | as fresh, with less than a tenth of its time left | no |
| stale | it passed, longer ago | yes |
| failed | the newest run failed | yes |
| unknown | the newest run was inconclusive, or a bundle that might be newer is damaged or missing | yes |
| never | no sound run is there | yes |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from chaos.drills.calendar import Calendar
from chaos.evidence.bundle import Verdict
from chaos.evidence.history import Row, State, newest_red

DUE_SHARE = 10  # the last tenth of the time between two runs


class Standing(StrEnum):
    FRESH = "fresh"
    DUE = "due"
    STALE = "stale"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NEVER = "never"


QUIET = (Standing.FRESH, Standing.DUE)


@dataclass(frozen=True, slots=True)
class Due:
    """How one scenario stands.

    Args:
        passed_ms: begin of the newest run that passed, None: none; due_ms: when the next must have passed, None: now.
        red: its newest red run turned red (True), did not (False), or none was run (None).
    """

    scenario: str
    standing: Standing
    passed_ms: int | None
    due_ms: int | None
    red: bool | None
    why: str = ""

    @property
    def alarm(self) -> bool:
        return self.standing not in QUIET or self.red is False


def standings(planted: Mapping[str, str], calendar: Calendar, rows: Sequence[Row], now_ms: int) -> tuple[Due, ...]:
    """One for each scenario.

    Args:
        planted: scenario -> its planted bug; "": it has none.
        rows: the whole history.
        now_ms: Unix milliseconds; a run from the future says nothing.
    """
    return tuple(_standing(scenario, bug, calendar.every(scenario), rows, now_ms) for scenario, bug in planted.items())


def _standing(scenario: str, bug: str, every_ms: int, rows: Sequence[Row], now_ms: int) -> Due:
    own = [row for row in rows if row.scenario == scenario and not row.planted and row.state is State.SOUND]
    passed = max((row.began_ms for row in own if row.verdict is Verdict.PASS and row.began_ms <= now_ms), default=None)
    found = newest_red(rows, scenario, bug)
    red = None if found is None else found.verdict is Verdict.FAIL
    newest = max(own, key=lambda row: row.number, default=None)
    if newest is None:
        return Due(scenario, Standing.NEVER, None, None, red, "it was never run, as far as sound bundles say")
    if newest.verdict is Verdict.FAIL:
        return Due(scenario, Standing.FAILED, passed, None, red, f"drill {newest.number} failed")
    doubted = next((row for row in rows if row.number > newest.number and row.verdict is None), None)
    if doubted is not None:
        return Due(scenario, Standing.UNKNOWN, passed, None, red, f"bundle {doubted.number} is newer and {doubted.state}")
    if newest.verdict is not Verdict.PASS or newest.began_ms > now_ms:
        why = "was inconclusive" if newest.began_ms <= now_ms else "lies in the future: look at the clock"
        return Due(scenario, Standing.UNKNOWN, passed, None, red, f"drill {newest.number} {why}")
    due_ms = newest.began_ms + every_ms
    if now_ms >= due_ms:
        return Due(scenario, Standing.STALE, passed, due_ms, red, "it passed too long ago")
    standing = Standing.DUE if due_ms - now_ms < every_ms // DUE_SHARE else Standing.FRESH
    return Due(scenario, standing, passed, due_ms, red)
