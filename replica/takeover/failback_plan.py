"""What an operator looks at before a failback, and the token that says the world is still the one looked at. Pure.

The token covers what must not change between looking and running: whose registrations, which climb, which policies decide. The
same token may be run as often as one likes: it is one failback, resumed where it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import PrefixTree, prefix_key, prefix_text
from replica.model.ladder import RETURNING, Stage
from replica.model.ladder_leaving import unfit_to_leave
from replica.model.ledger import Ledger, unsettled
from replica.takeover.failback import Node, Order, Wish
from replica.takeover.ledger import Policies, Policy

PLAN_VERSION = "zaibei failback 1"
TOKEN_HEX = 16
REASON_CHARS_MAX = 200
WHERE: dict[Stage, str] = {
    Stage.SERVING: "we register",
    Stage.RETURN_REQUESTED: "waits for the source",
    Stage.CATCHING_UP: "the source's own writes are settled, it copies ours",
    Stage.FROZEN: "registrations wait for the switch back",
    Stage.SOURCE_EQUAL: "the source holds what we hold",
    Stage.HANDED_BACK: "the next epoch is the source's, which takes it",
    Stage.ACCEPTED: "the source took its epoch and is looked at",
    Stage.OBSERVED: "the source registers again, our sites are withdrawn",
    Stage.TRANSFERRED: "transferred to another provider",
}


def shown_of(state: GroupState) -> str:
    """Where it stands, for people."""
    if state.ladder.stage is Stage.NORMAL:
        return "it lives here: we register" if state.lives_here else "the source registers"
    if state.ladder.stage <= Stage.THRESHOLD:
        return "most probes of the source fail; nobody took it over"
    return WHERE.get(state.ladder.stage, "taking over")


def policies_of(default: str, by_prefix: Mapping[str, str]) -> Policies:
    """From what an operator wrote. Raises ZaibeiError(MALFORMED)."""
    try:
        tree = PrefixTree({prefix_key(prefix): Policy(word) for prefix, word in by_prefix.items()})
        return Policies(Policy(default), tree)
    except ValueError:
        words = ", ".join(Policy)
        raise ZaibeiError(Code.MALFORMED, f"{default!r} or one of {sorted(by_prefix.values())} is no policy: {words}") from None


@dataclass(frozen=True, slots=True)
class FailbackPlan:
    """One planned act.

    Args:
        refusal: why it cannot be run; empty when it can. loses: it would lose data, which is why.
        warnings: what the operator should know.
        leaves: it lives here, and is given to a node that begins.
    """

    wish: Wish
    source: str
    act: str
    stage: Stage
    position: str
    node: Node
    ledger: Ledger | None
    policies: Policies
    refusal: str
    loses: bool
    warnings: tuple[str, ...]
    leaves: bool = False

    def text(self) -> str:
        """Lines to be read, in this order; the token is made of them."""
        by_prefix = sorted((prefix_text(prefix), policy.value) for prefix, policy in self.policies.by_prefix.items())
        lines = [
            PLAN_VERSION,
            f"{self.wish.value} {self.source}",
            f"act {self.act}",
            f"where both wrote: {self.policies.default.value}",
            *(f"below {prefix}: {policy}" for prefix, policy in by_prefix),
            "its node must be empty: it copies everything, registers from the switch on, and we go on as its copy"
            if self.leaves
            else "what only the source wrote enters; what it proves it never acknowledged does not",
        ]
        return "\n".join(lines) + "\n"

    @property
    def token(self) -> str:
        """What `run` repeats."""
        return sha256(self.text().encode()).hexdigest()[:TOKEN_HEX]

    def order(self, reason: str) -> Order:
        """What running it means."""
        return Order(self.wish, reason[:REASON_CHARS_MAX], self.policies)

    def view(self) -> dict[str, object]:
        """The stable JSON contract of `zaibei failback plan --json`."""
        return {
            "wish": self.wish.value,
            "source": self.source,
            "act": self.act,
            "stage": self.stage.name,
            "lives_here": self.leaves,
            "position": self.position,
            "node": node_view(self.node),
            "ledger": ledger_view(self.ledger),
            "text": self.text(),
            "token": self.token,
            "refusal": self.refusal,
            "loses": self.loses,
            "warnings": list(self.warnings),
        }


def plan_of(wish: Wish, state: GroupState, node: Node, policies: Policies) -> FailbackPlan:
    """Look, change nothing."""
    stage, ledger = state.ladder.stage, state.ledger
    refusal, loses = _refusal(wish, state)
    warnings = []
    if wish is Wish.RETURN and not node.reached:
        warnings.append(f"the source is not reached ({node.why}): failback begins and waits for it")
    if wish is Wish.RETURN and node.reached and node.own is None:
        warnings.append("the source has not ended its own writing. Next, at the source: zaibei source follow")
    if ledger is not None and ledger.common == state.ladder.closed_at and ledger.counts.held:
        warnings.append(f"{ledger.counts.held} writes wait for a person. Next: zaibei failback conflicts {state.source}")
    # One plan for all attempts: each is an act of its own, and while it lives here none of them has changed anything.
    act = f"leaves epoch {state.granted.epoch}" if state.lives_here and state.granted is not None else state.ladder.act
    return FailbackPlan(
        wish, state.source, act, stage, str(state.position), node, ledger, policies, refusal, loses, tuple(warnings),
        state.lives_here,
    )  # fmt: skip


def _refusal(wish: Wish, state: GroupState) -> tuple[str, bool]:
    stage, source = state.ladder.stage, state.source
    match wish:
        case Wish.RETURN if stage is Stage.SERVING or stage in RETURNING:
            return "", False
        case Wish.RETURN if state.lives_here:
            return unfit_to_leave(state), False
        case Wish.ABORT if state.lives_here and stage is Stage.NORMAL:
            return f"{source} lives here and is not about to leave: there is nothing to abort", False
        case Wish.TRANSFER if state.lives_here:
            return f"{source} lives here: let it graduate to the other provider's node, and we go on as its copy", False
        case Wish.ABORT if stage in (Stage.RETURN_REQUESTED, Stage.CATCHING_UP, Stage.FROZEN, Stage.SOURCE_EQUAL):
            return "", False
        case Wish.ABORT if stage in RETURNING:
            return f"{source} was handed back: there is no way back to our epoch, only a new takeover", False
        case Wish.TRANSFER if stage is Stage.SERVING:
            why = unsettled(state.ledger, state.ladder.closed_at)
            return (f"{why}: hand over what the source wrote by itself first, by a failback to it", True) if why else ("", False)
    why = f"the registrations of {source} are not taken over ({stage.name}): there is nothing to give back, or it was given back"
    return f"{why}. Next: zaibei failback status {source}", False


def node_view(node: Node) -> dict[str, object]:
    """What is known of the returning source, as JSON."""
    return {
        "reached": node.reached,
        "own_end": None if node.own is None else str(node.own),
        "follows": None if node.follows is None else str(node.follows),
        "why": node.why,
    }


def ledger_view(ledger: Ledger | None) -> dict[str, object] | None:
    """The ledger's counters, as JSON."""
    if ledger is None:
        return None
    counts = ledger.counts
    return {
        "common": str(ledger.common),
        "theirs": str(ledger.theirs),
        "complete": ledger.complete,
        "lines": counts.lines,
        "same": counts.same,
        "superseded": counts.superseded,
        "conflict": counts.conflict,
        "unacknowledged": counts.unacknowledged,
        "held": counts.held,
        "accepted": counts.accepted,
        "entered": counts.entered,
        "kept": counts.kept,
        "open": counts.open,
    }


def decision_text(source: str, ledger: Ledger, lines: tuple[str, ...], accept: bool, reason: str) -> str:
    """What a person signs who decides about lines that wait."""
    word = "the source's value enters" if accept else "what we hold stays"
    rows = [f"{PLAN_VERSION} decision", f"source {source}", f"ledger {ledger.common}", word, f"reason {reason}", *sorted(lines)]
    return "\n".join(rows) + "\n"
