"""A zone of ours goes off in the middle of a failback: the two others bring it to its one end, nothing is lost."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Fence, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s53-zone-off-in-return",
    number=53,
    story="a node returns with 100 writes of its own; the zone whose member leads its return is off before it has ended",
    steps=(Step(Act.ZONE_OFF_IN_RETURN, for_s=0.5),),
    members=3,
    fence=Fence.NONE,
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.EQUAL, Invariant.FACTS),
    lanes_judged=(Lane.RECURSIVE, Lane.PORT),  # who kept the node's address asks it before it knows what we registered
    facts=(
        "taken over by two people",
        "in the middle of it",
        "two are enough",
        "the ledger has all of them",
        "none is lost",
        "the node has ours",
        "one state",
        "back",
    ),
    red=Plant.LEDGER_DROPS,
    load=Load(every_ms=0, lanes=((Lane.RECURSIVE, 5.0), (Lane.HEDGED, 2.0), (Lane.PORT, 5.0))),  # no time is measured
    budgets=Budgets(lookups_min=100, return_s=45),
    clients_notice="clients of the drill: none of what the node registered alone is found until it is back",
    minutes_max=6,
)
