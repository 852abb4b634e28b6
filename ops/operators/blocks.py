"""Orders to block an identifier or a prefix, and to lift one: plan, signature, run. The `block_*` calls of the admin channel.

As with holds, a plan is never stored to be run: it is made again from the present state, so a token that no longer matches means
that the world changed, and then nothing is done. An order goes into every group that could answer for what it names, as one entry
each; over several groups no atomicity is promised, and running the plan again carries out what is missing.

    block_plan | block_lift_plan -> token -> block_run with one signature -> a committed Block in each group
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from ops.admin.values import Approval
from ops.operators.approval import judge, to_wire, token_of
from ops.operators.book import Book, Page
from replica.model.block_rules import octets_of
from replica.model.blocks import ORDER_TARGETS_MAX, REASON_CHARS_MAX, VALID_MS_MAX, BlockOrder, time_text
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import Identifier, PrefixTree, parent, prefix_key
from replica.model.outcome import Outcome, OutcomeKind
from replica.v1 import entry_pb2

DECISION = "block"
VERSION = "zaibei block order 1"
NUMBER_MAX = 2**53 - 1  # numbers travel as JSON
Row = dict[str, Any]


class BlockGroup(Protocol):
    """What the desk needs of one source's group; the composition gives it."""

    def state(self) -> GroupState: ...

    async def carry_out(self, entry: entry_pb2.Entry) -> Outcome:
        """Propose the entry and wait until it is applied. Raises ZaibeiError (UNREACHABLE: not led here, BUSY, STOPPING...)."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants ordered. `lifts`: the order SIGNER/NUMBER to lift; then only `reason` counts beside it."""

    identifiers: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    number: int = 0
    until_ms: int = 0
    reason: str = ""
    lifts: str = ""


_read_wish = msgspec.json.Decoder(Wish).decode


def check(wish: Wish, now_ms: int) -> None:
    """Raises ZaibeiError(MALFORMED, REFUSED): says what is wrong with a wish, whatever the world is like."""
    if not len(wish.reason.strip()) >= 1 or len(wish.reason) > REASON_CHARS_MAX or not wish.reason.isprintable():
        raise ZaibeiError(Code.MALFORMED, f"a reason is one line of 1 to {REASON_CHARS_MAX} characters")
    if wish.lifts:
        return
    named = len(wish.identifiers) + len(wish.prefixes)
    if not 1 <= named <= ORDER_TARGETS_MAX:
        raise ZaibeiError(
            Code.MALFORMED,
            f"an order names 1 to {ORDER_TARGETS_MAX} of --identifier and --prefix together, not {named}",
        )
    if bad := next((one for one in (*wish.identifiers, *wish.prefixes) if not one.isprintable()), None):
        raise ZaibeiError(Code.MALFORMED, f"{bad[:80]!r} has characters that nobody could read before signing")
    octets_of(wish.identifiers, wish.prefixes, ())
    if not 1 <= wish.number <= NUMBER_MAX:
        raise ZaibeiError(Code.MALFORMED, f"an order has a number of 1 to {NUMBER_MAX}, higher than any before of the same key")
    if wish.until_ms <= now_ms:
        raise ZaibeiError(Code.REFUSED, f"the deadline {time_text(wish.until_ms)} is past: an order ends after it began")
    if wish.until_ms - now_ms > VALID_MS_MAX:
        raise ZaibeiError(Code.REFUSED, f"an order lasts {VALID_MS_MAX // 86_400_000} days at most: give an earlier --until")


