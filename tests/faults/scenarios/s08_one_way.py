"""8: what the leader sends is lost, then what it should hear."""

from tests.faults.acts import Leader, Part
from tests.faults.scenario import Budgets, Scenario, Step

SCENARIO = Scenario(
    8,
    "one-way partition of the leader",
    (Step(Part(Leader(), "out"), for_s=3), Step(Part(Leader(), "in"), for_s=3)),
    budgets=Budgets(pause_ms_max=6_000),
    red="obliging",
)
