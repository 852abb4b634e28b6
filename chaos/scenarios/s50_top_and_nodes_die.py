"""The top-level node and ten secondary nodes die together: as 38 and 49, and whoever lives is reached all the while."""

from __future__ import annotations

from dataclasses import replace

from chaos.drills.outside import Lane
from chaos.scenarios.s49_top_level_dies import SCENARIO as TOP_DIES
from chaos.scenarios.scenario import Act, Budgets, Invariant, Load, Plant, Step

SCENARIO = replace(
    TOP_DIES,  # on the same stage, and the same is looked up
    name="s50-top-and-nodes-die",
    number=50,
    story="the top-level node and ten secondary nodes die in one moment; two secondary nodes live on",
    steps=(Step(Act.TOP_AND_NODES_DIE, for_s=8.0),),
    invariants=tuple(one for one in TOP_DIES.invariants if one is not Invariant.HEDGED),
    red=Plant.NEVER_TAKES_OVER,
    load=Load(sources=12, living=2, records=100, every_ms=1_000, lanes=((Lane.RECURSIVE, 10.0), (Lane.PORT, 2.0)), direct=True),
    budgets=Budgets(lookups_min=1_000, rto_first_ms=2_000, rto_steady_ms=4_000, return_s=60),
    clients_notice="clients of the drill: lookups of the dead nodes' prefixes fail for less than two seconds, no others",
    minutes_max=6,
)
