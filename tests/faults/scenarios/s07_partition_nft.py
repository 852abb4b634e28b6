"""7, by the kernel: nftables drops both ways between the leader with a minority and the rest."""

from chaos.rigs.capability import Capability
from tests.faults.acts import MinorityWithLeader, Part
from tests.faults.scenario import Budgets, Layer, Scenario, Step

SCENARIO = Scenario(
    7,
    "leader and minority cut off, packets dropped",
    (Step(Part(MinorityWithLeader()), for_s=3), Step(Part(MinorityWithLeader()), for_s=3)),
    layer=Layer.ROOT,
    budgets=Budgets(pause_ms_max=6_000),
    needs=frozenset({Capability.NETWORK}),
    lab=True,
    red="obliging",
)
