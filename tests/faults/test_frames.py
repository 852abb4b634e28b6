"""The switch's rules on frames: which are hit, what becomes of them, and that a slipped segment passes its checksum."""

from __future__ import annotations

import struct
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.rigs.frames import MAC, TCP, UDP, FrameRule, Wire, mac, port_of, rule_for, segment_of, slipped
from tests.faults.links import bridged, ringed

MS = 1_000_000


def checksum(octets: bytes) -> int:
    """RFC 1071, written again."""
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets[: len(octets) // 2 * 2])) + (
        octets[-1] << 8 if len(octets) % 2 else 0
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def frame(payload: bytes, *, family: int = 4, protocol: int = TCP, ports: tuple[int, int] = (4_000, 5_000)) -> bytes:
    """A whole frame, with the transport's checksum where it belongs."""
    head = struct.pack("!HHIIBBHHH", *ports, 1, 2, 5 << 4, 16, 100, 0, 0) if protocol == TCP else b""
    head = head or struct.pack("!HHHH", *ports, 8 + len(payload), 0)
    length = len(head) + len(payload)
    if family == 4:
        ends = bytes([10, 1, 1, 1, 10, 1, 1, 2])
        network = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, protocol, 0) + ends
        pseudo, kind = ends + struct.pack("!BBH", 0, protocol, length), 0x0800
    else:
        ends = bytes(15) + b"\1" + bytes(15) + b"\2"
        network = struct.pack("!IHBB", 6 << 28, length, protocol, 64) + ends
        pseudo, kind = ends + struct.pack("!II", length, protocol), 0x86DD
    at = 16 if protocol == TCP else 6
    total = checksum(pseudo + head + payload)
    segment = head[:at] + total.to_bytes(2, "big") + head[at + 2 :] + payload
    assert checksum(pseudo + segment) == 0
    return mac(2) + mac(1) + kind.to_bytes(2, "big") + network + segment


def summed(octets: bytes) -> int:
    """Of the transport of a frame, pseudo header included; 0: right."""
    found = segment_of(octets)
    assert found is not None
    ends = octets[26:34] if octets[12:14] == b"\x08\x00" else octets[22:54]
    return checksum(ends + struct.pack("!II", found.end - found.at, found.protocol) + octets[found.at : found.end])


def test_a_rule_may_be_about_one_family() -> None:
    wire = Wire("seed")
    wire.rules = (FrameRule(lost=1, family=6),)
    neighbour = mac(2) + mac(1) + b"\x08\x06" + bytes(28)  # ARP, without which IPv4 finds nobody
    for family, arrives in ((4, True), (6, False)):
        assert bool(wire.fates(frame(b"hello", family=family), 0)) is arrives
    wire.rules = (FrameRule(lost=1, family=4),)
    assert [bool(wire.fates(one, 0)) for one in (frame(b"hello"), frame(b"hello", family=6), neighbour)] == [False, True, True]
    assert FrameRule.read(FrameRule(lost=1, family=4).document()) == FrameRule(lost=1, family=4)


@given(st.binary(min_size=4, max_size=1_400), st.sampled_from([4, 6]), st.integers(0, 9))
def test_a_slip_changes_the_payload_alone_and_no_checksum_sees_it(payload: bytes, family: int, seed: int) -> None:
    whole = frame(payload, family=family)
    segment = segment_of(whole)
    assert segment is not None and whole[segment.payload : segment.end] == payload
    damaged = slipped(whole, segment, Random(seed))
    if damaged is None:
        return
    assert damaged != whole and len(damaged) == len(whole) and damaged[: segment.payload] == whole[: segment.payload]
    assert summed(whole) == summed(damaged) == 0


def test_a_slip_needs_two_words_that_differ() -> None:
    for payload in (b"", b"ab", b"abc", b"\7" * 400):
        whole = frame(payload)
        segment = segment_of(whole)
        assert segment is not None and slipped(whole, segment, Random(1)) is None


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_rules_find_their_frames_by_either_port(family: int, protocol: int) -> None:
    segment = segment_of(frame(b"hello", family=family, protocol=protocol))
    assert segment is not None and (segment.source, segment.target) == (4_000, 5_000)
    one, other, rest = FrameRule(ports=(4_000,)), FrameRule(ports=(5_000,)), FrameRule()
    assert rule_for([FrameRule(ports=(9,)), one, rest], segment) is one and rule_for([other], segment) is other
    assert rule_for([one], None) is None and rule_for([one, rest], None) is rest
    assert segment_of(frame(b"x")[:40]) is None and segment_of(mac(2) + mac(1) + b"\x08\x06" + bytes(50)) is None
    assert port_of(mac(7)) == 7 and port_of(b"\xff" * 6) is None and len(MAC) == 6


def test_frames_are_lost_doubled_late_and_slipped_by_a_seed() -> None:
    rule = FrameRule(lost=0.2, doubled=0.2, late=0.2, late_ms=9, delay_ms=1, slipped=0.5)

    def run(seed: str) -> list[list[tuple[float, bytes]]]:
        wire = Wire(seed)
        wire.rules = (rule,)
        found = [wire.fates(frame(bytes(range(200))), 0) for _ in range(300)]
        assert wire.counted["in"] == 300 and min(wire.counted.values()) > 20
        assert wire.counted["lost"] == sum(not one for one in found)
        assert wire.counted["doubled"] == sum(len(one) == 2 for one in found)
        return found

    assert run("a") == run("a") != run("b")


def test_a_narrow_wire_sends_in_turn_and_loses_what_would_wait_too_long() -> None:
    wire, octets = Wire("narrow"), frame(bytes(946))  # 1,000 octets in all
    wire.rules = (FrameRule(ports=(4_000,), octets_per_s=100_000, queue_ms=25),)
    assert len(octets) == 1_000
    waits = [wire.fates(octets, 0) for _ in range(5)]
    assert [one[0][0] if one else None for one in waits] == [10, 20, 30, None, None]
    assert wire.fates(frame(b"x", ports=(1, 2)), 0)[0][0] == 0  # the rule is not about it
    assert [after for after, _ in wire.fates(octets, 30 * MS)] == [10]
    assert wire.counted["lost"] == 2


def test_a_bridge_and_a_ring_part_what_they_should() -> None:
    assert bridged(3, [1, 2, 4, 5]) == [(1, 4), (1, 5), (2, 4), (2, 5)]
    assert bridged(2, [1, 3]) == [(1, 3)]
    cut = ringed([1, 2, 3, 4, 5])
    assert len(cut) == 5 and all({one, other} not in ({1, 2}, {2, 3}, {3, 4}, {4, 5}, {5, 1}) for one, other in cut)
