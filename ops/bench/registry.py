"""A synthetic registry of any size, made in key order as it is read, so that nothing of it lies on a disk.

Records are shaped as product registries keep them: six typed values, HS_ADMIN among them, with timestamp, TTL and permissions,
in prefixes of 100,000 records each. About 470 octets raw, of which 57 are random and do not compress (serial, hash of a document,
token in the URL); the rest repeats as in one enterprise's registry. Real registries compress better or worse.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import ClassVar

from ops.bench.synthetic import columns
from replica import native
from replica.model.digest import MODULUS, ContentDigest
from replica.model.position import Position
from replica.v1 import source_pb2

NAME = "registry"  # stands for this material where a file could stand
PART_RECORDS = 1_000
PREFIX_RECORDS = 100_000
FIRST_ENTERPRISE = 100_000  # six digits each, so that names stand in the order of their numbers
STEP = 1_000  # between neighbouring serials; each lies somewhere in its step
RANDOM_OCTETS = 57  # of one record
_STAMP = (1_700_000_000).to_bytes(4, "big")
_HEAD = _STAMP + b"\0" + (86_400).to_bytes(4, "big") + b"\x0e"
_KINDS = (
    b"industrial controller", b"pressure sensor", b"bearing, sealed", b"servo drive", b"valve body", b"battery pack",
    b"steel coil", b"gear",
)  # fmt: skip


_SAMPLE = {
    b"enterprise": FIRST_ENTERPRISE, b"name": bytes(15), b"token": bytes(20), b"model": 0, b"make": 0, b"version": 0,
    b"serial": bytes(24), b"desk": 0, b"hash": bytes(32),
}  # fmt: skip


def _value(index: int, kind: bytes, data: bytes) -> bytes:
    """Template of a value; no octet of the head is a percent sign."""
    head = index.to_bytes(4, "big") + _HEAD + len(kind).to_bytes(4, "big") + kind
    return head + len(data % _SAMPLE).to_bytes(4, "big") + data + bytes(4)


def _template(kind: bytes) -> bytes:
    """A record whose numbers all have a fixed width, so that one formatting makes it."""
    values = (
        _value(1, b"URL", b"https://id.enterprise-%(enterprise)06d.example.cn/p/%(name)b?t=%(token)b"),
        _value(2, b"PRODUCT", kind + b", model %(model)03d-%(make)03d, revision %(version)06d"),
        _value(3, b"SERIAL", b"%(serial)b"),
        _value(4, b"EMAIL", b"service-%(desk)03d@enterprise-%(enterprise)06d.example.cn"),
        _value(5, b"SHA256", b"%(hash)b"),
        _value(100, b"HS_ADMIN", b"\x0f\xff\x00\x00\x00\x140.NA/88.118.8.%(enterprise)06d\x00\x00\x01\x2c"),
    )
    return b"\x01" + len(values).to_bytes(4, "big") + b"".join(values)


_TEMPLATES = tuple(_template(kind.ljust(max(map(len, _KINDS)))) for kind in _KINDS)  # the load sender wants records of one size


def key_of(rank: int) -> bytes:
    """Key of the record with this rank; ranks ascend with keys."""
    enterprise, place = divmod(rank, PREFIX_RECORDS)
    jitter = (rank * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) % STEP
    return b"h88\x01118\x018\x01%d\x00SN-%012d" % (FIRST_ENTERPRISE + enterprise, place * STEP + jitter)


def record(rank: int, chance: bytes, version: int = 0) -> tuple[bytes, bytes]:
    """(key, value).

    Args:
        chance: RANDOM_OCTETS random octets.
    """
    key = key_of(rank)
    about = {
        b"enterprise": FIRST_ENTERPRISE + rank // PREFIX_RECORDS, b"name": key[-15:], b"token": chance[:10].hex().encode(),
        b"model": chance[10], b"make": chance[11], b"version": version, b"serial": chance[12:24].hex().encode(),
        b"desk": chance[24], b"hash": chance[25:57],
    }  # fmt: skip
    return key, _TEMPLATES[rank % len(_TEMPLATES)] % about


def chances(seed: int, count: int) -> Iterator[bytes]:
    octets = random.Random(seed).randbytes(count * RANDOM_OCTETS)
    return (octets[at : at + RANDOM_OCTETS] for at in range(0, len(octets), RANDOM_OCTETS))


def _places(sample: bytes, changed: bytes) -> list[int]:
    return [place for place, (one, other) in enumerate(zip(sample, changed, strict=True)) if one != other]


class Press:
    """Makes parts of PART_RECORDS records column by column, several times as fast as record after record.

    All records have one length: each octet of a field lies at one distance from the same octet of the next record.
    """

    _OTHER: ClassVar = {field: b"\xff" * len(one) if isinstance(one, bytes) else 111_111 for field, one in _SAMPLE.items()}
    _OTHER |= {b"model": 111, b"make": 111, b"desk": 111}
    _HEX = tuple(bytes(ord(f"{octet:02x}"[digit]) for octet in range(256)) for digit in range(2))
    _DECIMAL = tuple(bytes(ord(f"{octet:03d}"[digit]) for octet in range(256)) for digit in range(3))

    def __init__(self) -> None:
        pairs = [record(rank, bytes(RANDOM_OCTETS)) for rank in range(PART_RECORDS)]
        self._part = columns(pairs)
        key, value = pairs[0]
        self.key_octets, self.value_octets = len(key), len(value)
        self.keys_at, self.values_at = self._part.index(key), self._part.index(value)
        self.key_step = self._part.index(pairs[1][0]) - self.keys_at
        self.value_step = self._part.index(pairs[1][1]) - self.values_at
        template = _TEMPLATES[0]
        sample = {**_SAMPLE, b"enterprise": 0}
        places = {field: _places(template % sample, template % {**sample, field: other}) for field, other in self._OTHER.items()}
        self._places = {field: [self.values_at + place for place in found] for field, found in places.items()}
        enterprise_at = self.keys_at + key.index(b"%d" % FIRST_ENTERPRISE)
        self._key_enterprise = range(enterprise_at, enterprise_at + 6)
        self._key_name = range(self.keys_at + len(key) - 15, self.keys_at + len(key))

    def part(self, first: int) -> bytes:
        """Columns of the records from this rank on; a multiple of PART_RECORDS."""
        made = bytearray(self._part)
        names = b"".join([key_of(rank)[-15:] for rank in range(first, first + PART_RECORDS)])
        name = [names[place::15] for place in range(15)]
        enterprise = [bytes((digit,)) * PART_RECORDS for digit in b"%06d" % (FIRST_ENTERPRISE + first // PREFIX_RECORDS)]
        self._put(made, self._key_enterprise, enterprise, self.key_step)
        self._put(made, self._key_name, name, self.key_step)
        octets = random.Random(first).randbytes(PART_RECORDS * RANDOM_OCTETS)
        chance = [octets[place::RANDOM_OCTETS] for place in range(RANDOM_OCTETS)]
        for field, found in (
            (b"enterprise", enterprise * (len(self._places[b"enterprise"]) // 6)),
            (b"name", name),
            (b"token", self._spelled(chance[:10], self._HEX)),
            (b"model", self._spelled(chance[10:11], self._DECIMAL)),
            (b"make", self._spelled(chance[11:12], self._DECIMAL)),
            (b"serial", self._spelled(chance[12:24], self._HEX)),
            (b"desk", self._spelled(chance[24:25], self._DECIMAL)),
            (b"hash", chance[25:57]),
        ):
            self._put(made, self._places[field], found, self.value_step)
        return bytes(made)

    @staticmethod
    def _spelled(chance: Sequence[bytes], digits: Sequence[bytes]) -> list[bytes]:
        return [column.translate(digit) for column in chance for digit in digits]

    @staticmethod
    def _put(made: bytearray, places: Sequence[int], found: Sequence[bytes], step: int) -> None:
        for place, column in zip(places, found, strict=True):
            made[place : place + PART_RECORDS * step - step + 1 : step] = column

    def split(self, part: bytes) -> tuple[list[bytes], list[bytes]]:
        """Its keys and values."""
        keys = range(self.keys_at, self.keys_at + PART_RECORDS * self.key_step, self.key_step)
        values = range(self.values_at, self.values_at + PART_RECORDS * self.value_step, self.value_step)
        return [part[at : at + self.key_octets] for at in keys], [part[at : at + self.value_octets] for at in values]


class Registry:
    """The content of a source; `parts` must be read to its end before `end` is asked."""

    def __init__(self) -> None:
        self._total, self._hash = 0, sha256()

    def parts(self, records: int) -> Iterator[bytes]:
        """The first records; a multiple of PART_RECORDS. Each reading begins anew."""
        self._total, self._hash = 0, sha256()
        press = Press()
        for first in range(0, records, PART_RECORDS):
            part = press.part(first)
            keys, values = press.split(part)
            _, _, added, _ = native.delta(keys, b"\x01" * len(keys), values, [None] * len(keys))
            self._total = (self._total + added) % MODULUS
            self._hash.update(part)
            yield part

    def end(self, records: int, position: Position) -> source_pb2.SnapshotEnd:
        """What a source states at the end of a snapshot; not signed."""
        digest = ContentDigest(position, records, self._total)
        return source_pb2.SnapshotEnd(parts=records // PART_RECORDS, digest=digest.to_wire(), ordered_hash=self._hash.digest())


def changes(records: int, number: int, count: int) -> bytes:
    """Columns of one batch of changes: nine in ten rewrite a record drawn at random, one in ten is new."""
    draw = random.Random(number)
    new = count // 10
    ranks = [*draw.sample(range(records), count - new), *range(records + number * new, records + (number + 1) * new)]
    return columns([record(rank, chance, 1 + number) for rank, chance in zip(ranks, chances(number, count), strict=True)])


def some_keys(records: int, count: int, seed: int) -> Sequence[bytes]:
    """Keys of records drawn at random."""
    return [key_of(rank) for rank in random.Random(seed).sample(range(records), min(count, records))]
