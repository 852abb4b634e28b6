"""46: a member is replaced by a new one while another is cut off and a third is killed."""

from chaos.rigs.capability import Capability
from tests.faults.acts import Follower, Kill, Leader, Part
from tests.faults.changes import Grow, Shrink, While
from tests.faults.scenario import Scenario, Step

SCENARIO = Scenario(
    46,
    "members come and go during faults",
    (Step(While(Grow(), Part(Follower(spare_keeper=True))), for_s=2), Step(While(Shrink(), Kill(Leader())), for_s=2)),
    needs=frozenset({Capability.MEMBERSHIP}),
    planted="half-way",
)
