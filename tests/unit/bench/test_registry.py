"""The registry that is made as it is read: keys ascend, records are sound and of one size, its end states what was read."""

from __future__ import annotations

from hashlib import sha256
from itertools import islice

import pytest

from ops.bench import registry
from ops.bench.synthetic import columns
from replica import native
from replica.model.digest import MODULUS
from replica.model.handle.values import decode_values
from replica.model.position import ORIGIN


def test_keys_ascend_over_the_end_of_a_prefix() -> None:
    ranks = [*range(5_000), *range(registry.PREFIX_RECORDS - 5, registry.PREFIX_RECORDS + 5)]
    keys = [registry.key_of(rank) for rank in ranks]
    assert keys == sorted(set(keys))


def test_records_are_sound_and_of_one_size() -> None:
    made = [registry.record(rank, chance, rank) for rank, chance in enumerate(registry.chances(1, 64))]
    assert len({len(key) + len(value) for key, value in made}) == 1
    for _, value in made:
        values = decode_values(value[1:])
        assert [one.index for one in values] == [1, 2, 3, 4, 5, 100] and values[-1].type == b"HS_ADMIN"


@pytest.mark.parametrize("first", [0, 99_000, 100_000, 99_999_000])
def test_a_part_made_at_once_is_what_its_records_are(first: int) -> None:
    ranks = range(first, first + registry.PART_RECORDS)
    pairs = [registry.record(rank, chance) for rank, chance in zip(ranks, registry.chances(first, len(ranks)), strict=True)]
    press = registry.Press()
    part = press.part(first)
    assert part == columns(pairs)
    assert press.split(part) == ([key for key, _ in pairs], [value for _, value in pairs])


def test_the_end_states_what_was_read_each_time_anew() -> None:
    source = registry.Registry()
    for _ in range(2):
        parts = [*source.parts(2_000)]
        end = source.end(2_000, ORIGIN)
        total, ordered = 0, sha256()
        for part in parts:
            keys, values = native.split(part)[:2]
            total = (total + native.delta(keys, b"\x01" * len(keys), values, [None] * len(keys))[2]) % MODULUS
            ordered.update(part)
        assert (end.parts, end.ordered_hash, end.digest.records) == (2, ordered.digest(), 2_000)
        assert int.from_bytes(end.digest.sum, "little") == total


def test_changes_rewrite_and_add() -> None:
    keys = native.split(registry.changes(10_000, 3, 1_000))[0]
    held = {registry.key_of(rank) for rank in range(10_000)}
    assert len(set(keys)) == 1_000 and sum(key in held for key in keys) == 900
    again = native.split(registry.changes(10_000, 4, 1_000))[0]
    assert not {key for key in keys if key not in held} & set(again), "each batch adds records of its own"


def test_keys_to_ask_for_exist() -> None:
    held = set(islice(map(registry.key_of, range(500)), 500))
    asked = registry.some_keys(500, 100, seed=1)
    assert len(set(asked)) == 100 and set(asked) <= held
