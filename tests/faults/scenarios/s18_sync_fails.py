"""18: fsync returns EIO once, at the leader and at another member: each stops itself."""

from chaos.rigs.capability import Capability
from tests.faults.acts import Follower, Leader, SyncFails
from tests.faults.scenario import Invariant, Scenario, Step

SCENARIO = Scenario(
    18,
    "fsync fails once",
    (Step(SyncFails(Leader()), for_s=1), Step(SyncFails(Follower()), for_s=1)),
    invariants=(Invariant.LINEARIZABLE, Invariant.ACKED_KEPT, Invariant.RESOLUTION, Invariant.STOPS),
    needs=frozenset({Capability.SHIM}),
    red="limping",
)
