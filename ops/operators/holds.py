"""Release or discard of what is held: plan, two signatures, run (SEMANTICS 2.3). The `hold_*` calls of the admin channel.

A plan is never stored to be run: it is made again from the present state each time, so a token that no longer matches means that
the world changed, and then nothing is done.

    hold_plan ─► token ─► hold_sign (operator 1) ─► hold_sign (operator 2) ─► hold_run ─► committed HoldDecision
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ops.admin.values import Approval, Held, HoldDone, HoldPlan
from ops.operators.approval import judge, to_wire, token_of
from ops.operators.book import Book, Page
from replica.feed.decision import APPROVALS_NEEDED, decision_entry
from replica.feed.decision import HoldPlan as FeedPlan
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.outcome import Outcome, OutcomeKind
from replica.v1 import entry_pb2

DECISIONS = ("release", "discard")
SAMPLES_MAX = 20


class HeldGroup(Protocol):
    """What the desk needs of one source's group; the composition gives it."""

    def state(self) -> GroupState: ...

    def would_do(self) -> tuple[int, int]:
        """Records that what is held would remove and rewrite, as its committed entry states them."""
        ...

    def samples(self, count_max: int) -> list[str]:
        """Some of the identifiers it would remove or rewrite, as people write them."""
        ...

    async def carry_out(self, entry: entry_pb2.Entry) -> Outcome:
        """Propose the entry and wait until it is applied. Raises ZaibeiError (BUSY, STOPPING, DISK_...)."""
        ...


