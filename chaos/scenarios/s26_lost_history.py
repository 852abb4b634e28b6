"""A source loses acknowledged history and restarts behind: FORKED, nothing overwritten, receipts still honoured by us."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Invariant, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s26-lost-history",
    number=26,
    story="a node comes back with an older disk, behind what we gave receipts for",
    steps=(Step(Act.OLD_DISK, for_s=3.0),),
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.NO_SECOND_WRITER, Invariant.FACTS),
    lanes_judged=(Lane.PORT,),
    facts=("refused by name", "nothing is overwritten"),
    red=Plant.REWINDS_ACCEPTED,
    budgets=Budgets(return_s=0),
    clients_notice="clients of the drill: the node itself no longer knows its newest names; we do",
    minutes_max=4,
)
