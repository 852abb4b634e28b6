"""May this key do it? By HS_ADMIN values, directly or through HS_VLIST groups of theirs. Pure: records in, a verdict out.

The walk goes level by level: it says which handles it wants to see, and is told their records. A handle's group is visited once,
so a circle ends; the levels and the references have limits, and beyond them nothing is granted. What cannot be
read grants nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from replica.model.handle.faults import ProtocolFault
from replica.model.handle.names import fold, full_name, split_name
from replica.model.handle.types import decode_admin, decode_vlist
from replica.model.handle.values import HandleValue, Reference

GROUP_LEVELS_MAX = 8
REFERENCES_MAX = 4_096  # of one walk
ANY_INDEX = 0  # in HS_ADMIN and HS_VLIST: any value of that handle
HS_ADMIN, HS_VLIST = b"HS_ADMIN", b"HS_VLIST"

Records = Mapping[bytes, Sequence[HandleValue] | None]
"""Full name in its one spelling -> its values; None: there is no such record, or it cannot be read."""


def folded(handle: bytes) -> bytes:
    """The name under which two spellings of a handle are one."""
    return fold(full_name(handle))


def kept(handle: bytes) -> bytes:
    """The same where suffixes keep their case: there two spellings are two handles, and anybody may hold the other one."""
    prefix, suffix = split_name(full_name(handle))
    return fold(prefix) + b"/" + suffix


def same_key(one: Reference, other: Reference) -> bool:
    """Two spellings of one key."""
    return one.index == other.index and folded(one.handle) == folded(other.handle)


def is_kind(value: HandleValue, kind: bytes) -> bool:
    return value.type.upper() == kind


def admins(values: Iterable[HandleValue], needed: int) -> tuple[Reference, ...]:
    """Who holds all of these permissions over a record, by its HS_ADMIN values."""
    found = []
    for value in values:
        if is_kind(value, HS_ADMIN):
            try:
                admin = decode_admin(value.data)
            except ProtocolFault:
                continue  # says nothing that could be believed
            if admin.permissions & needed == needed:
                found.append(admin.admin)
    return tuple(found)


class Walk:
    """Looks for a key among administrators and their groups.

    Args:
        key: that was proved; its index is over 0.
        roots: as `admins` found them.
        one_name: the one spelling of a handle, by the case rule of whoever owns it.
    """

    def __init__(self, key: Reference, roots: Iterable[Reference], one_name: Callable[[bytes], bytes] = folded) -> None:
        self._one_name = one_name
        self._handle, self._index = one_name(key.handle), key.index
        self._seen: set[tuple[bytes, int]] = set()
        self._level: list[tuple[bytes, int]] = []
        self._levels = 0
        self.permitted = False
        self._add(roots)

    @property
    def wanted(self) -> tuple[bytes, ...]:
        """Handles to look at next, each in its one spelling; empty: the walk is over."""
        if self.permitted or self._levels >= GROUP_LEVELS_MAX:
            return ()
        return tuple(dict.fromkeys(handle for handle, _ in self._level))

    def told(self, records: Records) -> None:
        """The records of what was wanted; leaves out what it was not told."""
        level, self._level = self._level, []
        self._levels += 1
        for handle, index in level:
            for value in records.get(handle) or ():
                if is_kind(value, HS_VLIST) and index in (ANY_INDEX, value.index):
                    try:
                        self._add(decode_vlist(value.data))
                    except ProtocolFault:
                        continue

    def _add(self, references: Iterable[Reference]) -> None:
        for reference in references:
            one = (self._one_name(reference.handle), reference.index)
            if one in self._seen or len(self._seen) >= REFERENCES_MAX:
                continue
            self._seen.add(one)
            self._level.append(one)
            if one[0] == self._handle and one[1] in (ANY_INDEX, self._index):
                self.permitted = True
