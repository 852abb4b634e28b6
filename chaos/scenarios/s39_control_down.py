"""Most of our members are down while nodes are dead: whoever is left answers what it holds, marked, and decides nothing."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s39-control-down",
    number=39,
    story="two of three members die, and the nodes with them",
    steps=(Step(Act.MAJORITY_AND_NODES_DIE, for_s=5.0),),
    members=3,
    load=Load(horizon_s=5),
    invariants=(Invariant.NO_LIE, Invariant.PORT_ANSWERS, Invariant.RECEIPTS, Invariant.NO_SECOND_WRITER, Invariant.FACTS),
    lanes_judged=(Lane.RECURSIVE, Lane.PORT),
    facts=("marked degraded", "what we cannot know is not called missing", "nobody decides alone", "back"),
    red=Plant.MISSING_IS_SAID,
    clients_notice="clients of the drill: the recursive node finds nothing until members are back; our address answers all",
    minutes_max=6,
)
