"""5: the leader is frozen, for longer and longer, and runs on as if nothing had been."""

from tests.faults.acts import Freeze, Leader
from tests.faults.scenario import Budgets, Scenario, Step

SCENARIO = Scenario(
    5,
    "leader frozen and resumed",
    (Step(Freeze(Leader()), for_s=1), Step(Freeze(Leader()), for_s=3), Step(Freeze(Leader()), for_s=6)),
    budgets=Budgets(pause_ms_max=5_000),
    red="unfenced",
)
