"""Release or discard of what is held: an act of two people over one canonical text (SEMANTICS 2.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import Hold
from replica.model.signing import canonical, verify
from replica.v1 import entry_pb2

APPROVALS_NEEDED = 2
TOKEN_DIGITS = 16
PLAN_VERSION = "zaibei hold decision 1"


@dataclass(frozen=True, slots=True)
class HoldPlan:
    """What would be done, to be read, signed and then carried out unchanged."""

    source: str
    hold: Hold
    release: bool
    removed: int
    rewritten: int

    def text(self) -> str:
        """The canonical text: these lines, in this order, each ended by a newline."""
        what = "a side generation" if self.hold.side else "a batch"
        return (
            f"{PLAN_VERSION}\n"
            f"source {self.source}\n"
            f"hold {self.hold.ident}\n"
            f"follows {self.hold.follows}\n"
            f"content {what} {sha256(self.hold.batch).hexdigest()} side {self.hold.side}\n"
            f"removes {self.removed} rewrites {self.rewritten}\n"
            f"act {'release' if self.release else 'discard'}\n"
        )

    def token(self) -> str:
        """What `run --plan TOKEN` repeats: the first 16 hex digits of the text's SHA-256."""
        return sha256(self.text().encode()).hexdigest()[:TOKEN_DIGITS]


def approval_octets(plan_text: str) -> bytes:
    """What an operator signs."""
    return canonical("zaibei-approval-1", plan_text)


def decision_entry(
    plan: HoldPlan, approvals: Sequence[entry_pb2.Approval], operators: Mapping[str, bytes], at_ms: int
) -> entry_pb2.Entry:
    """The entry that carries out a plan.

    Args:
        plan: made again from the present state by the caller, so that a plan over an older state does not match its signatures.
        approvals: signatures of operators over the plan's text.
        operators: name -> Ed25519 public key of everyone who may approve.
        at_ms: Unix milliseconds.
    Raises:
        ZaibeiError(NOT_AUTHORISED): not two different operators (and keys) with valid signatures; says who is missing or wrong.
    """
    octets = approval_octets(plan.text())
    names: set[str] = set()
    keys: set[bytes] = set()
    for approval in approvals:
        public = operators.get(approval.operator)
        if public is None:
            raise ZaibeiError(Code.NOT_AUTHORISED, f"{approval.operator!r} is not an operator here")
        if not verify(public, octets, approval.signature):
            raise ZaibeiError(
                Code.NOT_AUTHORISED, f"{approval.operator!r} did not sign this plan (it may have changed: show it again)"
            )
        names.add(approval.operator)
        keys.add(public)
    signed = min(len(names), len(keys))
    if signed < APPROVALS_NEEDED:
        raise ZaibeiError(Code.NOT_AUTHORISED, f"{APPROVALS_NEEDED} different operators must sign, {signed} did")
    decision = entry_pb2.HoldDecision(hold=plan.hold.ident, release=plan.release, plan=plan.text(), approvals=approvals)
    return entry_pb2.Entry(format=1, admitted_ms=at_ms, decision=decision)
