"""A mass takeover as one act: planned over many sources, signed once, run at each, and told source by source (SEMANTICS 9).

The act's name is its token: a source that was begun by it is recognised by its own committed state, so running the token again
goes on where something is left to do and does nothing twice. Unlike plans about one source, the text is kept in the book: what
was begun has changed meanwhile. No atomicity over sources is promised: each outcome is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ops.admin.values import Approval
from ops.operators.approval import judge, to_wire
from ops.operators.book import Book, Page
from ops.operators.mass_plan import Scope, Seen, line_of, lines_in, planned
from ops.operators.takeovers import standing_approvals
from replica.model.errors import Code, ZaibeiError
from replica.model.ladder import Fence
from replica.model.ladder_rules import not_enough
from replica.takeover.detector import Verdict
from replica.takeover.edge_runner import TakeoverRunner, boottime_ns
from replica.takeover.ladder_plan import MassPlan, refusal, token_of

DECISION = "mass"
NOT_HERE = "this member does not lead it, and whoever does was not heard: zaibei cluster status"
Row = dict[str, Any]


class MassDesk:
    """Decides for all sources of a member. Arguments as of TakeoverDesk."""

    def __init__(
        self,
        runners: Callable[[], Mapping[str, TakeoverRunner]],
        operators: Mapping[str, bytes],
        book: Book,
        save: Callable[[Book], None],
    ) -> None:
        self._runners, self._operators, self._book, self._save = runners, operators, book, save

    def knows(self, token: str) -> bool:
        """The token is one of a mass takeover."""
        page = self._book.pages.get(token)
        return page is not None and page.decision == DECISION

    def plan(self, names: Sequence[str], only_dead: bool, scope: Scope) -> Row:
        """Look; changes nothing but the book.

        Args:
            names: of sources; none: every one here. only_dead: of these, those that the detector finds dead.
        Raises:
            ZaibeiError: NOT_FOUND (a name), MALFORMED (no source is left, or too many).
        """
        if scope.loss < 0:
            raise ZaibeiError(Code.MALFORMED, f"a loss of {scope.loss} changes cannot be accepted: 0 or more")
        runners = self._runners()
        if unknown := sorted(set(names) - set(runners)):
            there = ", ".join(sorted(runners)) or "none"
            raise ZaibeiError(Code.NOT_FOUND, f"no source {', '.join(unknown)[:200]} is in service here; there are {there}")
        seen = [_look(runners[name], scope) for name in sorted(set(names) or runners)]
        if only_dead:
            seen = [one for one in seen if one.verdict == Verdict.DEAD]
        if not any(not one.refusal for one in seen):
            why = "; ".join(f"{one.source}: {one.refusal}" for one in seen[:5]) or "none is found dead"
            raise ZaibeiError(Code.REFUSED, f"there is nothing to take over: {why}")
        text = planned(seen, scope)
        page = self._book.open(token_of(text), "", f"{_noted(scope)}\n{text}", DECISION)
        self._save(self._book)
        return self._answer(page, seen)

    def plan_of(self, token: str) -> Row:
        """The plan of a token, and its sources as they are now. Raises ZaibeiError(NOT_FOUND)."""
        page = self._page(token)
        return self._answer(page, self._seen(page))

    def sign(self, approval: Approval) -> Row:
        """Add an approval of the whole. Raises ZaibeiError(NOT_FOUND, NOT_AUTHORISED)."""
        page = self._page(approval.token)
        judge(approval, _text(page), self._operators)
        page.approvals[approval.operator] = approval
        self._save(self._book)
        return self.plan_of(approval.token)

    async def run(self, token: str, reason: str) -> Row:
        """Carry it out at every source that is as it was planned; again: only what is left.

        Returns:
            One outcome a source: done, done_before, refused, unknown; refused and unknown ones name the reason.
        Raises:
            ZaibeiError: NOT_FOUND (the token); NOT_AUTHORISED (registrations, and not signed by two): nothing was done.
        """
        page = self._page(token)
        text, scope = _text(page), _scope(page)
        names = standing_approvals(text, page, self._operators)
        if scope.registration and (why := not_enough(Fence.NONE, len(names), frozenset(), automatic=False)):
            raise ZaibeiError(Code.NOT_AUTHORISED, f"{why}. Nothing was done. Next: zaibei takeover sign {token} --key FILE")
        approvals = tuple(to_wire(page.approvals[name]) for name in names)

        async def one(source: str, line: str) -> Row:
            runner = self._runners().get(source)
            if runner is None:
                return {"source": source, "outcome": "refused", "stage": "", "why": "it is not in service here"}
            try:
                if not scope.registration:
                    done = await runner.take(token, reason, lambda: _unchanged(runner, line, scope))
                elif runner.ladder is None:
                    raise ZaibeiError(Code.REFUSED, f'{source} may not be taken over: takeover = "never"')
                else:
                    runner.poke()
                    world = runner.ladder_world(runner.ladder, boottime_ns())
                    plan = MassPlan(text, token, approvals)
                    done = await runner.ladder.run_mass(
                        world, scope.accepting, plan, reason, lambda: _unchanged(runner, line, scope)
                    )
            except ZaibeiError as exc:
                word = "unknown" if exc.code is Code.UNKNOWN else "refused"
                return {"source": source, "outcome": word, "stage": "", "why": exc.trouble.message}
            word = "done" if done["changed"] else "done_before"
            return {"source": source, "outcome": word, "stage": str(done.get("stage", "")), "why": ""}

        rows = await asyncio.gather(*(one(source, line) for source, line in lines_in(text).items()))
        counts = {word: sum(row["outcome"] == word for row in rows) for word in ("done", "done_before", "refused", "unknown")}
        return {"token": token, "registration": scope.registration, "sources": list(rows), **counts}

    def _page(self, token: str) -> Page:
        page = self._book.page(token)
        if page.decision != DECISION:
            raise ZaibeiError(Code.CONFLICT, f"{token[:32]} is a plan about one source, not a mass takeover")
        return page

    def _seen(self, page: Page) -> list[Seen]:
        runners, scope = self._runners(), _scope(page)
        return [_look(runners[name], scope) for name in lines_in(_text(page)) if name in runners]

    def _answer(self, page: Page, seen: Sequence[Seen]) -> Row:
        text, scope = _text(page), _scope(page)
        names = standing_approvals(text, page, self._operators)
        lacks = not_enough(Fence.NONE, len(names), frozenset(), automatic=False) if scope.registration else ""
        return {
            "mass": True,
            "text": text,
            "token": token_of(text),
            "registration": scope.registration,
            "accepts_loss": scope.loss,
            "accepts_unknown_loss": scope.unknown_loss,
            "approvals": names,
            "lacks": lacks,
            "sources": [one.view() for one in seen],
        }


def _look(runner: TakeoverRunner, scope: Scope) -> Seen:
    """What is committed alone decides whether it is in the act, so that every member makes the same text of the same names."""
    now_ns = boottime_ns()
    world, ladder = runner.world(now_ns), runner.ladder
    state, behind, hint = world.state, None, ""
    if not scope.registration:
        why_not = runner.plan("takeover").refusal
    elif ladder is None:
        why_not = 'takeover = "never" in its [[source]]'
    else:
        present = runner.ladder_world(ladder, now_ns)
        behind, why_not = present.behind, refusal(state, 0, scope.accepting)
        hint = str(ladder.plan(present, scope.accepting)["refusal"])
    hint = NOT_HERE if not world.leads else hint
    return Seen(state.source, world.verdict.value, world.age_ms, state.records, behind, line_of(state, scope), why_not, hint)


def _unchanged(runner: TakeoverRunner, line: str, scope: Scope) -> None:
    """Raises ZaibeiError(REFUSED): the source is not what it was when it was planned."""
    state = runner.world(boottime_ns()).state
    if line_of(state, scope) != line:
        raise ZaibeiError(Code.REFUSED, f"{state.source} is not what it was when it was planned: plan it anew")


def _noted(scope: Scope) -> str:
    return f"{int(scope.registration)} {scope.loss} {int(scope.unknown_loss)}"


def _scope(page: Page) -> Scope:
    registration, loss, unknown = page.hold.partition("\n")[0].split(" ")
    return Scope(registration == "1", int(loss), unknown == "1")


def _text(page: Page) -> str:
    return page.hold.partition("\n")[2]
