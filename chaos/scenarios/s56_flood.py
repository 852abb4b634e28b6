"""Flooded with ten times what it can answer, the member answers the honest few, takes over, and takes registrations in."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s56-flood",
    number=56,
    story="a flood from forged addresses, slow and silent connections, 1 % honest clients; the nodes die in it and come back",
    steps=(Step(Act.FLOODED, for_s=0.5),),
    load=Load(lanes=((Lane.RECURSIVE, 20.0), (Lane.HEDGED, 5.0), (Lane.PORT, 10.0))),
    budgets=Budgets(rto_first_ms=2_000, rto_steady_ms=5_000),
    limits=("connections_max = 256",),
    guard=("trusted = []", "udp_calm_per_s = 5000"),
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.EQUAL, Invariant.NO_SECOND_WRITER, Invariant.FACTS),
    facts=(
        "10 times what can be answered",
        "1 % are honest",
        "the honest are answered",
        "forged addresses gain nothing",
        "registrations are taken in",
        "back under the flood",
        "back",
    ),
    red=Plant.ALL_ANSWERED,
    clients_notice="clients of the drill: slower answers over UDP",
    minutes_max=4,
)
