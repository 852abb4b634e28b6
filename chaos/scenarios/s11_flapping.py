"""A node that stalls for 100 to 240 ms, a thousand times: never a takeover."""

from __future__ import annotations

from chaos.scenarios.scenario import Act, Budgets, Invariant, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s11-flapping",
    number=11,
    story="a node's host stalls for 100 to 240 ms again and again, as over a flapping link",
    steps=(Step(Act.NODES_FLAP, for_s=1.0, times=1_000),),
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.EQUAL, Invariant.NO_TAKEOVER, Invariant.FACTS),
    facts=("back",),
    red=Plant.TAKES_OVER_ON_SILENCE,
    budgets=Budgets(lookups_min=1_000),
    clients_notice="clients of the drill: lookups take up to a quarter of a second longer",
    minutes_max=12,
)
