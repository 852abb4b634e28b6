"""15: swizzle-clogging: all links stop one by one in a random order, and come back in another one."""

from tests.faults.links import Swizzle
from tests.faults.scenario import Budgets, Scenario, Step

SCENARIO = Scenario(
    15,
    "links stop and come back one by one",
    tuple(Step(Swizzle(pause_s=pause_s), for_s=0.5, after_s=0.2) for pause_s in (0.2, 0.6, 0.2, 0.6)),
    budgets=Budgets(pause_ms_max=8_000),
    red="obliging",
    planted="alone",
)
