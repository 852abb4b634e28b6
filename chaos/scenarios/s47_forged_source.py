"""Whoever is not the node gets nothing, whatever certificate it shows; renewing the node's own leaves no gap."""

from __future__ import annotations

from chaos.scenarios.scenario import Act, Invariant, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s47-forged-source",
    number=47,
    story="forgers publish names as a node's own; meanwhile its certificate is renewed, and the stolen one revoked",
    steps=(Step(Act.FORGED_AND_ROTATED, for_s=1.0),),
    by_ca=True,
    invariants=(
        Invariant.NO_LIE,
        Invariant.HEDGED,
        Invariant.RECEIPTS,
        Invariant.EQUAL,
        Invariant.NO_TAKEOVER,
        Invariant.FACTS,
    ),
    facts=(
        "another CA's certificate gets nothing",
        "another node's certificate gets nothing",
        "an ended certificate gets nothing",
        "a revoked certificate gets nothing",
        "renewed without a gap",
        "refusals are told",
        "back",
    ),
    red=Plant.REVOKED_LET_IN,
    clients_notice="clients of the drill: nothing",
    minutes_max=4,
)
