"""The leader's part of the ladder: from the present to the next move, up to SERVING (SEMANTICS 5, 7, 8; DOMAIN).

`LadderMachine.step` takes the present and returns what to do next; all it builds on is committed, so that after a crash or a
change of leader the next one goes on where this one stood. Stages, legal moves and the way back are named in model/ladder.py,
what each move requires in model/ladder_rules.py; here stands when which one is proposed:

| stage | goes on when |
| --- | --- |
| NORMAL | most probes of a window failed; or an operator runs a plan. Held off: it was seen well again |
| SUSPECT, THRESHOLD | probes say so; well again leads back. An order in force begins the act, if nothing would be lost |
| PROPOSED | enough people and orders approve. An act that probes began ends when the source is well again |
| APPROVED | the last write-path lease has run out as we count it; what is loaded beside is given up. A switchover: at once |
| DRAINING | of a switchover: the source ended its writing, and we stand there with its content (switchover.py) |
| FENCED | at once: the next epoch is granted to us |
| PROMOTED | overlays stand, adapters confirm them; without that after `publish_wait_ms`: "serving, not yet found". A switchover
waits for no adapter: the source still answers, and each ms is one in which nobody registers |
| PUBLISHED | at once |
| SERVING | publications are kept up; the way back is another's |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from replica.model.drained import Drained
from replica.model.errors import ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import prefix_text
from replica.model.ladder import ABORTABLE, CLOSED, DRAIN_MS_MAX, FREEZE_MS_MAX, RENEWABLE, Fence, Function, OrderKind, Stage
from replica.model.ladder_epochs import fence_of, lease_wait_ms, unfit
from replica.model.ladder_rules import not_enough, not_switchable, orders_that_count, too_far_behind
from replica.model.position import epoch_start
from replica.model.signing import Signer, grant_octets
from replica.model.states import Authority
from replica.takeover.families import is_outdated, site_without
from replica.takeover.ladder_plan import Climb, automatic_climb
from replica.takeover.machine import COMMITS_PER_STEP_MAX, Alarm, Commit, Publish, Step
from replica.takeover.overlay import overlay_entry, serial_above, site_with
from replica.takeover.publish import Publication, Standing
from replica.takeover.switchover import Close, Drain, Draining, GiveUp
from replica.takeover.threshold import Evidence, Level
from replica.v1 import entry_pb2, source_pb2

S = Stage
LadderStep = Step | Drain
ENTRY_FORMAT = 1
REASON_CHARS_MAX = 200
PROPOSED_MS_MAX = 24 * 3_600_000  # what was listed then is not what is true now

HURRIED = frozenset({S.DRAINING, S.FENCED, S.PROMOTED})  # nobody registers meanwhile


@dataclass(frozen=True, slots=True)
class LadderPolicy:
    """What an operator set for one source.

    Args:
        publish_wait_ms: so long adapters may take before registrations are accepted although nobody confirmed our site.
    """

    publish_wait_ms: int = 1_000
    proposed_ms_max: int = PROPOSED_MS_MAX


@dataclass(frozen=True, slots=True)
class LadderWorld:
    """The present, as plain values.

    Args:
        evidence: what probes say of each function.
        source_heard: the source's feed or a lease renewal was heard of late: then nothing begins by itself.
        behind: changes the source stated and we have not applied; None: unknown. It may have written more since its last word.
        age_ms: of our position.
        lease_waited_ms: since the newest renewal that is applied, as lease.py counts.
        unguarded: the source spoke after its lease had ended, and asked for none: what guarded it is gone.
        adapters, standings: as of the resolution machine.
        now_ns: boottime; now_ms: Unix.
        drained: the source's newest statement that it ended its writing, about any act.
        node_sites: HS_SITE data the node itself has published, by prefix key: ours must bear a higher serial.
        dead: our own addresses that nobody is answered at (families.py).
    """

    state: GroupState
    leads: bool
    evidence: Mapping[Function, Evidence]
    source_heard: bool
    behind: int | None
    age_ms: int | None
    lease_waited_ms: int
    unguarded: bool
    adapters: tuple[str, ...]
    standings: Mapping[tuple[str, str], Standing]
    now_ns: int
    now_ms: int
    drained: Drained | None = None
    node_sites: Mapping[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    dead: frozenset[str] = frozenset()

    def level(self, function: Function) -> Level:
        """UNKNOWN where nothing probes it."""
        found = self.evidence.get(function)
        return Level.UNKNOWN if found is None else found.level

    @property
    def worst(self) -> Evidence | None:
        """The function that fails most: at least one of them must be unavailable."""
        order = (Level.THRESHOLD, Level.SUSPECT)
        return next((one for level in order for one in self.evidence.values() if one.level is level), None)

    @property
    def well(self) -> bool:
        """Something was read and answered, nothing fails."""
        levels = {one.level for one in self.evidence.values()}
        return Level.WELL in levels and not levels & {Level.SUSPECT, Level.THRESHOLD}


def move_entry(world: LadderWorld, stage: Stage, reason: str, act: str | None = None, **parts: object) -> entry_pb2.Entry:
    """A move from where the ladder stands now.

    Args:
        act: of the move; None: the one under way.
        parts: fields of replica.v1.Ladder that belong to this move.
    """
    ladder = world.state.ladder
    body = entry_pb2.Ladder(
        stage=entry_pb2.Ladder.Stage.ValueType(int(stage)),
        act=ladder.act if act is None else act,
        reason=reason[:REASON_CHARS_MAX],
        decided_ms=world.now_ms,
        **parts,  # type: ignore[arg-type]
    )
    setattr(body, "from", entry_pb2.Ladder.Stage.ValueType(int(ladder.stage)))
    return entry_pb2.Entry(format=ENTRY_FORMAT, admitted_ms=world.now_ms, ladder=body)


def own_grant(state: GroupState, holder: str, reason: str, signer: Signer) -> source_pb2.Grant:
    """The epoch after a fence: ours, from exactly where the source's was closed."""
    parent, newest = state.position, state.granted
    highest = max(parent.epoch, 0 if newest is None else newest.epoch)
    start = epoch_start(parent, parent.lineage, highest + 1)
    return source_pb2.Grant(
        source=state.source,
        parent=parent.to_wire(),
        start=start.to_wire(),
        reason=reason,
        holder=holder,
        signature=signer.sign(grant_octets(state.source, parent, start, reason, holder)),
    )


