"""Octets of LinkMessages, and what waits to leave on a call: messages in batches, tables and beats newest alone. Pure.

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

    __slots__ = ("_limits", "_messages", "_octets", "_slots")

    def __init__(self, limits: LinkLimits) -> None:
        self._limits = limits
        self._messages: deque[bytes] = deque()
        self._octets = 0
        self._slots: list[bytes | None] = [None] * len(Slot)

    def put(self, message: bytes) -> bool:
        """Queue a serialized GroupMessage; False: the queue is full. An empty queue takes any."""
        limits = self._limits
        full = self._octets + len(message) > limits.queue_octets_max or len(self._messages) >= limits.queue_messages_max
        if full and self._messages:
            return False
        self._messages.append(message)
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
        if not self._messages:
            return None
        taken: list[bytes] = []
        octets_taken = 0
        while self._messages and (not taken or octets_taken + len(self._messages[0]) <= BATCH_OCTETS_MAX):
            message = self._messages.popleft()
            taken.append(message)
            octets_taken += len(message)
        self._octets -= octets_taken
        return batch(taken)
