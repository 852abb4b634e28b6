"""7: the leader with a minority is cut off from the rest, both ways."""

from tests.faults.acts import MinorityWithLeader, Part
from tests.faults.scenario import Budgets, Invariant, Scenario, Step

SCENARIO = Scenario(
    7,
    "leader and minority cut off",
    (Step(Part(MinorityWithLeader()), for_s=3), Step(Part(MinorityWithLeader()), for_s=3)),
    invariants=(Invariant.LINEARIZABLE, Invariant.ACKED_KEPT, Invariant.RESOLUTION, Invariant.ANSWERED),
    budgets=Budgets(pause_ms_max=6_000),
    red="obliging",
)
