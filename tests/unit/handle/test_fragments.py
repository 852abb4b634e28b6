"""Datagrams of long messages: split, joined in any order, and what hostile ones can do."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.model.handle import message
from replica.model.handle.codes import CHUNK_OCTETS_MAX, EnvelopeFlag
from replica.model.handle.fragments import Reassembler, datagrams
from replica.model.handle.message import Envelope, Header, Message

PEER = b"peer"


def long_message(octets: int, request_id: int = 7) -> bytes:
    """A message of exactly that many octets after the envelope."""
    body = random.Random(octets).randbytes(octets - 28)
    return message.encode_message(Message(Envelope(request_id, 0, session_id=9), Header(1, 1), body))


@given(st.integers(28, 5_000), st.randoms(use_true_random=False))
def test_a_message_arrives_in_any_order(octets: int, chance: random.Random) -> None:
    whole = long_message(octets)
    parts = datagrams(whole)
    assert len(parts) == max(1, -(-octets // CHUNK_OCTETS_MAX))
    assert all(len(part) <= 512 for part in parts)
    if len(parts) > 1:
        heads = [message.decode_envelope(part) for part in parts]
        assert {(head.flags, head.length, head.session_id) for head in heads} == {(EnvelopeFlag.TRUNCATED, octets, 9)}
        assert [head.sequence for head in heads] == list(range(len(parts)))
    chance.shuffle(parts)
    joiner = Reassembler()
    assert [joiner.feed(PEER, part, 0) for part in parts] == [None] * (len(parts) - 1) + [whole]
    assert (joiner.messages_held, joiner.octets_held, joiner.dropped) == (0, 0, {})


@pytest.mark.parametrize("octets", [491, 492, 493, 984, 985, 262_144])
def test_at_the_edges(octets: int) -> None:
    whole, joiner = long_message(octets), Reassembler()
    assert [joiner.feed(PEER, part, 0) for part in datagrams(whole)][-1] == whole


def test_repeated_datagrams_count_once_and_messages_do_not_mix() -> None:
    one, other, joiner = long_message(1_200), long_message(1_300, request_id=8), Reassembler()
    for part in datagrams(one)[:2] * 3 + datagrams(other)[:2]:
        assert joiner.feed(PEER, part, 0) is None
    assert joiner.octets_held == 4 * 492
    assert joiner.feed(b"stranger", datagrams(one)[2], 0) is None
    assert joiner.feed(PEER, datagrams(other)[2], 0) == other
    assert joiner.feed(PEER, datagrams(one)[2], 0) == one


def envelope(sequence: int, length: int, chunk: bytes, request_id: int = 7) -> bytes:
    head = Envelope(request_id, length, flags=EnvelopeFlag.TRUNCATED, sequence=sequence)
    return message.encode_envelope(head) + chunk


HOSTILE = [
    ("short", b"\x02\x0b\x22"),
    ("length", envelope(0, 0, b"")),
    ("length", envelope(0, 262_145, bytes(492))),
    ("length", envelope(0, 0xFFFFFFFF, bytes(492))),
    ("sequence", envelope(2, 984, bytes(492))),
    ("sequence", envelope(0xFFFFFFFF, 984, bytes(492))),
    ("chunk", envelope(0, 984, bytes(491))),
    ("chunk", envelope(0, 984, bytes(493))),
    ("chunk", envelope(1, 985, bytes(491))),
    ("chunk", envelope(0, 984, b"")),
]


@pytest.mark.parametrize(("reason", "datagram"), HOSTILE)
def test_what_cannot_be_right_is_dropped_and_counted(reason: str, datagram: bytes) -> None:
    joiner = Reassembler()
    assert joiner.feed(PEER, datagram, 0) is None
    assert (joiner.dropped, joiner.messages_held, joiner.octets_held) == ({reason: 1}, 0, 0)


def test_a_forger_cannot_replace_what_has_come() -> None:
    whole, joiner = long_message(1_000), Reassembler()
    parts = datagrams(whole)
    joiner.feed(PEER, parts[0], 0)
    other = datagrams(long_message(999))[1]
    twisted = parts[0][:-1] + bytes((parts[0][-1] ^ 1,))
    version = b"\x05" + parts[1][1:]
    for forged in (other, twisted, version):
        assert joiner.feed(PEER, forged, 0) is None
    assert joiner.dropped == {"conflict": 3}
    assert [joiner.feed(PEER, part, 0) for part in parts[1:]][-1] == whole


def test_what_never_completes_grows_old() -> None:
    joiner = Reassembler(age_ms_max=5_000)
    for request_id in range(10):
        joiner.feed(PEER, envelope(0, 984, bytes(492), request_id), 100 * request_id)
    joiner.feed(PEER, b"", 5_400)
    assert (joiner.messages_held, joiner.dropped["age"]) == (6, 4)
    joiner.feed(PEER, b"", 99_000)
    assert (joiner.messages_held, joiner.octets_held) == (0, 0)


def test_memory_is_bounded() -> None:
    joiner = Reassembler(messages_max=8, octets_max=10 * 492)
    for request_id in range(1_000):
        joiner.feed(PEER, envelope(0, 262_144, bytes(492), request_id), 0)
        assert joiner.messages_held <= 8
    for sequence in range(500):
        joiner.feed(PEER, envelope(sequence, 262_144, bytes(492), 5_000), 0)
        assert joiner.octets_held <= 10 * 492
    assert joiner.dropped["room"] > 1_000
    assert joiner.feed(PEER, long_message(400), 0) == long_message(400)  # whole ones always pass
