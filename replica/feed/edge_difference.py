"""Asks a source for sums and keys, and ourselves for ours, until the keys that differ are known; counts the octets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from replica.feed.difference import KeyDifference, Pair, Round, find_difference
from replica.model.position import Position
from replica.v1 import source_pb2

ASKED_AT_ONCE_MAX = 16
QUESTION_S_MAX = 20.0

Theirs = Callable[[source_pb2.DigestRequest], Awaitable[source_pb2.DigestResponse]]
Ours = Callable[[source_pb2.DigestRequest, Sequence[bytes]], source_pb2.DigestResponse]
"""Our answer, in a thread; with the keys the source named, so that ours need not be looked for."""


@dataclass(frozen=True, slots=True)
class Located:
    """What was found, and what it cost.

    Args:
        round_trips: questions that were asked together count once; octets: requests and answers of the source, as serialized.
    """

    position: Position
    found: KeyDifference
    round_trips: int
    octets: int
    took_ms: int


async def locate(position: Position, ours: Ours, theirs: Theirs) -> Located:
    """Find the difference at a position that both sides pinned.

    Raises:
        ZaibeiError(UNKNOWN): not held any more; UNREACHABLE: the stream went away; MALFORMED.
        TimeoutError: the source did not answer one question in time.
    """
    began_s, round_trips, octets = time.monotonic(), 0, 0
    rounds = find_difference(position)
    questions: Round = next(rounds)
    gate = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

    async def ask(request: source_pb2.DigestRequest) -> tuple[Pair, int]:
        async with gate, asyncio.timeout(QUESTION_S_MAX):
            answer = await theirs(request)
        mine = await asyncio.to_thread(ours, request, answer.keys)
        return (mine, answer), request.ByteSize() + answer.ByteSize()

    while True:
        asked = await asyncio.gather(*(ask(request) for request in questions))
        round_trips += -(-len(questions) // ASKED_AT_ONCE_MAX)
        octets += sum(size for _, size in asked)
        try:
            questions = rounds.send([pair for pair, _ in asked])
        except StopIteration as end:
            return Located(position, end.value, round_trips, octets, round((time.monotonic() - began_s) * 1_000))
