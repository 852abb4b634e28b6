"""24: the kernel kills the leader for its memory."""

from chaos.rigs.capability import Capability
from tests.faults.acts import Leader, OutOfMemory
from tests.faults.scenario import Layer, Scenario, Step

SCENARIO = Scenario(
    24,
    "leader killed for its memory",
    (Step(OutOfMemory(Leader()), for_s=1), Step(OutOfMemory(Leader()), for_s=1)),
    layer=Layer.ROOT,
    needs=frozenset({Capability.MEMORY}),
    memory=True,
    red="early",
)
