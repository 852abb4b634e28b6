"""The admin calls of a running member: what `zaibei status`, `hold`, `takeover` and `stop` are answered with."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from hosting.tenant.edge_denials import DenialBook
from hosting.tenant.offices import Offices
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
from ops.blocks import MemberBlocks, owned_by
from ops.config import MemberConfig
from ops.failbacks import MemberFailbacks
from ops.ladders import MemberLadders, runners_of
from ops.metrics import samples
from ops.mirror import Sampler
from ops.moves import MemberMoves
from ops.operators.blocks import BlockDesk
from ops.operators.edge_book import BookFile
from ops.operators.holds import HeldGroup, HoldDesk
from ops.operators.masses import MassDesk
from ops.operators.takeovers import TakeoverDesk
from ops.proofs import MemberProofs
from ops.seat import Bound, Seat
from ops.sites import SiteProber
from ops.tenants import MemberTenants
from replica import native
from replica.feed.phases import Phase
from replica.member import regrant, reseed
from replica.member.cluster_life import ClusterLife
from replica.member.copy import SourceCopy
from replica.member.member import Member
from replica.model.batch import OP_DELETE, open_batch
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import key_text
from replica.model.outcome import Outcome
from replica.takeover.edge_runner import boottime_ns
from replica.v1 import entry_pb2

DECISION_S_MAX = 30.0


class CopyHolds:
    """One copy as the desk of holds sees it. Satisfies ops.operators.holds.HeldGroup."""

    def __init__(self, copy: SourceCopy, life: ClusterLife | None = None) -> None:
        self._copy, self._life = copy, life

    def state(self) -> GroupState:
        return self._copy.store.state()

    def would_do(self) -> tuple[int, int]:
        counts = self._copy.store.held_counts()
        return sum(count[1] for count in counts), sum(count[2] for count in counts)

    def samples(self, count_max: int) -> list[str]:
        hold = self.state().hold
        if hold is None or not hold.batch:
            return []
        scan = native.scan(open_batch(hold.batch, verify=False).columns, 1_000)
        existing = self._copy.store.existing(scan.keys)
        touched = (key for key, op, held in zip(scan.keys, scan.ops, existing, strict=True) if held or op == OP_DELETE)
        return [key_text(key) for key, _ in zip(touched, range(count_max), strict=False)]

    async def carry_out(self, entry: entry_pb2.Entry) -> Outcome:
        if self._life is not None and entry.WhichOneof("body") == "block" and not self._copy.log.leader:
            return await self._life.propose_of(self._copy.settings.name, entry)  # an order may name sources of several leaders
        proposal = self._copy.group.propose(entry)
        try:
            async with asyncio.timeout(DECISION_S_MAX):
                return await asyncio.shield(proposal.applied)
        except TimeoutError:
            raise ZaibeiError(Code.UNKNOWN, "decided, but not applied yet: look at `zaibei hold list`", definite=False) from None


class MemberCalls(MemberProofs, MemberFailbacks, MemberLadders, MemberTenants, MemberBlocks, MemberMoves):
    """Satisfies ops.admin.calls.AdminCalls."""

    def __init__(
        self,
        config: MemberConfig,
        member: Member,
        seat: Seat,
        bound: Callable[[], Bound],
        sampler: Sampler | None = None,
        offices: Offices | None = None,
        denials: DenialBook | None = None,
        sites: SiteProber | None = None,
    ) -> None:
        self._sites = sites
        self._denials = denials
        self._offices = offices or Offices((), member.hosted, _now_ms)
        self._sampler = sampler or Sampler(lambda: member.copies)
        self._config, self._member, self._seat, self._bound = config, member, seat, bound
        book = BookFile(config.member.data)
        pages = book.load()
        self._desk = HoldDesk(self._held_groups, config.operator_keys(), pages, book.save, _now_ms)
        self._takeovers = TakeoverDesk(lambda: runners_of(member), config.operator_keys(), pages, book.save)
        self._masses = MassDesk(lambda: runners_of(member), config.operator_keys(), pages, book.save)
        signers = {**config.issuers(), **config.operator_keys()}
        self._blocks = BlockDesk(self._held_groups, lambda: owned_by(member), signers, pages, book.save, _now_ms)

    def _operator_keys(self) -> Mapping[str, bytes]:
        return self._config.operator_keys()

    def _held_groups(self) -> Mapping[str, HeldGroup]:
        return {name: CopyHolds(copy, self._member.life) for name, copy in self._member.copies.items()}

    # -- looking

    async def status(self) -> Status:
        config, member = self._config, self._member
        alarms = [alarm for copy in member.copies.values() for alarm in copy.runner.alarms]
        broken = [f"source {name} is out of service: {_with_next(name, error)}" for name, error in member.broken.items()]
        waiting = [
            f"source {name} takes nothing in, answers go on: {why.trouble.message}" for name, why in member.waiting().items()
        ]
        return Status(
            member=config.member.name,
            version=version("zaibei"),
            pid=os.getpid(),
            machine=config.member.machine,
            data=str(config.member.data),
            fingerprint=member.settings.identity.fingerprint,
            started_ms=self._seat.started_ms,
            now_ms=_now_ms(),
            addresses={name: [str(address) for address in listened] for name, listened in self._bound().items()},
            sources=await self.sources(),
            warnings=[
                *self._seat.notes,
                *alarms,
                *broken,
                *waiting,
                *member.refused_callers(),
                *member.two_senders(),
                *member.addresses.warnings(boottime_ns()),
                *([] if member.scrubs is None else member.scrubs.warnings()),
                *member.warnings.values(),
            ],
        )

    async def sources(self) -> list[SourceStatus]:
        rows = list[SourceStatus]()
        for source in self._member.settings.sources:
            rows.append(self._source(source.name))
            await asyncio.sleep(0)  # of many sources: a detector that is late discards what it saw
        return rows

    def _source(self, name: str) -> SourceStatus:
        copy, trouble = self._member.copies.get(name), self._member.broken.get(name)
        if copy is None:
            return SourceStatus(name, feed="OUT_OF_SERVICE", feed_reason=str(trouble or "not opened"))
        state, lag, view = copy.store.state(), copy.driver.lag(), copy.answers.view()
        takeover, (lagging, digest) = copy.runner.status(boottime_ns()), copy.driver.findings()
        ready = {"pass": True, "fail": False}.get(str(takeover["ready"]))
        return SourceStatus(
            source=name,
            feed="OUT_OF_SERVICE" if trouble is not None else state.feed.name,
            feed_reason=str(trouble) if trouble is not None else state.feed_reason,
            connected=copy.driver.phase not in (Phase.CLOSED, Phase.OPENING),
            ready=view.ready,
            position=str(state.position),
            lag_entries=lag.changes,
            lag_s=None if lag.age_ms is None else lag.age_ms / 1_000,
            freshness=view.freshness.value,
            verified=state.verified,
            authority=state.authority.name,
            takeover_ready=ready,
            takeover=_shown(takeover),
            records=state.records,
            quarantined=state.quarantined,
            held=int(state.hold is not None),
            detail={
                "stream": copy.driver.phase.value,
                "led_here": copy.log.leader,
                "generation": state.generation,
                "digest": _digest(copy),
                "lag_check": lagging.detail,
                "digest_check": digest.detail,
            },
            lag_check=None if state.lives_here else lagging.result.value,  # nothing can lag
            digest_check=None if state.lives_here else digest.result.value,
        )

    async def readiness(self, source: str) -> list[Readiness]:
        names = [source] if source else sorted(self._member.takeover.runners)
        rows: list[Readiness] = []
        for name in names:
            for row in self._member.takeover.status(boottime_ns(), name):
                checks: Any = row["readiness"]
                rows += [Readiness(name, one["name"], one["result"], one["detail"]) for one in checks]
        return rows

    async def metrics(self, prefix: str) -> list[Sample]:
        return samples(self._seat.registry, prefix)

    async def stop(self) -> Stopping:
        asyncio.get_running_loop().call_later(0.05, self._seat.stop.set)
        return Stopping(self._config.member.name, os.getpid())

    # -- what is held

    async def holds(self, source: str) -> list[Held]:
        return self._desk.holds(source)

    async def hold_show(self, hold: str) -> Held:
        return self._desk.show(hold)

    async def hold_plan(self, hold: str, decision: str) -> HoldPlan:
        return self._desk.plan(hold, decision)

    async def hold_plan_of(self, token: str) -> HoldPlan:
        return self._desk.plan_of(token)

    async def hold_sign(self, approval: Approval) -> HoldPlan:
        return self._desk.sign(approval)

    async def hold_run(self, token: str) -> HoldDone:
        return await self._desk.run(token)

    # -- re-seeding

    async def reseed_plan(self, source: str) -> ReseedPlan:
        plan = reseed.plan_of(self._member, source)
        return ReseedPlan(plan.token(), source, plan.text(), str(plan.store), str(plan.aside), plan.warnings())

    async def reseed_run(self, token: str) -> ReseedDone:
        plan = await reseed.run(self._member, token)
        return ReseedDone(token, plan.source, str(plan.aside))

    # -- granting after a fork

    async def grant_plan(self, source: str) -> dict[str, Any]:
        plan = regrant.plan_of(self._member, source)
        return {
            "source": source,
            "token": plan.token(),
            "text": plan.text(),
            "ours": str(plan.ours),
            "theirs": str(plan.theirs),
        }

    async def grant_run(self, source: str, token: str, reason: str) -> dict[str, Any]:
        start = await regrant.run(self._member, source, token, reason)
        return {"source": source, "token": token, "reason": reason, "start": str(start)}

    # -- takeover

    async def takeover_status(self, source: str) -> list[dict[str, Any]]:
        return self._member.takeover.status(boottime_ns(), source)

    async def takeover_plan(self, source: str, action: str) -> dict[str, Any]:
        return self._member.takeover.plan(source, action)

    async def takeover_run(self, source: str, action: str, token: str, reason: str) -> dict[str, Any]:
        return await self._member.takeover.run(source, action, token, reason)

    async def takeover_rehearse(self, source: str) -> dict[str, Any]:
        return await self._member.takeover.rehearse(source)


def _digest(copy: SourceCopy) -> dict[str, Any] | None:
    digest = copy.store.digest_at(copy.store.state().position)
    if digest is None:
        return None
    return {"position": str(digest.position), "records": digest.records, "sum": f"{digest.total:032x}"}


def _shown(takeover: Mapping[str, Any]) -> str:
    """Who answers, in words; where registrations are on their way, how far."""
    ladder = takeover["ladder"]
    climbing = ladder is not None and ladder["stage"] != "NORMAL"
    return str(ladder["shown"] if climbing else takeover["shown"])


def _with_next(name: str, error: ZaibeiError) -> str:
    """What is wrong, and the command that heals it."""
    command = f"zaibei source reseed plan {name}"
    text = error.trouble.message
    return text if command in text or error.code is not Code.DAMAGED else f"{text}. Next: {command}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
