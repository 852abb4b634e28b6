"""Unplanned death of a secondary node: outside clients are answered again in less than a second."""

from __future__ import annotations

from chaos.scenarios.scenario import Act, Invariant, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s33-secondary-dies",
    number=33,
    story="a secondary node is SIGKILLed under load and comes back",
    steps=(Step(Act.NODES_DIE, for_s=8.0),),
    invariants=(
        Invariant.NO_LIE,
        Invariant.HEDGED,
        Invariant.RECEIPTS,
        Invariant.EQUAL,
        Invariant.NO_SECOND_WRITER,
        Invariant.FACTS,
    ),
    facts=("back",),
    red=Plant.NEVER_TAKES_OVER,
    clients_notice="clients of the drill: lookups fail for less than a second through the recursive node, none with hedging",
    minutes_max=4,
)
