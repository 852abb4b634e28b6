"""A takeover of registrations asked for while the copy is behind: refused with the number; what somebody accepts is recorded."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Fence, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s37-taken-over-behind",
    number=37,
    story="a node dies while its feed is slow: we know of changes that we do not hold, and its registrations are asked for",
    steps=(Step(Act.TAKEN_OVER_BEHIND, for_s=0.5),),
    fence=Fence.NONE,
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.EQUAL, Invariant.FACTS),
    lanes_judged=(Lane.RECURSIVE, Lane.PORT),  # who kept the node's address asks it before it knows what we registered
    facts=(
        "refused with the number",
        "what was accepted is recorded",
        "taken over by two people",
        "the ledger has all of them",
        "none is lost",
        "the node has ours",
        "back",
    ),
    red=Plant.LOSS_UNSEEN,
    load=Load(lanes=((Lane.RECURSIVE, 10.0), (Lane.HEDGED, 5.0), (Lane.PORT, 10.0))),  # no time is measured
    budgets=Budgets(return_s=30),
    clients_notice="clients of the drill: what was not copied is not found until the node is back",
    minutes_max=6,
)
