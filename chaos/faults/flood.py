"""What a flood sends, and what it may get back. Pure.

Half of the questions are for random names that are not there, the others for names that are, for prefix records and for
prefixes of nobody: what is there is what a forged address gains most from. The request id of each is its place in the list, so
that an answer is held against the very question it answers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hosting.client.lookup import Question
from hosting.client.wire import encode_question

QUESTIONS: Final = 8_192
TOGETHER: Final = 64  # UDP_MAX_SEGMENTS of older kernels
ID_AT: Final = slice(8, 12)  # of a Handle message
SETTLE_S: Final = 2.0  # the flood must be noticed before anything can be held back


def questions(prefixes: Sequence[str], records: int, seed: int) -> list[bytes]:
    """Datagrams of a flood, by their request id; each TOGETHER of them have one length, so that one call can send them."""
    dice, made = random.Random(seed), list[bytes]()
    while len(made) < QUESTIONS:
        prefix, chance = dice.choice(prefixes), dice.random()
        for number in range(len(made), len(made) + TOGETHER):
            name = f"{prefix}/M-{dice.randbytes(8).hex()}"
            if chance < 0.4:
                name = f"{prefix}/N-{dice.randrange(10 ** (len(str(records - 1)) - 1), records)}"
            elif chance < 0.45:
                name = f"0.NA/{prefix}"
            elif chance < 0.5:
                name = f"99.{dice.randrange(10**5, 10**6)}/x"
            made.append(encode_question(Question(name), number))
    return made


@dataclass(slots=True)
class Gained:
    """What forged addresses got.

    Args:
        answers, octets: in all; multiplied: answers longer than their question, after the flood had gone on for SETTLE_S.
        factor_max: octets of such an answer for each octet of its question, the most.
    """

    answers: int = 0
    octets: int = 0
    multiplied: int = 0
    factor_max: float = 0.0

    def took(self, answer: bytes, asked: Sequence[bytes], since_s: float) -> None:
        """An answer came, `since_s` after the flood began."""
        self.answers += 1
        self.octets += len(answer)
        if since_s < SETTLE_S:
            return
        place = int.from_bytes(answer[ID_AT], "big")
        question = asked[place] if place < len(asked) else b"?"
        self.factor_max = max(self.factor_max, len(answer) / len(question))
        self.multiplied += len(answer) > len(question)
