"""58: one IP family dead on all wires, each in turn: feed, consensus and answers go on over the other, nobody takes the living
source over, and when it dies then, what is published leads to no address of the dead family."""

from chaos.rigs.capability import Capability
from tests.faults.families import FamilyDead
from tests.faults.scenario import Budgets, Layer, Load, Scenario, Step

SCENARIO = Scenario(
    58,
    "one IP family dead, each in turn",
    (Step(FamilyDead(6), for_s=0.5), Step(FamilyDead(4), for_s=0.5)),
    layer=Layer.ROOT,
    load=Load(clients=3, pause_ms=50, feed_every_s=0.25),
    budgets=Budgets(pause_ms_max=90_000),  # these clients know IPv4 addresses alone; who knows both is judged by the act
    needs=frozenset({Capability.WIRES, Capability.FEED}),
    lab=True,
    wires=True,
    planted="all-published",
)
