"""A snapshot that breaks off at every one of its pieces: begun again by itself, nothing half of it is ever answered."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Budgets, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s29-snapshot-interrupted",
    number=29,
    story="a snapshot breaks off before its header, each of its chunks and its end: links reset, either side SIGKILLed",
    steps=(Step(Act.SNAPSHOT_INTERRUPTED, for_s=0.5),),
    invariants=(Invariant.RECEIPTS, Invariant.EQUAL, Invariant.NO_SECOND_WRITER, Invariant.FACTS),
    lanes_judged=(Lane.RECURSIVE,),
    facts=("interrupted at every piece", "it begins again by itself", "nothing is half-served", "loaded by snapshot", "back"),
    red=Plant.INTERRUPTED_BLOCKS,
    load=Load(records=2_000, every_ms=0, lanes=((Lane.RECURSIVE, 8.0), (Lane.HEDGED, 2.0), (Lane.PORT, 2.0))),
    budgets=Budgets(return_s=45),
    clients_notice="clients of the drill: nothing, the node itself answers, but for the second in which it restarts",
    minutes_max=5,
)
