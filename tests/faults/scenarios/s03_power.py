"""3: power fails at one disk, then at all of them in one moment."""

from chaos.rigs.capability import Capability
from tests.faults.acts import Everybody, Leader, PowerCut
from tests.faults.scenario import Layer, Scenario, Step

SCENARIO = Scenario(
    3,
    "power fails at one disk, then at all",
    (Step(PowerCut(Leader()), for_s=0.5), Step(PowerCut(Everybody()), for_s=0.5), Step(PowerCut(Everybody()), for_s=0.5)),
    layer=Layer.ROOT,
    needs=frozenset({Capability.POWER}),
    disks=True,
    red="unsynced",
)
