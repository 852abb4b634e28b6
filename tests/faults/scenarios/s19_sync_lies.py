"""19: one member's fsync lies, and all that it claimed to have kept meanwhile is gone when it comes back."""

from chaos.rigs.capability import Capability
from tests.faults.acts import Follower, OldImage
from tests.faults.scenario import Invariant, Scenario, Step

SCENARIO = Scenario(
    19,
    "fsync of one member lies",
    (Step(OldImage(Follower(), work_s=3, lying=True), for_s=0.5),),
    invariants=(Invariant.LINEARIZABLE, Invariant.ACKED_KEPT, Invariant.RESOLUTION, Invariant.NO_VOTE),
    needs=frozenset({Capability.SHIM, Capability.AMNESIA}),
    red="forgetful",
)
