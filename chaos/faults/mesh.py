"""All links between members, one proxy for each ordered pair, and faults of the network in its own words.

Whoever drops what i sends to j hits both kinds of connections: those that i opened (their way forth) and those that j opened
(their way back). So a fault names members, and the mesh finds the directions.
"""

from __future__ import annotations

from collections.abc import Iterable

from chaos.faults.edge_stream_proxy import StreamProxy, Way
from chaos.faults.fault import Fault, FaultLog
from chaos.faults.rules import CUT, OPEN, StreamRule
from replica.model.errors import require

Pair = tuple[int, int]


class Mesh:
    """Links by (caller, called)."""

    def __init__(self, links: dict[Pair, StreamProxy], log: FaultLog | None = None) -> None:
        self.links, self.log = links, log or FaultLog()

    def set(self, sender: int, receiver: int, rule: StreamRule) -> None:
        """What becomes of everything that one member sends to another one."""
        lanes = [(self.links.get((sender, receiver)), Way.FORTH), (self.links.get((receiver, sender)), Way.BACK)]
        require(any(link is not None for link, _ in lanes), f"no link between {sender} and {receiver}")
        for link, way in lanes:
            if link is not None:
                link.set(way, rule)

    def ruled(self, pairs: Iterable[Pair], rule: StreamRule, name: str) -> Fault:
        """A fault: this rule for all these (sender, receiver); healed: open."""
        chosen = list(pairs)

        async def begin() -> None:
            for sender, receiver in chosen:
                self.set(sender, receiver, rule)

        async def heal() -> None:
            for sender, receiver in chosen:
                self.set(sender, receiver, OPEN)

        return Fault(name, begin, heal, self.log)

    def parted(self, side: Iterable[int], other: Iterable[int]) -> Fault:
        """A partition: nothing passes between the two sides, either way."""
        near, far = sorted(side), sorted(other)
        return self.ruled([*_across(near, far), *_across(far, near)], CUT, f"parted {near} | {far}")

    def one_way(self, side: Iterable[int], other: Iterable[int]) -> Fault:
        """Nothing that `side` sends reaches `other`; the other way all is well."""
        near, far = sorted(side), sorted(other)
        return self.ruled(_across(near, far), CUT, f"one way {near} -x-> {far}")

    def slowed(self, pairs: Iterable[Pair], rule: StreamRule) -> Fault:
        chosen = list(pairs)
        return self.ruled(chosen, rule, f"slowed {chosen}")

    def refused(self, pairs: Iterable[Pair]) -> Fault:
        """Connections between these are reset, and new ones too."""
        chosen = list(pairs)

        async def begin() -> None:
            for pair in chosen:
                self.links[pair].refuse()

        async def heal() -> None:
            for pair in chosen:
                self.links[pair].heal()

        return Fault(f"refused {chosen}", begin, heal, self.log)

    def heal(self) -> None:
        """All links, whatever was done to them."""
        for link in self.links.values():
            link.heal()

    async def stop(self) -> None:
        for link in self.links.values():
            await link.stop()


def _across(near: Iterable[int], far: Iterable[int]) -> list[Pair]:
    others = list(far)
    return [(sender, receiver) for sender in near for receiver in others if sender != receiver]
