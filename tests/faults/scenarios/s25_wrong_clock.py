"""25: one member's wall clock jumps an hour ahead, two hours back, and runs away: ages, leases and fences do not follow it."""

from chaos.rigs.capability import Capability
from tests.faults.acts import Follower, Leader
from tests.faults.moments import ClockIsWrong
from tests.faults.scenario import Budgets, Invariant, Scenario, Step

HOUR_S = 3_600

SCENARIO = Scenario(
    25,
    "one member's clock is wrong and drifts",
    (
        Step(ClockIsWrong(Leader(), HOUR_S), for_s=5),
        Step(ClockIsWrong(Leader(), -2 * HOUR_S), for_s=5),
        Step(ClockIsWrong(Leader(), 0, drift_ppm=200_000), for_s=5),
        Step(ClockIsWrong(Follower(), -2 * HOUR_S, drift_ppm=-200_000), for_s=5),
    ),
    invariants=(Invariant.LINEARIZABLE, Invariant.ACKED_KEPT, Invariant.RESOLUTION, Invariant.ANSWERED),
    budgets=Budgets(pause_ms_max=2_000),
    needs=frozenset({Capability.SHIM, Capability.FEED}),
    planted="wall-clock",
)
