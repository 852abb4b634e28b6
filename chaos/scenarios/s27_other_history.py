"""A source sends other content at the same place of its history: refused by name, nothing overwritten."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Invariant, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s27-other-history",
    number=27,
    story="a node with an older disk writes on from there: other content at places we hold",
    steps=(Step(Act.OTHER_HISTORY, for_s=3.0),),
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.NO_SECOND_WRITER, Invariant.FACTS),
    lanes_judged=(Lane.PORT,),
    facts=("refused by name", "nothing is overwritten"),
    red=Plant.UNPROVED_ACCEPTED,
    budgets=Budgets(return_s=0),
    clients_notice="clients of the drill: the node itself answers from its other history; we from the receipted one",
    minutes_max=4,
)
