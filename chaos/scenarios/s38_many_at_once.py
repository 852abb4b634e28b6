"""40 prefixes lost at the same second: all are answered in less than two."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s38-many-at-once",
    number=38,
    story="40 nodes die in one moment",
    steps=(Step(Act.NODES_DIE, for_s=10.0),),
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.EQUAL, Invariant.NO_SECOND_WRITER, Invariant.FACTS),
    facts=("back",),
    red=Plant.NEVER_TAKES_OVER,
    load=Load(sources=40, records=100, every_ms=4_000, lanes=((Lane.RECURSIVE, 5.0), (Lane.PORT, 1.0)), direct=True),
    budgets=Budgets(lookups_min=2_000, rto_first_ms=2_000, rto_steady_ms=4_000, return_s=90),
    clients_notice="clients of the drill: lookups of all 40 prefixes fail for less than two seconds",
    minutes_max=8,
)
