"""A node comes back, and its resolver answers from its old files: nobody is sent there before it reads its new content."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Fence, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s59-old-answers",
    number=59,
    story="as 35; when the node is back its resolver goes on answering from its old files for some seconds",
    steps=(Step(Act.RETURNS_WITH_OLD_ANSWERS, for_s=0.5),),
    fence=Fence.NONE,
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.EQUAL, Invariant.FACTS),
    lanes_judged=(Lane.RECURSIVE, Lane.PORT),  # who kept the node's address asks it before it knows what we registered
    facts=(
        "our sites stay",
        "nobody is sent to old answers",
        "it says what differs",
        "none is lost",
        "the node has ours",
        "back",
    ),
    red=Plant.OLD_ANSWERS_UNSEEN,
    load=Load(lanes=((Lane.RECURSIVE, 10.0), (Lane.HEDGED, 5.0), (Lane.PORT, 10.0))),  # no time is measured
    budgets=Budgets(return_s=30),
    clients_notice="clients of the drill: none of what the node registered alone is found until it is back",
    minutes_max=6,
)
