"""Bisection of sums finds exactly the keys that differ, in three rounds and few octets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.feed.difference import BUCKETS_MAX, KEYS_MAX, KeyDifference, find_difference
from replica.feed.edge_difference import locate
from replica.feed.memory_store import digest_answer
from replica.model.digest import LEVEL1_BUCKETS, SUM_OCTETS
from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN
from replica.v1 import source_pb2

contents = st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=2), max_size=30)


def find(ours: dict[bytes, bytes], theirs: dict[bytes, bytes]) -> tuple[KeyDifference, int]:
    rounds = find_difference(ORIGIN)
    questions, asked = next(rounds), 0
    while True:
        asked += 1
        pairs = [
            tuple(digest_answer(content, ORIGIN, request.level, request.bucket) for content in (ours, theirs))
            for request in questions
        ]
        try:
            questions = rounds.send(pairs)  # type: ignore[arg-type]
        except StopIteration as end:
            return end.value, asked


@given(contents, contents, contents)
def test_exactly_what_differs(common: dict[bytes, bytes], ours: dict[bytes, bytes], theirs: dict[bytes, bytes]) -> None:
    ours, theirs = common | ours, common | theirs
    found, rounds = find(ours, theirs)
    assert found.only_ours == sorted(ours.keys() - theirs.keys())
    assert found.only_theirs == sorted(theirs.keys() - ours.keys())
    assert found.other_value == sorted(key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key])
    assert rounds <= 3
    assert found.complete


def test_one_key_costs_three_rounds() -> None:
    ours = {b"k%d" % place: b"v" for place in range(500)}
    found, asked = find(ours, ours | {b"k7": b"w"})
    assert (found.other_value, asked, found.buckets) == ([b"k7"], 3, 1)
    assert find(ours, ours) == (KeyDifference(), 1)


def test_sums_no_longer_held_are_unknown() -> None:
    rounds = find_difference(ORIGIN)
    next(rounds)
    with pytest.raises(ZaibeiError) as caught:
        rounds.send([(source_pb2.DigestResponse(pinned=True), source_pb2.DigestResponse(pinned=False))])
    assert caught.value.code is Code.UNKNOWN


def test_too_much_is_said_to_be_too_much() -> None:
    """Every bucket differs: nothing is listed, and it is not called complete."""
    rounds = find_difference(ORIGIN)
    next(rounds)
    width = LEVEL1_BUCKETS * SUM_OCTETS
    zeros, ones = (source_pb2.DigestResponse(pinned=True, sums=bytes([fill]) * width) for fill in (0, 1))
    questions = rounds.send([(zeros, ones)])
    assert len(questions) == LEVEL1_BUCKETS
    with pytest.raises(StopIteration) as ended:
        rounds.send([(zeros, ones)] * len(questions))
    found = ended.value.value
    assert (len(found), found.complete, found.buckets) == (0, False, LEVEL1_BUCKETS**2)
    assert found.buckets > BUCKETS_MAX > KEYS_MAX // LEVEL1_BUCKETS


class TenMillion:
    """A registry of ten million records as its sums and one bucket: what a source of that size says, octet for octet."""

    RECORDS_A_BUCKET = 10_000_000 // LEVEL1_BUCKETS**2 + 1

    def __init__(self, planted: bytes) -> None:
        self.planted = planted
        self.asked: list[source_pb2.DigestRequest] = []

    def answer(self, request: source_pb2.DigestRequest) -> source_pb2.DigestResponse:
        response = source_pb2.DigestResponse(pinned=True)
        response.digest.records = 10_000_000
        response.digest.sum = bytes(16)
        response.digest.position.CopyFrom(request.position)
        if request.level == 3:
            keys = [b"h88\x01118\x018\x00XYZ-%012d" % number for number in range(self.RECORDS_A_BUCKET)]
            response.keys.extend(keys)
            response.hashes.extend([self.planted if number == 77 else bytes([7]) * 16 for number in range(len(keys))])
            return response
        sums = bytearray(bytes([9]) * (LEVEL1_BUCKETS * SUM_OCTETS))
        sums[5 * SUM_OCTETS + 8 : 5 * SUM_OCTETS + 24] = self.planted  # bucket 5 on both levels
        response.sums = bytes(sums)
        return response

    async def theirs(self, request: source_pb2.DigestRequest) -> source_pb2.DigestResponse:
        self.asked.append(request)
        return self.answer(request)

    def ours(self, request: source_pb2.DigestRequest, named: Sequence[bytes]) -> source_pb2.DigestResponse:
        return self.answer(request)


def test_one_planted_record_of_ten_million_is_located_in_four_round_trips_and_64_kilobytes() -> None:
    """Round trips and octets as they cross the network, requests and answers."""
    ours, theirs = TenMillion(bytes([1]) * 16), TenMillion(bytes([2]) * 16)
    found = asyncio.run(locate(ORIGIN, ours.ours, theirs.theirs))
    assert found.found.other_value == [b"h88\x01118\x018\x00XYZ-%012d" % 77]
    assert found.round_trips == len(theirs.asked) == 3 <= 4
    assert 2 * LEVEL1_BUCKETS * SUM_OCTETS < found.octets <= 64 * 1024
