"""The ladder of one source on one member, joined with its clock, probes and operators; inside TakeoverRunner. Decides nothing.

A registration endpoint counts as alive when it gives a well-formed answer, as a resolution endpoint does: what it would answer to
a registration is not tried on a node of others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from replica.model.errors import Code, ZaibeiError
from replica.model.ladder import ABORTABLE, BEGINNINGS, Function, Known, OrderKind, Stage
from replica.model.ladder_epochs import fence_of
from replica.model.ladder_rules import not_enough, orders_that_count
from replica.model.node import Endpoint
from replica.model.signing import Signer
from replica.takeover.detector import Look, Observation
from replica.takeover.ladder import (
    LadderMachine,
    LadderPolicy,
    LadderStep,
    LadderWorld,
    lease_left_ms,
    orders_in_force,
    unguarded,
    waits_for,
)
from replica.takeover.ladder_plan import ACT, Accepting, Climb, MassPlan, climb_of, plan_text, refusal, token_of
from replica.takeover.ladder_shown import SHOWN
from replica.takeover.lease import LeaseCount
from replica.takeover.orders import judge
from replica.takeover.ports import SourcePort, not_leading
from replica.takeover.publish import Standing
from replica.takeover.threshold import Meter, ThresholdLimits
from replica.v1 import entry_pb2

MS = 1_000_000
READING_NS = 5_000 * MS  # between readings of another observer, and between probes of registration
HEARD_MS_MAX = 10_000
RUN_S_MAX = 10.0
COMMIT_S_MAX = 10.0
LOOK_S = 0.02
Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class LadderSettings:
    """Of one source on one member.

    Args:
        holder: who our epochs are granted to; signer: its key.
        issuers: name -> public key of the top-level nodes whose orders count.
        registration: where the node registers; empty: nobody probes that.
    """

    holder: str
    signer: Signer
    issuers: Mapping[str, bytes] = field(default_factory=dict)
    registration: tuple[Endpoint, ...] = ()
    policy: LadderPolicy = field(default_factory=LadderPolicy)
    limits: ThresholdLimits = field(default_factory=ThresholdLimits)


class LadderDesk:
    """See the module. `interval_ns`: how often `tick` is called."""

    def __init__(
        self, source: SourcePort, own_site: bytes, settings: LadderSettings, machine: str, interval_ns: int, now_ns: int
    ) -> None:
        self._source, self._settings, self._here = source, settings, machine
        self.machine = LadderMachine(own_site, settings.holder, settings.signer, settings.policy)
        self._lease = LeaseCount(interval_ns)
        self._meters = {function: Meter(function, settings.limits, now_ns) for function in Function}
        self._read_ns = self._probed_ns = now_ns
        self._acts = 0

    # -- time and probes

    def tick(self, now_ns: int, observations: Iterable[Observation]) -> bool:
        """Time passed.

        Args:
            observations: what other members see of the node's resolution.
        Returns:
            True when the registration endpoints are to be probed now; `probed` tells what came of it.
        """
        ladder = self._source.state().ladder
        self._lease.look(ladder.lease_index, self._source.leads(), now_ns)
        for meter in self._meters.values():
            meter.look(now_ns)
        if ladder.acts != self._acts:  # an act began: what was read before it is no evidence for the next one
            self._acts = ladder.acts
            for meter in self._meters.values():
                meter.forget(now_ns)
        if now_ns - self._read_ns >= READING_NS:
            self._read_ns = now_ns
            for one in observations:
                if one.look is not Look.SILENT:
                    self.probed(Function.RESOLUTION, one.machine, one.look is not Look.WATCHING, now_ns)
        if not self._settings.registration or now_ns - self._probed_ns < READING_NS:
            return False
        self._probed_ns = now_ns
        return True

    @property
    def registration_endpoints(self) -> Sequence[Endpoint]:
        """Where the node registers, as configured."""
        return self._settings.registration

    def probed(self, function: Function, machine: str, failing: bool, now_ns: int) -> None:
        """A probe ended."""
        self._meters[function].read(machine or self._here, failing, now_ns)

    def world(
        self,
        adapters: tuple[str, ...],
        standings: Mapping[tuple[str, str], Standing],
        node_sites: Mapping[bytes, tuple[bytes, ...]],
        now_ns: int,
        dead: frozenset[str] = frozenset(),
    ) -> LadderWorld:
        """The present, as values."""
        state, heard = self._source.state(), self._source.heard()
        waited_ms = self._lease.waited_ms(state.ladder.lease_index)
        renewed = bool(state.ladder.lease_ms) and self._source.leads() and waited_ms <= HEARD_MS_MAX
        return LadderWorld(
            state=state,
            leads=self._source.leads(),
            evidence={function: meter.evidence(now_ns) for function, meter in self._meters.items()},
            source_heard=renewed or (heard.ms_ago is not None and heard.ms_ago <= HEARD_MS_MAX),
            behind=heard.behind,
            age_ms=self._source.age_ms(),
            lease_waited_ms=waited_ms,
            unguarded=unguarded(state, waited_ms, heard.ms_ago),
            adapters=adapters,
            standings=standings,
            now_ns=now_ns,
            now_ms=_now_ms(),
            drained=self._source.drained(),
            node_sites=node_sites,
            dead=dead,
        )

    def step(self, world: LadderWorld) -> tuple[LadderStep, ...]:
        """What to do now."""
        return self.machine.step(world)

    # -- what operators do

    def plan(self, world: LadderWorld, accepting: Accepting) -> Row:
        """Look, change nothing. The stable JSON contract of `zaibei takeover plan --registration --json`."""
        state, text = world.state, plan_text(world.state, accepting)
        return {
            "source": state.source,
            "text": text,
            "token": token_of(text),
            "stage": state.ladder.stage.name,
            "fence": climb_of(state, accepting, "", ()).fence.name.lower(),
            "behind": world.behind,
            "age_ms": world.age_ms,
            "records": state.records,
            "position": str(state.position),
            "accepts_loss": accepting.loss,
            "accepts_unknown_loss": accepting.unknown_loss,
            "break_glass": accepting.break_glass,
            "switchover": accepting.switchover,
            "refusal": self._refusal(world, accepting),
            "lacks": self._lacking(world, climb_of(state, accepting, "", ())),
            "lease_left_ms": lease_left_ms(world),
        }

    def _refusal(self, world: LadderWorld, accepting: Accepting) -> str:
        if not self.machine.own_site:
            return "this cluster has no site of its own to publish: set its public addresses"
        return refusal(world.state, world.behind, accepting)

    @staticmethod
    def _lacking(world: LadderWorld, climb: Climb) -> str:
        counted = orders_that_count(world.state.ladder, orders_in_force(world), world.now_ms)
        if isinstance(counted, str):
            return counted
        people = len({one.operator for one in climb.approvals})
        if climb.break_glass:
            return "" if people else "break-glass needs the signature of one person"
        return not_enough(climb.fence, people, counted, automatic=False)

    async def run(self, world: LadderWorld, accepting: Accepting, token: str, reason: str, climb: Climb) -> Row:
        """Begin what was planned and approved, and wait until its approval is committed; the rest goes on by itself.
        A switchover is waited for to its end.

        Raises:
            ZaibeiError: REFUSED (the world changed, the copy is behind, another act runs, we do not lead; a switchover was given
                up), NOT_AUTHORISED (not signed by enough), UNKNOWN (begun, not committed in time: look at the status).
        """
        state = world.state
        if state.ladder.act == climb.act and state.ladder.stage >= Stage.APPROVED:
            return self._ran(changed=False)
        if not world.leads:
            raise ZaibeiError(Code.REFUSED, not_leading(state.source), retry=True)
        if token != token_of(plan_text(state, accepting)):
            raise ZaibeiError(Code.REFUSED, "the world changed since that plan: look at a new one, and sign it")
        if why := self._refusal(world, accepting):
            raise ZaibeiError(Code.REFUSED, why)
        if why := self._lacking(world, climb):
            raise ZaibeiError(Code.NOT_AUTHORISED, f"{why}. Nothing was done. Next: zaibei takeover sign {token} --key FILE")
        self.machine.climb, self.machine.abort, self.machine.pause_ms = climb, "", None
        if climb.switchover:
            return await self._switched(climb)
        return await self._committed(climb)

    async def run_mass(
        self, world: LadderWorld, accepting: Accepting, plan: MassPlan, reason: str, unchanged: Callable[[], None]
    ) -> Row:
        """This source's part of a mass takeover. Begun before by the same act: nothing is done.

        Args:
            unchanged: raises ZaibeiError(REFUSED) where the source is not what it was when it was planned.
        Raises:
            ZaibeiError: as `run`.
        """
        state = world.state
        climb = Climb(
            ACT + plan.token,
            plan.text,
            fence_of(state),
            reason,
            accepted=accepting.loss,
            accepts_unknown=accepting.unknown_loss,
            approvals=plan.approvals,
        )
        if state.ladder.act == climb.act and state.ladder.stage is not Stage.PROPOSED:
            return self._ran(changed=False)
        if not world.leads:
            raise ZaibeiError(Code.REFUSED, not_leading(state.source), retry=True)
        unchanged()
        if why := self._refusal(world, accepting):
            raise ZaibeiError(Code.REFUSED, why)
        if why := self._lacking(world, climb):
            raise ZaibeiError(Code.NOT_AUTHORISED, why)
        self.machine.climb, self.machine.abort, self.machine.pause_ms = climb, "", None
        return await self._committed(climb)

    async def _committed(self, climb: Climb) -> Row:
        """Wait until its approval is committed."""
        if not await self._stands(lambda: self._begun(climb.act)):
            self.machine.climb = None
            raise ZaibeiError(Code.UNKNOWN, "begun, but not committed yet: look at the status", definite=False, retry=True)
        return self._ran(changed=True)

    async def _switched(self, climb: Climb) -> Row:
        """Wait for the end of a switchover: we register, or nothing happened."""

        def ended() -> bool:
            stage = self._source.state().ladder.stage
            given_up = stage is Stage.NORMAL and self.machine.climb is None
            return given_up or (stage is Stage.SERVING and self.machine.pause_ms is not None)

        await self._stands(ended)
        ladder, source = self._source.state().ladder, self._source.state().source
        if ladder.act == climb.act and ladder.closed:
            return self._ran(changed=True) | {"switchover": True, "write_pause_ms": self.machine.pause_ms}
        if ladder.stage is Stage.NORMAL and self.machine.climb is None:
            raise ZaibeiError(Code.REFUSED, f"nothing happened, {source} goes on registering: {ladder.reason}")
        self.machine.climb = None
        raise ZaibeiError(Code.UNKNOWN, f"begun; the ladder stands at {ladder.stage.name}: look at the status", definite=False)

    def _begun(self, act: str) -> bool:
        ladder = self._source.state().ladder
        return ladder.act == act and ladder.stage >= Stage.APPROVED

    @staticmethod
    async def _stands(there: Callable[[], bool]) -> bool:
        for _ in range(int(RUN_S_MAX / LOOK_S)):
            if there():
                return True
            await asyncio.sleep(LOOK_S)
        return there()

    def _ran(self, *, changed: bool) -> Row:
        state = self._source.state()
        return {"source": state.source, "act": state.ladder.act, "stage": state.ladder.stage.name, "changed": changed}

    async def abort(self, reason: str) -> Row:
        """Give up an act before it is fenced.

        Raises:
            ZaibeiError: REFUSED (nothing to give up; past the fence only a failback leads back), UNKNOWN (not committed in time).
        """
        ladder = self._source.state().ladder
        if ladder.stage not in ABORTABLE:
            past = "the source's epoch is closed: only a failback leads back" if ladder.closed else "no act is under way"
            raise ZaibeiError(Code.REFUSED, f"{past} (the ladder stands at {ladder.stage.name})")
        self.machine.climb, self.machine.abort = None, reason
        if not await self._stands(lambda: self._source.state().ladder.stage in BEGINNINGS):
            stage = self._source.state().ladder.stage.name
            raise ZaibeiError(Code.UNKNOWN, f"asked for; the ladder stands at {stage}", definite=False, retry=True)
        return self._ran(changed=True)

    async def take_order(self, order: entry_pb2.Order) -> Row:
        """An order or report of the top-level node: judged, then committed (a report is kept here only).

        Raises:
            ZaibeiError: as replica/takeover/orders.py says; REFUSED (we do not lead), UNKNOWN.
        """
        state, now_ms = self._source.state(), _now_ms()
        kind = judge(order, state.source, self._settings.issuers, state.ladder, now_ms)
        if not self._source.leads():
            raise ZaibeiError(Code.REFUSED, not_leading(state.source), retry=True)
        if kind is OrderKind.PROBE_REPORT:
            until_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + (order.until_ms - now_ms) * MS
            self._meters[Function(order.function)].report(order.findings, until_ns)
        else:
            await self._commit(entry_pb2.Entry(format=1, admitted_ms=now_ms, order=order))
        function = Function(order.function).name.lower()
        return {"source": state.source, "kind": kind.name.lower(), "number": order.number, "function": function}

    async def review(self, act: str, verdict: str, approval: entry_pb2.Approval) -> Row:
        """A second person looked at a break-glass act; its signature was judged. Raises ZaibeiError(CONFLICT, UNKNOWN)."""
        body = entry_pb2.LadderReview(act=act, verdict=verdict, approval=approval)
        await self._commit(entry_pb2.Entry(format=1, admitted_ms=_now_ms(), review=body))
        return {"source": self._source.state().source, "act": act, "verdict": verdict, "by": approval.operator}

    async def _commit(self, entry: entry_pb2.Entry) -> None:
        proposal = self._source.propose(entry)
        try:
            async with asyncio.timeout(COMMIT_S_MAX):
                outcome = await asyncio.shield(proposal.applied)
        except TimeoutError:
            raise ZaibeiError(Code.UNKNOWN, "not applied in time: look at the status", definite=False, retry=True) from None
        if outcome.kind.value not in ("applied", "already"):
            code = Code.UNKNOWN if outcome.kind.value == "unknown" else Code.CONFLICT
            raise ZaibeiError(code, outcome.detail or outcome.kind.value, definite=code is Code.CONFLICT)

    # -- telling

    def status(self, world: LadderWorld) -> Row:
        """The part `ladder` of the stable JSON contract of `zaibei takeover status --json`."""
        ladder = world.state.ladder
        review = ladder.review
        return {
            "stage": ladder.stage.name,
            "shown": SHOWN[ladder.stage],
            "act": ladder.act,
            "reason": ladder.reason,
            "since_ms": ladder.since_ms,
            "waits_for": waits_for(world),
            "fence": ladder.fence.name.lower(),
            "lease_ms": ladder.lease_ms,
            "lease_left_ms": lease_left_ms(world),
            "behind": world.behind,
            "switchover": ladder.switchover,
            "write_pause_ms": self.machine.pause_ms,
            "approvals": list(ladder.approvals),
            "orders": [_order_row(one) for one in ladder.known],
            "held_off": ladder.held_off,
            "evidence": [one.text() for one in world.evidence.values()],
            "review": None if review is None else {"act": review.act, "operator": review.operator, "due_ms": review.due_ms},
        }


def _order_row(order: Known) -> Row:
    return {
        "kind": order.kind.name.lower(),
        "number": order.number,
        "function": order.function.name.lower(),
        "until_ms": order.until_ms,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
