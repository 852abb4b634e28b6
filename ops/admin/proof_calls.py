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


PROOF_SIGNATURES: MappingProxyType[str, tuple[Any, bool, dict[str, Any]]] = MappingProxyType(
    {
        "serving_state": (dict[str, Any], True, {"source": str, "path": str}),
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


class MemoryProofs:
    """Memory twin of them, over answers it was given; part of MemoryMember."""

    proofs: dict[str, Any]

    async def serving_state(self, source: str, path: str) -> dict[str, Any]:
        return dict(self.proofs["serving_state"], source=source, path=path)
