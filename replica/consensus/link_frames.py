"""Octets of LinkMessages, and what waits to leave on a call: messages in batches, tables and beats newest alone. Pure.

Groups take turns: one that has much to say, since a member catches up with it, does not hold up what the others have to say, and
a batch is short enough for the narrowest line that members should have (1 Mbit/s: half a second).

Messages are serialized once, when they are sent; a batch is framed around them without copying them into another message first.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from replica.consensus.link_port import BATCH_OCTETS_MAX, LinkLimits
from replica.v1 import peer_pb2

_MESSAGES_TAG = b"\x12"  # LinkMessage.messages: field 2, with a length
_MESSAGE_TAG = b"\x0a"  # GroupMessages.messages: field 1, with a length


def varint(number: int) -> bytes:
    """Protocol Buffers' base-128 of a number >= 0."""
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def batch(messages: list[bytes]) -> bytes:
    """A LinkMessage of serialized GroupMessages."""
    parts = [part for message in messages for part in (_MESSAGE_TAG, varint(len(message)), message)]
    return b"".join((_MESSAGES_TAG, varint(sum(map(len, parts))), *parts))


class Slot(IntEnum):
    """What waits once only; lower ones leave first, all before messages."""

    HELLO = 0
    BEAT = 1
    FRESHNESS = 2
    PROBES = 3


class Outbox:
    """What waits to leave on one call."""

    __slots__ = ("_count", "_groups", "_limits", "_octets", "_slots")

    def __init__(self, limits: LinkLimits) -> None:
        self._limits = limits
        self._groups: dict[int, deque[bytes]] = {}  # of those with messages; whose turn comes next is first
        self._octets = self._count = 0
        self._slots: list[bytes | None] = [None] * len(Slot)

    def put(self, message: bytes, group: int = 0) -> bool:
        """Queue a serialized GroupMessage; False: the queue is full. A group that has none waiting may always put one: what
        others have to say is not its fault."""
        limits = self._limits
        full = self._octets + len(message) > limits.queue_octets_max or self._count >= limits.queue_messages_max
        waiting = self._groups.get(group)
        if waiting is None:
            waiting = self._groups[group] = deque()
        elif full:
            return False
        waiting.append(message)
        self._count += 1
        self._octets += len(message)
        return True

    def put_newest(self, slot: Slot, message: peer_pb2.LinkMessage) -> None:
        """Queue what waits once; it takes the place of an older one."""
        self._slots[slot] = message.SerializeToString()

    def take(self) -> bytes | None:
        """The next LinkMessage to write; None: nothing waits."""
        for slot, octets in enumerate(self._slots):
            if octets is not None:
                self._slots[slot] = None
                return octets
        if not self._groups:
            return None
        taken: list[bytes] = []
        octets_taken = 0
        while self._groups:
            group, waiting = next(iter(self._groups.items()))
            if taken and octets_taken + len(waiting[0]) > BATCH_OCTETS_MAX:
                break
            message = waiting.popleft()
            taken.append(message)
            octets_taken += len(message)
            del self._groups[group]
            if waiting:
                self._groups[group] = waiting  # behind all others
        self._octets -= octets_taken
        self._count -= len(taken)
        return batch(taken)
