"""The fuzzer's target over mutated seeds: bounded, the same on every machine."""

from __future__ import annotations

import random

from tests.fuzz.client_target import Target, seeds
from tests.integration.test_front_abuse import mutate


def test_whatever_asks_survives_strange_octets() -> None:
    dice, target = random.Random(20_263), Target()
    for seed in seeds():
        target(seed)
        for _ in range(40):
            target(seed[:1] + mutate(dice, seed[1:] or b"x"))
