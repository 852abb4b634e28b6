"""Calls of the admin channel about failback: how it stands, its plan and its run, the ledger's lines and what people decide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import Any, Protocol

from ops.admin.values import Approval

Row = dict[str, Any]


class FailbackCalls(Protocol):
    """Part of AdminCalls. Each call may raise ZaibeiError."""

    async def failback_status(self, source: str) -> list[Row]:
        """One row a source, of all where `source` is empty: stage, node, ledger, what it waits for."""
        ...

    async def failback_plan(self, source: str, wish: str, policy: str, by_prefix: dict[str, str]) -> Row:
        """Look, change nothing; `wish` is "return", "abort" or "transfer"."""
        ...

    async def failback_run(self, source: str, wish: str, policy: str, by_prefix: dict[str, str], token: str, reason: str) -> Row:
        """Order what was planned; it goes on by itself. REFUSED when the world changed, WOULD_LOSE_DATA."""
        ...

    async def failback_lines(self, source: str, after: str, limit: int) -> list[Row]:
        """Lines of the newest ledger behind one (by its name; "": from the first), in the order of the source's history."""
        ...

    async def failback_decision(self, source: str, lines: list[str], accept: bool, reason: str) -> Row:
        """The text a person signs to decide about lines that wait; changes nothing."""
        ...

    async def failback_decide(self, source: str, lines: list[str], accept: bool, reason: str, approval: Approval) -> Row:
        """Commit a person's decision; NOT_AUTHORISED when it is not a configured operator's signature of that text."""
        ...


_POLICIES: dict[str, Any] = {"source": str, "wish": str, "policy": str, "by_prefix": dict[str, str]}
_LINES: dict[str, Any] = {"source": str, "lines": list[str], "accept": bool, "reason": str}
FAILBACK_SIGNATURES: MappingProxyType[str, tuple[Any, bool, dict[str, Any]]] = MappingProxyType(
    {
        "failback_status": (list[Row], False, {"source": str}),
        "failback_plan": (Row, False, _POLICIES),
        "failback_run": (Row, True, _POLICIES | {"token": str, "reason": str}),
        "failback_lines": (list[Row], False, {"source": str, "after": str, "limit": int}),
        "failback_decision": (Row, False, _LINES),
        "failback_decide": (Row, True, _LINES | {"approval": Approval}),
    }
)
"""Call -> type of its result, whether it may change something or take long, its parameters."""


class FailbackClient(ABC):
    """The command line's end of them; part of AdminClient."""

    @abstractmethod
    def call(self, name: str, /, **params: Any) -> Any: ...

    def failback_status(self, source: str = "") -> list[Row]:
        rows: list[Row] = self.call("failback_status", source=source)
        return rows

    def failback_plan(self, source: str, wish: str, policy: str, by_prefix: dict[str, str]) -> Row:
        row: Row = self.call("failback_plan", source=source, wish=wish, policy=policy, by_prefix=by_prefix)
        return row

    def failback_run(self, source: str, wish: str, policy: str, by_prefix: dict[str, str], token: str, reason: str) -> Row:
        row: Row = self.call(
            "failback_run", source=source, wish=wish, policy=policy, by_prefix=by_prefix, token=token, reason=reason
        )
        return row

    def failback_lines(self, source: str, after: str, limit: int) -> list[Row]:
        rows: list[Row] = self.call("failback_lines", source=source, after=after, limit=limit)
        return rows

    def failback_decision(self, source: str, lines: list[str], accept: bool, reason: str) -> Row:
        row: Row = self.call("failback_decision", source=source, lines=lines, accept=accept, reason=reason)
        return row

    def failback_decide(self, source: str, lines: list[str], accept: bool, reason: str, approval: Approval) -> Row:
        row: Row = self.call("failback_decide", source=source, lines=lines, accept=accept, reason=reason, approval=approval)
        return row


class MemoryFailbacks:
    """Memory twin of them, over answers it was given; part of MemoryMember."""

    failbacks: dict[str, Any]

    async def failback_status(self, source: str) -> list[Row]:
        return [row for row in self.failbacks["failback_status"] if source in ("", row["source"])]

    async def failback_plan(self, source: str, wish: str, policy: str, by_prefix: dict[str, str]) -> Row:
        return dict(self.failbacks["failback_plan"], source=source, wish=wish)

    async def failback_run(self, source: str, wish: str, policy: str, by_prefix: dict[str, str], token: str, reason: str) -> Row:
        return dict(self.failbacks["failback_run"], source=source, wish=wish, token=token)

    async def failback_lines(self, source: str, after: str, limit: int) -> list[Row]:
        return [row for row in self.failbacks["failback_lines"] if row["line"] > after][:limit]

    async def failback_decision(self, source: str, lines: list[str], accept: bool, reason: str) -> Row:
        return dict(self.failbacks["failback_decision"], lines=lines)

    async def failback_decide(self, source: str, lines: list[str], accept: bool, reason: str, approval: Approval) -> Row:
        return dict(self.failbacks["failback_decide"], lines=lines)
