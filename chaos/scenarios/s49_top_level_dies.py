"""The top-level node dies: recursive nodes get every prefix from us, referrals too, and no living node is lost or replaced."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s49-top-level-dies",
    number=49,
    story="the top-level node is SIGKILLed; the secondary nodes live on",
    steps=(Step(Act.TOP_DIES, for_s=6.0),),
    top_level=True,
    invariants=(
        Invariant.NO_LIE,
        Invariant.HEDGED,
        Invariant.LIVE_REACHED,
        Invariant.RECEIPTS,
        Invariant.EQUAL,
        Invariant.NO_SECOND_WRITER,
        Invariant.FACTS,
    ),
    facts=(
        "every prefix is given",
        "no wrong owner",
        "prefixes below are referred",
        "services are referred",
        "who lives is not taken over",
        "back",
    ),
    red=Plant.OWNS_ALL_BELOW,
    load=Load(sources=3, lanes=((Lane.RECURSIVE, 20.0), (Lane.HEDGED, 5.0), (Lane.PORT, 10.0))),
    clients_notice="clients of the drill: names of the top-level node itself fail for less than a second, all others never",
    minutes_max=4,
)
