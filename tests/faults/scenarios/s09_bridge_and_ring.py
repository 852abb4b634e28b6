"""9: not everybody hears everybody: two halves joined by one member only, which leads or does not, then a ring of neighbours."""

from tests.faults.links import Bridge, Ring
from tests.faults.scenario import Budgets, Load, Scenario, Step

SCENARIO = Scenario(
    9,
    "bridge between two halves, and a ring of neighbours",
    (Step(Bridge(leads=False), for_s=3), Step(Bridge(leads=True), for_s=3), Step(Ring(), for_s=4)),
    members=5,
    load=Load(clients=4, pause_ms=25),  # five members share the machine with their clients
    budgets=Budgets(pause_ms_max=4_000),
    red="unfenced",  # majorities are everywhere; what keeps them from each other is who sits in both
)
