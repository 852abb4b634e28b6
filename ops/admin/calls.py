"""Every call of the admin channel: the port the composition implements, and the table both ends work from."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from ops.admin.block_calls import BLOCK_SIGNATURES, BlockCalls
from ops.admin.cluster_calls import CLUSTER_SIGNATURES
from ops.admin.failback_calls import FAILBACK_SIGNATURES, FailbackCalls
from ops.admin.ladder_calls import LADDER_SIGNATURES, LadderCalls
from ops.admin.move_calls import MOVE_SIGNATURES, MoveCalls
from ops.admin.proof_calls import PROOF_SIGNATURES, ProofCalls
from ops.admin.tenant_calls import TENANT_SIGNATURES, TenantCalls
from ops.admin.values import (
    Approval,
    Held,
    HoldDone,
    HoldPlan,
    Readiness,
    ReseedDone,
    ReseedPlan,
    Sample,
    SourceStatus,
    Status,
    Stopping,
)

READ_TIMEOUT_S = 10.0
CHANGE_TIMEOUT_S = 60.0


class AdminCalls(ProofCalls, FailbackCalls, LadderCalls, TenantCalls, BlockCalls, MoveCalls, Protocol):
    """What a running member does for its operator. Each call may raise ZaibeiError; its code becomes the exit code."""

    async def status(self) -> Status: ...

    async def sources(self) -> list[SourceStatus]: ...

    async def readiness(self, source: str) -> list[Readiness]:
        """Checks of one source, or of all where `source` is empty."""
        ...

    async def metrics(self, prefix: str) -> list[Sample]:
        """Values whose name begins with `prefix`."""
        ...

    async def stop(self) -> Stopping:
        """Begin to stop; the answer leaves before the socket closes."""
        ...

    async def holds(self, source: str) -> list[Held]:
        """Everything held, of one source or of all where `source` is empty."""
        ...

    async def hold_show(self, hold: str) -> Held: ...

    async def hold_plan(self, hold: str, decision: str) -> HoldPlan: ...

    async def hold_plan_of(self, token: str) -> HoldPlan:
        """The plan a token names, as long as the world is as it was planned; REFUSED once it is not."""
        ...

    async def hold_sign(self, approval: Approval) -> HoldPlan:
        """Add one operator's approval; NOT_AUTHORISED when it is not a configured operator's signature of that plan."""
        ...

    async def hold_run(self, token: str) -> HoldDone:
        """Commit the decision; NOT_AUTHORISED until two different operators signed, REFUSED when the world changed."""
        ...

    async def reseed_plan(self, source: str) -> ReseedPlan:
        """Look, change nothing; REFUSED while the source is in service."""
        ...

    async def reseed_run(self, token: str) -> ReseedDone:
        """Move the damaged store aside and begin to load anew; REFUSED when the world changed since the plan."""
        ...

    async def grant_plan(self, source: str) -> dict[str, Any]:
        """Look, change nothing; REFUSED unless the source's feed is FORKED or FENCED."""
        ...

    async def grant_run(self, source: str, token: str, reason: str) -> dict[str, Any]:
        """Grant a new epoch at the source's head; REFUSED when the world changed since the plan."""
        ...

    async def takeover_status(self, source: str) -> list[dict[str, Any]]:
        """One row a source, of all where `source` is empty; rows as replica/takeover makes them."""
        ...

    async def takeover_plan(self, source: str, action: str) -> dict[str, Any]:
        """Look, change nothing; `action` is "takeover" or "withdraw"."""
        ...

    async def takeover_run(self, source: str, action: str, token: str, reason: str) -> dict[str, Any]: ...

    async def takeover_rehearse(self, source: str) -> dict[str, Any]:
        """Publish and withdraw a shadow prefix."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its parameters by name, the type of its result, its time limit, whether it may change something."""

    parameters: MappingProxyType[str, Any]
    result: Any
    changes: bool = False

    @property
    def timeout_s(self) -> float:
        return CHANGE_TIMEOUT_S if self.changes else READ_TIMEOUT_S


def _call(result: Any, *, changes: bool = False, **parameters: Any) -> Call:
    return Call(MappingProxyType(parameters), result, changes)


CALLS: MappingProxyType[str, Call] = MappingProxyType(
    {
        "status": _call(Status),
        "sources": _call(list[SourceStatus]),
        "readiness": _call(list[Readiness], source=str),
        "metrics": _call(list[Sample], prefix=str),
        "stop": _call(Stopping, changes=True),
        "holds": _call(list[Held], source=str),
        "hold_show": _call(Held, hold=str),
        "hold_plan": _call(HoldPlan, hold=str, decision=str),
        "hold_plan_of": _call(HoldPlan, token=str),
        "hold_sign": _call(HoldPlan, approval=Approval, changes=True),
        "hold_run": _call(HoldDone, token=str, changes=True),
        "reseed_plan": _call(ReseedPlan, source=str),
        "reseed_run": _call(ReseedDone, token=str, changes=True),
        "grant_plan": _call(dict[str, Any], source=str),
        "grant_run": _call(dict[str, Any], changes=True, source=str, token=str, reason=str),
        "takeover_status": _call(list[dict[str, Any]], source=str),
        "takeover_plan": _call(dict[str, Any], source=str, action=str),
        "takeover_run": _call(dict[str, Any], changes=True, source=str, action=str, token=str, reason=str),
        "takeover_rehearse": _call(dict[str, Any], changes=True, source=str),
        **{
            name: Call(MappingProxyType(parameters), result, changes)
            for name, (result, changes, parameters) in (
                CLUSTER_SIGNATURES
                | PROOF_SIGNATURES
                | FAILBACK_SIGNATURES
                | LADDER_SIGNATURES
                | TENANT_SIGNATURES
                | BLOCK_SIGNATURES
                | MOVE_SIGNATURES
            ).items()
        },
    }
)
