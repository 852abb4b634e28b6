"""A running member's answers about orders to block; part of its admin calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ops.admin.values import Approval
from ops.operators.blocks import BlockDesk, Wish
from replica.member.member import Member
from replica.model.identifier import prefix_key

Row = dict[str, Any]


def owned_by(member: Member) -> Mapping[str, tuple[bytes, ...]]:
    """What each source owns: as committed, and of one that is not here, as configured."""
    owned = {source.name: tuple(map(prefix_key, source.prefixes)) for source in member.settings.sources}
    return owned | {name: copy.store.state().prefixes or owned.get(name, ()) for name, copy in member.copies.items()}


class MemberBlocks:
    """Part of MemberCalls."""

    _blocks: BlockDesk

    async def block_list(self, source: str) -> list[Row]:
        return self._blocks.in_force(source)

    async def block_plan(self, identifiers: list[str], prefixes: list[str], number: int, until_ms: int, reason: str) -> Row:
        return self._blocks.plan(Wish(tuple(identifiers), tuple(prefixes), number, until_ms, reason))

    async def block_lift_plan(self, order: str, reason: str) -> Row:
        return self._blocks.plan(Wish(lifts=order, reason=reason))

    async def block_plan_of(self, token: str) -> Row:
        return self._blocks.plan_of(token)

    async def block_run(self, approval: Approval) -> Row:
        return await self._blocks.run(approval)
