"""A node withdraws for good: switched over, adopted, handed to another provider's node; nobody notices, nothing is lost."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Fence, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s54-withdraws-for-good",
    number=54,
    story="a node is switched over and ends for good; its source is adopted, then handed to another provider's empty node",
    steps=(Step(Act.WITHDRAWS_FOR_GOOD, for_s=1.0),),
    fence=Fence.WRITE_PATH,
    by_ca=True,
    invariants=(Invariant.NO_LIE, Invariant.NO_FAILURE, Invariant.RECEIPTS, Invariant.EQUAL, Invariant.FACTS),
    facts=(
        "switched over by two people",
        "adopted",
        "nobody registers without a right",
        "transferred",
        "the provider has all",
        "none is lost",
        "the provider registers",
        "the provider answers",
        "back",
    ),
    red=Plant.HANDED_UNCOMPARED,
    load=Load(lanes=((Lane.RECURSIVE, 20.0), (Lane.HEDGED, 10.0), (Lane.PORT, 10.0))),
    budgets=Budgets(return_s=30),
    clients_notice="clients of the drill: nothing",
    minutes_max=6,
)
