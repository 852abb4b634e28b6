"""Calls of the admin channel about taking over registrations: plan, signatures, run, abort, orders, reviews."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import Any, Protocol

from ops.admin.values import Approval

Row = dict[str, Any]


class LadderCalls(Protocol):
    """Part of AdminCalls. Each call may raise ZaibeiError."""

    async def registration_plan(self, source: str, loss: int, unknown_loss: bool, break_glass: bool) -> Row:
        """Look, change nothing; `loss`: changes whose loss is accepted, `unknown_loss`: and one nobody can count."""
        ...

    async def switchover_plan(self, source: str) -> Row:
        """Look at a planned switchover of a living source; signed and run as every plan about registrations."""
        ...

    async def mass_plan(self, names: list[str], only_dead: bool, registration: bool, loss: int, unknown_loss: bool) -> Row:
        """Look at a mass takeover: of the sources named, or of all; its token is signed as every plan about registrations."""
        ...

    async def mass_run(self, token: str, reason: str) -> Row:
        """Carry it out at each source; one outcome a source. Again: only what is left."""
        ...

    async def registration_plan_of(self, token: str) -> Row:
        """The plan a token names, as long as the world is as it was planned; REFUSED once it is not."""
        ...

    async def registration_sign(self, approval: Approval) -> Row:
        """Add one operator's approval; NOT_AUTHORISED when it is not a configured operator's signature of that plan."""
        ...

    async def registration_run(self, source: str, token: str, reason: str) -> Row:
        """Begin it; it goes on by itself. NOT_AUTHORISED until enough approved, REFUSED when the world changed."""
        ...

    async def registration_abort(self, source: str, reason: str) -> Row:
        """Give up an act before it is fenced; REFUSED afterwards."""
        ...

    async def registration_order(self, order: str) -> Row:
        """Take in a signed order of the top-level node: hex digits of its octets."""
        ...

    async def registration_review_text(self, source: str, verdict: str) -> Row:
        """The text a second person signs about a break-glass act; changes nothing."""
        ...

    async def registration_review(self, source: str, verdict: str, approval: Approval) -> Row: ...


_PLAN: dict[str, Any] = {"source": str, "loss": int, "unknown_loss": bool, "break_glass": bool}
_MASS: dict[str, Any] = {"names": list[str], "only_dead": bool, "registration": bool, "loss": int, "unknown_loss": bool}
LADDER_SIGNATURES: MappingProxyType[str, tuple[Any, bool, dict[str, Any]]] = MappingProxyType(
    {
        "registration_plan": (Row, False, _PLAN),
        "switchover_plan": (Row, False, {"source": str}),
        "mass_plan": (Row, False, _MASS),
        "mass_run": (Row, True, {"token": str, "reason": str}),
        "registration_plan_of": (Row, False, {"token": str}),
        "registration_sign": (Row, True, {"approval": Approval}),
        "registration_run": (Row, True, {"source": str, "token": str, "reason": str}),
        "registration_abort": (Row, True, {"source": str, "reason": str}),
        "registration_order": (Row, True, {"order": str}),
        "registration_review_text": (Row, False, {"source": str, "verdict": str}),
        "registration_review": (Row, True, {"source": str, "verdict": str, "approval": Approval}),
    }
)
"""Call -> type of its result, whether it may change something or take long, its parameters."""


class LadderClient(ABC):
    """The command line's end of them; part of AdminClient."""

    @abstractmethod
    def call(self, name: str, /, **params: Any) -> Any: ...

    def registration_plan(self, source: str, loss: int = 0, unknown_loss: bool = False, break_glass: bool = False) -> Row:
        answer: Row = self.call("registration_plan", source=source, loss=loss, unknown_loss=unknown_loss, break_glass=break_glass)
        return answer

    def switchover_plan(self, source: str) -> Row:
        answer: Row = self.call("switchover_plan", source=source)
        return answer

    def mass_plan(self, names: list[str], only_dead: bool, registration: bool, loss: int, unknown_loss: bool) -> Row:
        parameters = {"names": names, "only_dead": only_dead, "registration": registration}
        answer: Row = self.call("mass_plan", **parameters, loss=loss, unknown_loss=unknown_loss)
        return answer

    def mass_run(self, token: str, reason: str) -> Row:
        answer: Row = self.call("mass_run", token=token, reason=reason)
        return answer

    def registration_plan_of(self, token: str) -> Row:
        answer: Row = self.call("registration_plan_of", token=token)
        return answer

    def registration_sign(self, approval: Approval) -> Row:
        answer: Row = self.call("registration_sign", approval=approval)
        return answer

    def registration_run(self, source: str, token: str, reason: str) -> Row:
        answer: Row = self.call("registration_run", source=source, token=token, reason=reason)
        return answer

    def registration_abort(self, source: str, reason: str) -> Row:
        answer: Row = self.call("registration_abort", source=source, reason=reason)
        return answer

    def registration_order(self, order: str) -> Row:
        answer: Row = self.call("registration_order", order=order)
        return answer

    def registration_review_text(self, source: str, verdict: str) -> Row:
        answer: Row = self.call("registration_review_text", source=source, verdict=verdict)
        return answer

    def registration_review(self, source: str, verdict: str, approval: Approval) -> Row:
        answer: Row = self.call("registration_review", source=source, verdict=verdict, approval=approval)
        return answer


class MemoryLadders:
    """Part of the memory twin: answers by name of the call, as a test put them."""

    ladders: dict[str, Any]

    async def _said(self, call: str) -> Row:
        answer = self.ladders[call]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    async def registration_plan(self, source: str, loss: int, unknown_loss: bool, break_glass: bool) -> Row:
        return await self._said("registration_plan")

    async def switchover_plan(self, source: str) -> Row:
        return await self._said("switchover_plan")

    async def mass_plan(self, names: list[str], only_dead: bool, registration: bool, loss: int, unknown_loss: bool) -> Row:
        return await self._said("mass_plan")

    async def mass_run(self, token: str, reason: str) -> Row:
        return await self._said("mass_run")

    async def registration_plan_of(self, token: str) -> Row:
        return await self._said("registration_plan_of")

    async def registration_sign(self, approval: Approval) -> Row:
        return await self._said("registration_sign")

    async def registration_run(self, source: str, token: str, reason: str) -> Row:
        return await self._said("registration_run")

    async def registration_abort(self, source: str, reason: str) -> Row:
        return await self._said("registration_abort")

    async def registration_order(self, order: str) -> Row:
        return await self._said("registration_order")

    async def registration_review_text(self, source: str, verdict: str) -> Row:
        return await self._said("registration_review_text")

    async def registration_review(self, source: str, verdict: str, approval: Approval) -> Row:
        return await self._said("registration_review")
