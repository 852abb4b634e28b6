"""A tenant registers at a hundred times its quota: the other tenants' registrations and resolutions go on as fast as before."""

from __future__ import annotations

from chaos.drills.outside import Lane
from chaos.scenarios.scenario import Act, Fence, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s48-noisy-tenant",
    number=48,
    story="one tenant registers at 100 times its quota, by turns at us and at a mere sink; two others register and are resolved",
    steps=(Step(Act.TENANT_NOISY, for_s=0.5),),
    load=Load(lanes=((Lane.PORT, 10.0),)),
    fence=Fence.NONE,
    tenants=("noisy", "quiet-1", "quiet-2"),
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.EQUAL, Invariant.NO_SECOND_WRITER, Invariant.FACTS),
    facts=(
        "100 times its quota",
        "it gets no more than its quota",
        "others' registrations are as fast",
        "others' resolutions are as fast",
        "others lose nothing",
    ),
    red=Plant.TENANTS_UNMETERED,
    clients_notice="clients of the drill: registrations of one tenant refused",
    minutes_max=4,
)
