"""The brake: how much of a registry was removed or rewritten lately, so that a copy does not copy a disaster (SEMANTICS 2.3).

Counted per *level*: the records of one prefix itself (key part and 0x00), each subtree (key part) and the whole source (b"").
Two sliding windows: 1 minute in slots of 10 s, 24 hours in slots of 1 h. A level's window begins with the first counted change in
it, and each slot keeps how many live records the level had then; 30 % of that, and at least 100 records, trip the brake.

The feed decides with `trips` at admission, from counts not below what the batch can do; the store counts with `add` at apply,
from what it really did (it reads the old values anyway), so `AppendBatch.brake` may stay empty. Both pass the live counts from
*before* the batch.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from zlib import crc32

from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import END, ancestors

SHARE_PERCENT = 30
TOUCHED_MIN = 100
LEVELS_MAX = 65_536  # of which the least touched are forgotten first; their subtrees still count them
PARTS = 64

Count = tuple[bytes, int, int]  # prefix part, removed, rewritten
Live = Callable[[bytes], int]  # live records of a level; LiveCounts is one
Slot = tuple[int, int, int]  # number of the slot since 1970, touched in it, live when it began


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window of `slots` slots of `slot_ms`."""

    name: str
    slot_ms: int
    slots: int


WINDOWS = (Window("1 minute", 10_000, 6), Window("24 hours", 3_600_000, 24))
Level = tuple[tuple[Slot, ...], ...]  # one tuple of slots per window, oldest first
_EMPTY: Level = tuple(() for _ in WINDOWS)
_FORMAT = b"\x01"
_HEAD, _SLOT = struct.Struct(">H" + "B" * len(WINDOWS)), struct.Struct(">QQQ")


@dataclass(frozen=True, slots=True)
class Trip:
    """Why the brake trips.

    Args:
        level: counted level; `text` of it is the caller's business.
        window: name of the window.
        touched: records removed or rewritten in it, the judged batch included.
        began: live records of the level when the window began.
    """

    level: bytes
    window: str
    touched: int
    began: int

    def __str__(self) -> str:
        return f"{self.touched} of {self.began} records removed or rewritten within {self.window}"


class LiveCounts:
    """Live records per level, kept up to date by differences; what `live` arguments want."""

    __slots__ = ("_levels",)

    def __init__(self, exact: Mapping[bytes, int] | None = None) -> None:
        self._levels: dict[bytes, int] = {}
        for part, count in (exact or {}).items():
            self.change(part, count)

    def __call__(self, level: bytes) -> int:
        return self._levels.get(level, 0)

    def change(self, part: bytes, difference: int) -> None:
        """So many records more (or fewer) have the prefix part `part`."""
        levels = self._levels
        for level in levels_of(part):
            count = levels.get(level, 0) + difference
            if count:
                levels[level] = count
            else:
                levels.pop(level, None)

    def exact(self) -> dict[bytes, int]:
        """Records per prefix part, to store and to build another from."""
        return {level[:-1]: count for level, count in self._levels.items() if level[-1:] == END}


def levels_of(part: bytes) -> list[bytes]:
    """All levels a record with this prefix part is counted at: the prefix itself, every subtree around it, the source."""
    return [part + END, *ancestors(part), b""]


def _by_level(counts: Iterable[Count]) -> dict[bytes, int]:
    levels: dict[bytes, int] = {}
    for part, removed, rewritten in counts:
        touched = removed + rewritten
        if touched:
            for level in levels_of(part):
                levels[level] = levels.get(level, 0) + touched
    return levels


def _slots_with(slots: tuple[Slot, ...], window: Window, at_ms: int, touched: int, live: int) -> tuple[Slot, ...]:
    """The window's slots after `touched` more at `at_ms`. A clock that went back counts in the newest slot; one that went back by
    more than the window means that the newest slot was dated wrongly, and everything counts as now."""
    number = at_ms // window.slot_ms
    if slots and slots[-1][0] > number:
        if slots[-1][0] - number >= window.slots:
            slots = ((number, sum(slot[1] for slot in slots), slots[0][2]),)
        number = slots[-1][0]
    if slots and slots[0][0] <= number - window.slots:
        slots = tuple(slot for slot in slots if slot[0] > number - window.slots)
    if slots and slots[-1][0] == number:
        last = slots[-1]
        return (*slots[:-1], (number, last[1] + touched, last[2]))
    return (*slots, (number, touched, live))


def _part_of(level: bytes) -> int:
    return crc32(level) % PARTS


