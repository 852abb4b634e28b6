"""A running member's answers about taking over registrations; part of its admin calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ops.admin.values import Approval
from ops.operators.mass_plan import Scope
from ops.operators.masses import MassDesk
from ops.operators.takeovers import TakeoverDesk
from replica.member.member import Member
from replica.takeover.edge_runner import TakeoverRunner

Row = dict[str, Any]


def runners_of(member: Member) -> Mapping[str, TakeoverRunner]:
    """Runners of the sources in service here that have a node of their own."""
    return {name: copy.runner for name, copy in member.copies.items() if copy.settings.peer and name not in member.broken}


class MemberLadders:
    """Part of MemberCalls."""

    _takeovers: TakeoverDesk
    _masses: MassDesk

    async def registration_plan(self, source: str, loss: int, unknown_loss: bool, break_glass: bool) -> Row:
        return self._takeovers.plan(source, loss, unknown_loss, break_glass)

    async def switchover_plan(self, source: str) -> Row:
        return self._takeovers.plan_switchover(source)

    async def mass_plan(self, names: list[str], only_dead: bool, registration: bool, loss: int, unknown_loss: bool) -> Row:
        return self._masses.plan(names, only_dead, Scope(registration, loss, unknown_loss))

    async def mass_run(self, token: str, reason: str) -> Row:
        return await self._masses.run(token, reason)

    async def registration_plan_of(self, token: str) -> Row:
        return self._masses.plan_of(token) if self._masses.knows(token) else self._takeovers.plan_of(token)

    async def registration_sign(self, approval: Approval) -> Row:
        return self._masses.sign(approval) if self._masses.knows(approval.token) else self._takeovers.sign(approval)

    async def registration_run(self, source: str, token: str, reason: str) -> Row:
        return await self._takeovers.run(source, token, reason)

    async def registration_abort(self, source: str, reason: str) -> Row:
        return await self._takeovers.abort(source, reason)

    async def registration_order(self, order: str) -> Row:
        return await self._takeovers.order(order)

    async def registration_review_text(self, source: str, verdict: str) -> Row:
        return self._takeovers.review_text(source, verdict)

    async def registration_review(self, source: str, verdict: str, approval: Approval) -> Row:
        return await self._takeovers.review(source, verdict, approval)
