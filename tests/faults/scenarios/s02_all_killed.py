"""2: SIGKILL of every member at once."""

from tests.faults.acts import Everybody, Kill
from tests.faults.scenario import Scenario, Step

SCENARIO = Scenario(
    2, "all killed at once", (Step(Kill(Everybody()), for_s=0.5), Step(Kill(Everybody()), for_s=0.5)), red="volatile"
)
