"""The top-level record of a prefix while we answer in its place: what it must hold, and the next change towards that. Pure.

The national clients take the first HS_SITE value: our site takes the index of the node's first one, the node's sites follow. What
stood there before is kept in the record itself, in a value of type ZAIBEI.OVERLAY (JSON: serial, act, withdrawn, the values of
before, digests of what we placed): so whoever withdraws puts back exactly what was there, even from another machine, and leaves
alone what the node's people changed meanwhile. Changes, in this order, each safe if nothing comes after it:

    publish:  our mark -> sites at new indexes -> sites at the node's indexes -> what is too many taken away
    publish:  our mark -> sites at new indexes -> sites at the node's indexes -> what is too many goes
    withdraw: values that are missing -> values of before, with the serial of the withdrawal -> ours go -> the mark says so
The mark stays: it holds the highest serial, below which nothing of ours is taken in any more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Protocol

from replica.model.errors import Code, ZaibeiError
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.types import HS_SITE
from replica.model.handle.values import HandleValue, encode_value, read_value
from replica.model.handle.wire import Reader
from replica.takeover.overlay import SERIAL_OFFSET, is_site, site_serial
from replica.takeover.publish import Publication

MARK = b"ZAIBEI.OVERLAY"
INDEX_DEFAULT = 7_300  # of the mark; sites beyond the node's own indexes follow it
TTL_S = 60
PLACED_MAX = 64  # digests of sites of ours that are remembered; the oldest go first


class RecordLook(Protocol):
    """Reads records where they are kept."""

    async def read(self, handle: str, types: Sequence[str] = ()) -> tuple[HandleValue, ...] | None:
        """Values anybody may read; None: no such record. Raises ZaibeiError(UNREACHABLE)."""
        ...


class RecordDesk(RecordLook, Protocol):
    """Changes records where they are kept; a change whose outcome is not known is looked for before it is repeated."""

    async def add(self, handle: str, values: Sequence[HandleValue]) -> None:
        """Values whose indexes are free. Raises ZaibeiError."""
        ...

    async def modify(self, handle: str, values: Sequence[HandleValue]) -> None:
        """Values whose indexes are there. Raises ZaibeiError."""
        ...

    async def remove(self, handle: str, indexes: Sequence[int]) -> None:
        """Raises ZaibeiError."""
        ...


class Verb(StrEnum):
    """What is done to some values."""

    ADD = "add"
    MODIFY = "modify"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Change:
    """One request: `values` to add or modify, or whose indexes are removed."""

    verb: Verb
    values: tuple[HandleValue, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """What we keep in the record. `before`: the node's HS_SITE values; `placed`: digests of site data of ours, oldest first."""

    serial: int
    act: str
    withdrawn: bool
    before: tuple[HandleValue, ...] = ()
    placed: tuple[str, ...] = ()

    def encode(self) -> bytes:
        fields = {
            "serial": self.serial,
            "act": self.act,
            "withdrawn": self.withdrawn,
            "before": [encode_value(one).hex() for one in self.before],
            "placed": list(self.placed),
        }
        return json.dumps(fields, sort_keys=True, ensure_ascii=False).encode()


def handle_of(prefix: str) -> str:
    """Name of a prefix's record."""
    return f"0.NA/{prefix}"


def mark_of(record: Sequence[HandleValue]) -> tuple[int, Mark] | None:
    """Our mark and its index; None: there is none.

    Raises:
        ZaibeiError(CONFLICT): somebody changed it, so nobody knows what stood there before.
    """
    found = next((one for one in record if one.type.upper() == MARK), None)
    if found is None:
        return None
    try:
        fields = json.loads(found.data)
        before = tuple(read_value(Reader(bytes.fromhex(one))) for one in fields["before"])
        placed = tuple(str(one) for one in fields["placed"])
        return found.index, Mark(int(fields["serial"]), str(fields["act"]), fields["withdrawn"] is True, before, placed)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, ProtocolFault) as exc:
        raise ZaibeiError(
            Code.CONFLICT,
            f"value {found.index} ({MARK.decode()}) was changed by somebody: put its sites right by hand, remove it",
        ) from exc


