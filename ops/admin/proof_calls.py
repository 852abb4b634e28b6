"""Calls of the admin channel that prove something about a running member: what it serves, what was decided, what differs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import Any, Protocol


class ProofCalls(Protocol):
    """Part of AdminCalls. Each call may raise ZaibeiError."""

    async def serving_state(self, source: str, path: str) -> dict[str, Any]:
        """Write what is served for a source, signed, to a new file of this absolute path; NOT_FOUND, CONFLICT."""
        ...

    async def audit_page(self, group: str, after: int, limit: int, person: str) -> dict[str, Any]:
        """Records of a group's audit behind a number, personal words masked, and its head as this member has it; NOT_FOUND.

        `person`: only those about exactly this name, key or address; empty: all.
        """
        ...

    async def audit_reveal(self, group: str, numbers: list[int], by: str, why: str) -> dict[str, Any]:
        """These records with the personal words: an act that this member's audit keeps first. NOT_AUTHORISED: no key is here."""
        ...

    async def audit_export(self, group: str, path: str) -> dict[str, Any]:
        """Write a group's audit, sealed, to a new file of this absolute path; NOT_FOUND, CONFLICT."""
        ...

    async def difference(self, source: str) -> dict[str, Any]:
        """Which keys differ from the source's, at the newest certificate; UNKNOWN, UNREACHABLE."""
        ...

    async def comparison(self, source: str) -> dict[str, Any]:
        """What samples of the node's own answers say about ours: ppm that would differ, by cause."""
        ...

    async def copies(self) -> list[dict[str, Any]]:
        """Each copy on this member's disk: when it was read through last, and what was found."""
        ...

    async def scrub(self, source: str) -> dict[str, Any]:
        """Read a copy through next, due or not; NOT_FOUND. Goes on after the return."""
        ...


PROOF_SIGNATURES: MappingProxyType[str, tuple[Any, bool, dict[str, Any]]] = MappingProxyType(
    {
        "serving_state": (dict[str, Any], True, {"source": str, "path": str}),
        "audit_page": (dict[str, Any], False, {"group": str, "after": int, "limit": int, "person": str}),
        "audit_reveal": (dict[str, Any], True, {"group": str, "numbers": list[int], "by": str, "why": str}),
        "audit_export": (dict[str, Any], True, {"group": str, "path": str}),
        "difference": (dict[str, Any], True, {"source": str}),
        "comparison": (dict[str, Any], False, {"source": str}),
        "copies": (list[dict[str, Any]], False, {}),
        "scrub": (dict[str, Any], True, {"source": str}),
    }
)
"""Call -> type of its result, whether it may change something or take long, its parameters."""


class ProofClient(ABC):
    """The command line's end of them; part of AdminClient."""

    @abstractmethod
    def call(self, name: str, /, **params: Any) -> Any: ...

    def serving_state(self, source: str, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("serving_state", source=source, path=path)
        return answer

    def audit_page(self, group: str, after: int, limit: int, person: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("audit_page", group=group, after=after, limit=limit, person=person)
        return answer

    def audit_reveal(self, group: str, numbers: list[int], by: str, why: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("audit_reveal", group=group, numbers=numbers, by=by, why=why)
        return answer

    def audit_export(self, group: str, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("audit_export", group=group, path=path)
        return answer

    def difference(self, source: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("difference", source=source)
        return answer

    def comparison(self, source: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("comparison", source=source)
        return answer

    def copies(self) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self.call("copies")
        return answer

    def scrub(self, source: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("scrub", source=source)
        return answer


class MemoryProofs:
    """Memory twin of them, over answers it was given; part of MemoryMember."""

    proofs: dict[str, Any]

    async def serving_state(self, source: str, path: str) -> dict[str, Any]:
        return dict(self.proofs["serving_state"], source=source, path=path)

    async def audit_page(self, group: str, after: int, limit: int, person: str) -> dict[str, Any]:
        page: dict[str, Any] = self.proofs["audit_page"]
        records = page["records"][after : after + limit]
        return dict(page, group=group, records=records, last=after + len(records), closed=0)

    async def audit_reveal(self, group: str, numbers: list[int], by: str, why: str) -> dict[str, Any]:
        page: dict[str, Any] = self.proofs["audit_page"]
        return dict(page, group=group, records=[page["records"][number - 1] for number in numbers], last=0, closed=0)

    async def audit_export(self, group: str, path: str) -> dict[str, Any]:
        return dict(self.proofs["audit_export"], group=group, path=path)

    async def difference(self, source: str) -> dict[str, Any]:
        return dict(self.proofs["difference"], source=source)

    async def comparison(self, source: str) -> dict[str, Any]:
        return dict(self.proofs["comparison"], source=source)

    async def copies(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.proofs["copies"]
        return rows

    async def scrub(self, source: str) -> dict[str, Any]:
        return dict(self.proofs["scrub"], source=source)
