"""23: a member comes back with its disk of some seconds ago: it refuses to vote with lost promises."""

from chaos.rigs.capability import Capability
from tests.faults.acts import Follower, OldImage
from tests.faults.scenario import Invariant, Scenario, Step

SCENARIO = Scenario(
    23,
    "old disk image of one member",
    (Step(OldImage(Follower(), work_s=2), for_s=0.5), Step(OldImage(Follower(), work_s=1), for_s=0.5)),
    invariants=(Invariant.LINEARIZABLE, Invariant.ACKED_KEPT, Invariant.RESOLUTION, Invariant.NO_VOTE),
    needs=frozenset({Capability.AMNESIA}),
    red="forgetful",
)
