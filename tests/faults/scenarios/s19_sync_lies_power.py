"""19, by the kernel: one member's fsync lies and then the power of its disk fails."""

from chaos.rigs.capability import Capability
from tests.faults.acts import Follower, PowerCut
from tests.faults.scenario import Invariant, Layer, Scenario, Step

SCENARIO = Scenario(
    19,
    "fsync of one member lies, then its power fails",
    (Step(PowerCut(Follower(), lying_s=3), for_s=0.5),),
    layer=Layer.ROOT,
    invariants=(Invariant.LINEARIZABLE, Invariant.ACKED_KEPT, Invariant.RESOLUTION, Invariant.NO_VOTE),
    needs=frozenset({Capability.POWER, Capability.SHIM, Capability.AMNESIA}),
    disks=True,
    red="forgetful",
)
