"""19, by the kernel: one member's fsync lies and then the power of its disk fails."""

from chaos.rigs.capability import Capability
from tests.faults.acts import Follower, PowerCut
from tests.faults.scenario import Layer, Scenario, Step

SCENARIO = Scenario(
    19,
    "fsync of one member lies, then its power fails",
    (Step(PowerCut(Follower(), lying_s=3), for_s=0.5),),
    layer=Layer.ROOT,
    needs=frozenset({Capability.POWER, Capability.SHIM}),
    disks=True,
)
