"""10: two sites apart for 43 seconds, as at GitHub on 21 October 2018: the source is with two members, the majority is elsewhere.
Its own registrations go on within its lease of 30 s; answers go on at both sites; all comes back by itself."""

from chaos.rigs.capability import Capability
from tests.faults.scenario import Budgets, Invariant, Layer, Load, Scenario, Step
from tests.faults.sites import SitesApart

SCENARIO = Scenario(
    10,
    "two sites apart for 43 s",
    (Step(SitesApart("site-a", degraded_s_max=60), for_s=43),),
    members=5,
    layer=Layer.ROOT,
    zones=("site-a", "site-a", "site-b", "site-b", "site-b"),
    load=Load(clients=4, pause_ms=100, feed_every_s=0.4),  # five members share the machine with their clients
    invariants=(Invariant.LINEARIZABLE, Invariant.ACKED_KEPT, Invariant.RESOLUTION, Invariant.ANSWERED),
    budgets=Budgets(pause_ms_max=6_000),
    needs=frozenset({Capability.WIRES, Capability.FEED}),
    lab=True,
    wires=True,
    planted="alone",
)
