"""52: a whole zone goes dark while a takeover is active: members 2-2-1 over three zones, the leader's zone is cut off and
killed."""

from tests.faults.acts import Kill, Part, ZoneOfLeader
from tests.faults.changes import TakenOver, While
from tests.faults.scenario import Budgets, Invariant, Load, Scenario, Step

SCENARIO = Scenario(
    52,
    "a zone goes dark during a takeover",
    (Step(While(TakenOver(), Part(ZoneOfLeader())), for_s=4), Step(Kill(ZoneOfLeader()), for_s=2)),
    members=5,
    load=Load(clients=4, pause_ms=25),  # five members share the machine with their clients
    zones=("dc-1", "dc-1", "dc-2", "dc-2", "dc-3"),
    invariants=(Invariant.LINEARIZABLE, Invariant.ACKED_KEPT, Invariant.RESOLUTION, Invariant.ANSWERED),
    budgets=Budgets(pause_ms_max=6_000),
    red="obliging",
)