def missing(state: GroupState) -> list[bytes]:
    """Owned prefixes without an overlay of the act under way."""
    standing = {one.prefix for one in state.overlays if not one.shadow and one.act == state.ladder.act}
    return [prefix for prefix in state.prefixes if prefix not in standing]


def publications(state: GroupState) -> list[Publication]:
    """What every adapter must hold while we are the authority: our site alone, with the primary flag."""
    if state.authority is not Authority.REGISTRATION or state.ladder.stage not in CLOSED:
        return []
    return [
        Publication(prefix_text(one.prefix), one.sites, one.serial, one.act)
        for one in state.overlays
        if not one.shadow and one.act == state.ladder.act
    ]


@dataclass(slots=True)
class LadderMachine:
    """Decides for one source. Made anew at every start; only waiting times and an operator's run live here.

    Args:
        own_site: HS_SITE data of this cluster; b"": nothing can be published, so nothing is taken over.
        holder: who an epoch of ours is granted to: this cluster's member.
    """

    own_site: bytes
    holder: str
    signer: Signer
    policy: LadderPolicy = field(default_factory=LadderPolicy)
    climb: Climb | None = None
    abort: str = ""  # an operator's reason to give up an act before it is fenced
    pause_ms: int | None = None  # of the newest switchover: from asking the source to SERVING, as this leader saw it
    _promoted_ns: int | None = None
    _draining: Draining | None = None

    def step(self, world: LadderWorld) -> tuple[LadderStep, ...]:
        """What to do now; the caller steps again when the commits are applied or something changed."""
        stage = world.state.ladder.stage
        if stage is not S.PROMOTED:
            self._promoted_ns = None
        approved = stage in (S.APPROVED, S.DRAINING)
        if self.climb is not None and (stage in CLOSED or (approved and world.state.ladder.act == self.climb.act)):
            self.climb = None
        if stage not in ABORTABLE:
            self.abort = ""
        self._count_pause(world)
        lives_here = world.state.authority is Authority.REGISTRATION and stage is S.NORMAL
        if not world.leads or lives_here:
            return ()
        if world.unguarded and stage in RENEWABLE:
            return (Commit(_no_guard(world), "its guard asks for no lease any more"), *_owed(world))
        return (*_STEPS.get(stage, _nothing)(self, world), *_owed(world))

    def _count_pause(self, world: LadderWorld) -> None:
        """How long nobody registered in a switchover, at most: the source stopped after it was asked."""
        draining, ladder = self._draining, world.state.ladder
        if draining is None or ladder.stage in HURRIED:
            return
        if ladder.stage is S.SERVING and ladder.act == draining.act and draining.asked_ns is not None:
            self.pause_ms = (world.now_ns - draining.asked_ns) // 1_000_000
        self._draining = None

    # -- before the fence

    def normal(self, world: LadderWorld) -> tuple[Step, ...]:
        """NORMAL: an operator's act begins, or probes begin to fail."""
        ladder, worst = world.state.ladder, world.worst
        if self.climb is not None:
            return self._propose(world, self.climb)
        if ladder.held_off:
            if world.well:
                return (Commit(move_entry(world, S.NORMAL, "it was seen well again"), "ladder: seen well"),)
            return ()
        if worst is None:
            return ()
        return (Commit(move_entry(world, S.SUSPECT, worst.text()), "ladder: suspect"),)

    def suspect(self, world: LadderWorld) -> tuple[Step, ...]:
        """SUSPECT: on to the threshold, or back."""
        worst = world.worst
        if self.climb is not None:
            return self._propose(world, self.climb)
        if world.well:
            return (Commit(move_entry(world, S.NORMAL, "probes are answered again"), "ladder: normal"),)
        if worst is not None and worst.level is Level.THRESHOLD:
            return (Commit(move_entry(world, S.THRESHOLD, worst.text()), "ladder: threshold"),)
        return ()

    def threshold(self, world: LadderWorld) -> tuple[Step, ...]:
        """THRESHOLD: an order in force begins the act; otherwise people are called."""
        state, worst = world.state, world.worst
        if self.climb is not None:
            return self._propose(world, self.climb)
        if world.well:
            return (Commit(move_entry(world, S.NORMAL, "probes are answered again"), "ladder: normal"),)
        why_not = self._not_by_itself(world, worst)
        if worst is not None and not why_not:
            return self._propose(world, automatic_climb(state, worst.text()))
        text = f"registration of {state.source} is unavailable ({state.ladder.reason}). Not taken over by itself: {why_not}"
        return (Alarm("threshold_reached", f"{text}. Next: zaibei takeover plan {state.source} --registration"),)

    def _not_by_itself(self, world: LadderWorld, worst: Evidence | None) -> str:
        """Why an act does not begin without a person; empty when it does."""
        state = world.state
        if not orders_in_force(world):
            return "no order of the top-level node is in force"
        if worst is None or worst.level is not Level.THRESHOLD:
            return "the probes say nothing of late"
        if world.source_heard:
            return "the source is heard on its feed: our probes of it may be blocked"
        if not worst.several:
            return f"only {', '.join(worst.failing_at)} finds it so"
        climb = automatic_climb(state, "")
        if climb.fence is Fence.NONE:
            return "it holds no write-path lease, so it cannot be fenced: two people must approve the very act"
        return self._refusal(world, climb)

    def _refusal(self, world: LadderWorld, climb: Climb) -> str:
        if not self.own_site:
            return "this cluster has no site of its own to publish: set its public addresses"
        if climb.switchover:
            return unfit(world.state) or not_switchable(world.state)
        return unfit(world.state) or too_far_behind(world.behind, climb.accepted, climb.accepts_unknown)

    def _propose(self, world: LadderWorld, climb: Climb) -> tuple[Step, ...]:
        if why := self._refusal(world, climb):
            return (Alarm("takeover_refused", f"registration of {world.state.source} is not taken over: {why}"),)
        proposed = climb.proposed(world.behind, world.age_ms)
        return (Commit(move_entry(world, S.PROPOSED, climb.reason, climb.act, proposed=proposed), "ladder: proposed"),)

    def proposed(self, world: LadderWorld) -> tuple[Step, ...]:
        """PROPOSED: approved by enough, given up, or waiting for people."""
        ladder = world.state.ladder
        if given_up := self._given_up(world):
            return given_up
        climb = self.climb
        if climb is None and ladder.automatic:
            climb = automatic_climb(world.state, ladder.reason)
        if climb is None or climb.plan != ladder.plan:
            return (Alarm("approval_wanted", f"takeover {ladder.act} of {world.state.source} waits for approval"),)
        orders = orders_in_force(world)
        counted = orders_that_count(ladder, orders, world.now_ms)
        people = len({one.operator for one in climb.approvals})
        lacking = counted if isinstance(counted, str) else not_enough(ladder.fence, people, counted, ladder.automatic)
        if lacking and not climb.break_glass:
            return (Alarm("approval_wanted", f"takeover {ladder.act} of {world.state.source}: {lacking}"),)
        approved = entry_pb2.Approved(approvals=climb.approvals, orders=orders, break_glass=climb.break_glass)
        return (Commit(move_entry(world, S.APPROVED, climb.reason, approved=approved), "ladder: approved"),)

    def approved(self, world: LadderWorld) -> tuple[Step, ...]:
        """APPROVED: no lease is renewed any more; the last one must end."""
        state = world.state
        if given_up := self._given_up(world):
            return given_up
        if state.ladder.switchover:  # no lease is given meanwhile: it goes on at once, or not at all
            return (Commit(move_entry(world, S.DRAINING, "the source is asked to end its writing"), "ladder: draining"),)
        if state.side is not None:
            abort = entry_pb2.LoadAbort(side=state.side.number, reason=f"registration is taken over: {state.ladder.act}")
            entry = entry_pb2.Entry(format=ENTRY_FORMAT, admitted_ms=world.now_ms, load_abort=abort)
            return (Commit(entry, "load given up"),)
        if why := unfit(state):
            return (Alarm("fence_refused", f"takeover {state.ladder.act} of {state.source} cannot go on: {why}"),)
        if lease_left_ms(world):
            return ()
        facts = entry_pb2.LeaseFacts(renewed_index=state.ladder.lease_index, waited_ms=world.lease_waited_ms)
        return (Commit(move_entry(world, S.FENCED, "the source's epoch is closed", lease=facts), "ladder: fenced"),)

    def draining(self, world: LadderWorld) -> tuple[LadderStep, ...]:
        """DRAINING: the source ends its writing, or goes on."""
        state = world.state
        if given_up := self._given_up(world):
            return given_up
        if self._draining is None or self._draining.act != state.ladder.act:
            self._draining = Draining(state.ladder.act, world.now_ns)
        match self._draining.next(state, world.drained, world.now_ns, world.now_ms):
            case Drain() as ask:
                return (ask,)
            case Close(digest):
                reason = f"the source ended its writing at {digest.position.short()}, its content is ours"
                return (Commit(move_entry(world, S.FENCED, reason, digest=digest.to_wire()), "ladder: fenced"),)
            case GiveUp(why):
                return (Commit(move_entry(world, state.ladder.began_from, why), "ladder: given up"),)
            case _:
                return ()

    def _given_up(self, world: LadderWorld) -> tuple[Step, ...]:
        state, ladder = world.state, world.state.ladder
        why = self.abort
        if not why and ladder.switchover and ladder.stage is S.APPROVED:
            why = unfit(state) or ("a generation is being loaded beside" if state.side is not None else "")
        if not why and ladder.automatic and world.well:
            why = "the source is well again"
        if not why and ladder.stage is S.PROPOSED and world.now_ms - ladder.since_ms > self.policy.proposed_ms_max:
            why = "nobody approved it in time: what it listed is no longer so"
        return (Commit(move_entry(world, ladder.began_from, why), "ladder: given up"),) if why else ()

    # -- from the fence on

    def fenced(self, world: LadderWorld) -> tuple[Step, ...]:
        """FENCED: the next epoch is ours."""
        reason = f"registration takeover {world.state.ladder.act}"
        grant = own_grant(world.state, self.holder, reason, self.signer)
        return (Commit(move_entry(world, S.PROMOTED, reason, grant=grant), "ladder: promoted"),)

    def promoted(self, world: LadderWorld) -> tuple[Step, ...]:
        """PROMOTED: overlays first, then adapters; a silent adapter delays registrations for a moment only."""
        if self._promoted_ns is None:
            self._promoted_ns = world.now_ns
        steps, pending = self._overlays(world), self._pending(world)
        if not steps and not pending and world.adapters:
            return (Commit(move_entry(world, S.PUBLISHED, "every adapter confirmed our site"), "ladder: published"),)
        waited_ms = (world.now_ns - self._promoted_ns) // 1_000_000
        limit_ms = 0 if world.state.ladder.switchover else self.policy.publish_wait_ms
        if waited_ms < limit_ms and (steps or pending):
            return (*steps, *pending)
        return (*steps, *pending, Commit(move_entry(world, S.SERVING, "serving, not yet found"), "ladder: serving"))

    def published(self, world: LadderWorld) -> tuple[Step, ...]:
        """PUBLISHED: registrations are accepted."""
        return (Commit(move_entry(world, S.SERVING, "published and found"), "ladder: serving"),)

    def serving(self, world: LadderWorld) -> tuple[Step, ...]:
        """SERVING and the way back: what is published is kept up."""
        pending, state = self._pending(world), world.state
        steps = [*self._overlays(world), *pending]
        if pending or not world.adapters:
            names = ", ".join(sorted({step.adapter for step in pending})) or "no adapter is configured"
            steps.append(Alarm("not_yet_found", f"{state.source}: serving, not yet found ({names})"))
        if state.ladder.order(OrderKind.END, Function.REGISTRATION, world.now_ms) and state.ladder.stage is S.SERVING:
            text = f"the top-level node ends the takeover of {state.source}. Next: zaibei failback {state.source}"
            steps.append(Alarm("end_ordered", text))
        return tuple(steps)

    def _overlays(self, world: LadderWorld) -> list[Step]:
        """Our site alone, primary, for every prefix that lacks it, or has it with other addresses than answer now."""
        state, steps = world.state, list[Step]()
        serial = serial_above(state, (self.own_site,)) if self.own_site else 0
        for prefix in [*missing(state), *self._outdated(world)][:COMMITS_PER_STEP_MAX]:
            try:
                serial = max(serial, serial_above(state, world.node_sites.get(prefix, ())))
                sites = (site_with(site_without(self.own_site, world.dead), serial=serial, primary=True),)
            except ZaibeiError as exc:
                return [*steps, Alarm("cannot_publish", f"{prefix_text(prefix)}: {exc.trouble.message}")]
            entry = overlay_entry(prefix, sites, serial, state.ladder.act, at_ms=world.now_ms)
            steps.append(Commit(entry, f"overlay {prefix_text(prefix)} serial {serial}, primary"))
            serial += 1
        return steps

    def _outdated(self, world: LadderWorld) -> list[bytes]:
        act = world.state.ladder.act
        return [
            one.prefix
            for one in world.state.overlays
            if not one.shadow and one.act == act and one.sites and is_outdated(one.sites[0], self.own_site, world.dead)
        ]

    def _pending(self, world: LadderWorld) -> list[Publish]:
        return [
            Publish(adapter, publication)
            for adapter in world.adapters
            for publication in publications(world.state)
            if not world.standings.get((adapter, publication.prefix), Standing()).meets(publication)
        ]


