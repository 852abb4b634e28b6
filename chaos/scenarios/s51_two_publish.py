"""Two nodes publish the same registry and differ: the history we hold stays, the difference is told, and where it lies."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s51-two-publish",
    number=51,
    story="a second top-level node publishes the same registry, from an image of the first; both register on, each its own names",
    steps=(Step(Act.TWO_PUBLISH, for_s=2.0),),
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.NO_SECOND_WRITER, Invariant.FACTS),
    facts=(
        "one history is pinned",
        "the difference is alarmed",
        "it says where we stand",
        "both senders are told",
        "the other's names are not answered",
    ),
    red=Plant.OTHER_CHAIN_ACCEPTED,
    load=Load(every_ms=0, lanes=((Lane.RECURSIVE, 20.0), (Lane.HEDGED, 10.0), (Lane.PORT, 10.0))),  # no time is measured
    budgets=Budgets(return_s=0),
    clients_notice="clients of the drill: nothing",
    minutes_max=4,
)
