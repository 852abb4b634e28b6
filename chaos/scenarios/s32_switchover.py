"""A living node is switched over under load, and back: no lookup fails, nobody registers for a moment only, nothing is lost."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Fence, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s32-switchover",
    number=32,
    story="two people switch a living node over while a registrar registers all the time; then it is given back",
    steps=(Step(Act.SWITCHED_OVER, for_s=0.5),),
    fence=Fence.WRITE_PATH,
    invariants=(Invariant.NO_LIE, Invariant.NO_FAILURE, Invariant.RECEIPTS, Invariant.EQUAL, Invariant.FACTS),
    facts=(
        "switched over by two people",
        "registered on both sides",
        "the write pause",
        "the write pause on the way back",
        "found at once",
        "the node wrote nothing behind its end",
        "none is lost",
        "the node has ours",
        "back",
    ),
    red=Plant.DRAIN_UNASKED,
    load=Load(every_ms=0, lanes=((Lane.RECURSIVE, 20.0), (Lane.HEDGED, 10.0), (Lane.PORT, 10.0))),  # the registrar registers
    budgets=Budgets(return_s=30),
    clients_notice="clients of the drill: nothing; its registrar waits for a moment, twice",
    minutes_max=5,
)
