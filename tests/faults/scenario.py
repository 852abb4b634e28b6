"""A scenario as a value: faults in their order, load, invariants, budgets, and the planted fault that must turn it red."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from chaos.rigs.capability import Capability
from tests.faults.acts import Act


class Layer(StrEnum):
    """Where a scenario runs."""

    LOOPBACK = "loopback"  # our own proxies; no root
    ROOT = "root"  # rigs of the kernel


class Invariant(StrEnum):
    """What must hold, read from the history alone but for the last three."""

    LINEARIZABLE = "linearizable"
    ACKED_KEPT = "acked in final"
    RESOLUTION = "resolution"
    STOPS = "stops itself"  # a member whose disk failed ended by itself
    ANSWERED = "always answered"  # a name that is held was answered by some member, whoever was asked first
    NO_VOTE = "refused its vote"  # a member that lost its memory said so


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: `after_s` the step before it began to heal, on for `for_s` seconds."""

    act: Act
    for_s: float
    after_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Load:
    """What clients ask, by a seed.

    Args:
        clients: how many at once; lists, values: keys that hold growing lists and single values.
        reads: share of reads; pause_ms: between two requests of a client.
        names: of the fed source, each rewritten again and again; 0: no source.
        feed_every_s: between two changes of the source.
        tag: end of all keys: of one scenario among others in the same system.
    """

    clients: int = 6
    lists: int = 3
    values: int = 2
    reads: float = 0.4
    pause_ms: float = 10
    names: int = 6
    feed_every_s: float = 0.1
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Budgets:
    """Limits of a run; traffic below its minimum proves nothing.

    Args:
        acked_min: acknowledged writes, else inconclusive.
        pause_ms_max: longest time without an acknowledged write.
        heal_s_max: from the heal of the last fault until all members take part again.
        answer_ms_max: 99 of 100 answers of each member, of names of the fed source, come within this; 0: not judged.
    """

    acked_min: int = 100
    pause_ms_max: float = 15_000
    heal_s_max: float = 45
    answer_ms_max: float = 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table of scenarios.

    Args:
        number: of that table; story: one line of what happens.
        zones: of each member, in order.
        needs: capabilities of the machine and the system.
        red: rule of the stand-in that, turned off, must make this scenario fail; "": no such rule.
        planted: bug of planted.py that, in all members of a real cluster, must make it fail; "": none.
    """

    number: int
    story: str
    steps: tuple[Step, ...]
    members: int = 3
    layer: Layer = Layer.LOOPBACK
    zones: tuple[str, ...] = ()
    load: Load = Load()
    invariants: tuple[Invariant, ...] = (Invariant.LINEARIZABLE, Invariant.ACKED_KEPT, Invariant.RESOLUTION)
    budgets: Budgets = Budgets()
    needs: frozenset[Capability] = field(default_factory=frozenset)
    disks: bool = False  # each member on a disk that can lose its power
    lab: bool = False  # members in namespaces
    wires: bool = False  # these are joined by a switch of our own: packets can be late, lost, doubled, damaged
    memory: bool = False  # each member in a group whose memory can be limited
    red: str = ""
    planted: str = ""

    def reds(self) -> tuple[str, ...]:
        """Systems against which it must fail."""
        stand_in = (f"standin:{self.red}",) if self.red else ()
        return (*stand_in, f"cluster:{self.planted}") if self.planted else stand_in
