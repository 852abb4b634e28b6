"""45: a rolling restart, to another version and back where there is one."""

import os
from pathlib import Path

from tests.faults.acts import RollingRestart
from tests.faults.scenario import Budgets, Scenario, Step

OLD = os.environ.get("FAULTS_OLD_TREE")
SCENARIO = Scenario(
    45,
    "rolling restart" + (" to another version and back" if OLD else ", one version"),
    (Step(RollingRestart(Path(OLD) if OLD else None), for_s=1),),
    budgets=Budgets(pause_ms_max=6_000),
    red="volatile",
)
