"""From a request to a change in canonical octets, and from a stored record to what a reader is told. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from hosting.tenant.limits import REFERENCES_MAX
from hosting.v1 import registration_pb2
from replica import native
from replica.agent.records import TYPE_OCTETS_MAX, judged, record_of
from replica.model.batch import OP_DELETE, OP_PUT, Change, columns_of
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.codes import HANDLE_OCTETS_MAX
from replica.model.handle.values import FORMAT_SPELLED, HandleValue, decode_values, record_head, spelling_of
from replica.model.identifier import END, CodeType, Identifier, key_text, parent
from replica.model.precondition import Precondition, value_hash
from replica.v1 import entry_pb2

HANDLES = frozenset({CodeType.HANDLE, CodeType.VAA})
NAMES_KEPT = 1_024  # of at most 2 KiB; a request names its key, its prefix and its handle, each more than once


@dataclass(frozen=True, slots=True)
class Named:
    """An identifier of a request.

    Args:
        owner: key part of the prefix whose owner decides: the parent's for a prefix's own record.
    """

    identifier: Identifier
    text: str
    owner: bytes

    def key(self, *, case_sensitive: bool) -> bytes:
        return self.identifier.key(case_sensitive=case_sensitive)

    def spelling(self, key: bytes) -> bytes:
        """The name as written, where the key cannot tell it; else empty."""
        one = self.identifier
        if one.route:
            return b""
        if one.code in HANDLES:  # the same without making the text, which is dear: octets are folded and nothing else
            prefix = one.spelling[: -len(one.suffix) - 1]
            return b"" if prefix == prefix.upper() and key == one.prefix + END + one.suffix else one.spelling
        return b"" if key_text(key) == self.text else one.spelling


@lru_cache(NAMES_KEPT)
def named(text: str) -> Named:
    """Raises ZaibeiError(MALFORMED)."""
    found = Identifier.parse(text)
    return Named(found, text, parent(found.prefix) if found.route else found.prefix)


def precondition_of(message: registration_pb2.Precondition) -> Precondition:
    """Raises ZaibeiError(MALFORMED)."""
    kind = entry_pb2.Precondition.Kind.ValueType(int(message.kind))
    return Precondition.from_wire(entry_pb2.Precondition(kind=kind, value_hash=message.value_hash))


def put_of(key: bytes, spelling: bytes, values: bytes) -> Change:
    """A registration or replacement.

    Args:
        values: u32 count, then Handle value records.
    Raises:
        ZaibeiError(MALFORMED): says what is wrong.
    """
    with judged():
        found = decode_values(values)
    _check_all(found)
    if found and all(one.index < other.index for one, other in pairwise(found)):  # canonical already: octets have one reading
        with judged():
            return _sound(Change(OP_PUT, key, record_head(spelling or None) + values))
    return _sound(Change(OP_PUT, key, record_of(found, spelling)))


def put_values(key: bytes, spelling: bytes, values: Sequence[HandleValue]) -> Change:
    """As `put_of`."""
    _check_all(values)
    return _sound(Change(OP_PUT, key, record_of(values, spelling)))


def delete_of(key: bytes) -> Change:
    return _sound(Change(OP_DELETE, key))


def _check_all(values: Sequence[HandleValue]) -> None:
    for value in values:
        _check(value)


def _check(value: HandleValue) -> None:
    if not 1 <= len(value.type) <= TYPE_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"a type has 1 to {TYPE_OCTETS_MAX} octets")
    try:
        value.type.decode()
    except UnicodeDecodeError:
        raise ZaibeiError(Code.MALFORMED, f"the type of value {value.index} is not UTF-8") from None
    if len(value.references) > REFERENCES_MAX:
        raise ZaibeiError(Code.MALFORMED, f"value {value.index} has {len(value.references)} references, at most {REFERENCES_MAX}")
    for reference in value.references:
        if not 1 <= len(reference.handle) <= HANDLE_OCTETS_MAX:
            raise ZaibeiError(
                Code.MALFORMED,
                f"a reference of value {value.index} names {len(reference.handle)} octets, 1 to {HANDLE_OCTETS_MAX}",
            )


def _sound(change: Change) -> Change:
    """By the same walk that judges what other registries send."""
    faults = native.scan(columns_of([change]), 1).faults
    if faults:
        raise ZaibeiError(Code.MALFORMED, f"not a record that can be kept: {faults[0][1]}")
    return change


def told(text: str, record: bytes | None, *, names_only: bool = False, public_only: bool = False) -> registration_pb2.Record:
    """What a reader is told of one identifier.

    Args:
        public_only: the values that the public may read. Where others are kept back there is no hash either: what they say could
            be guessed by it, and whoever puts a record back without them would take them out.
    Raises:
        ZaibeiError(DAMAGED): the record is quarantined or does not begin like one.
    """
    if record is None:
        return registration_pb2.Record(identifier=text)
    if not record:
        raise ZaibeiError(Code.DAMAGED, f"the record of {text[:80]!r} is quarantined")
    values, hashed = record[_head_octets(record) :], value_hash(record)
    if public_only:
        public = native.filter_values(record, (), (), True)
        if public != values:
            values, hashed = public or b"", b""
    return registration_pb2.Record(identifier=text, found=True, values=b"" if names_only else values, value_hash=hashed)


def listed(key: bytes, record: bytes, *, names_only: bool, public_only: bool = False) -> registration_pb2.Record:
    """A record of a page: its name as its owner spelled it."""
    spelled = spelling_of(record)
    text = key_text(key) if spelled is None else spelled.decode("utf-8", "replace")
    return told(text, record, names_only=names_only, public_only=public_only)


def _head_octets(record: bytes) -> int:
    return 3 + int.from_bytes(record[1:3], "big") if record[0] == FORMAT_SPELLED else 1
