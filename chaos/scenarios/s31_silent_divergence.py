"""One record of many differs from the source, and nothing said so: found, located, healed by the source's own change."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s31-silent-divergence",
    number=31,
    story="one record of our copy is not what its source holds, and the history of both is the same",
    steps=(Step(Act.SILENT_DIVERGENCE, for_s=0.5),),
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.EQUAL, Invariant.NO_SECOND_WRITER, Invariant.FACTS),
    lanes_judged=(Lane.RECURSIVE,),
    facts=("found within 60 s", "located", "the copy does not edit itself", "back"),
    red=Plant.NEVER_COMPARED,
    load=Load(records=2_000),
    budgets=Budgets(return_s=30),
    clients_notice="clients of the drill that ask us: one name of 2,000 is answered otherwise until it is healed",
    minutes_max=4,
)
