"""16: a member comes back over wires of 1 Mbit/s to what a source published meanwhile; registrations go on reaching it."""

from chaos.rigs.capability import Capability
from tests.faults.narrow import Narrow
from tests.faults.scenario import Layer, Load, Scenario, Step

SCENARIO = Scenario(
    16,
    "a member comes back over 1 Mbit/s",
    (Step(Narrow(125_000, names=1_000, octets=1_000, catches_s_max=60), for_s=0.5),),
    layer=Layer.ROOT,
    load=Load(clients=2, pause_ms=150, feed_every_s=0.5),
    needs=frozenset({Capability.WIRES, Capability.FEED}),
    lab=True,
    wires=True,
    planted="first-come",
)
