"""Bisection of sums finds exactly the keys that differ."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.feed.difference import KeyDifference, find_difference
from replica.feed.memory_store import digest_answer
from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN
from replica.v1 import source_pb2

contents = st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=2), max_size=30)


def find(ours: dict[bytes, bytes], theirs: dict[bytes, bytes]) -> tuple[KeyDifference, int]:
    questions = find_difference(ORIGIN)
    request, asked = next(questions), 0
    while True:
        asked += 1
        pair = tuple(digest_answer(content, ORIGIN, request.level, request.bucket) for content in (ours, theirs))
        try:
            request = questions.send(pair)  # type: ignore[arg-type]
        except StopIteration as end:
            return end.value, asked


@given(contents, contents, contents)
def test_exactly_what_differs(common: dict[bytes, bytes], ours: dict[bytes, bytes], theirs: dict[bytes, bytes]) -> None:
    ours, theirs = common | ours, common | theirs
    found, _ = find(ours, theirs)
    assert found.only_ours == sorted(ours.keys() - theirs.keys())
    assert found.only_theirs == sorted(theirs.keys() - ours.keys())
    assert found.other_value == sorted(key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key])


def test_one_key_costs_three_questions() -> None:
    ours = {b"k%d" % place: b"v" for place in range(500)}
    found, asked = find(ours, ours | {b"k7": b"w"})
    assert (found.other_value, asked) == ([b"k7"], 3)


def test_sums_no_longer_held_are_unknown() -> None:
    questions = find_difference(ORIGIN)
    next(questions)
    with pytest.raises(ZaibeiError) as caught:
        questions.send((source_pb2.DigestResponse(pinned=True), source_pb2.DigestResponse(pinned=False)))
    assert caught.value.code is Code.UNKNOWN