def groups_for(wish: Wish, states: Mapping[str, GroupState], owned: Mapping[str, tuple[bytes, ...]]) -> list[str]:
    """Sources that could answer for what a wish names.

    The one that owns it; of a prefix also those that own something below it, and the owner of its parent, which has its `0.NA/`
    record. An order is lifted wherever it is.

    Raises:
        ZaibeiError(NOT_OWNER): nobody here would answer for it. ZaibeiError(NOT_FOUND): no such order is in force.
    """
    if wish.lifts:
        found = {name for name, state in states.items() if any(one.ident == wish.lifts for one in state.blocks)}
        if not found:
            raise ZaibeiError(Code.NOT_FOUND, f"no order {wish.lifts[:80]!r} here. Next: zaibei block list")
        return sorted(found)
    tree = PrefixTree({prefix: source for source, prefixes in owned.items() for prefix in prefixes})
    asked: set[str] = set()
    for text in wish.identifiers:
        name = Identifier.parse(text)
        asked |= _asked(tree, text, (parent(name.prefix), name.prefix) if name.route else (name.prefix,))
    for text in wish.prefixes:
        key = prefix_key(text)
        below = {source for prefix, source in tree.items() if prefix.startswith(key + b"\x01")}
        asked |= below | _asked(tree, text, (key, parent(key)), needed=not below)
    return sorted(asked)


def _asked(tree: PrefixTree[str], text: str, places: tuple[bytes, ...], *, needed: bool = True) -> set[str]:
    found = {owner[1] for place in places if place and (owner := tree.longest(place)) is not None}
    if needed and not found:
        raise ZaibeiError(Code.NOT_OWNER, f"no source here answers for {text[:80]!r}: it is answered 301 already")
    return found


def plan_text(wish: Wish, sources: list[str]) -> str:
    """The canonical text that is signed: these lines, in this order, each ended by a newline."""
    lines = [VERSION, f"act {'lift' if wish.lifts else 'block'}"]
    if wish.lifts:
        lines.append(f"order {wish.lifts}")
    else:
        lines.append(f"number {wish.number}")
        lines += [f"identifier {one}" for one in wish.identifiers]
        lines += [f"prefix {one}" for one in wish.prefixes]
        lines.append(f"until {time_text(wish.until_ms)} = {wish.until_ms} ms")
    return "\n".join([*lines, f"reason {wish.reason}", f"groups {' '.join(sources)}"]) + "\n"


