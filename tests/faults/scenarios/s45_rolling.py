"""45: a rolling restart, to another version and back where there is one."""

import os
from pathlib import Path

from tests.faults.acts import RollingRestart
from tests.faults.scenario import Budgets, Invariant, Scenario, Step

OLD = os.environ.get("FAULTS_OLD_TREE")
SCENARIO = Scenario(
    45,
    "rolling restart" + (" to another version and back" if OLD else ", one version"),
    (Step(RollingRestart(Path(OLD) if OLD else None, back=bool(OLD)), for_s=1),),
    invariants=(Invariant.LINEARIZABLE, Invariant.ACKED_KEPT, Invariant.RESOLUTION, Invariant.ANSWERED),
    budgets=Budgets(pause_ms_max=6_000),
    red="early",
)
