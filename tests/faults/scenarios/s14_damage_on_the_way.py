"""14: packets are damaged in a way that TCP's checksum cannot see, then entries and batches behind the digest of their sender.

Below TLS a damaged packet can only show as a broken record: the connection ends and is made again. So, above TLS, leaders flip a
bit in entries after they have computed their sum, and the source in batches after their hash: what is refused then, our own
digests refuse."""

from chaos.rigs.capability import Capability
from chaos.rigs.frames import FrameRule
from tests.faults.damage import BentBatches, BentEntries
from tests.faults.scenario import Budgets, Layer, Scenario, Step
from tests.faults.wires import Packets

SCENARIO = Scenario(
    14,
    "damage past the checksum of TCP, and past TLS",
    (
        Step(Packets(FrameRule(slipped=0.002), ("slipped",)), for_s=5),
        Step(BentBatches(), for_s=3),
        Step(BentEntries(), for_s=3),
    ),
    layer=Layer.ROOT,
    budgets=Budgets(pause_ms_max=8_000),
    needs=frozenset({Capability.WIRES, Capability.FEED}),
    lab=True,
    wires=True,
    planted="sums-unread",
)
