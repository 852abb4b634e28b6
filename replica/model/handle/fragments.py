"""UDP: messages over 492 octets travel in several datagrams; splitting them, and joining them within bounds.

Every datagram of a split message carries the TC flag, its number, and the length of the *whole* message (the RFC's text
says of the packet; the deployed code does not). The joiner never holds more than its limits, whatever is sent to it.
Source: protocol 2.11 (HSv9), measured; RFC 3652 §2.3.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable

from replica.model.handle.codes import CHUNK_OCTETS_MAX, ENVELOPE_OCTETS, MESSAGE_OCTETS_MAX, EnvelopeFlag
from replica.model.handle.message import ENVELOPE
from replica.model.handle.wire import U32

_TRUNCATED = int(EnvelopeFlag.TRUNCATED)


def datagrams(message: bytes) -> list[bytes]:
    """The datagrams of a complete message: itself when it fits into one, otherwise chunks in order."""
    rest = len(message) - ENVELOPE_OCTETS
    if rest <= CHUNK_OCTETS_MAX:
        return [message]
    head = message[:2] + bytes((message[2] | _TRUNCATED,)) + message[3:12]
    length = message[16:ENVELOPE_OCTETS]
    return [
        b"".join((head, U32.pack(number), length, message[at : at + CHUNK_OCTETS_MAX]))
        for number, at in enumerate(range(ENVELOPE_OCTETS, len(message), CHUNK_OCTETS_MAX))
    ]


class _Partial:
    """A message of which not all datagrams have come."""

    __slots__ = ("chunks", "head", "length", "octets", "started_ms")

    def __init__(self, head: bytes, length: int, now_ms: int) -> None:
        self.head = head
        self.length = length
        self.started_ms = now_ms
        self.chunks: dict[int, bytes] = {}
        self.octets = 0


class Reassembler:
    """Joins datagrams into messages, for all peers of one socket.

    Args:
        messages_max: incomplete messages held; beyond it the oldest goes.
        octets_max: octets of theirs held; beyond it the oldest go.
        age_ms_max: how long one may stay incomplete.

    `dropped` counts what was given up, by reason: short, length, sequence, chunk, conflict (datagrams); age, room (messages).
    """

    def __init__(self, messages_max: int = 1_024, octets_max: int = 4 * 1024 * 1024, age_ms_max: int = 5_000) -> None:
        self._messages_max = messages_max
        self._octets_max = octets_max
        self._age_ms_max = age_ms_max
        self._partial: OrderedDict[Hashable, _Partial] = OrderedDict()  # in the order in which they began
        self.octets_held = 0
        self.dropped: Counter[str] = Counter()

    @property
    def messages_held(self) -> int:
        return len(self._partial)

    def feed(self, peer: Hashable, datagram: bytes, now_ms: int) -> bytes | None:
        """Take one datagram.

        Args:
            peer: who sent it (its socket address).
            datagram: as received.
            now_ms: a clock that never goes back.
        Returns:
            The complete message this datagram is or completes, TC flag cleared; None: more is needed, or it was dropped.
        """
        self._forget_old(now_ms)
        if len(datagram) < ENVELOPE_OCTETS:
            self.dropped["short"] += 1
            return None
        if not datagram[2] & _TRUNCATED:
            return datagram
        fields = ENVELOPE.unpack_from(datagram)
        session_id, request_id, number, length = fields[4:]
        reason = _fault_of(number, length, len(datagram) - ENVELOPE_OCTETS)
        if reason:
            self.dropped[reason] += 1
            return None
        key = (peer, session_id, request_id)
        partial = self._partial.get(key)
        if partial is None:
            partial = self._partial[key] = _Partial(datagram[:12], length, now_ms)
        chunk = datagram[ENVELOPE_OCTETS:]
        held = partial.chunks.get(number)
        if partial.length != length or partial.head != datagram[:12] or (held is not None and held != chunk):
            self.dropped["conflict"] += 1  # the first one stays: a forger cannot replace what has come
            return None
        if held is None:
            partial.chunks[number] = chunk
            partial.octets += len(chunk)
            self.octets_held += len(chunk)
        if partial.octets == length:
            self._give_up(key)
            return _join(partial)
        self._make_room()
        return None

    def _forget_old(self, now_ms: int) -> None:
        while self._partial:
            key, oldest = next(iter(self._partial.items()))
            if now_ms - oldest.started_ms <= self._age_ms_max:
                return
            self._give_up(key)
            self.dropped["age"] += 1

    def _make_room(self) -> None:
        while len(self._partial) > self._messages_max or self.octets_held > self._octets_max:
            key = next(iter(self._partial))
            self._give_up(key)
            self.dropped["room"] += 1

    def _give_up(self, key: Hashable) -> None:
        self.octets_held -= self._partial.pop(key).octets


def _fault_of(number: int, length: int, octets: int) -> str | None:
    """Why a datagram of a split message cannot be right, or None."""
    if not 0 < length <= MESSAGE_OCTETS_MAX:
        return "length"
    last = (length - 1) // CHUNK_OCTETS_MAX
    if number > last:
        return "sequence"
    wanted = CHUNK_OCTETS_MAX if number < last else length - last * CHUNK_OCTETS_MAX
    return None if octets == wanted else "chunk"


def _join(partial: _Partial) -> bytes:
    head = partial.head
    clear = bytes((head[2] & ~_TRUNCATED,))
    chunks = [partial.chunks[number] for number in range(len(partial.chunks))]
    return b"".join((head[:2], clear, head[3:], bytes(4), U32.pack(partial.length), *chunks))
