"""8, by the kernel: nftables drops one direction only."""

from chaos.rigs.capability import Capability
from tests.faults.acts import Leader, Part
from tests.faults.scenario import Budgets, Layer, Scenario, Step

SCENARIO = Scenario(
    8,
    "one-way partition of the leader, packets dropped",
    (Step(Part(Leader(), "out"), for_s=3), Step(Part(Leader(), "in"), for_s=3)),
    layer=Layer.ROOT,
    budgets=Budgets(pause_ms_max=6_000),
    needs=frozenset({Capability.NETWORK}),
    lab=True,
    red="obliging",
)
