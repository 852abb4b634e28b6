"""Runs one source's detector and takeover machine: clock ticks in, probes, proposals and publications out.

Nothing is decided here. The loop ticks every `tick_ns`; the machine is asked when something changed and every `look_ns` at least.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace

from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import handle_prefix_key, prefix_text
from replica.model.ladder import Function
from replica.model.node import Endpoint
from replica.model.outcome import OutcomeKind, Proposal
from replica.model.states import Authority, Result
from replica.takeover.detector import MS, Detector, DetectorLimits, Verdict, decide
from replica.takeover.edge_asked import ask, standing_after
from replica.takeover.edge_ladder import LadderDesk, LadderSettings
from replica.takeover.edge_metrics import TakeoverMetrics
from replica.takeover.families import Families, site_without
from replica.takeover.ladder import HURRIED, LadderStep, LadderWorld
from replica.takeover.machine import RETURNING, SHOWN, Alarm, Commit, Order, Phase, Policy, Publish, Takeover, World
from replica.takeover.overlay import is_listed, is_site, live_overlays, overlay_entry, serial_above, site_with
from replica.takeover.plan import Plan, already_done, plan_of
from replica.takeover.ports import PublishedSites, SourcePort, not_leading
from replica.takeover.publish import Publication, Publisher, Standing
from replica.takeover.readiness import Check, Peace, Rehearsal, assess, ready
from replica.takeover.switchover import Drain

LOOK_NS = 200 * MS  # the machine is asked at least so often
TAKEN_PROBE_NS = 250 * MS  # between probes of a source that is taken over: its return should be seen
SITES_REFRESH_NS = 10_000 * MS  # the node's published sites are read in peace, so that a takeover waits for nothing
COMMIT_S_MAX = 5.0
COMMIT_RETRY_NS = 50 * MS
ALARMS_REPEAT_NS = 60_000 * MS
ORDER_S_MAX = 10.0

Probe = Callable[[Sequence[Endpoint], str], Awaitable[bool]]
log = logging.getLogger("zaibei.takeover")


def boottime_ns() -> int:
    """CLOCK_BOOTTIME: goes on while the machine sleeps, so that a pause is seen."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """Settings of one source.

    Args:
        own_site: HS_SITE data of this cluster; b"": none, nothing can be taken over.
        observer, machine: this member, and the machine it counts as.
        shadow_prefix: used by rehearsals, never a real one; empty: no rehearsals.
        addresses: what is known of our own published addresses.
    """

    own_site: bytes
    observer: str = "member"
    machine: str = "here"
    policy: Policy = field(default_factory=Policy)
    limits: DetectorLimits = field(default_factory=DetectorLimits)
    shadow_prefix: str = ""
    identity_ends_s: Callable[[], int | None] = lambda: None  # Unix seconds, end of this member's certificate as it is by now
    ladder: LadderSettings | None = None  # None: registration is never taken over
    addresses: Families = field(default_factory=lambda: Families(b"", 0))
    registration_probe: Probe | None = None  # another host's pace may be another; None: as resolution


class TakeoverRunner:
    """One source on one member. Owns its tasks; `stop` ends them all."""

    def __init__(
        self,
        source: SourcePort,
        config: RunnerConfig,
        publishers: Sequence[Publisher],
        probe: Probe,
        metrics: TakeoverMetrics | None = None,
        on_broken: Callable[[BaseException], None] | None = None,
    ) -> None:
        """`on_broken` is told of a broken invariant: the member must stop. None: the event loop's exception handler is."""
        self._source, self._config, self._probe, self._metrics = source, config, probe, metrics
        self._on_broken = on_broken
        self._publishers = {publisher.name: publisher for publisher in publishers}
        self.detector = Detector(config.observer, config.machine, config.limits, boottime_ns())
        self.machine = Takeover(config.own_site, config.policy)
        self._standings: dict[tuple[str, str], Standing] = {}
        self.ladder: LadderDesk | None = None
        if config.ladder is not None:
            tick_ns = config.limits.tick_ns
            self.ladder = LadderDesk(source, config.own_site, config.ladder, config.machine, tick_ns, boottime_ns())
        self._sites: dict[bytes, PublishedSites] = {}
        self._sites_at_ns: int | None = None
        self._beat_ns: int | None = None
        self._rehearsal: tuple[bool, str, int] | None = None
        self._rehearsing = asyncio.Lock()
        self._publishing: set[tuple[str, str]] = set()
        self._alarms: dict[str, tuple[int, str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None
        self._committing = False
        self._commit_retry_ns = 0
        self._refreshing = False
        self._changed = True
        self._looked_ns = 0

    # -- life ------------------------------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Begin to watch. The start counts as a sign of life."""
        self.detector = Detector(self._config.observer, self._config.machine, self._config.limits, boottime_ns())
        self._loop_task = asyncio.create_task(self._run(), name=f"takeover {self._source.state().source}")
        self._loop_task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """End all tasks. What was committed goes on at the next start."""
        tasks = [*self._tasks, *([self._loop_task] if self._loop_task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop_task = None

    def beat(self, now_ns: int) -> None:
        """An authenticated datagram beat of this source arrived."""
        self._beat_ns = now_ns
        self.detector.beat(now_ns)

    def answered_late(self) -> None:
        """A probe that counts as failed was answered all the same: a sign of life (SEMANTICS 6), over a slow line."""
        self.detector.probe_ended(0, True, boottime_ns())
        self._changed = True

    def poke(self) -> None:
        """Something changed (state, order): the machine looks again at the next tick."""
        self._changed = True

    async def _run(self) -> None:
        while True:
            self.tick(boottime_ns())
            await asyncio.sleep(self._config.limits.tick_ns / 1e9)

    def tick(self, now_ns: int) -> None:
        """One look at the clock; public so that tests can drive it."""
        taken = self._source.state().authority is not Authority.SOURCE
        look, idle_ns = self.detector.look, TAKEN_PROBE_NS if taken else None
        for number in self.detector.tick(now_ns, idle_interval_ns=idle_ns, can_probe=bool(self._source.endpoints())):
            self._spawn(self._run_probe(number))
        if self.detector.look is not look:
            self._changed = True
        if self.ladder is not None and self.ladder.tick(now_ns, self._source.observations()):
            self._spawn(self._probe_registration(self.ladder))
        if self._sites_at_ns is None or now_ns - self._sites_at_ns >= SITES_REFRESH_NS:
            self._sites_at_ns = now_ns
            if not self._refreshing:
                self._refreshing = True
                self._spawn(self._refresh_sites())
        hurried = self.ladder is not None and self._source.state().ladder.stage in HURRIED
        due = self._changed or hurried or now_ns - self._looked_ns >= LOOK_NS
        if due and not self._committing and now_ns >= self._commit_retry_ns:
            self._look(now_ns)

    def _look(self, now_ns: int) -> None:
        self._changed, self._looked_ns = False, now_ns
        phase = self.machine.phase
        steps: tuple[LadderStep, ...] = self.machine.step(self.world(now_ns))
        if self.ladder is not None:
            steps = (*steps, *self.ladder.step(self.ladder_world(self.ladder, now_ns)))
        if self.machine.phase is not phase:
            self._say_phase(phase)
        self._carry_out(steps, now_ns)

    # -- the present, as values --------------------------------------------------------------------------------------------
    def world(self, now_ns: int) -> World:
        """The present; also what plans are made of."""
        state = self._source.state()
        verdict, why = decide((self.detector.observation(now_ns), *self._source.observations()))
        return World(
            state=state,
            verdict=verdict,
            verdict_why=why,
            age_ms=self._source.age_ms(),
            service_alive=self.detector.probe_answered_ns is not None and not self.detector.probe_failures_running,
            leads=self._source.leads(),
            node_sites=self._node_sites(),
            adapters=tuple(self._publishers),
            standings=self._standings,
            now_ns=now_ns,
            now_ms=time.time_ns() // 1_000_000,
            probes_failing=self.detector.probe_failures_running,
            dead=self._config.addresses.dead(),
        )

    def _node_sites(self) -> dict[bytes, tuple[bytes, ...]]:
        return {prefix: published.sites for prefix, published in self._sites.items()}

    def ladder_world(self, ladder: LadderDesk, now_ns: int) -> LadderWorld:
        """The present of registration."""
        return ladder.world(tuple(self._publishers), self._standings, self._node_sites(), now_ns, self._config.addresses.dead())

    @property
    def alarms(self) -> list[str]:
        """What people should be told now."""
        return [text for _, text in self._alarms.values()]

    def readiness(self, now_ns: int) -> tuple[Check, ...]:
        """`takeover-ready`, check by check."""
        detector, state = self.detector, self._source.state()
        answered, ends_s = detector.probe_answered_ns, self._config.identity_ends_s()
        ttls = [published.ttl_s for published in self._sites.values()]
        rehearsal = self._rehearsal
        return assess(
            Peace(
                state=state,
                age_ms=self._source.age_ms(),
                adapters=tuple(self._publishers),
                own_site_known=bool(self._config.own_site),
                site_listed=is_listed(self._config.own_site, self._node_sites()),
                addresses=self._config.addresses.rows(now_ns),
                site_ttl_s=max((ttl for ttl in ttls if ttl is not None), default=None) if None not in ttls else None,
                identity_left_s=None if ends_s is None else ends_s - int(time.time()),
                endpoints=len(self._source.endpoints()),
                probe_age_ms=None if answered is None else (now_ns - answered) // MS,
                probe_failures=detector.probe_failures_running,
                armed=self._config.limits.armed and self._config.policy.automatic,
                beat_age_ms=None if self._beat_ns is None else (now_ns - self._beat_ns) // MS,
                rehearsal=None if rehearsal is None else Rehearsal(rehearsal[0], rehearsal[1], (now_ns - rehearsal[2]) // MS),
            )
        )

    def status(self, now_ns: int) -> dict[str, object]:
        """The stable JSON contract of `zaibei takeover status --json`, one source."""
        world, checks, state = self.world(now_ns), self.readiness(now_ns), self._source.state()
        return {
            "source": state.source,
            "phase": self.machine.phase.value,
            "shown": SHOWN[self.machine.phase],
            "authority": state.authority.name.lower(),
            "act": state.authority_act,
            "verdict": world.verdict.value,
            "verdict_why": world.verdict_why,
            "look": self.detector.look.value,
            "began_anew": self.detector.discarded,
            "service_alive": world.service_alive,
            "position": str(state.position),
            "age_ms": world.age_ms,
            "prefixes": [prefix_text(prefix) for prefix in state.prefixes],
            "overlays": {prefix_text(prefix): overlay.serial for prefix, overlay in live_overlays(state).items()},
            "publications": [known.view(adapter, prefix) for (adapter, prefix), known in self._standings.items()],
            "ready": ready(checks).value,
            "readiness": [check.view() for check in checks],
            "addresses": self._config.addresses.rows(now_ns),
            "alarms": self.alarms,
            "ladder": None if self.ladder is None else self.ladder.status(self.ladder_world(self.ladder, now_ns)),
        }

    # -- what operators do -------------------------------------------------------------------------------------------------
    def plan(self, action: str) -> Plan:
        """Look, change nothing."""
        now_ns = boottime_ns()
        return plan_of(action, self.world(now_ns), self.readiness(now_ns))

    async def run_plan(self, action: str, token: str, reason: str) -> dict[str, object]:
        """Run what was looked at, and wait until it is committed.

        Raises:
            ZaibeiError(REFUSED): the world changed since the plan, or the act is refused; nothing changed.
            ZaibeiError(UNKNOWN): ordered, not committed in time; `status` tells.
        """
        state = self._source.state()
        if already_done(state, token, action):
            return {"source": state.source, "action": action, "act": state.authority_act, "changed": False}
        plan = self.plan(action)
        if plan.refusal:
            raise ZaibeiError(Code.REFUSED, plan.refusal)
        if plan.token != token:
            raise ZaibeiError(Code.REFUSED, "the world changed since that plan: look at a new one")
        if not self._source.leads():
            raise ZaibeiError(Code.REFUSED, not_leading(state.source), retry=True)
        return await self._ordered(plan.order(reason), lambda: already_done(self._source.state(), token, action))

    async def take(self, token: str, reason: str, unchanged: Callable[[], None]) -> dict[str, object]:
        """Take over resolution as part of a mass takeover, and wait until it is committed. Taken over already, by whomever:
        nothing is done.

        Args:
            unchanged: raises ZaibeiError(REFUSED) where the source is not what it was when it was planned.
        Raises:
            ZaibeiError: as `run_plan`.
        """
        if self._answered_here():
            state = self._source.state()
            return {"source": state.source, "action": "takeover", "act": state.authority_act, "changed": False}
        unchanged()
        plan = self.plan("takeover")
        if plan.refusal:
            raise ZaibeiError(Code.REFUSED, plan.refusal)
        if not self._source.leads():
            raise ZaibeiError(Code.REFUSED, not_leading(plan.source), retry=True)
        order = replace(plan.order(reason), act=plan.act.removesuffix(plan.token) + token)
        return await self._ordered(order, self._answered_here)

    def _answered_here(self) -> bool:
        state = self._source.state()
        return state.authority is not Authority.SOURCE and not state.authority_act.startswith(RETURNING)

    async def _ordered(self, order: Order, done: Callable[[], bool]) -> dict[str, object]:
        self.machine.order = order
        self.poke()
        for _ in range(int(ORDER_S_MAX / 0.02)):
            await asyncio.sleep(0.02)
            if done():
                state, action = self._source.state(), "takeover" if order.take else "withdraw"
                return {"source": state.source, "action": action, "act": state.authority_act, "changed": True}
        raise ZaibeiError(Code.UNKNOWN, "ordered, but not committed yet: look at the status", definite=False, retry=True)

    async def rehearse(self) -> Check:
        """Publish a shadow prefix through every adapter, see it confirmed, withdraw it. The real prefixes are not touched.

        Raises:
            ZaibeiError(REFUSED): no shadow prefix or own site is configured, or the shadow prefix is a real one.
        """
        shadow, state = self._config.shadow_prefix, self._source.state()
        if not shadow or not self._config.own_site:
            raise ZaibeiError(Code.REFUSED, "a rehearsal needs a shadow prefix and an own site in the configuration")
        if handle_prefix_key(shadow.encode()) in state.prefixes:
            raise ZaibeiError(Code.REFUSED, f"{shadow} is a real prefix of {state.source}: a rehearsal takes another")
        async with self._rehearsing:
            try:
                detail = await self._rehearse(shadow)
                self._rehearsal = (True, detail, boottime_ns())
            except ZaibeiError as exc:
                self._rehearsal = (False, exc.trouble.message, boottime_ns())
        return Check("publication", Result.PASS if self._rehearsal[0] else Result.FAIL, self._rehearsal[1])

    async def _rehearse(self, shadow: str) -> str:
        act = f"drill:{boottime_ns():x}"
        began_ns = boottime_ns()
        try:
            await self._rehearse_step(shadow, act, withdrawn=False)
        finally:
            await self._rehearse_step(shadow, act, withdrawn=True)
        return f"{len(self._publishers)} adapters confirmed {shadow} and its withdrawal in {(boottime_ns() - began_ns) // MS} ms"

    async def _rehearse_step(self, shadow: str, act: str, *, withdrawn: bool) -> None:
        serial = serial_above(self._source.state(), (self._config.own_site,))
        ours = site_without(self._config.own_site, self._config.addresses.dead())
        sites = () if withdrawn else (site_with(ours, serial=serial, primary=False),)
        key, now_ms = handle_prefix_key(shadow.encode()), time.time_ns() // 1_000_000
        await self._applied(
            self._source.propose(overlay_entry(key, sites, serial, act, withdrawn=withdrawn, shadow=True, at_ms=now_ms))
        )
        publication = Publication(shadow, sites, serial, act, withdrawn=withdrawn, shadow=True)
        for publisher in self._publishers.values():
            confirmation = await ask(publisher, publication)
            if not confirmation.confirmed:
                raise ZaibeiError(Code.VERIFICATION_FAILED, f"{publisher.name}: {confirmation.detail}")

    # -- carrying out --------------------------------------------------------------------------------------------------------
    def _carry_out(self, steps: Sequence[LadderStep], now_ns: int) -> None:
        commits = [step for step in steps if isinstance(step, Commit)]
        if commits:
            self._committing = True
            self._spawn(self._commit(commits))
        for step in steps:
            if isinstance(step, Publish):
                self._publish_soon(step, now_ns)
            elif isinstance(step, Drain):
                self._source.drain(step.act, step.epoch)
        self._say_alarms([step for step in steps if isinstance(step, Alarm)], now_ns)

    async def _commit(self, commits: Sequence[Commit]) -> None:
        try:
            proposals = [self._source.propose(commit.entry) for commit in commits]
            for commit, proposal in zip(commits, proposals, strict=True):
                await self._applied(proposal)
                log.info("takeover step", extra={"source": self._source.state().source, "step": commit.what})
        except ZaibeiError as exc:
            # Committed state says what is left; the machine asks again.
            self._commit_retry_ns = boottime_ns() + COMMIT_RETRY_NS
            log.warning("takeover step refused", extra={"source": self._source.state().source, "why": str(exc)})
        finally:
            self._committing, self._changed = False, True

    @staticmethod
    async def _applied(proposal: Proposal) -> None:
        try:
            async with asyncio.timeout(COMMIT_S_MAX):
                outcome = await asyncio.shield(proposal.applied)
        except TimeoutError:
            raise ZaibeiError(Code.UNKNOWN, "not applied in time", definite=False, retry=True) from None
        if outcome.kind is not OutcomeKind.APPLIED:
            raise ZaibeiError(Code.UNKNOWN, f"{outcome.kind}: {outcome.detail}", definite=False, retry=True)

    def _publish_soon(self, step: Publish, now_ns: int) -> None:
        place = (step.adapter, step.publication.prefix)
        if place in self._publishing or now_ns < self._standings.get(place, Standing()).retry_ns:
            return
        self._publishing.add(place)
        self._spawn(self._publish(place, step.publication))

    async def _publish(self, place: tuple[str, str], publication: Publication) -> None:
        try:
            old = self._standings.get(place, Standing())
            self._standings[place] = await standing_after(self._publishers[place[0]], publication, old)
        finally:
            self._publishing.discard(place)
            self._changed = True
        if self._metrics:
            self._metrics.published(place[0], self._standings[place].confirmed)

    async def _run_probe(self, number: int) -> None:
        prefixes = self._source.state().prefixes
        alive = await self._probe(self._source.endpoints(), prefix_text(prefixes[0]) if prefixes else "")
        self.detector.probe_ended(number, alive, boottime_ns())
        if self.ladder is not None:
            self.ladder.probed(Function.RESOLUTION, "", not alive, boottime_ns())
        self._changed = True
        if self._metrics:
            self._metrics.probed(self._source.state().source, alive)

    async def _probe_registration(self, ladder: LadderDesk) -> None:
        prefixes = self._source.state().prefixes
        probe = self._config.registration_probe or self._probe
        alive = await probe(ladder.registration_endpoints, prefix_text(prefixes[0]) if prefixes else "")
        ladder.probed(Function.REGISTRATION, "", not alive, boottime_ns())

    async def _refresh_sites(self) -> None:
        """Sites that cannot be read now stay as last seen."""
        try:
            for prefix in self._source.state().prefixes:
                found = await self._source.published(prefix)
                self._sites[prefix] = replace(found, sites=tuple(site for site in found.sites if is_site(site)))
        except ZaibeiError as exc:
            log.debug("published sites not known", extra={"why": str(exc)})
        finally:
            self._refreshing = False

    # -- telling -------------------------------------------------------------------------------------------------------------
    def _say_phase(self, old: Phase) -> None:
        source, phase = self._source.state().source, self.machine.phase
        level = logging.WARNING
        if phase not in (Phase.TAKING_OVER, Phase.TAKEN_OVER, Phase.WITHDRAWING):
            # While a node answers probes and its beats are lost, these two follow each other many times a second.
            level = logging.DEBUG if {old, phase} == {Phase.NORMAL, Phase.SUSPECT} else logging.INFO
        log.log(level, "takeover phase", extra={"source": source, "from": old.value, "to": phase.value, "shown": SHOWN[phase]})
        if self._metrics:
            self._metrics.phase(source, phase.value)

    def _say_alarms(self, alarms: Sequence[Alarm], now_ns: int) -> None:
        codes = {alarm.code for alarm in alarms}
        for code in [code for code in self._alarms if code not in codes]:
            del self._alarms[code]
        for alarm in alarms:
            told = self._alarms.get(alarm.code)
            if told is None or now_ns - told[0] >= ALARMS_REPEAT_NS:
                self._alarms[alarm.code] = (now_ns, alarm.text)
                log.error("takeover alarm", extra={"code": alarm.code, "text": alarm.text})

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Nothing but ZaibeiErrors, handled where they come up, may end a task of ours."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if self._on_broken is not None:
            self._on_broken(error)
        else:
            task.get_loop().call_exception_handler({"message": "takeover runner broken", "exception": error, "task": task})


__all__ = ["LOOK_NS", "Probe", "RunnerConfig", "TakeoverRunner", "Verdict", "boottime_ns"]
