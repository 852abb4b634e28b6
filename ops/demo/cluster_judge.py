"""What the cluster's part of the story was worth: figures and findings out of what clients saw and histories say.

| figure | meaning |
| --- | --- |
| failover_ms | SIGKILL of the member that leads the pushing node's group -> quorum receipt for what was registered after it |
| frozen_ms | the same after SIGSTOP of the leader |
| all_down_ms | SIGKILL of all members in one moment -> first answer of any of them after their restart |
| failed_while_all_down | lookups of the hedging client that began in that time and failed; not among failed_resolutions |
| reseed_s | the command -> the wiped member votes again and holds what the leader holds |
| registrations_acked, registrations_lost | of the region that lives at the cluster, out of its clients' history |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from chaos.check import final
from chaos.check.history import Op, Operation
from chaos.check.judge import judge as check
from chaos.check.verdict import Verdict

NS_PER_MS = 1_000_000
FAILOVER_MS_MAX = 1_000  # as for answers: a second
CHANGES = (Op.PUT, Op.APPEND, Op.CAS)

MEANING: dict[str, str] = {
    "members": "of the cluster, each in a zone of its own",
    "failover_ms": "leader SIGKILLed to the next quorum receipt; below 1,000",
    "frozen_ms": "leader frozen to the next quorum receipt; below 1,000",
    "all_down_ms": "all members SIGKILLed at once to the first answer of one that was restarted",
    "failed_while_all_down": "lookups of the hedging client that failed meanwhile, counted apart",
    "reseed_s": "command to a wiped member that votes again, with everything",
    "registrations_acked": "in the region that lives at the cluster, by conditional puts",
    "registrations_lost": "acknowledged ones of these that are not there at the end; 0",
}


class State(StrEnum):
    """What a member's lane shows."""

    DOWN = "down"
    FROZEN = "frozen"
    FED = "fed anew"


@dataclass(frozen=True, slots=True)
class Span:
    """A time in a member's life that was not as it should be. CLOCK_MONOTONIC ns."""

    member: str
    state: State
    from_ns: int
    until_ns: int


@dataclass(slots=True)
class ClusterTold:
    """What the story leaves of the cluster. None: it did not come to that, or it was not seen.

    Args:
        history: of the registering clients; whole: they ended in order, so nothing they asked is missing in it.
    """

    members: int
    failover_ms: float | None = None
    frozen_ms: float | None = None
    all_down_ns: tuple[int, int] | None = None
    reseed_s: float | None = None
    history: Sequence[Operation] = ()
    whole: bool = False
    spans: list[Span] = field(default_factory=list)

    def was_all_down(self, at_ns: int) -> bool:
        return self.all_down_ns is not None and self.all_down_ns[0] <= at_ns <= self.all_down_ns[1]


Figures = dict[str, float | int | bool | None]


def figures_of(told: ClusterTold, failed_while_all_down: int) -> Figures:
    """The cluster's figures; None: could not be measured."""
    down = told.all_down_ns
    lost, unread = final.losses(told.history)
    return {
        "members": told.members,
        "failover_ms": told.failover_ms,
        "frozen_ms": told.frozen_ms,
        "all_down_ms": None if down is None else round((down[1] - down[0]) / NS_PER_MS, 1),
        "failed_while_all_down": None if down is None else failed_while_all_down,
        "reseed_s": told.reseed_s,
        "registrations_acked": sum(one.ok is True and one.op in CHANGES for one in told.history),
        "registrations_lost": None if unread or not told.whole else len(lost),
    }


def findings_of(told: ClusterTold, figures: Figures) -> tuple[list[str], list[str]]:
    """(faults, doubts)."""
    faults, doubts = [], []
    for name in ("failover_ms", "frozen_ms"):
        value = figures[name]
        if value is not None and value >= FAILOVER_MS_MAX:
            faults.append(f"{name} is {value} ms, not below {FAILOVER_MS_MAX} ms")
    doubts += [f"{name} could not be measured" for name in MEANING if figures[name] is None]
    for finding in check(told.history):
        if finding.verdict is Verdict.FAIL:
            faults.append(f"registrations: {finding}")
        elif finding.verdict is Verdict.UNKNOWN:
            doubts.append(f"registrations: {finding}")
    if told.history and not figures["registrations_acked"]:
        doubts.append("no registration was acknowledged: nothing was tried")
    return faults, doubts


def is_lost(told: ClusterTold) -> bool:
    """An acknowledged registration is lost, or the history contradicts itself: a late prober explains neither."""
    return any(finding.verdict is Verdict.FAIL for finding in check(told.history))
