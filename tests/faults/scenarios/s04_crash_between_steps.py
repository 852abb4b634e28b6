"""4: a member dies between each two steps of its persistence: before writes, before syncs, before renames."""

from chaos.faults.edge_shim import Call
from chaos.rigs.capability import Capability
from tests.faults.acts import CrashBetweenSteps, Follower, Leader
from tests.faults.scenario import Scenario, Step

SCENARIO = Scenario(
    4,
    "crash between steps of persistence",
    (
        Step(CrashBetweenSteps(Leader(), Call.WRITE | Call.SYNC | Call.RENAME, (0, 1, 3, 8)), for_s=0),
        Step(CrashBetweenSteps(Follower(), Call.WRITE | Call.SYNC | Call.RENAME, (0, 2)), for_s=0),
    ),
    needs=frozenset({Capability.SHIM}),
    red="early",
)
