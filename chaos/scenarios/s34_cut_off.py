"""A source that lives for its clients and is cut off from us: no second writer, and what we cannot know is not called missing."""

from __future__ import annotations

from chaos.scenarios.scenario import Act, Invariant, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s34-cut-off",
    number=34,
    story="feed, beats and probes are cut while the node registers and answers on",
    steps=(Step(Act.CUT_FROM_US, for_s=6.0),),
    invariants=(
        Invariant.NO_LIE,
        Invariant.HEDGED,
        Invariant.RECEIPTS,
        Invariant.EQUAL,
        Invariant.NO_SECOND_WRITER,
        Invariant.FACTS,
    ),
    facts=("what we cannot know is not called missing", "back"),
    red=Plant.MISSING_IS_SAID,
    clients_notice="clients of the drill: resolution goes over to us and back; no lookup of a known name fails",
    minutes_max=4,
)
