"""What a switch of our own does to Ethernet frames, as values: rules by direction and port, fates by a seed, and a damage that
TCP's checksum cannot see. Pure.

A slip swaps two 16-bit words of a segment's payload. The checksum of TCP and UDP is a sum (RFC 1071), which does not depend on
the order of words, so a slipped segment passes every checksum below the application's own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from chaos.faults.rules import DatagramRule, fates_ms

ETHERNET_OCTETS = 14
IPV4, IPV6, TCP, UDP = 0x0800, 0x86DD, 6, 17
IPV6_OCTETS, UDP_OCTETS = 40, 8
SLIP_TRIES = 16  # to find two words that differ
NS_PER_MS = 1_000_000
MAC = bytes.fromhex("027a62660000")  # locally administered; the last two octets are the port of the switch


@dataclass(frozen=True, slots=True)
class FrameRule:
    """One direction between two ports of the switch.

    Args:
        ports: TCP and UDP ports, of either end, whose frames it is about; empty: all frames.
        family: 4 or 6, whose frames alone it is about; 0: both, and all that is neither.
        lost, doubled, late, late_ms, delay_ms, jitter_ms: as in DatagramRule.
        slipped: share of TCP segments with a payload that is damaged past the checksum.
        octets_per_s: rate; 0: no limit. queue_ms: what would wait longer than that for its turn is lost.
    """

    ports: tuple[int, ...] = ()
    lost: float = 0
    doubled: float = 0
    late: float = 0
    late_ms: float = 20
    delay_ms: float = 0
    jitter_ms: float = 0
    slipped: float = 0
    octets_per_s: int = 0
    queue_ms: float = 100
    family: int = 0

    def datagram(self) -> DatagramRule:
        return DatagramRule(
            lost=self.lost, doubled=self.doubled, late=self.late, late_ms=self.late_ms, delay_ms=self.delay_ms,
            jitter_ms=self.jitter_ms,
        )  # fmt: skip

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> FrameRule:
        return cls(**{**document, "ports": tuple(document.get("ports", ()))})


@dataclass(frozen=True, slots=True)
class Segment:
    """Where in a frame its TCP or UDP is. at: of that header; payload: of what it carries."""

    protocol: int
    source: int
    target: int
    at: int
    payload: int
    end: int


def mac(port: int) -> bytes:
    """Address of whoever sits at a port of the switch."""
    return MAC[:4] + port.to_bytes(2, "big")


def port_of(address: bytes) -> int | None:
    """None: a broadcast, a group, or nobody of ours."""
    return int.from_bytes(address[4:], "big") if address[:4] == MAC[:4] else None


def segment_of(frame: bytes) -> Segment | None:
    """None: neither TCP nor UDP, or not whole."""
    if len(frame) < ETHERNET_OCTETS + 20:
        return None
    kind = int.from_bytes(frame[12:14], "big")
    if kind == IPV4:
        protocol, at = frame[23], ETHERNET_OCTETS + (frame[14] & 15) * 4
        end = ETHERNET_OCTETS + int.from_bytes(frame[16:18], "big")
    elif kind == IPV6:
        protocol, at = frame[20], ETHERNET_OCTETS + IPV6_OCTETS
        end = at + int.from_bytes(frame[18:20], "big")
    else:
        return None
    if end > len(frame) or end < at + (20 if protocol == TCP else UDP_OCTETS) or protocol not in (TCP, UDP):
        return None
    source, target = struct.unpack_from("!HH", frame, at)
    payload = at + ((frame[at + 12] >> 4) * 4 if protocol == TCP else UDP_OCTETS)
    return Segment(protocol, source, target, at, payload, end)


def family_of(frame: bytes) -> int:
    """4, 6, or 0: neither."""
    return {IPV4: 4, IPV6: 6}.get(int.from_bytes(frame[12:14], "big"), 0)


def rule_for(rules: Iterable[FrameRule], segment: Segment | None, family: int = 0) -> FrameRule | None:
    """The first that is about this frame."""
    for rule in rules:
        if rule.family and rule.family != family:
            continue
        if not rule.ports or (segment is not None and (segment.source in rule.ports or segment.target in rule.ports)):
            return rule
    return None


def slipped(frame: bytes, segment: Segment, chance: Random) -> bytes | None:
    """The frame with two words of its payload swapped; None: it has no two that differ, or none were found."""
    first = segment.payload + (segment.payload - segment.at) % 2
    words = (segment.end - first) // 2
    for _ in range(SLIP_TRIES if words > 1 else 0):
        one, other = (first + 2 * chance.randrange(words) for _ in range(2))
        if frame[one : one + 2] != frame[other : other + 2]:
            out = bytearray(frame)
            out[one : one + 2], out[other : other + 2] = frame[other : other + 2], frame[one : one + 2]
            return bytes(out)
    return None


class Wire:
    """One direction between two ports: its rules, its turn on the wire, and what became of frames."""

    def __init__(self, seed: str) -> None:
        self.rules: tuple[FrameRule, ...] = ()
        self._chance = Random(seed)
        self._free_ns = 0
        self.counted = dict.fromkeys(("in", "lost", "doubled", "late", "slipped"), 0)

    def fates(self, frame: bytes, now_ns: int) -> list[tuple[float, bytes]]:
        """(after how many ms, octets) of each copy that arrives; empty: it is lost."""
        count = self.counted
        count["in"] += 1
        if not self.rules:
            return [(0, frame)]
        segment = segment_of(frame)
        rule = rule_for(self.rules, segment, family_of(frame))
        if rule is None:
            return [(0, frame)]
        waits_ms = self._turn_ms(rule, len(frame), now_ns)
        fates = () if waits_ms is None else fates_ms(rule.datagram(), self._chance)
        if waits_ms is None or not fates:
            count["lost"] += 1
            return []
        if rule.slipped and segment is not None and segment.protocol == TCP and self._chance.random() < rule.slipped:
            damaged = slipped(frame, segment, self._chance)
            if damaged is not None:
                count["slipped"] += 1
                frame = damaged
        count["doubled"] += len(fates) > 1
        count["late"] += rule.late > 0 and fates[0] >= rule.late_ms
        return [(waits_ms + after_ms, frame) for after_ms in fates]

    def _turn_ms(self, rule: FrameRule, octets: int, now_ns: int) -> float | None:
        """Until its last octet has left; None: too much waits before it."""
        if not rule.octets_per_s:
            return 0
        begins_ns = max(now_ns, self._free_ns)
        if begins_ns - now_ns > rule.queue_ms * NS_PER_MS:
            return None
        self._free_ns = begins_ns + octets * 1_000_000_000 // rule.octets_per_s
        return (self._free_ns - now_ns) / NS_PER_MS
