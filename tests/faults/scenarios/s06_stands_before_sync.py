"""6: the leader stands still between what it checked and the fsync of it, and carries it out when others have gone on."""

from chaos.rigs.capability import Capability
from tests.faults.acts import Leader
from tests.faults.moments import StandsBeforeSync
from tests.faults.scenario import Budgets, Scenario, Step

SCENARIO = Scenario(
    6,
    "leader stands still right before an fsync",
    (
        Step(StandsBeforeSync(Leader()), for_s=1.5),
        Step(StandsBeforeSync(Leader(), skip=3), for_s=2.5),
        Step(StandsBeforeSync(Leader(), skip=7), for_s=1.5),
    ),
    budgets=Budgets(pause_ms_max=5_000),
    needs=frozenset({Capability.SHIM}),
    red="unfenced",
    planted="alone",
)
