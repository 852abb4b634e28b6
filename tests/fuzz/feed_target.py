"""What the feed's fuzzers do with octets: into every message handler of both sessions, the beats and the brake's counters."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError

from replica.model.beat import HeadBeat, decode_beat, encode_beat
from replica.model.brake import BrakeWindows
from replica.model.errors import ZaibeiError
from replica.v1 import source_pb2
from tests.simulation.feed_world import World, put

KEY = bytes(32)


def ready() -> World:
    """A world that flows."""
    world = World(1)
    world.write(put("A"))
    world.connect()
    world.steps(14)
    return world


class Target:
    """Feeds octets to the handlers; a new world after a stream was ended."""

    def __init__(self) -> None:
        self.world = ready()

    def __call__(self, octets: bytes) -> None:
        """Anything but a refusal by name is a fault of ours."""
        which, body = octets[:1], octets[1:]
        handlers: dict[bytes, Callable[[bytes], object]] = {b"b": self._beat, b"w": self._brake, b"s": self._to_source}
        handlers.get(which, self._to_replica)(body)

    def _beat(self, octets: bytes) -> None:
        try:
            decode_beat(KEY, octets)
        except ZaibeiError:
            pass

    def _brake(self, octets: bytes) -> None:
        try:
            BrakeWindows.load(octets)
        except ZaibeiError:
            pass

    def _to_replica(self, octets: bytes) -> None:
        try:
            message = source_pb2.SourceMessage.FromString(octets)
        except DecodeError:
            return
        self.hears(message)

    def hears(self, message: source_pb2.SourceMessage) -> None:
        """The replica hears a message and lives on; nothing of it is applied that was not the source's."""
        if self.world.session is None:
            self.world.connect()
        if self.world.session is not None:
            self.world.replica_does(self.world.session.received(message, self.world.now))
        self.world.step()

    def _to_source(self, octets: bytes) -> None:
        try:
            message = source_pb2.ReplicaMessage.FromString(octets)
        except DecodeError:
            return
        if self.world.source is None:
            self.world.connect()
        if self.world.source is not None:
            self.world.source_does(self.world.source.received(message, self.world.now))
        self.world.step()


def seeds() -> list[bytes]:
    """A corpus to begin with: what a real stream carried."""
    world = ready()
    world.write(put("B"))
    found: list[bytes] = [b"w" + world.state().brake.dump()]
    for _ in range(40):
        found.extend(b"r" + message.SerializeToString() for message in world.down)
        found.extend(b"s" + message.SerializeToString() for message in world.up)
        world.step()
    found.append(b"b" + encode_beat(KEY, 1, [HeadBeat("a", world.log.head(), bytes(16))]))
    return found