class BlockDesk:
    """Decides for all sources of a member.

    Args:
        groups: source name -> group, as they are now; owned: source name -> prefixes, in service here or not.
        signers: name -> Ed25519 public key of everyone whose orders count: operators, and top-level nodes.
        book: plans looked at, shared with the desk of holds; `save` is called after every change of it.
        now_ms: Unix milliseconds.
    """

    def __init__(
        self,
        groups: Callable[[], Mapping[str, BlockGroup]],
        owned: Callable[[], Mapping[str, tuple[bytes, ...]]],
        signers: Mapping[str, bytes],
        book: Book,
        save: Callable[[Book], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._groups, self._owned, self._signers = groups, owned, signers
        self._book, self._save, self._now_ms = book, save, now_ms

    def in_force(self, source: str = "") -> list[Row]:
        """Orders in force, the ones that end first before others. Raises ZaibeiError(NOT_FOUND)."""
        groups, now_ms = self._groups(), self._now_ms()
        if source and source not in groups:
            raise ZaibeiError(Code.NOT_FOUND, f"no source {source[:80]!r} here; there are: {', '.join(sorted(groups)) or 'none'}")
        found: dict[tuple[str, str], tuple[BlockOrder, list[str]]] = {}
        for name, group in sorted(groups.items()):
            for order in group.state().blocks:
                if source in ("", name) and order.until_ms > now_ms:
                    found.setdefault((order.ident, order.key), (order, []))[1].append(name)
        rows = [_row(order, sources) for order, sources in found.values()]
        return sorted(rows, key=lambda row: (row["until_ms"], row["order"]))

    def plan(self, wish: Wish) -> Row:
        """Look; changes nothing but the book. Raises ZaibeiError(MALFORMED, REFUSED, NOT_OWNER, NOT_FOUND)."""
        row = self._look(wish)
        self._book.open(row["token"], " ".join(row["sources"]), msgspec.json.encode(wish).decode(), DECISION)
        self._save(self._book)
        return row

    def plan_of(self, token: str) -> Row:
        """The plan of a token. Raises ZaibeiError(NOT_FOUND, REFUSED: the world is no longer as planned)."""
        return self._still(token)[1]

    async def run(self, approval: Approval) -> Row:
        """Carry out a plan that one signer approved; a plan that was run already is ALREADY where it is in force.

        Raises:
            ZaibeiError(NOT_AUTHORISED): not a signature of that plan by somebody who may order. REFUSED: the world changed.
            ZaibeiError(UNKNOWN): the outcome is not known. UNREACHABLE, CONFLICT: says where it was carried out, and where not.
        """
        wish, row = self._still(approval.token)
        judge(approval, row["text"], self._signers)
        body = entry_pb2.Block(
            number=wish.number,
            identifiers=wish.identifiers,
            prefixes=wish.prefixes,
            until_ms=wish.until_ms,
            decided_ms=self._now_ms(),
            reason=wish.reason,
            lifted=bool(wish.lifts),
            order=wish.lifts,
            plan=row["text"],
            approval=to_wire(approval),
        )
        done: list[str] = []
        for source in row["sources"]:
            await self._carry_out(source, body, done)
        order = wish.lifts or f"{approval.operator}/{wish.number}"
        return {"order": order, "act": row["act"], "sources": done, "until_ms": wish.until_ms, "token": approval.token}

    async def _carry_out(self, source: str, body: entry_pb2.Block, done: list[str]) -> None:
        entry = entry_pb2.Entry(format=1, admitted_ms=body.decided_ms, block=body)
        so_far = f"; carried out in {', '.join(done)}: run it again for the rest" if done else "; nothing was done"
        try:
            group = self._groups().get(source)
            if group is None:
                raise ZaibeiError(Code.UNREACHABLE, f"{source} is not in service at this member. Next: the same where it is")
            outcome = await group.carry_out(entry)
        except ZaibeiError as exc:
            trouble = exc.trouble
            raise ZaibeiError(
                trouble.code, f"{source}: {trouble.message}{so_far}", definite=trouble.definite, retry=trouble.retry
            ) from exc
        if outcome.kind is OutcomeKind.UNKNOWN:
            raise ZaibeiError(Code.UNKNOWN, f"{source}: stopped before it was known to be committed{so_far}", definite=False)
        if outcome.kind not in (OutcomeKind.APPLIED, OutcomeKind.ALREADY):
            raise ZaibeiError(Code.CONFLICT, f"{source}: {outcome.detail or outcome.kind}{so_far}")
        done.append(source)

    def _look(self, wish: Wish) -> Row:
        check(wish, self._now_ms())
        states = {name: group.state() for name, group in self._groups().items()}
        sources = groups_for(wish, states, self._owned())
        text = plan_text(wish, sources)
        act = "lift" if wish.lifts else "block"
        return {"token": token_of(text), "text": text, "act": act, "sources": sources, "signers": sorted(self._signers)}

    def _still(self, token: str) -> tuple[Wish, Row]:
        page = self._page(token)
        wish = _read_wish(page.hold)
        row = self._look(wish)
        if row["token"] != token:
            raise ZaibeiError(
                Code.REFUSED, "other sources would answer for it than when it was planned; nothing was done. Next: plan it again"
            )
        return wish, row

    def _page(self, token: str) -> Page:
        page = self._book.pages.get(token)
        if page is None or page.decision != DECISION:
            raise ZaibeiError(Code.NOT_FOUND, f"no plan {token[:32]!r} of an order here. Next: zaibei block plan, or block lift")
        return page


def _row(order: BlockOrder, sources: list[str]) -> Row:
    return {
        "order": order.ident,
        "number": order.number,
        "signer": order.signer,
        "key_id": order.key,
        "identifiers": list(order.identifiers),
        "prefixes": list(order.prefixes),
        "sources": sources,
        "since_ms": order.since_ms,
        "until_ms": order.until_ms,
        "reason": order.reason,
    }
