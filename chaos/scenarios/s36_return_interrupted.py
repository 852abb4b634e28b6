"""A failback begun twice, and our member killed in the middle of it, twice: it goes on where it stood and ends in one state."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Fence, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s36-return-interrupted",
    number=36,
    story="a return is begun twice at once; our member is SIGKILLed while it waits for the node, and again while the node copies",
    steps=(Step(Act.RETURN_INTERRUPTED, for_s=0.5),),
    fence=Fence.NONE,
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.EQUAL, Invariant.FACTS),
    lanes_judged=(Lane.RECURSIVE, Lane.PORT),  # who kept the node's address asks it before it knows what we registered
    facts=("taken over by two people", "the ledger has all of them", "none is lost", "the node has ours", "one state", "back"),
    red=Plant.RETURN_FORGOTTEN,
    load=Load(lanes=((Lane.RECURSIVE, 10.0), (Lane.HEDGED, 5.0), (Lane.PORT, 10.0))),  # no time is measured
    budgets=Budgets(return_s=30),
    clients_notice="clients of the drill: our address does not answer while the member restarts",
    minutes_max=6,
)
