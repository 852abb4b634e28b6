"""Real nodes die while a drill runs: the drill stops within a second, and the real takeover is as fast as without it."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s55-incident-during-drill",
    number=55,
    story="a drill runs beside a member; then that member's own nodes are SIGKILLed",
    steps=(Step(Act.INCIDENT_DURING_DRILL, for_s=6.0),),
    invariants=(
        Invariant.NO_LIE,
        Invariant.HEDGED,
        Invariant.RECEIPTS,
        Invariant.EQUAL,
        Invariant.NO_SECOND_WRITER,
        Invariant.FACTS,
    ),
    facts=("the drill stops within 1 s", "it says why", "nothing of it stays", "back"),
    red=Plant.INCIDENT_UNSEEN,
    load=Load(lanes=((Lane.RECURSIVE, 20.0), (Lane.HEDGED, 10.0), (Lane.PORT, 10.0))),  # two stages share this machine
    clients_notice="clients of the drill: lookups fail for less than a second through the recursive node, none with hedging",
    minutes_max=5,
)
