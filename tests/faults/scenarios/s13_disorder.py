"""13: packets come twice and out of order on all wires; then the source itself sends batches twice and out of order."""

from chaos.rigs.capability import Capability
from chaos.rigs.frames import FrameRule
from tests.faults.scenario import Layer, Scenario, Step
from tests.faults.wires import Packets, SendsTwice

SCENARIO = Scenario(
    13,
    "packets and batches twice and out of order",
    (
        Step(Packets(FrameRule(doubled=0.2, late=0.2, late_ms=15), ("doubled", "late")), for_s=5),
        Step(SendsTwice(), for_s=4),
    ),
    layer=Layer.ROOT,
    needs=frozenset({Capability.WIRES, Capability.FEED}),
    lab=True,
    wires=True,
    planted="gaps-pass",
)
