"""A lot: neighbours in one message whose names begin alike, so that much is asked once for all of them. Pure.

Whose prefix it is, what the caller may there, whether there is room, and whether values may be kept as they came: one look each.
A change that is not as usual is judged alone by records.py, and ends as it would have ended alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile

from hosting.tenant.records import delete_of, named, precondition_of, put_of
from hosting.v1 import registration_pb2
from replica import native
from replica.model.batch import KEY_OCTETS_MAX, OP_PUT, RECORD_OCTETS_MAX, Change
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import record_head
from replica.model.identifier import END, NAME_OCTETS_MAX, PREFIX_RECORDS, handle_prefix_key, prefix_text
from replica.model.precondition import NOTHING, Precondition

Draft = tuple[Change, Precondition]


@dataclass(frozen=True, slots=True)
class Below:
    """All names that begin with this text.

    Args:
        text: a prefix as written, with its slash.
        prefix: its key part; canonical: the key shows the text.
    """

    text: str
    prefix: bytes
    canonical: bool

    def key(self, name: str, *, sensitive: bool) -> tuple[bytes, bytes]:
        """Key and, where it cannot tell the name, the name as written: as `Identifier` and `Named` say.

        Raises:
            ZaibeiError(MALFORMED): too long.
        """
        octets = name.encode()
        if len(octets) > NAME_OCTETS_MAX:
            named(name)  # which says so
        suffix = octets[len(self.text.encode()) :]
        folded = suffix if sensitive else suffix.upper()
        return self.prefix + END + folded, b"" if self.canonical and folded == suffix else octets


def below_of(name: str) -> Below | None:
    """What a name begins with; None: it is of a code type with rules of its own, a prefix's own record, or none at all."""
    head, slash, _ = name.partition("/")
    return _below(head) if slash else None


@lru_cache(maxsize=256)
def _below(head: str) -> Below | None:
    if ":" in head:
        return None
    prefix = head.encode()
    if prefix.upper() == PREFIX_RECORDS:
        return None
    try:
        key = handle_prefix_key(prefix)
    except ZaibeiError:
        return None
    return Below(head + "/", key, prefix_text(key) == head)


def lot_of(changes: Sequence[registration_pb2.Change], below: Below) -> list[registration_pb2.Change]:
    """The first of these that belong together."""
    return list(takewhile(lambda change: change.identifier.startswith(below.text), changes))


def drafts_of(lot: Sequence[registration_pb2.Change], below: Below, *, sensitive: bool) -> list[Draft | ZaibeiError]:
    """What is asked for, in canonical octets, one after the other; or what is wrong with it."""
    plain = native.plain([wire.values for wire in lot])
    return [_draft(wire, below, sensitive, usual) for wire, usual in zip(lot, plain, strict=True)]


def _draft(wire: registration_pb2.Change, below: Below, sensitive: bool, usual: int) -> Draft | ZaibeiError:
    try:
        key, spelling = below.key(wire.identifier, sensitive=sensitive)
        if not wire.delete:
            change = _put(key, spelling, wire.values, usual)
        elif wire.values:
            raise ZaibeiError(Code.MALFORMED, "a delete carries no values")
        else:
            change = delete_of(key)
        return change, precondition_of(wire.precondition) if wire.HasField("precondition") else NOTHING
    except ZaibeiError as exc:
        return exc


def _put(key: bytes, spelling: bytes, values: bytes, usual: int) -> Change:
    record = record_head(spelling or None) + values
    if usual and len(record) <= RECORD_OCTETS_MAX and len(key) <= KEY_OCTETS_MAX:
        return Change(OP_PUT, key, record)
    return put_of(key, spelling, values)
