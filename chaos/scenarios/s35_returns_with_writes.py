"""Registrations are taken over; the old source returns with 100 writes nobody copied: all 100 enter, none is lost."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Fence, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s35-returns-with-writes",
    number=35,
    story="a node is cut off, registers 100 names alone and dies; two people take over; we register; it comes back",
    steps=(Step(Act.RETURNS_WITH_WRITES, for_s=0.5),),
    fence=Fence.NONE,
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.EQUAL, Invariant.FACTS),
    lanes_judged=(Lane.RECURSIVE, Lane.PORT),  # who kept the node's address asks it before it knows what we registered
    facts=("taken over by two people", "the ledger has all of them", "none is lost", "the node has ours", "back"),
    red=Plant.LEDGER_DROPS,
    load=Load(lanes=((Lane.RECURSIVE, 10.0), (Lane.HEDGED, 5.0), (Lane.PORT, 10.0))),  # no time is measured
    budgets=Budgets(return_s=30),
    clients_notice="clients of the drill: none of what the node registered alone is found until it is back",
    minutes_max=6,
)