class HoldDesk:
    """Decides for all sources of a member.

    Args:
        groups: source name -> group, as they are now.
        operators: name -> Ed25519 public key of everyone whose signature counts.
        book: plans looked at and their approvals; `save` is called after every change of it.
        now_ms: Unix milliseconds.
    """

    def __init__(
        self,
        groups: Callable[[], Mapping[str, HeldGroup]],
        operators: Mapping[str, bytes],
        book: Book,
        save: Callable[[Book], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._groups, self._operators, self._book, self._save, self._now_ms = groups, operators, book, save, now_ms

    def holds(self, source: str = "") -> list[Held]:
        """Everything held. Raises ZaibeiError(NOT_FOUND) for a source that is not here."""
        groups = self._groups()
        if source and source not in groups:
            raise ZaibeiError(Code.NOT_FOUND, f"no source {source!r} here; there are: {', '.join(sorted(groups)) or 'none'}")
        names = [source] if source else sorted(groups)
        return [self._held(name, groups[name], 0) for name in names if groups[name].state().hold is not None]

    def show(self, hold: str) -> Held:
        """One of them with samples. Raises ZaibeiError(NOT_FOUND, CONFLICT)."""
        name, group = self._find(hold)
        return self._held(name, group, SAMPLES_MAX)

    def plan(self, hold: str, decision: str) -> HoldPlan:
        """Look at a decision; changes nothing but the book. Raises ZaibeiError(NOT_FOUND, CONFLICT, MALFORMED)."""
        if decision not in DECISIONS:
            raise ZaibeiError(Code.MALFORMED, f"{decision!r} is no decision: {' or '.join(DECISIONS)}")
        name, group = self._find(hold)
        plan = _feed_plan(name, group, decision)
        page = self._book.open(plan.token(), name, plan.hold.ident, decision)
        self._save(self._book)
        return self._answer(plan, page)

    def plan_of(self, token: str) -> HoldPlan:
        """The plan of a token. Raises ZaibeiError(NOT_FOUND, REFUSED: the world is no longer as planned)."""
        page = self._book.page(token)
        return self._answer(self._still(token, page), page)

    def sign(self, approval: Approval) -> HoldPlan:
        """Add an approval. Raises ZaibeiError(NOT_FOUND, REFUSED, NOT_AUTHORISED)."""
        page = self._book.page(approval.token)
        plan = self._still(approval.token, page)
        judge(approval, plan.text(), self._operators)
        page.approvals[approval.operator] = approval
        self._save(self._book)
        return self._answer(plan, page)

    async def run(self, token: str) -> HoldDone:
        """Commit the decision; a plan that was run already answers what it did.

        Raises:
            ZaibeiError(NOT_AUTHORISED): not signed by two different operators yet; says who is missing.
            ZaibeiError(REFUSED): the world changed since the plan, nothing was done.
            ZaibeiError(UNKNOWN): the outcome is not known.
        """
        page = self._book.page(token)
        if page.done is not None:
            return page.done
        plan = self._still(token, page)
        valid = [page.approvals[name] for name in self._signed(plan, page)]
        if len(valid) < APPROVALS_NEEDED:
            raise ZaibeiError(Code.NOT_AUTHORISED, _missing(token, [approval.operator for approval in valid], self._operators))
        entry = decision_entry(plan, [to_wire(approval) for approval in valid], self._operators, self._now_ms())
        outcome = await self._groups()[page.source].carry_out(entry)
        if outcome.kind is OutcomeKind.UNKNOWN:
            raise ZaibeiError(Code.UNKNOWN, "the member stopped before the decision was known to be committed", definite=False)
        if outcome.kind not in (OutcomeKind.APPLIED, OutcomeKind.ALREADY):
            raise ZaibeiError(
                Code.REFUSED, f"the group did not accept it ({outcome.kind}): {outcome.detail or 'the world changed'}"
            )
        names = [approval.operator for approval in valid]
        page.done = HoldDone(token, page.source, page.hold, page.decision, names, outcome.kind)
        self._save(self._book)
        return page.done

    def _still(self, token: str, page: Page) -> FeedPlan:
        group = self._groups().get(page.source)
        hold = group.state().hold if group is not None else None
        if group is None or hold is None or hold.ident != page.hold:
            end = f"it was {page.done.decision}d already" if page.done else "it is no longer held"
            raise ZaibeiError(Code.REFUSED, f"{page.source}/{page.hold}: {end}; nothing was done. Next: zaibei hold list")
        plan = _feed_plan(page.source, group, page.decision)
        if token_of(plan.text()) != token:
            raise ZaibeiError(
                Code.REFUSED,
                f"{page.source}/{page.hold} is not what it was when it was planned; nothing was done. "
                f"Next: zaibei hold plan {page.source}/{page.hold} {page.decision}, and sign again",
            )
        return plan

    def _signed(self, plan: FeedPlan, page: Page) -> list[str]:
        """Operators whose approvals still stand: configured, and of this text. Two names with one key count once."""
        names: list[str] = []
        keys: set[bytes] = set()
        for name, approval in sorted(page.approvals.items()):
            try:
                judge(approval, plan.text(), self._operators)
            except ZaibeiError:
                continue  # its operator left the configuration, or has another key now
            if self._operators[name] not in keys:
                keys.add(self._operators[name])
                names.append(name)
        return names

    def _answer(self, plan: FeedPlan, page: Page) -> HoldPlan:
        signed = self._signed(plan, page)
        return HoldPlan(plan.token(), plan.source, plan.hold.ident, page.decision, plan.text(), signed, APPROVALS_NEEDED)

    def _find(self, hold: str) -> tuple[str, HeldGroup]:
        source, _, ident = hold.rpartition("/")
        groups = self._groups()
        found = [
            (name, group)
            for name, group in sorted(groups.items())
            if (held := group.state().hold) is not None and held.ident == ident and source in ("", name)
        ]
        if not found:
            raise ZaibeiError(Code.NOT_FOUND, f"nothing is held under {hold[:120]!r}. Next: zaibei hold list")
        if len(found) > 1:
            names = ", ".join(f"{name}/{ident}" for name, _ in found)
            raise ZaibeiError(Code.CONFLICT, f"{ident} is held at several sources: say which, {names}")
        return found[0]

    def _held(self, source: str, group: HeldGroup, samples: int) -> Held:
        hold = group.state().hold
        if hold is None:
            raise ZaibeiError(Code.NOT_FOUND, f"nothing is held at {source} any more. Next: zaibei hold list")
        removed, rewritten = group.would_do()
        approvals = {}
        for decision in DECISIONS:
            plan = _feed_plan(source, group, decision)
            page = self._book.pages.get(plan.token())
            approvals[decision] = self._signed(plan, page) if page else []
        return Held(
            source=source,
            hold=hold.ident,
            kind="snapshot" if hold.side else "batch",
            reason=hold.reason,
            follows=str(hold.follows),
            held_ms=hold.held_ms,
            counts={"removed": removed, "rewritten": rewritten},
            samples=group.samples(samples) if samples else [],
            approvals=approvals,
        )


def _feed_plan(source: str, group: HeldGroup, decision: str) -> FeedPlan:
    hold = group.state().hold
    if hold is None:
        raise ZaibeiError(Code.NOT_FOUND, f"nothing is held at {source} any more. Next: zaibei hold list")
    removed, rewritten = group.would_do()
    return FeedPlan(source, hold, decision == "release", removed, rewritten)


def _missing(token: str, signed: list[str], operators: Mapping[str, bytes]) -> str:
    have = f"signed by {', '.join(signed)}" if signed else "nobody signed yet"
    others = ", ".join(sorted(set(operators) - set(signed))) or "nobody: configure operators"
    return (
        f"{APPROVALS_NEEDED} different operators must sign this plan; {have}; who can: {others}. "
        f"Nothing was done. Next: zaibei hold sign {token} --key FILE"
    )
