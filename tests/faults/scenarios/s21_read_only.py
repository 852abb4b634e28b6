"""21: a member's file system goes read-only."""

from chaos.rigs.capability import Capability
from tests.faults.acts import Leader, ReadOnly
from tests.faults.scenario import Invariant, Scenario, Step

SCENARIO = Scenario(
    21,
    "file system goes read-only",
    (Step(ReadOnly(Leader()), for_s=1),),
    invariants=(Invariant.LINEARIZABLE, Invariant.ACKED_KEPT, Invariant.RESOLUTION, Invariant.STOPS),
    needs=frozenset({Capability.SHIM}),
    red="limping",
)
