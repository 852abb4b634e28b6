"""17: each fsync of the leader takes 300 ms longer: writes wait for it or go elsewhere, answers do not."""

from chaos.rigs.capability import Capability
from tests.faults.acts import Leader, SyncSlow
from tests.faults.scenario import Budgets, Scenario, Step

SCENARIO = Scenario(
    17,
    "leader's fsync takes 300 ms",
    (Step(SyncSlow(Leader(), 300), for_s=5),),
    budgets=Budgets(pause_ms_max=6_000, answer_ms_max=200),
    needs=frozenset({Capability.SHIM}),
    planted="awaited-flush",
)
