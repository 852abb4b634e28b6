"""Calls of the admin channel about tenants: how they stand, acts about them, their documents, everything they own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import Any, Protocol

Row = dict[str, Any]


class TenantCalls(Protocol):
    """Part of AdminCalls. Each call may raise ZaibeiError; what changes something is answered where the source is led."""

    async def tenant_list(self) -> list[Row]:
        """One row a source that lives here or takes registrations here."""
        ...

    async def tenant_show(self, source: str) -> Row:
        """How it stands, and every document about it."""
        ...

    async def tenant_sites(self, source: str) -> Row:
        """The sites of its enterprises: `enterprises`, a row each with its health, and how they are probed."""
        ...

    async def tenant_plan(self, source: str, act: str, by: str, why: str, title: str, visibility: str) -> Row:
        """Look, change nothing: what an act would do, and its token."""
        ...

    async def tenant_run(self, source: str, act: str, by: str, why: str, title: str, visibility: str, token: str) -> Row:
        """Do it. REFUSED when the world changed since the plan; acts without danger need no token."""
        ...

    async def tenant_document(self, source: str, kind: str, ident: str, body: Row, by: str, why: str) -> Row:
        """Write one document; CONFLICT when somebody else wrote it meanwhile."""
        ...

    async def tenant_enterprise(
        self, source: str, prefix: str, to: str, title: str, administrators: list[str], by: str, why: str
    ) -> Row:
        """One step in the life of an enterprise's prefix."""
        ...

    async def tenant_page(self, source: str, after: str, limit: int) -> Row:
        """Everything it owns behind a key (hex; "": from the first), as stored: hex of key and value; and where it stands."""
        ...


_ACT: Row = {"source": str, "act": str, "by": str, "why": str, "title": str, "visibility": str}
_WHO: Row = {"by": str, "why": str}
TENANT_SIGNATURES: MappingProxyType[str, tuple[Any, bool, dict[str, Any]]] = MappingProxyType(
    {
        "tenant_list": (list[Row], False, {}),
        "tenant_show": (Row, False, {"source": str}),
        "tenant_sites": (Row, False, {"source": str}),
        "tenant_plan": (Row, False, _ACT),
        "tenant_run": (Row, True, _ACT | {"token": str}),
        "tenant_document": (Row, True, {"source": str, "kind": str, "ident": str, "body": Row} | _WHO),
        "tenant_enterprise": (
            Row,
            True,
            {"source": str, "prefix": str, "to": str, "title": str, "administrators": list[str]} | _WHO,
        ),
        "tenant_page": (Row, False, {"source": str, "after": str, "limit": int}),
    }
)
"""Call -> type of its result, whether it may change something or take long, its parameters."""


class TenantClient(ABC):
    """The command line's end of them; part of AdminClient."""

    @abstractmethod
    def call(self, name: str, /, **params: Any) -> Any: ...

    def tenant_list(self) -> list[Row]:
        answer: list[Row] = self.call("tenant_list")
        return answer

    def tenant_show(self, source: str) -> Row:
        answer: Row = self.call("tenant_show", source=source)
        return answer

    def tenant_sites(self, source: str) -> Row:
        answer: Row = self.call("tenant_sites", source=source)
        return answer

    def tenant_plan(self, source: str, act: str, by: str, why: str, title: str, visibility: str) -> Row:
        params = {"source": source, "act": act, "by": by, "why": why, "title": title, "visibility": visibility}
        answer: Row = self.call("tenant_plan", **params)
        return answer

    def tenant_run(self, source: str, act: str, by: str, why: str, title: str, visibility: str, token: str) -> Row:
        params = {"source": source, "act": act, "by": by, "why": why, "title": title, "visibility": visibility, "token": token}
        answer: Row = self.call("tenant_run", **params)
        return answer

    def tenant_document(self, source: str, kind: str, ident: str, body: Row, by: str, why: str) -> Row:
        answer: Row = self.call("tenant_document", source=source, kind=kind, ident=ident, body=body, by=by, why=why)
        return answer

    def tenant_enterprise(
        self, source: str, prefix: str, to: str, title: str, administrators: list[str], by: str, why: str
    ) -> Row:
        params = {"source": source, "prefix": prefix, "to": to, "title": title, "administrators": administrators}
        answer: Row = self.call("tenant_enterprise", **params, by=by, why=why)
        return answer

    def tenant_page(self, source: str, after: str, limit: int) -> Row:
        answer: Row = self.call("tenant_page", source=source, after=after, limit=limit)
        return answer


class MemoryTenants:
    """Memory twin of them, over answers it was given by name of the call; part of MemoryMember."""

    tenants: dict[str, Any]

    async def tenant_list(self) -> list[Row]:
        rows: list[Row] = self.tenants["tenant_list"]
        return rows

    async def tenant_show(self, source: str) -> Row:
        return dict(self.tenants["tenant_show"], source=source)

    async def tenant_sites(self, source: str) -> Row:
        return dict(self.tenants["tenant_sites"], source=source)

    async def tenant_plan(self, source: str, act: str, by: str, why: str, title: str, visibility: str) -> Row:
        return dict(self.tenants["tenant_plan"], source=source, act=act)

    async def tenant_run(self, source: str, act: str, by: str, why: str, title: str, visibility: str, token: str) -> Row:
        return dict(self.tenants["tenant_run"], source=source, act=act, token=token)

    async def tenant_document(self, source: str, kind: str, ident: str, body: Row, by: str, why: str) -> Row:
        return dict(self.tenants["tenant_document"], source=source, kind=kind, ident=ident)

    async def tenant_enterprise(
        self, source: str, prefix: str, to: str, title: str, administrators: list[str], by: str, why: str
    ) -> Row:
        return dict(self.tenants["tenant_enterprise"], source=source, prefix=prefix, to=to)

    async def tenant_page(self, source: str, after: str, limit: int) -> Row:
        return dict(self.tenants["tenant_page"], source=source)
