"""Strange octets, bounded: the fuzzer's target over changed golden vectors, and over noise."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.model.handle import values
from tests.fuzz.handle_target import exercise
from tests.unit.handle import strategies as some
from tests.unit.handle.golden import OCTETS, TEXT

SEEDS = [*OCTETS.values(), TEXT["values_json"].encode(), TEXT["resp_json"].encode()]
SEEDS.append(values.encode_record([values.decode_value(OCTETS["value_url"])], b"88.118.8/Xyz"))


@given(st.sampled_from(SEEDS).flatmap(some.changed))
def test_changed_vectors(octets: bytes) -> None:
    exercise(octets)


@pytest.mark.parametrize("seed", range(4))
def test_many_small_changes(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(500):
        octets = bytearray(chance.choice(SEEDS))
        for _ in range(chance.randint(1, 4)):
            octets[chance.randrange(len(octets))] = chance.choice((0, 1, 2, 4, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        if chance.random() < 0.3:
            del octets[chance.randrange(len(octets)) :]
        exercise(bytes(octets))


@given(st.binary(max_size=300))
def test_noise(octets: bytes) -> None:
    exercise(octets)
