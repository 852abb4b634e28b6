"""The network between simulated members: late, lost, doubled, out of order, cut in one direction or both."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replica.consensus.hello import Promise
from replica.consensus.raft.values import Kind, Message
from tests.simulation.raft.disk import Image

if TYPE_CHECKING:
    from tests.simulation.raft.member import Member
    from tests.simulation.raft.world import World


@dataclass(slots=True)
class Weather:
    """How bad it is. Times in ticks, the rest probabilities."""

    delay_min: float = 0.05
    delay_spread: float = 0.4
    late: float = 0.0  # share of messages that take far longer
    late_ticks: float = 8.0
    drop: float = 0.0
    double: float = 0.0
    transfer_ticks: float = 4.0
    transfer_breaks: float = 0.0


CALM = Weather()


class Net:
    """Moves messages; knows which directions are cut. `holds` lets a schedule keep or change what is on its way."""

    def __init__(self, world: World) -> None:
        self.world, self.rng = world, world.rng
        self.weather = Weather()
        self.cut: set[tuple[int, int]] = set()
        self.kept: deque[tuple[Any, ...]] = deque(maxlen=400)  # messages of late, for replays
        self.holds: list[Callable[[int, int, int, Message], bool]] = []

    def send(
        self, source: Member, to: int, group: int, message: Message, rows: tuple[tuple[int, Promise], ...], image: Image | None
    ) -> None:
        """Send a message of a group; a transfer's end is told to its sender."""
        target = self.world.members.get(to)
        if target is None:
            return
        if message.kind is Kind.SNAPSHOT:
            self._transfer(source, target, group, message, image)
            return
        number, ends = source.number, (source.life, source.links.get(to, 0))
        if self.holds and self._held(number, to, group, message):
            return
        if self.world.keeps_messages:
            self.kept.append((target, message.kind, number, ends, source.boot, group, message, (), None))
        for delay in self._ways(number, to):
            self.world.later(delay, target.deliver, number, ends, source.boot, group, message, rows, image)

    def _held(self, source: int, to: int, group: int, message: Message) -> bool:
        return any(hold(source, to, group, message) for hold in self.holds)

    def replay(self, count: int, kind: str) -> None:
        """Messages of late arrive once more, whatever they are or of one kind; links still belong to one life of either side."""
        kept = [row for row in self.kept if not kind or row[1].name == kind]
        for row in self.rng.sample(kept, min(count, len(kept))):
            self.world.later(self.rng.random(), row[0].deliver, *row[2:])

    def tell(self, source: Member, to: int, call: Callable[..., None], *args: Any) -> None:
        """Send what is no message of a core to the life that `to` lives, or if it is down begins next: no later one hears it."""
        target = self.world.members[to]
        meant = target.life if target.alive else target.life + 1
        for delay in self._ways(source.number, to):
            self.world.later(delay, self._hear, target, meant, call, args)

    @staticmethod
    def _hear(target: Member, life: int, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        if target.life == life:
            call(*args)

    def _ways(self, source: int, to: int) -> tuple[float, ...]:
        """After how long copies arrive; none when it is lost."""
        if (source, to) in self.cut:
            return ()
        weather, chance = self.weather, self.rng.random
        if weather.drop and chance() < weather.drop:
            return ()
        delay = weather.delay_min + chance() * weather.delay_spread
        if weather.late and chance() < weather.late:
            delay += chance() * weather.late_ticks
        if weather.double and chance() < weather.double:
            return delay, delay + chance() * weather.late_ticks
        return (delay,)

    def _transfer(self, source: Member, target: Member, group: int, message: Message, image: Image | None) -> None:
        number, to = source.number, target.number
        weather, chance = self.weather, self.rng.random
        delay = 0.5 + chance() * weather.transfer_ticks
        broken = image is None or (weather.transfer_breaks > 0 and chance() < weather.transfer_breaks)
        self.world.later(
            delay, self._arrive, source, source.life, source.boot, to, group, message, image, broken or (number, to) in self.cut
        )

    def _arrive(
        self, source: Member, life: int, boot: int, to: int, group: int, message: Message, image: Image | None, broken: bool
    ) -> None:
        """A transfer is there whole, or it is not there at all."""
        target = self.world.members[to]
        ok = not broken and (source.number, to) not in self.cut and target.alive and source.alive and source.life == life
        if ok:
            target.deliver(source.number, (life, target.life), boot, group, message, (), image)
        source.transfer_ended(life, group, to, ok)
