"""12: the source's line is 300 ms late each way, with jitter and 5 % loss: beats, probes and feed alike. Lag stays bounded, its
registry is held back when nothing is receipted any more, and nobody takes it over."""

from chaos.rigs.capability import Capability
from chaos.rigs.frames import FrameRule
from tests.faults.line import SourceLine
from tests.faults.scenario import Layer, Load, Scenario, Step

EVERY_S = 0.25  # on such a line TCP carries some 12 kB a second (Mathis and others, 1997)

SCENARIO = Scenario(
    12,
    "source's line is 300 ms late and loses 5 %",
    (Step(SourceLine(FrameRule(delay_ms=300, jitter_ms=60, lost=0.05), for_s=10, dumb_s=5, feed_every_s=EVERY_S), for_s=0.5),),
    layer=Layer.ROOT,
    load=Load(feed_every_s=EVERY_S),
    needs=frozenset({Capability.WIRES, Capability.FEED}),
    lab=True,
    wires=True,
    planted="silence",
)
