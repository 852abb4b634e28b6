"""7: the leader with a minority is cut off from the rest, both ways."""

from tests.faults.acts import MinorityWithLeader, Part
from tests.faults.scenario import Budgets, Scenario, Step

SCENARIO = Scenario(
    7,
    "leader and minority cut off",
    (Step(Part(MinorityWithLeader()), for_s=3), Step(Part(MinorityWithLeader()), for_s=3)),
    budgets=Budgets(pause_ms_max=6_000),
    red="obliging",
)
