"""A gap whose changes the source let go of: a snapshot is loaded beside, by itself and in bounded time."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s28-purged-gap",
    number=28,
    story="our disk is of earlier, and the source keeps no longer what came since",
    steps=(Step(Act.OUR_OLD_DISK, for_s=1.0),),
    invariants=(Invariant.RECEIPTS, Invariant.EQUAL, Invariant.NO_SECOND_WRITER, Invariant.FACTS),
    lanes_judged=(Lane.RECURSIVE,),
    facts=("loaded by snapshot", "back"),
    red=Plant.NO_SNAPSHOT,
    load=Load(records=2_000),
    budgets=Budgets(return_s=45),
    clients_notice="clients of the drill: nothing, the node itself answers",
    minutes_max=4,
)
