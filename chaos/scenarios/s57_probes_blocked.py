"""Whoever blocks the probes of a healthy node gets no takeover of its registrations, not even under a standing order."""

from __future__ import annotations

from chaos.scenarios.scenario import Act, Fence, Invariant, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s57-probes-blocked",
    number=57,
    story="probes of a healthy node are blocked, ours and the top-level node's; a standing order to take over is in force",
    steps=(Step(Act.PROBES_BLOCKED, for_s=1.0),),
    fence=Fence.WRITE_PATH,
    invariants=(
        Invariant.NO_LIE,
        Invariant.HEDGED,
        Invariant.RECEIPTS,
        Invariant.EQUAL,
        Invariant.NO_SECOND_WRITER,
        Invariant.FACTS,
    ),
    facts=("the threshold is reached", "no act begins", "it says why", "back"),
    red=Plant.FEED_UNHEARD,
    clients_notice="clients of the drill: nothing",
    minutes_max=4,
)
