"""A running member's answers about failback; part of its admin calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from ops.admin.values import Approval
from ops.operators.approval import judge, to_wire
from replica.member.copy import SourceCopy
from replica.member.failback_runner import FailbackRunner
from replica.member.member import Member
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.values import decode_record
from replica.model.identifier import DOCUMENT, key_text
from replica.model.ladder import FREEZE_MS_MAX
from replica.model.ledger import Ledger, Line
from replica.takeover.failback import Wish
from replica.takeover.failback_plan import FailbackPlan, decision_text, ledger_view, node_view, plan_of, policies_of, shown_of
from replica.takeover.ledger import stamp
from replica.v1 import entry_pb2

LINES_MAX = 500
COMMIT_S_MAX = 30.0
VALUE_SHOWN_OCTETS = 400

Row = dict[str, Any]


class MemberFailbacks:
    """Part of MemberCalls."""

    _member: Member

    def _operator_keys(self) -> Mapping[str, bytes]:
        raise ZaibeiError(Code.NOT_AUTHORISED, "no operators are configured")

    def _failing(self, source: str) -> tuple[SourceCopy, FailbackRunner]:
        copy = self._member.copies.get(source)
        if copy is None or copy.settings.peer is None:
            known = ", ".join(sorted(name for name, one in self._member.copies.items() if one.settings.peer)) or "none"
            lives = copy is not None and copy.settings.hosted
            hint = f". Next: the node it leaves for into its [[source]], beside leaves = true; zaibei tenant graduate {source}"
            raise ZaibeiError(
                Code.NOT_FOUND,
                f"{source!r} is no source with a node of its own in service here ({known} are){hint if lives else ''}",
            )
        return copy, copy.failback

    async def failback_status(self, source: str) -> list[Row]:
        names = [source] if source else [name for name, copy in self._member.copies.items() if copy.settings.peer]
        return [_status(*self._failing(name)) for name in names]

    async def failback_plan(self, source: str, wish: str, policy: str, by_prefix: dict[str, str]) -> Row:
        return self._planned(source, wish, policy, by_prefix).view()

    def _planned(self, source: str, wish: str, policy: str, by_prefix: dict[str, str]) -> FailbackPlan:
        copy, runner = self._failing(source)
        try:
            wanted = Wish(wish)
        except ValueError:
            raise ZaibeiError(Code.MALFORMED, f"{wish!r} is none of {', '.join(one.value for one in Wish)}") from None
        return plan_of(wanted, copy.store.state(), runner.node(), policies_of(policy, by_prefix))

    async def failback_run(self, source: str, wish: str, policy: str, by_prefix: dict[str, str], token: str, reason: str) -> Row:
        copy, runner = self._failing(source)
        plan = self._planned(source, wish, policy, by_prefix)
        if plan.refusal:
            raise ZaibeiError(Code.WOULD_LOSE_DATA if plan.loses else Code.REFUSED, plan.refusal)
        if plan.token != token:
            raise ZaibeiError(Code.REFUSED, f"{source} is no longer as that plan saw it. Next: zaibei failback plan {source}")
        if not copy.log.leader:
            raise ZaibeiError(
                Code.NOT_LEADER,
                f"another member leads {source} by now; nothing was done. Next: the same command again",
                retry=True,
            )
        runner.ordered(plan.order(reason))
        return _status(copy, runner)

    async def failback_lines(self, source: str, after: str, limit: int) -> list[Row]:
        copy, _ = self._failing(source)
        ledger = _ledger(copy)
        lines = await asyncio.to_thread(
            copy.store.ledger_lines, ledger.common, _ident(after) if after else b"", min(max(limit, 1), LINES_MAX)
        )
        return [line_view(line) for line in lines]

    async def failback_decision(self, source: str, lines: list[str], accept: bool, reason: str) -> Row:
        ledger = _ledger(self._failing(source)[0])
        return {"source": source, "lines": lines, "text": decision_text(source, ledger, tuple(lines), accept, reason)}

    async def failback_decide(self, source: str, lines: list[str], accept: bool, reason: str, approval: Approval) -> Row:
        copy, _ = self._failing(source)
        ledger = _ledger(copy)
        judge(approval, decision_text(source, ledger, tuple(lines), accept, reason), self._operator_keys())
        body = entry_pb2.LedgerDecision(
            common=ledger.common.to_wire(), lines=[_ident(line) for line in lines], accept=accept, reason=reason,
            approval=to_wire(approval),
        )  # fmt: skip
        entry = entry_pb2.Entry(format=1, admitted_ms=time.time_ns() // 1_000_000, ledger_decision=body)
        proposal = copy.group.propose(entry)
        try:
            async with asyncio.timeout(COMMIT_S_MAX):
                outcome = await asyncio.shield(proposal.applied)
        except TimeoutError:
            raise ZaibeiError(Code.UNKNOWN, "decided, but not applied yet: look again", definite=False) from None
        if outcome.kind not in ("applied", "already"):
            raise ZaibeiError(Code.CONFLICT, outcome.detail or str(outcome.kind))
        return {"source": source, "lines": lines, "accept": accept, "operator": approval.operator}


def _ledger(copy: SourceCopy) -> Ledger:
    ledger = copy.store.state().ledger
    if ledger is None:
        raise ZaibeiError(Code.NOT_FOUND, f"{copy.settings.name} has no ledger: it was never given back to its node")
    return ledger


def _ident(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ZaibeiError(Code.MALFORMED, f"{text[:64]!r} is not the name of a ledger line (32 hex digits)") from None


def _status(copy: SourceCopy, runner: FailbackRunner) -> Row:
    state, node = copy.store.state(), runner.node()
    stage = state.ladder.stage
    behind = None if node.follows is None else state.position.seq - node.follows.seq
    return {
        "source": state.source,
        "stage": stage.name,
        "shown": shown_of(state),
        "lives_here": state.lives_here,
        "act": state.ladder.act,
        "reason": state.ladder.reason,
        "since_ms": state.ladder.since_ms,
        "position": str(state.position),
        "node": node_view(node),
        "behind": behind,
        "ledger": ledger_view(state.ledger),
        "answers": None if runner.answers is None else runner.answers.view(),
        "ordered": runner.failback.order is not None,
        "freezes": runner.failback.freezes,
        "freeze_ms_max": FREEZE_MS_MAX,
        "failure": runner.failback.failure,
        "trouble": runner.trouble,
        "alarms": list(runner.alarms.values()),
        "leads": copy.log.leader,
    }


def line_view(line: Line) -> Row:
    """One ledger line, as JSON: both values, the class, what decided."""
    return {
        "line": line.name,
        "identifier": key_text(line.key),
        "seq": line.seq,
        "class": line.kind.name.lower(),
        "verdict": line.verdict.name.lower(),
        "by": line.by,
        "ours_written": line.written.name.lower(),
        "certain": line.certain,
        "later": line.later,
        "theirs": _value(line.key, line.theirs),
        "ours": _value(line.key, line.ours),
        "theirs_stamp": stamp(line.key, line.theirs),
        "ours_stamp": stamp(line.key, line.ours),
    }


def _value(key: bytes, octets: bytes | None) -> Row | None:
    """A value for people: its length and what it says; None: no record."""
    if octets is None:
        return None
    return {"octets": len(octets), "text": _said(key, octets)[:VALUE_SHOWN_OCTETS], "hex": octets.hex()}


def _said(key: bytes, octets: bytes) -> str:
    """`TYPE=data` of each value of an identifier's record; of anything else its octets as text."""
    try:
        values = decode_record(octets).values if key[:1] != DOCUMENT else ()
    except ProtocolFault:
        values = ()
    if not values:
        return octets[:VALUE_SHOWN_OCTETS].decode("utf-8", "replace")
    return "; ".join(f"{one.type.decode('utf-8', 'replace')}={one.data.decode('utf-8', 'replace')}" for one in values)
