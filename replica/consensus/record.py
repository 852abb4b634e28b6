"""Octets of the journal's rows, and nothing else. A persistent format.

Keys (all numbers big-endian, so that memcmp order is number order):
    "m"                       meta: u8 format | u64 boot number | u64 next group number | 16 octets identity
    "g" name (UTF-8)          group: u8 format | u64 number; numbers are never used again
    "h" u64 number            hard state: u8 format | u64 term | u64 boot | vote (decimal digits; empty: none)
    "f" u64 number            marks: u8 format | u64 floor | u64 floor term | u64 flushed
    "c" u64 number            membership: u8 format | 8 octets checksum | what the group keeps
    "w" u64 number            memory of others' promises: the same
    "e" u64 number u64 index  entry: u8 format | 8 octets checksum | u64 term | replica.v1.Entry octets (2: a membership)
Checksum = first 8 octets of SHA-256(u64 number | u64 index | u64 term | data): a row under another key fails it too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from replica.consensus.port import HardState
from replica.model.errors import Code, ZaibeiError
from replica.model.outcome import EntryKind, LogEntry

FORMAT = 1
FORMAT_MEMBERSHIP = 2  # of an entry that changes the membership
GROUP_NAME_OCTETS_MAX = 256
IDENTITY_OCTETS = 16
META_KEY = b"m"
_ENTRY_KINDS = {FORMAT: EntryKind.DATA, FORMAT_MEMBERSHIP: EntryKind.MEMBERSHIP}
_PLACE = struct.Struct(">QQQ")
_ENTRY_KEY = struct.Struct(">cQQ")
_ENTRY_HEAD = struct.Struct(">B8sQ")
_META = struct.Struct(">BQQ16s")
_GROUP = struct.Struct(">BQ")
_HARD = struct.Struct(">BQQ")
_MARKS = struct.Struct(">BQQQ")
_KEPT = struct.Struct(">B8s")
ENTRY_OVERHEAD_OCTETS = _ENTRY_HEAD.size + _ENTRY_KEY.size


@dataclass(frozen=True, slots=True)
class Meta:
    """Of the whole journal. `boot` rises at each open."""

    boot: int
    next_number: int
    identity: bytes


@dataclass(frozen=True, slots=True)
class Marks:
    """Of one group: see Recovered."""

    floor: int = 0
    floor_term: int = 0
    flushed: int = 0


def group_key(name: str) -> bytes:
    octets = name.encode()
    if not 1 <= len(octets) <= GROUP_NAME_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a group's name has 1 to {GROUP_NAME_OCTETS_MAX} octets, not {len(octets)}")
    return b"g" + octets


def hard_key(number: int) -> bytes:
    return b"h" + number.to_bytes(8, "big")


def marks_key(number: int) -> bytes:
    return b"f" + number.to_bytes(8, "big")


def entry_key(number: int, index: int) -> bytes:
    return _ENTRY_KEY.pack(b"e", number, index)


def entry_index(key: bytes) -> int:
    return int.from_bytes(key[9:17], "big")


def checksum(number: int, entry: LogEntry) -> bytes:
    hashed = sha256(_PLACE.pack(number, entry.index, entry.term))
    if entry.kind:
        hashed.update(b"membership")
    hashed.update(entry.data)
    return hashed.digest()[:8]


def encode_entry(number: int, entry: LogEntry) -> bytes:
    form = FORMAT_MEMBERSHIP if entry.kind is EntryKind.MEMBERSHIP else FORMAT
    return _ENTRY_HEAD.pack(form, checksum(number, entry), entry.term) + entry.data


def decode_entry(number: int, index: int, row: bytes) -> LogEntry:
    """Raises ZaibeiError(DAMAGED): the row is not what was written under this key."""
    if len(row) < _ENTRY_HEAD.size:
        raise ZaibeiError(Code.DAMAGED, f"the record at index {index} has {len(row)} octets only")
    form, stored, term = _ENTRY_HEAD.unpack_from(row)
    kind = _ENTRY_KINDS.get(form)
    if kind is None:
        raise ZaibeiError(Code.DAMAGED, f"the record at index {index} has format {form}; this program reads {FORMAT}")
    entry = LogEntry(index, term, row[_ENTRY_HEAD.size :], kind)
    if checksum(number, entry) != stored:
        raise ZaibeiError(Code.DAMAGED, f"the record at index {index} fails its checksum")
    return entry


def encode_meta(meta: Meta) -> bytes:
    return _META.pack(FORMAT, meta.boot, meta.next_number, meta.identity)


def decode_meta(row: bytes) -> Meta:
    """Raises ZaibeiError(DAMAGED)."""
    form, boot, next_number, identity = _unpack(_META, row, "meta")
    _check_format(form, "meta")
    return Meta(boot, next_number, identity)


def encode_group(number: int) -> bytes:
    return _GROUP.pack(FORMAT, number)


def decode_group(row: bytes) -> int:
    """Raises ZaibeiError(DAMAGED)."""
    form, number = _unpack(_GROUP, row, "group")
    _check_format(form, "group")
    return int(number)


def encode_hard(hard: HardState) -> bytes:
    return _HARD.pack(FORMAT, hard.term, hard.boot) + (str(hard.vote).encode() if hard.vote else b"")


def decode_hard(row: bytes) -> HardState:
    """Raises ZaibeiError(DAMAGED)."""
    form, term, boot = _unpack(_HARD, row[: _HARD.size], "hard state")
    _check_format(form, "hard state")
    vote = row[_HARD.size :]
    if vote and not vote.isdigit():
        raise ZaibeiError(Code.DAMAGED, "the journal's hard state names no member as its vote")
    return HardState(term, int(vote or b"0"), boot)


def kept_key(kind: bytes, number: int) -> bytes:
    return kind + number.to_bytes(8, "big")


def encode_kept(kind: bytes, number: int, octets: bytes) -> bytes:
    return _KEPT.pack(FORMAT, _kept_checksum(kind, number, octets)) + octets


def decode_kept(kind: bytes, number: int, row: bytes) -> bytes:
    """Raises ZaibeiError(DAMAGED)."""
    form, stored = _unpack(_KEPT, row[: _KEPT.size], "kept")
    _check_format(form, "kept")
    octets = row[_KEPT.size :]
    if _kept_checksum(kind, number, octets) != stored:
        raise ZaibeiError(Code.DAMAGED, f"the journal's row {kind!r} of group number {number} fails its checksum")
    return octets


def _kept_checksum(kind: bytes, number: int, octets: bytes) -> bytes:
    return sha256(kept_key(kind, number) + octets).digest()[:8]


def encode_marks(marks: Marks) -> bytes:
    return _MARKS.pack(FORMAT, marks.floor, marks.floor_term, marks.flushed)


def decode_marks(row: bytes) -> Marks:
    """Raises ZaibeiError(DAMAGED)."""
    form, floor, floor_term, flushed = _unpack(_MARKS, row, "marks")
    _check_format(form, "marks")
    return Marks(floor, floor_term, flushed)


def _unpack(form: struct.Struct, row: bytes, what: str) -> tuple[Any, ...]:
    try:
        return form.unpack(row)
    except struct.error as exc:
        raise ZaibeiError(Code.DAMAGED, f"the journal's {what} row has {len(row)} octets, not {form.size}") from exc


def _check_format(form: object, what: str) -> None:
    if form != FORMAT:
        raise ZaibeiError(Code.DAMAGED, f"the journal's {what} row has format {form}; this program reads {FORMAT}")
