"""What people approve before registration is taken over: one text with the expected loss, and the token that names it.

The text holds what must not change between looking, signing and running: whose registrations, which epoch is closed, how it is
fenced, how much loss is accepted. The position moves on in a living source: the loss is judged again, with a number, at the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from replica.model.group_state import GroupState
from replica.model.identifier import prefix_text
from replica.model.ladder import ABORTABLE, BEGINNINGS, DRAIN_MS_MAX, Fence, Stage
from replica.model.ladder_epochs import fence_of, unfit
from replica.model.ladder_rules import not_switchable, too_far_behind
from replica.v1 import entry_pb2, source_pb2

PLAN_VERSION = "zaibei registration takeover 1"
TOKEN_HEX = 16
ACT = "registration:"
BY_ITSELF = "auto-registration:"


@dataclass(frozen=True, slots=True)
class Climb:
    """One act on its way up.

    Args:
        act: unique to it, so that running it again changes nothing; plan: the text that is approved.
        accepted: a loss of up to so many changes is accepted; accepts_unknown: and one nobody can count.
        approvals: signatures over the plan, already judged.
        switchover: the source lives and ends its own writing first.
    """

    act: str
    plan: str
    fence: Fence
    reason: str
    accepted: int = 0
    accepts_unknown: bool = False
    break_glass: bool = False
    automatic: bool = False
    approvals: tuple[entry_pb2.Approval, ...] = ()
    switchover: bool = False

    def proposed(self, behind: int | None, age_ms: int | None) -> entry_pb2.Proposed:
        """What is committed with PROPOSED."""
        said = entry_pb2.Proposed(
            fence=source_pb2.Description.Fence.ValueType(int(self.fence)),
            automatic=self.automatic,
            plan=self.plan,
            accepted=self.accepted,
            accepts_unknown=self.accepts_unknown,
            switchover=self.switchover,
        )
        if behind is not None:
            said.behind = behind
        if age_ms is not None:
            said.age_ms = age_ms
        return said


@dataclass(frozen=True, slots=True)
class Accepting:
    """What whoever plans accepts. `switchover`: of a living source, without any loss."""

    loss: int = 0
    unknown_loss: bool = False
    break_glass: bool = False
    switchover: bool = False


@dataclass(frozen=True, slots=True)
class MassPlan:
    """One text over many sources, its token, and the signatures over it, already judged."""

    text: str
    token: str
    approvals: tuple[entry_pb2.Approval, ...]


def plan_text(state: GroupState, accepting: Accepting, *, automatic: bool = False) -> str:
    """The canonical text: these lines, in this order, each ended by a newline."""
    ladder, fence = state.ladder, fence_of(state)
    acts = ladder.acts if ladder.stage in ABORTABLE else ladder.acts + 1
    how = (
        "without a person, by an order in force"
        if automatic
        else "by one person, break-glass"
        if accepting.break_glass
        else "by two"
    )
    lines = [
        PLAN_VERSION,
        f"source {state.source}",
        f"prefixes {' '.join(sorted(prefix_text(prefix) for prefix in state.prefixes))}",
        f"act number {acts}, approved {how}",
        f"closes lineage {state.position.lineage.hex()} epoch {state.position.epoch}",
        *_how_it_ends(state, accepting, fence),
    ]
    return "\n".join(lines) + "\n"


def _how_it_ends(state: GroupState, accepting: Accepting, fence: Fence) -> list[str]:
    if accepting.switchover:
        return [f"switchover: the source ends its own writing within {DRAIN_MS_MAX} ms, or goes on", "nothing is lost"]
    lease = f", after its lease of {state.ladder.lease_ms} ms" if fence is Fence.WRITE_PATH else ""
    unknown = ", and one nobody can count" if accepting.unknown_loss else ""
    return [f"fence {fence.name.lower()}{lease}", f"accepts a loss of at most {accepting.loss} changes{unknown}"]


def token_of(text: str) -> str:
    """What `sign` and `run` repeat: the first hex digits of the text's SHA-256."""
    return sha256(text.encode()).hexdigest()[:TOKEN_HEX]


def climb_of(state: GroupState, accepting: Accepting, reason: str, approvals: Sequence[entry_pb2.Approval]) -> Climb:
    """An operator's run of a plan, made again from the present state: over an older one the signatures do not match."""
    text = plan_text(state, accepting)
    return Climb(
        act=ACT + token_of(text),
        plan=text,
        fence=fence_of(state),
        reason=reason,
        accepted=accepting.loss,
        accepts_unknown=accepting.unknown_loss,
        break_glass=accepting.break_glass,
        approvals=tuple(approvals),
        switchover=accepting.switchover,
    )


def automatic_climb(state: GroupState, reason: str) -> Climb:
    """An act that probes and an order begin: it accepts no loss at all."""
    text = plan_text(state, Accepting(), automatic=True)
    return Climb(BY_ITSELF + token_of(text), text, fence_of(state), reason, automatic=True)


def refusal(state: GroupState, behind: int | None, accepting: Accepting) -> str:
    """Why the plan cannot be run now; empty when it can."""
    stage = state.ladder.stage
    if stage not in (*BEGINNINGS, Stage.SUSPECT, Stage.THRESHOLD, Stage.PROPOSED):
        return f"one act at a time: {state.ladder.act} stands at {stage.name}"
    if accepting.switchover:
        begun = stage is Stage.PROPOSED and state.ladder.switchover
        return unfit(state) or ("" if begun else not_switchable(state))
    return unfit(state) or too_far_behind(behind, accepting.loss, accepting.unknown_loss)