@dataclass(frozen=True, slots=True)
class BrakeWindows:
    """Counters of all levels, a value: changing makes a new one that shares what did not change (by PARTS parts)."""

    _parts: tuple[Mapping[bytes, Level], ...] = field(default=tuple({} for _ in range(PARTS)))

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __repr__(self) -> str:
        return f"BrakeWindows({len(self)} levels)"

    def add(self, counts: Iterable[Count], at_ms: int, live: Live) -> BrakeWindows:
        """Count a batch that was applied.

        Args:
            counts: (prefix part, removed, rewritten), any order, a part may come twice.
            at_ms: the entry's `admitted_ms`.
            live: live records of a level before the batch.
        """
        changed: dict[int, dict[bytes, Level]] = {}
        for level, touched in _by_level(counts).items():
            number = _part_of(level)
            part = changed.get(number)
            if part is None:
                part = changed[number] = self._fresh(number, at_ms)
            old = part.get(level, _EMPTY)
            alive = live(level)
            part[level] = tuple(
                _slots_with(slots, window, at_ms, touched, alive) for slots, window in zip(old, WINDOWS, strict=True)
            )
        for part in changed.values():
            _forget_least(part)
        return BrakeWindows(tuple(changed.get(number, part) for number, part in enumerate(self._parts)))

    def trips(self, counts: Iterable[Count], at_ms: int, live: Live) -> list[Trip]:
        """What would trip if these counts were added now; empty: nothing. Same arguments as `add`; changes nothing."""
        found = []
        for level, touched in _by_level(counts).items():
            old = self._parts[_part_of(level)].get(level, _EMPTY)
            for slots, window in zip(old, WINDOWS, strict=True):
                after = _slots_with(slots, window, at_ms, touched, live(level))
                total, began = sum(slot[1] for slot in after), after[0][2]
                if total >= TOUCHED_MIN and total * 100 > began * SHARE_PERCENT:
                    found.append(Trip(level, window.name, total, began))
        return sorted(found, key=lambda trip: (trip.level, trip.window))

    def released(self, counts: Iterable[Count]) -> BrakeWindows:
        """Two people released what tripped: the levels it touched begin anew, so that the rest of that act is not held again."""
        levels = _by_level(counts)
        parts = [
            part if levels.keys().isdisjoint(part) else {level: slots for level, slots in part.items() if level not in levels}
            for part in self._parts
        ]
        return BrakeWindows(tuple(parts))

    def dump(self) -> bytes:
        """All counters as octets for `load`."""
        return _FORMAT + b"".join(map(_dump_part, self._parts))

    def dump_changed(self, since: BrakeWindows) -> dict[int, bytes]:
        """Only the parts that differ from an earlier value, for a store that writes rows per part."""
        return {
            number: _FORMAT + _dump_part(part)
            for number, (part, old) in enumerate(zip(self._parts, since._parts, strict=True))
            if part is not old
        }

    @staticmethod
    def load(octets: bytes) -> BrakeWindows:
        """Inverse of `dump`; also takes the rows of `dump_changed` joined by `join`. Raises ZaibeiError(DAMAGED)."""
        parts: list[dict[bytes, Level]] = [{} for _ in range(PARTS)]
        if octets[:1] != _FORMAT:
            raise ZaibeiError(Code.DAMAGED, f"brake counters of format {octets[:1].hex()}: we read 01")
        at = 1
        try:
            while at < len(octets):
                length, *sizes = _HEAD.unpack_from(octets, at)
                at += _HEAD.size
                level, at = octets[at : at + length], at + length
                windows: list[tuple[Slot, ...]] = []
                for size in sizes:
                    windows.append(tuple(_SLOT.unpack_from(octets, at + place * _SLOT.size) for place in range(size)))
                    at += size * _SLOT.size
                parts[_part_of(level)][level] = tuple(windows)
        except struct.error as exc:
            raise ZaibeiError(Code.DAMAGED, f"brake counters end in the middle of a level: {exc}") from exc
        return BrakeWindows(tuple(parts))

    @staticmethod
    def join(rows: Iterable[bytes]) -> BrakeWindows:
        """From the newest row of each part (`dump_changed`). Raises ZaibeiError(DAMAGED)."""
        body = []
        for row in rows:
            if row[:1] != _FORMAT:
                raise ZaibeiError(Code.DAMAGED, f"brake counters of format {row[:1].hex()}: we read 01")
            body.append(row[1:])
        return BrakeWindows.load(_FORMAT + b"".join(body))

    def _fresh(self, number: int, at_ms: int) -> dict[bytes, Level]:
        """A part's copy without the levels that were idle for the longest window."""
        longest = WINDOWS[-1]
        oldest = at_ms // longest.slot_ms - longest.slots
        return {level: slots for level, slots in self._parts[number].items() if slots[-1] and slots[-1][-1][0] > oldest}


def _forget_least(part: dict[bytes, Level]) -> None:
    excess = len(part) - LEVELS_MAX // PARTS
    if excess > 0:
        touched = sorted(part, key=lambda level: (level != b"", sum(slot[1] for slot in part[level][-1])))
        for level in [level for level in touched if level != b""][:excess]:
            del part[level]


def _dump_part(part: Mapping[bytes, Level]) -> bytes:
    out = []
    for level, windows in part.items():
        out.append(_HEAD.pack(len(level), *map(len, windows)))
        out.append(level)
        out.extend(_SLOT.pack(*slot) for slots in windows for slot in slots)
    return b"".join(out)
