"""Nonces of one stream: what each beat that echoes one proves about order. Pure.

A head is held against what we had when the echoed nonce left, so a beat that was on its way meanwhile never looks like a rewind.
The barrier is the nonce sent behind a Resume: until it comes back, what does not follow was sent before the source heard of it.
"""

from __future__ import annotations

from replica.feed.desk import Desk
from replica.feed.limits import NONCE_OCTETS
from replica.model.position import Position
from replica.v1 import source_pb2

NONCES_MAX = 64


class Echoes:
    """Sends nonces; `barrier` is the one waited for, None when it came back."""

    __slots__ = ("_desk", "_sent_ns", "_tails", "barrier")

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._sent_ns = 0
        self._tails: dict[bytes, Position | None] = {}
        self.barrier: bytes | None = None

    @property
    def due(self) -> bool:
        return self._desk.now.boot_ns - self._sent_ns >= self._desk.limits.nonce_interval_ns

    def send(self, tail: Position | None, *, barrier: bool = False) -> None:
        """Send a nonce. `tail`: the boundary the source must have by now; None while its epoch is not settled."""
        nonce = self._desk.setup.random(NONCE_OCTETS)
        self._sent_ns = self._desk.now.boot_ns
        self._tails[nonce] = tail
        while len(self._tails) > NONCES_MAX:
            del self._tails[next(iter(self._tails))]
        self._desk.age.nonce_sent(nonce, self._desk.now.boot_ns)
        self._desk.send(source_pb2.ReplicaMessage(nonce=source_pb2.Nonce(nonce=nonce)))
        if barrier:
            self.barrier = nonce

    def heard(self, nonce: bytes) -> Position | None:
        """A beat echoes this one: the boundary its head is held against; None: it proves nothing about order."""
        if nonce == self.barrier:
            self.barrier = None
        return self._tails.get(nonce)