def orders_in_force(world: LadderWorld) -> list[int]:
    """Numbers of the orders that may count for an approval now."""
    ladder = world.state.ladder
    kinds = (OrderKind.TAKEOVER, OrderKind.STANDING)
    found = [ladder.order(kind, Function.REGISTRATION, world.now_ms) for kind in kinds]
    return [one.number for one in found if one is not None]


def lease_left_ms(world: LadderWorld) -> int:
    """How long the source's last lease still runs, as we count it; 0: it has ended, or there is no fence to wait for."""
    if fence_of(world.state) is not Fence.WRITE_PATH:
        return 0
    return max(0, lease_wait_ms(world.state.ladder.lease_ms) - world.lease_waited_ms)


def unguarded(state: GroupState, waited_ms: int, heard_ms_ago: int | None) -> bool:
    """The source's newest word came after its lease had certainly ended: it goes on without asking for leases.

    Args:
        waited_ms: since the newest renewal, never too long; heard_ms_ago: since the source's newest word.
    """
    if fence_of(state) is not Fence.WRITE_PATH or heard_ms_ago is None:
        return False
    return waited_ms - heard_ms_ago > lease_wait_ms(state.ladder.lease_ms)


def waits_for(world: LadderWorld) -> str:
    """What the ladder waits for, in words; empty when nothing."""
    ladder = world.state.ladder
    match ladder.stage:
        case S.THRESHOLD:
            return "a decision: two people, or an order of the top-level node"
        case S.PROPOSED:
            counted = orders_that_count(ladder, orders_in_force(world), world.now_ms)
            return counted if isinstance(counted, str) else not_enough(ladder.fence, 0, counted, ladder.automatic)
        case S.APPROVED:
            left = lease_left_ms(world)
            return f"the source's lease, {left / 1_000:.1f} s more as we count it" if left else "the fence"
        case S.DRAINING:
            return f"the source to end its writing, at most {DRAIN_MS_MAX // 1_000} s"
        case S.PROMOTED | S.PUBLISHED:
            return "publication"
        case S.FROZEN:
            return f"the source's digest, at most {FREEZE_MS_MAX // 1_000} s"
        case _:
            return ""


