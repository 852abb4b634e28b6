"""Taking over registrations: plan, signatures, run; orders of the top-level node; reviews. `registration_*` of the admin channel.

As with holds, a plan is never stored to be run: it is made again from the present state each time.

    registration_plan -> token -> registration_sign, twice -> registration_run -> committed moves of the ladder
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ops.admin.values import Approval
from ops.operators.approval import judge, to_wire
from ops.operators.book import Book, Page
from replica.model.errors import Code, ZaibeiError
from replica.model.ladder import Stage
from replica.takeover.edge_runner import TakeoverRunner, boottime_ns
from replica.takeover.ladder_plan import Accepting, climb_of, token_of
from replica.takeover.orders import parse

DECISION = "registration"
REVIEW_VERSION = "zaibei takeover review 1"
Row = dict[str, Any]


class TakeoverDesk:
    """Decides for all sources of a member.

    Args:
        runners: source name -> runner, as they are now.
        operators: name -> Ed25519 public key of everyone whose signature counts.
        book: plans looked at and their approvals, shared with the desk of holds; `save` is called after every change of it.
    """

    def __init__(
        self,
        runners: Callable[[], Mapping[str, TakeoverRunner]],
        operators: Mapping[str, bytes],
        book: Book,
        save: Callable[[Book], None],
    ) -> None:
        self._runners, self._operators, self._book, self._save = runners, operators, book, save

    def plan(self, source: str, loss: int, unknown_loss: bool, break_glass: bool) -> Row:
        """Look; changes nothing but the book. Raises ZaibeiError(NOT_FOUND, MALFORMED, REFUSED)."""
        if loss < 0:
            raise ZaibeiError(Code.MALFORMED, f"a loss of {loss} changes cannot be accepted: 0 or more")
        return self._open(source, Accepting(loss, unknown_loss, break_glass))

    def plan_switchover(self, source: str) -> Row:
        """Look at a planned switchover of a living source; changes nothing but the book. Raises ZaibeiError as `plan`."""
        return self._open(source, Accepting(switchover=True))

    def _open(self, source: str, accepting: Accepting) -> Row:
        row = self._look(source, accepting)
        page = self._book.open(str(row["token"]), source, _noted(accepting), DECISION)
        self._save(self._book)
        return self._answer(row, page)

    def plan_of(self, token: str) -> Row:
        """The plan of a token. Raises ZaibeiError(NOT_FOUND, REFUSED: the world is no longer as planned)."""
        page = self._page(token)
        return self._answer(self._still(token, page), page)

    def sign(self, approval: Approval) -> Row:
        """Add an approval. Raises ZaibeiError(NOT_FOUND, REFUSED, NOT_AUTHORISED)."""
        page = self._page(approval.token)
        row = self._still(approval.token, page)
        judge(approval, str(row["text"]), self._operators)
        page.approvals[approval.operator] = approval
        self._save(self._book)
        return self._answer(row, page)

    async def run(self, source: str, token: str, reason: str) -> Row:
        """Begin what was planned. Raises ZaibeiError: as LadderDesk.run says."""
        page, runner = self._page(token), self._runner(source)
        if page.source != source:
            raise ZaibeiError(Code.CONFLICT, f"that plan is about {page.source}, not {source}. Nothing was done")
        accepting, ladder = _accepting(page.hold), runner.ladder
        assert ladder is not None
        world = runner.ladder_world(ladder, boottime_ns())
        begun = world.state.ladder
        if begun.act.endswith(f":{token}") and begun.stage is not Stage.PROPOSED:
            return {"source": source, "act": begun.act, "stage": begun.stage.name, "changed": False}
        row = self._still(token, page)
        approvals = [to_wire(page.approvals[name]) for name in self._signed(str(row["text"]), page)]
        runner.poke()
        return await ladder.run(world, accepting, token, reason, climb_of(world.state, accepting, reason, approvals))

    async def abort(self, source: str, reason: str) -> Row:
        """Give up an act before it is fenced. Raises ZaibeiError: as LadderDesk.abort says."""
        runner = self._runner(source)
        assert runner.ladder is not None
        return await runner.ladder.abort(reason)

    async def order(self, octets_hex: str) -> Row:
        """Take in an order of the top-level node. Raises ZaibeiError: as replica/takeover/orders.py says."""
        try:
            order = parse(bytes.fromhex(octets_hex))
        except ValueError:
            raise ZaibeiError(Code.MALFORMED, "an order travels as hex digits") from None
        runner = self._runner(order.source)
        assert runner.ladder is not None
        return await runner.ladder.take_order(order)

    def review_text(self, source: str, verdict: str) -> Row:
        """What a reviewer signs. Raises ZaibeiError(NOT_FOUND): no review is owed."""
        runner = self._runner(source)
        assert runner.ladder is not None
        owed = runner.ladder_world(runner.ladder, boottime_ns()).state.ladder.review
        if owed is None:
            raise ZaibeiError(Code.NOT_FOUND, f"no review is owed on {source}")
        lines = [
            REVIEW_VERSION,
            f"source {source}",
            f"act {owed.act}",
            f"by {owed.operator}: {owed.reason}",
            f"verdict {verdict}",
        ]
        text = "\n".join(lines) + "\n"
        return {"source": source, "act": owed.act, "operator": owed.operator, "text": text, "token": token_of(text)}

    async def review(self, source: str, verdict: str, approval: Approval) -> Row:
        """A second person's verdict on a break-glass act. Raises ZaibeiError(NOT_FOUND, NOT_AUTHORISED, CONFLICT)."""
        row = self.review_text(source, verdict)
        judge(approval, str(row["text"]), self._operators)
        runner = self._runner(source)
        assert runner.ladder is not None
        return await runner.ladder.review(str(row["act"]), verdict, to_wire(approval))

    def _runner(self, source: str) -> TakeoverRunner:
        runners = self._runners()
        runner = runners.get(source)
        if runner is None:
            names = ", ".join(sorted(runners)) or "none"
            raise ZaibeiError(
                Code.NOT_FOUND, f"no source {source[:80]!r} with a node of its own is in service here; there are {names}"
            )
        if runner.ladder is None:
            raise ZaibeiError(Code.REFUSED, f'{source} may not be taken over here: takeover = "never" in its [[source]]')
        return runner

    def _look(self, source: str, accepting: Accepting) -> Row:
        runner = self._runner(source)
        assert runner.ladder is not None
        return dict(runner.ladder.plan(runner.ladder_world(runner.ladder, boottime_ns()), accepting))

    def _page(self, token: str) -> Page:
        page = self._book.page(token)
        if page.decision != DECISION:
            raise ZaibeiError(Code.CONFLICT, f"{token[:32]} is a plan of something held. Next: zaibei hold sign, or hold run")
        return page

    def _still(self, token: str, page: Page) -> Row:
        row = self._look(page.source, _accepting(page.hold))
        if row["token"] != token:
            raise ZaibeiError(
                Code.REFUSED,
                f"{page.source} is not what it was when it was planned; nothing was done. "
                f"Next: zaibei takeover plan {page.source} --registration, and sign again",
            )
        return row

    def _signed(self, text: str, page: Page) -> list[str]:
        return standing_approvals(text, page, self._operators)

    def _answer(self, row: Row, page: Page) -> Row:
        return row | {"approvals": self._signed(str(row["text"]), page)}


def standing_approvals(text: str, page: Page, operators: Mapping[str, bytes]) -> list[str]:
    """Operators whose approvals still stand: configured, and of this text. Two names with one key count once."""
    names: list[str] = []
    keys: set[bytes] = set()
    for name, approval in sorted(page.approvals.items()):
        try:
            judge(approval, text, operators)
        except ZaibeiError:
            continue  # its operator left the configuration, or has another key now
        if operators[name] not in keys:
            keys.add(operators[name])
            names.append(name)
    return names


def _noted(accepting: Accepting) -> str:
    flags = (accepting.unknown_loss, accepting.break_glass, accepting.switchover)
    return " ".join([str(accepting.loss), *(str(int(flag)) for flag in flags)])


def _accepting(noted: str) -> Accepting:
    loss, unknown, glass, *switchover = noted.split(" ")  # pages of before say nothing about a switchover
    return Accepting(int(loss), unknown == "1", glass == "1", switchover == ["1"])
