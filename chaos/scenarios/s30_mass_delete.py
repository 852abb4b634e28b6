"""A node removes 90 % of its prefix: held for two people, not applied, answers go on."""

from __future__ import annotations

from chaos.scenarios.scenario import Act, Budgets, Invariant, Load, Plant, Scenario, Step

SCENARIO = Scenario(
    name="s30-mass-delete",
    number=30,
    story="a node removes 90 % of a prefix in one go",
    steps=(Step(Act.MASS_DELETE, for_s=2.0),),
    invariants=(Invariant.NO_LIE, Invariant.RECEIPTS, Invariant.NO_SECOND_WRITER, Invariant.FACTS),
    facts=("it is held", "nothing is applied", "answers go on"),
    red=Plant.NO_BRAKE,
    load=Load(records=400),
    budgets=Budgets(return_s=0),
    clients_notice="clients of the drill: the node itself no longer knows what it removed; we do",
    minutes_max=4,
)
