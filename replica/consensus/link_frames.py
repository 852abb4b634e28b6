"""Octets of LinkMessages, and what waits to leave on a call: messages in batches, tables and beats newest alone. Pure.

Groups take turns of one message, or TURN_OCTETS of small ones: one that has much to say, since a member catches up with it, does
not hold up what the others have to say, and one that had nothing waiting comes before those that had a turn already. A batch is
short enough for the narrowest line that members should have (1 Mbit/s: half a second); how many may be on their way at once,
link_pace.py says.

Messages are serialized once, when they are sent; a batch is framed around them without copying them into another message first.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

from replica.consensus.link_port import BATCH_OCTETS_MAX, LinkLimits
from replica.v1 import peer_pb2

TURN_OCTETS = 16 * 1024

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

    __slots__ = ("_count", "_fresh", "_groups", "_limits", "_octets", "_slots")

    def __init__(self, limits: LinkLimits) -> None:
        self._limits = limits
        self._fresh: dict[int, deque[bytes]] = {}  # groups that had nothing waiting, and have had no turn since
        self._groups: dict[int, deque[bytes]] = {}  # others with messages; whose turn comes next is first
        self._octets = self._count = 0
        self._slots: list[bytes | None] = [None] * len(Slot)

    def put(self, message: bytes, group: int = 0) -> bool:
        """Queue a serialized GroupMessage; False: the queue is full. A group that has none waiting may always put one: what
        others have to say is not its fault."""
        limits = self._limits
        full = self._octets + len(message) > limits.queue_octets_max or self._count >= limits.queue_messages_max
        waiting = self._groups.get(group) or self._fresh.get(group)
        if waiting is None:
            waiting = self._fresh[group] = deque()
        elif full:
            return False
        waiting.append(message)
        self._count += 1
        self._octets += len(message)
        return True

    def put_newest(self, slot: Slot, message: peer_pb2.LinkMessage) -> None:
        """Queue what waits once; it takes the place of an older one."""
        self._slots[slot] = message.SerializeToString()

    @property
    def waiting(self) -> bool:
        """Messages wait."""
        return bool(self._groups or self._fresh)

    def take(self, octets_max: int = BATCH_OCTETS_MAX) -> bytes | None:
        """The next LinkMessage to write; None: nothing waits, or messages alone and none may leave.

        Args:
            octets_max: of messages; of those that do not fit into more than 0 one goes all the same.
        """
        for slot, octets in enumerate(self._slots):
            if octets is not None:
                self._slots[slot] = None
                return octets
        if not self.waiting or octets_max <= 0:
            return None
        octets_max = min(octets_max, BATCH_OCTETS_MAX)
        taken: list[bytes] = []
        octets_taken = 0
        while turns := self._fresh or self._groups:
            group, waiting = next(iter(turns.items()))
            if taken and octets_taken + len(waiting[0]) > octets_max:
                break
            ends, first = min(octets_max, octets_taken + TURN_OCTETS), len(taken)
            while waiting and (len(taken) == first or octets_taken + len(waiting[0]) <= ends):
                message = waiting.popleft()
                taken.append(message)
                octets_taken += len(message)
            del turns[group]
            if waiting:
                self._groups[group] = waiting  # behind all others
        self._octets -= octets_taken
        self._count -= len(taken)
        return batch(taken)
