"""When no drill may run, and how often each must: the file drills.toml of a folder of drills, as values. Pure.

[[freeze]]
from = 2026-12-30T16:00:00Z
until = 2027-01-03T16:00:00Z
reason = "year-end reporting"

[[schedule]]
scenario = "s33-secondary-dies"
every_days = 30
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from replica.model.errors import Code, ZaibeiError

FREEZE_DAYS_MAX = 366  # longer is a decision not to drill, and should be seen as one
EVERY_DAYS_MAX = 366
EVERY_DAYS = 30  # of a scenario that the file does not name
ENTRIES_MAX = 1_000
FILE_OCTETS_MAX = 256 * 1024
DAY_MS = 24 * 3_600 * 1_000
MINUTE_MS = 60 * 1_000


@dataclass(frozen=True, slots=True)
class Freeze:
    """No drill runs in [from_ms, until_ms), Unix milliseconds."""

    from_ms: int
    until_ms: int
    reason: str

    def __post_init__(self) -> None:
        if not 0 < self.until_ms - self.from_ms <= FREEZE_DAYS_MAX * DAY_MS:
            raise ValueError(f"it must end after it begins, and at most {FREEZE_DAYS_MAX} days later")
        if not self.reason.strip():
            raise ValueError("a freeze has a reason")


@dataclass(frozen=True, slots=True)
class Calendar:
    """The whole file. `every_ms`: scenario -> how old its newest passed run may be."""

    freezes: tuple[Freeze, ...] = ()
    every_ms: Mapping[str, int] | None = None

    def every(self, scenario: str) -> int:
        return (self.every_ms or {}).get(scenario, EVERY_DAYS * DAY_MS)


def blocking(freezes: Sequence[Freeze], now_ms: int, minutes_max: int) -> Freeze | None:
    """The freeze in which a drill that began now would run, even if it took all its time; None: it may begin."""
    ends_ms = now_ms + minutes_max * MINUTE_MS
    hit = [one for one in freezes if one.from_ms < ends_ms and now_ms < one.until_ms]
    return min(hit, key=lambda one: one.from_ms, default=None)


def parse(octets: bytes, scenarios: Sequence[str]) -> Calendar:
    """A file's calendar.

    Args:
        scenarios: names that exist.
    Raises:
        ZaibeiError(INVALID_CONFIG): with every fault; a calendar that is half understood freezes nothing.
    """
    faults, freezes, every = list[str](), list[Freeze](), dict[str, int]()
    if len(octets) > FILE_OCTETS_MAX:
        raise ZaibeiError(Code.INVALID_CONFIG, f"drills.toml is longer than {FILE_OCTETS_MAX} octets")
    try:
        table: dict[str, Any] = tomllib.loads(octets.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ZaibeiError(Code.INVALID_CONFIG, f"drills.toml is no TOML: {exc}") from exc
    faults += [f"unknown key {key!r}" for key in table if key not in ("freeze", "schedule")]
    for number, entry in enumerate(_entries(table, "freeze", faults), 1):
        try:
            freezes.append(Freeze(_ms(entry, "from"), _ms(entry, "until"), str(entry.get("reason", ""))))
            _only(entry, ("from", "until", "reason"))
        except ValueError as exc:
            faults.append(f"freeze {number}: {exc}")
    for number, entry in enumerate(_entries(table, "schedule", faults), 1):
        try:
            name, days = entry.get("scenario"), entry.get("every_days")
            _only(entry, ("scenario", "every_days"))
            if name not in scenarios or name in every:
                raise ValueError(f"no such scenario, or named twice: {name!r}")
            if type(days) is not int or not 1 <= days <= EVERY_DAYS_MAX:
                raise ValueError(f"every_days is a whole number from 1 to {EVERY_DAYS_MAX}")
            every[str(name)] = days * DAY_MS
        except ValueError as exc:
            faults.append(f"schedule {number}: {exc}")
    if faults:
        raise ZaibeiError(Code.INVALID_CONFIG, f"drills.toml: {'; '.join(faults)}. Nothing is run until it is right")
    return Calendar(tuple(freezes), every)


def _entries(table: dict[str, Any], name: str, faults: list[str]) -> list[dict[str, Any]]:
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found) or len(found) > ENTRIES_MAX:
        faults.append(f"{name} is a list of at most {ENTRIES_MAX} tables: write [[{name}]]")
        return []
    return found


def _only(entry: dict[str, Any], known: Sequence[str]) -> None:
    if unknown := [key for key in entry if key not in known]:
        raise ValueError(f"unknown key {unknown[0]!r}")


def _ms(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"{key} is a moment with its zone, as 2026-12-30T16:00:00Z")
    return int(value.astimezone(UTC).timestamp() * 1_000)
