"""Calls of the admin channel about orders to block: what is in force, plans of an order and of its end, their run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import Any, Protocol

from ops.admin.values import Approval

Row = dict[str, Any]


class BlockCalls(Protocol):
    """Part of AdminCalls. Each call may raise ZaibeiError."""

    async def block_list(self, source: str) -> list[Row]:
        """Orders in force, of one source or of all where `source` is empty."""
        ...

    async def block_plan(self, identifiers: list[str], prefixes: list[str], number: int, until_ms: int, reason: str) -> Row:
        """Look at an order, change nothing."""
        ...

    async def block_lift_plan(self, order: str, reason: str) -> Row:
        """Look at lifting the order SIGNER/NUMBER, change nothing."""
        ...

    async def block_plan_of(self, token: str) -> Row:
        """The plan a token names, as long as the world is as it was planned; REFUSED once it is not."""
        ...

    async def block_run(self, approval: Approval) -> Row:
        """Carry out what was planned; NOT_AUTHORISED unless it bears the signature of somebody whose orders count."""
        ...


BLOCK_SIGNATURES: MappingProxyType[str, tuple[Any, bool, dict[str, Any]]] = MappingProxyType(
    {
        "block_list": (list[Row], False, {"source": str}),
        "block_plan": (
            Row,
            False,
            {"identifiers": list[str], "prefixes": list[str], "number": int, "until_ms": int, "reason": str},
        ),
        "block_lift_plan": (Row, False, {"order": str, "reason": str}),
        "block_plan_of": (Row, False, {"token": str}),
        "block_run": (Row, True, {"approval": Approval}),
    }
)
"""Call -> type of its result, whether it may change something or take long, its parameters."""


class BlockClient(ABC):
    """The command line's end of them; part of AdminClient."""

    @abstractmethod
    def call(self, name: str, /, **params: Any) -> Any: ...

    def block_list(self, source: str = "") -> list[Row]:
        rows: list[Row] = self.call("block_list", source=source)
        return rows

    def block_plan(self, identifiers: list[str], prefixes: list[str], number: int, until_ms: int, reason: str) -> Row:
        params = {"identifiers": identifiers, "prefixes": prefixes, "number": number, "until_ms": until_ms, "reason": reason}
        answer: Row = self.call("block_plan", **params)
        return answer

    def block_lift_plan(self, order: str, reason: str) -> Row:
        answer: Row = self.call("block_lift_plan", order=order, reason=reason)
        return answer

    def block_plan_of(self, token: str) -> Row:
        answer: Row = self.call("block_plan_of", token=token)
        return answer

    def block_run(self, approval: Approval) -> Row:
        answer: Row = self.call("block_run", approval=approval)
        return answer


class MemoryBlocks:
    """Memory twin of them, over answers it was given by name of the call; part of MemoryMember."""

    blocks: dict[str, Any]

    async def block_list(self, source: str) -> list[Row]:
        rows: list[Row] = self.blocks["block_list"]
        return rows

    async def block_plan(self, identifiers: list[str], prefixes: list[str], number: int, until_ms: int, reason: str) -> Row:
        return dict(self.blocks["block_plan"])

    async def block_lift_plan(self, order: str, reason: str) -> Row:
        return dict(self.blocks["block_lift_plan"])

    async def block_plan_of(self, token: str) -> Row:
        return dict(self.blocks["block_plan_of"])

    async def block_run(self, approval: Approval) -> Row:
        return dict(self.blocks["block_run"])
