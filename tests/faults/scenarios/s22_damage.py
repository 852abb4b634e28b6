"""22: flipped bits and lost ends of a member's files: found before they are served, healed from its peers."""

from tests.faults.acts import Damage, Follower
from tests.faults.scenario import Scenario, Step

SCENARIO = Scenario(
    22,
    "flipped bits and lost ends of files",
    (
        Step(Damage(Follower(spare_keeper=True), "wal", "truncate", 0.6), for_s=0.5),
        Step(Damage(Follower(spare_keeper=True), "wal", "flip", 0.5), for_s=0.5),
        Step(Damage(Follower(spare_keeper=True), "table", "flip", 0.3, read=True), for_s=0.5),
        Step(Damage(Follower(spare_keeper=True), "manifest", "flip", 0.3), for_s=0.5),
    ),
    planted="never-offered",
)
