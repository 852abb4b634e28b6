"""Memory twin of a running member: AdminCalls over plain values, for tests of the channel and of commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ops.admin.block_calls import MemoryBlocks
from ops.admin.failback_calls import MemoryFailbacks
from ops.admin.ladder_calls import MemoryLadders
from ops.admin.move_calls import MemoryMoves
from ops.admin.proof_calls import MemoryProofs
from ops.admin.tenant_calls import MemoryTenants
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
from ops.operators.holds import HoldDesk
from replica.model.errors import Code, ZaibeiError


@dataclass(slots=True)
class MemoryMember(MemoryProofs, MemoryFailbacks, MemoryLadders, MemoryTenants, MemoryBlocks, MemoryMoves):
    """Answers from what it was given. `takeover` maps (call, source) to an answer."""

    state: Status
    desk: HoldDesk
    checks: list[Readiness] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    takeover: dict[tuple[str, str], Any] = field(default_factory=dict)
    reseeds: dict[str, ReseedPlan] = field(default_factory=dict)
    grants: dict[str, dict[str, Any]] = field(default_factory=dict)
    proofs: dict[str, Any] = field(default_factory=dict)
    ladders: dict[str, Any] = field(default_factory=dict)
    failbacks: dict[str, Any] = field(default_factory=dict)
    tenants: dict[str, Any] = field(default_factory=dict)
    moves: dict[str, Any] = field(default_factory=dict)
    blocks: dict[str, Any] = field(default_factory=dict)
    stopping: Callable[[], None] = lambda: None

    async def status(self) -> Status:
        return self.state

    async def sources(self) -> list[SourceStatus]:
        return self.state.sources

    async def readiness(self, source: str) -> list[Readiness]:
        return [check for check in self.checks if source in ("", check.source)]

    async def metrics(self, prefix: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.name.startswith(prefix)]

    async def stop(self) -> Stopping:
        self.stopping()
        return Stopping(self.state.member, self.state.pid)

    async def holds(self, source: str) -> list[Held]:
        return self.desk.holds(source)

    async def hold_show(self, hold: str) -> Held:
        return self.desk.show(hold)

    async def hold_plan(self, hold: str, decision: str) -> HoldPlan:
        return self.desk.plan(hold, decision)

    async def hold_plan_of(self, token: str) -> HoldPlan:
        return self.desk.plan_of(token)

    async def hold_sign(self, approval: Approval) -> HoldPlan:
        return self.desk.sign(approval)

    async def hold_run(self, token: str) -> HoldDone:
        return await self.desk.run(token)

    async def reseed_plan(self, source: str) -> ReseedPlan:
        if source not in self.reseeds:
            raise ZaibeiError(Code.REFUSED, f"{source} is in service and is not re-seeded")
        return self.reseeds[source]

    async def reseed_run(self, token: str) -> ReseedDone:
        for plan in self.reseeds.values():
            if plan.token == token:
                return ReseedDone(token, plan.source, plan.aside)
        raise ZaibeiError(Code.REFUSED, "nothing is out of service as that plan saw it")

    async def grant_plan(self, source: str) -> dict[str, Any]:
        if source not in self.grants:
            raise ZaibeiError(Code.REFUSED, f"the feed of {source} is FLOWING")
        return self.grants[source]

    async def grant_run(self, source: str, token: str, reason: str) -> dict[str, Any]:
        plan = await self.grant_plan(source)
        if plan["token"] != token:
            raise ZaibeiError(Code.REFUSED, f"{source} is no longer as that plan saw it")
        return {"source": source, "token": token, "reason": reason, "start": plan["theirs"]}

    async def takeover_status(self, source: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._takeover("status", source)
        return rows

    async def takeover_plan(self, source: str, action: str) -> dict[str, Any]:
        return dict(self._takeover("plan", source), action=action)

    async def takeover_run(self, source: str, action: str, token: str, reason: str) -> dict[str, Any]:
        return dict(self._takeover("run", source), action=action, token=token, reason=reason)

    async def takeover_rehearse(self, source: str) -> dict[str, Any]:
        return dict(self._takeover("rehearse", source))

    def _takeover(self, call: str, source: str) -> Any:
        if (call, source) not in self.takeover:
            raise ZaibeiError(Code.NOT_FOUND, f"no source {source!r} here")
        return self.takeover[call, source]