def next_change(
    record: Sequence[HandleValue], wanted: Publication, index: int = INDEX_DEFAULT, ttl_s: int = TTL_S
) -> Change | None:
    """The next change towards a publication; None: the record is as it must be.

    Args:
        record: all values anybody may read.
        index: for our mark, where it is not there yet.
        ttl_s: of the sites we place.
    Raises:
        ZaibeiError(CONFLICT): a higher serial of ours stands there, or our mark was changed.
    """
    marked = mark_of(record)
    if marked is not None and marked[1].serial > wanted.serial:
        raise ZaibeiError(Code.CONFLICT, f"serial {marked[1].serial} of ours stands there, {wanted.serial} is older")
    sites = sorted((one for one in record if one.type.upper() == HS_SITE), key=lambda one: one.index)
    if wanted.withdrawn:
        return None if marked is None else _withdraw(sites, marked, wanted)
    return _publish(record, sites, marked, wanted, index, ttl_s)


def _publish(
    record: Sequence[HandleValue],
    sites: Sequence[HandleValue],
    marked: tuple[int, Mark] | None,
    wanted: Publication,
    index: int,
    ttl_s: int,
) -> Change | None:
    at, old = marked or (index, Mark(0, "", withdrawn=True))
    mark = _marked(old, sites, wanted)
    value = HandleValue(at, MARK, mark.encode(), ttl=ttl_s)
    if marked is None or mark != old:
        return Change(Verb.ADD if marked is None else Verb.MODIFY, (value,))
    there = {one.index: one for one in sites}
    slots = _slots([one.index for one in sites], {one.index for one in record}, at, len(wanted.sites))
    target = dict(zip(slots, wanted.sites, strict=True))
    added = tuple(HandleValue(slot, HS_SITE, site, ttl=ttl_s) for slot, site in target.items() if slot not in there)
    if added:
        return Change(Verb.ADD, added)
    changed = tuple(
        replace(there[slot], data=site, ttl=ttl_s, ttl_type=0)
        for slot, site in target.items()
        if there[slot].data != site or there[slot].ttl != ttl_s
    )
    if changed:
        return Change(Verb.MODIFY, changed)
    over = tuple(one for one in sites if one.index not in target)
    return Change(Verb.REMOVE, over) if over else None


def _marked(old: Mark, sites: Sequence[HandleValue], wanted: Publication) -> Mark:
    """The mark that must stand before sites are changed: what is there and not ours is the node's, and is kept."""
    kept = {} if old.withdrawn else {one.index: one for one in old.before}
    ours = () if old.withdrawn else old.placed
    kept |= {one.index: one for one in sites if _digest(one.data) not in ours}
    placed = dict.fromkeys([*ours, *map(_digest, wanted.sites)])
    before = tuple(kept[index] for index in sorted(kept))
    return Mark(wanted.serial, wanted.act, withdrawn=False, before=before, placed=tuple(placed)[-PLACED_MAX:])


def _slots(taken: Sequence[int], used: set[int], at: int, count: int) -> list[int]:
    """Indexes for so many sites, ascending: those of the sites that are there, then free ones behind our mark."""
    slots, free = list(taken), at
    while len(slots) < count:
        free += 1
        if free not in used:
            slots.append(free)
    return sorted(slots)[:count]


def _withdraw(sites: Sequence[HandleValue], marked: tuple[int, Mark], wanted: Publication) -> Change | None:
    at, mark = marked
    if mark.withdrawn and mark.serial == wanted.serial:
        return None
    there, before = {one.index: one for one in sites}, {one.index: one for one in mark.before}
    back = {index: replace(one, data=_raised(one.data, wanted.serial)) for index, one in before.items()}
    missing = tuple(one for index, one in back.items() if index not in there)
    if missing:
        return Change(Verb.ADD, missing)
    ours = {one.index for one in sites if _digest(one.data) in mark.placed and not _same(one, back.get(one.index))}
    restored = tuple(one for index, one in back.items() if index in ours)
    if restored:
        return Change(Verb.MODIFY, restored)
    over = tuple(one for one in sites if one.index in ours)
    if over:
        return Change(Verb.REMOVE, over)
    end = Mark(wanted.serial, wanted.act, withdrawn=True)
    return Change(Verb.MODIFY, (HandleValue(at, MARK, end.encode(), ttl=TTL_S),))


def _raised(site: bytes, serial: int) -> bytes:
    """The node's site with the serial of its return, so that whoever kept ours takes it for newer."""
    if not is_site(site) or site_serial(site) >= serial:
        return site
    return site[:SERIAL_OFFSET] + serial.to_bytes(2, "big") + site[SERIAL_OFFSET + 2 :]


def _same(one: HandleValue, other: HandleValue | None) -> bool:
    return other is not None and (one.data, one.ttl_type, one.ttl) == (other.data, other.ttl_type, other.ttl)


def _digest(site: bytes) -> str:
    return sha256(site).hexdigest()[:32]