def _no_guard(world: LadderWorld) -> entry_pb2.Entry:
    lease = entry_pb2.LeaseRenewal(epoch=world.state.ladder.lease_epoch, duration_ms=0)
    return entry_pb2.Entry(format=ENTRY_FORMAT, admitted_ms=world.now_ms, lease=lease)


def _owed(world: LadderWorld) -> tuple[Step, ...]:
    """A break-glass act keeps alarming until somebody else has looked at it."""
    owed = world.state.ladder.review
    if owed is None:
        return ()
    late = "is overdue" if world.now_ms > owed.due_ms else "is owed"
    text = f"break-glass by {owed.operator} on {world.state.source} ({owed.reason}): its review {late}"
    return (Alarm("review_owed", f"{text}. Next: zaibei takeover review {world.state.source}"),)


def _nothing(_machine: LadderMachine, _world: LadderWorld) -> tuple[Step, ...]:
    return ()


_STEPS: dict[Stage, Callable[[LadderMachine, LadderWorld], tuple[LadderStep, ...]]] = {
    S.NORMAL: LadderMachine.normal,
    S.SUSPECT: LadderMachine.suspect,
    S.THRESHOLD: LadderMachine.threshold,
    S.PROPOSED: LadderMachine.proposed,
    S.APPROVED: LadderMachine.approved,
    S.DRAINING: LadderMachine.draining,
    S.FENCED: LadderMachine.fenced,
    S.PROMOTED: LadderMachine.promoted,
    S.PUBLISHED: LadderMachine.published,
    S.SERVING: LadderMachine.serving,
    S.RETURN_REQUESTED: LadderMachine.serving,
    S.CATCHING_UP: LadderMachine.serving,
    S.FROZEN: LadderMachine.serving,
    S.SOURCE_EQUAL: LadderMachine.serving,
}
