"""The synthetic registry: any number of its first parts is a whole, right snapshot."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from ops.bench.material import PART_RECORDS, make_material, open_material
from ops.bench.synthetic import RAW_OCTETS, record
from replica import native
from replica.model.digest import MODULUS
from replica.model.position import ORIGIN


def test_every_prefix_is_a_snapshot(tmp_path: Path) -> None:
    told: list[int] = []
    made = make_material(tmp_path / "material", 3 * PART_RECORDS, lambda done, _: told.append(done))
    assert told == [PART_RECORDS, 2 * PART_RECORDS, 3 * PART_RECORDS] and made.records == 3 * PART_RECORDS
    assert open_material(made.path) == made
    for records in (PART_RECORDS, 3 * PART_RECORDS):
        keys: list[bytes] = []
        total, ordered = 0, sha256()
        for part in made.parts(records):
            found, values, _ = native.split(part)
            assert not native.scan(part, PART_RECORDS).faults
            keys += found
            ordered.update(part)
            pairs = zip(found, values, strict=True)
            total += sum(int.from_bytes(native.record_hash(key, value), "little") for key, value in pairs)
        assert keys == sorted(set(keys)) == made.keys(records) and len(keys) == records
        end = made.end(records, ORIGIN)
        assert end.ordered_hash == ordered.digest() and end.parts == records // PART_RECORDS
        assert end.digest.records == records and int.from_bytes(end.digest.sum, "little") == total % MODULUS


def test_records_have_the_stated_size() -> None:
    for number in (0, 1, 12_345_678):
        key, value = record(number)
        assert len(key) + len(value) == RAW_OCTETS == len(key) + len(record(number, version=7)[1])
        assert record(number, version=7)[1] != value
