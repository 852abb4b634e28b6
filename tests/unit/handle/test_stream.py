"""Streams: messages come out whole whatever the reads were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.model.handle import message
from replica.model.handle.codes import ResponseCode
from replica.model.handle.message import Envelope, Header, Message
from replica.model.handle.stream import Deframer
from tests.unit.handle.golden import OCTETS, REQUESTS

PIPELINE = [OCTETS[name] for name in REQUESTS]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=60))
def test_any_cut_of_the_stream_gives_the_same_messages(steps: list[int]) -> None:
    stream, deframer, got, at = b"".join(PIPELINE), Deframer(), [], 0
    for step in steps:
        got += deframer.feed(stream[at : at + step])
        at += step
    got += deframer.feed(stream[at:])
    assert got == PIPELINE
    assert deframer.octets_held == 0


def test_octet_by_octet() -> None:
    deframer, got = Deframer(), []
    for octet in b"".join(PIPELINE):
        got += deframer.feed(bytes((octet,)))
    assert got == PIPELINE


def test_the_longest_message_passes_and_a_longer_one_ends_the_stream() -> None:
    longest = message.encode_message(Message(Envelope(5, 0), Header(1), bytes(262_144 - 28)))
    deframer = Deframer()
    got = [one for at in range(0, len(longest), 1_000) for one in deframer.feed(longest[at : at + 1_000])]
    assert got == [longest]
    too_long = longest[:16] + (262_145).to_bytes(4, "big") + longest[20:]
    assert deframer.feed(PIPELINE[0] + too_long) == [PIPELINE[0]]
    fault = deframer.fault
    assert fault is not None
    assert (fault.code, fault.request_id) == (ResponseCode.PROTOCOL_ERROR, 5)
    assert deframer.octets_held == 0
    assert deframer.feed(PIPELINE[0]) == []  # failed is final


@pytest.mark.parametrize("octets", [b"\xff" * 20, b"GET /api/handles/88.1/a HTTP/1.1\r\n"])
def test_another_protocol_ends_the_stream(octets: bytes) -> None:
    deframer = Deframer()
    assert deframer.feed(octets) == []
    assert deframer.fault is not None


def test_what_is_held_is_bounded_by_the_limit() -> None:
    deframer = Deframer(octets_max=1_000)
    start = PIPELINE[0][:16] + (1_000).to_bytes(4, "big")
    assert deframer.feed(start + bytes(999)) == []
    assert deframer.octets_held == 1_019
    assert len(deframer.feed(bytes(1))) == 1
