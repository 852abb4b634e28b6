"""1: SIGKILL of the leader under load, twice."""

from tests.faults.acts import Kill, Leader
from tests.faults.scenario import Budgets, Invariant, Scenario, Step

SCENARIO = Scenario(
    1,
    "leader killed",
    (Step(Kill(Leader()), for_s=1.5), Step(Kill(Leader()), for_s=1.5)),
    invariants=(Invariant.LINEARIZABLE, Invariant.ACKED_KEPT, Invariant.RESOLUTION, Invariant.ANSWERED),
    budgets=Budgets(pause_ms_max=5_000),
    red="early",
)
