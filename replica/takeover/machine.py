"""Resolution takeover of one source and its return, in steps that are each safe if the process dies right after (SEMANTICS 7).

`Takeover.step` takes the present (committed group state, verdict of the detector, what publications are confirmed) and returns
what to do next; nothing is remembered that a restart would need. Invariants: authority is committed before an overlay, an overlay
before its publication; on the way back the overlay is withdrawn and unpublished before the source has authority again; every
serial is above any seen. Registration (its fence, ladder and primary flag) is not decided here.

    NORMAL -> SUSPECT -> TAKING_OVER -> TAKEN_OVER ("serving, not yet found") -> PUBLISHED -> WITHDRAWING -> NORMAL
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from replica.model.errors import ZaibeiError, require
from replica.model.group_state import GroupState
from replica.model.identifier import prefix_text
from replica.model.ladder import GRADUATION, Stage
from replica.model.states import Authority, FeedState
from replica.model.view import FRESH_AGE_MS_MAX
from replica.takeover.detector import MS, Verdict
from replica.takeover.families import is_outdated, site_without
from replica.takeover.overlay import (
    authority_entry,
    live_overlays,
    overlay_entry,
    resolution_sites,
    serial_above,
)
from replica.takeover.publish import Publication, Standing
from replica.v1 import entry_pb2

RETURNING = "return:"  # before the act while overlays are withdrawn and unpublished
RETURNED = "returned:"  # behind us
HELD_OFF = "held-off:"  # an operator gave back a source that looked dead: no automatic takeover before it was seen alive
AUTOMATIC = "auto:"
PROBES_FAILING_MIN = 3  # of a node whose agent lives; some 10 s in peace
COMMITS_PER_STEP_MAX = 64  # overlays proposed together; more follow in the next step
PLANNED = "planned:"  # an operator took over a living source: only an operator gives it back


class Phase(StrEnum):
    """Where a source's resolution stands; derived from committed state, so a restart finds it again."""

    NORMAL = "normal"
    SUSPECT = "suspect"
    TAKING_OVER = "taking_over"
    TAKEN_OVER = "taken_over"  # serving, not yet found
    PUBLISHED = "published"
    WITHDRAWING = "withdrawing"
    REGISTRATION = "registration"  # the ladder's: we are the authority, nothing to do here


MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.NORMAL: frozenset({Phase.SUSPECT, Phase.TAKING_OVER, Phase.REGISTRATION}),
    Phase.SUSPECT: frozenset({Phase.NORMAL, Phase.TAKING_OVER, Phase.REGISTRATION}),
    Phase.TAKING_OVER: frozenset({Phase.TAKEN_OVER, Phase.PUBLISHED, Phase.WITHDRAWING, Phase.REGISTRATION}),
    Phase.TAKEN_OVER: frozenset({Phase.PUBLISHED, Phase.TAKING_OVER, Phase.WITHDRAWING, Phase.REGISTRATION}),
    Phase.PUBLISHED: frozenset({Phase.TAKEN_OVER, Phase.TAKING_OVER, Phase.WITHDRAWING, Phase.REGISTRATION}),
    # It died again before or after its overlays were withdrawn.
    Phase.WITHDRAWING: frozenset(
        {Phase.NORMAL, Phase.SUSPECT, Phase.TAKING_OVER, Phase.TAKEN_OVER, Phase.PUBLISHED, Phase.REGISTRATION}
    ),
    # A hand-back leaves us resolving, with the overlays of before, until the source took its epoch.
    Phase.REGISTRATION: frozenset(
        {Phase.NORMAL, Phase.SUSPECT, Phase.WITHDRAWING, Phase.TAKING_OVER, Phase.TAKEN_OVER, Phase.PUBLISHED}
    ),
}

SHOWN: dict[Phase, str] = {
    Phase.NORMAL: "the source answers",
    Phase.SUSPECT: "the source is silent, probes decide",
    Phase.TAKING_OVER: "taking over",
    Phase.TAKEN_OVER: "serving, not yet found",
    Phase.PUBLISHED: "serving, found",
    Phase.WITHDRAWING: "giving back",
    Phase.REGISTRATION: "we are the authority",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator set for one source.

    Args:
        automatic: take over without being asked when the detector says dead.
        return_automatic: give back without being asked.
        return_stable_ms: the source must look well so long; doubles for each return within return_recent_ms, up to
            return_stable_ms_max.
        unpublish_wait_ms_max: after so long an unconfirmed withdrawal no longer delays the return; it alarms.
    """

    automatic: bool = True
    return_automatic: bool = True
    return_stable_ms: int = 2_000
    return_stable_ms_max: int = 60_000
    return_recent_ms: int = 300_000
    unpublish_wait_ms_max: int = 30_000


@dataclass(frozen=True, slots=True)
class Order:
    """An operator's run of a plan. `act` is unique to it, so repeating it changes nothing."""

    take: bool  # False: give back
    act: str
    reason: str


@dataclass(frozen=True, slots=True)
class World:
    """The present, as plain values.

    Args:
        verdict_why: one sentence, goes into the committed reason.
        age_ms: age of our position (SEMANTICS 4); None: unknown.
        service_alive: the newest probe of the node's own resolution endpoints was answered, after the newest one that failed.
        node_sites: HS_SITE data the node has published, by prefix key.
        standings: (adapter, prefix text) -> what is known of that publication.
    """

    state: GroupState
    verdict: Verdict
    verdict_why: str
    age_ms: int | None
    service_alive: bool
    leads: bool  # this member leads the group; others only watch
    node_sites: Mapping[bytes, tuple[bytes, ...]]
    adapters: tuple[str, ...]
    standings: Mapping[tuple[str, str], Standing]
    now_ns: int  # boottime
    now_ms: int  # Unix, shown to people
    probes_failing: int = 0  # in a row, up to now
    dead: frozenset[str] = frozenset()  # our own addresses that nobody is answered at (families.py)


@dataclass(frozen=True, slots=True)
class Commit:
    """Propose this entry. Several of one step may be under way together; look again when the last one is applied."""

    entry: entry_pb2.Entry
    what: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Ask one adapter; several may run at once."""

    adapter: str
    publication: Publication


@dataclass(frozen=True, slots=True)
class Alarm:
    """Tell people; repeated by `step` as long as it holds, the edge tells each once."""

    code: str
    text: str


Step = Commit | Publish | Alarm


def phase_of(state: GroupState, verdict: Verdict, found: bool) -> Phase:
    """The phase that committed state, verdict and confirmations amount to."""
    if state.authority is Authority.REGISTRATION:
        return Phase.REGISTRATION
    if state.authority is Authority.SOURCE:
        return Phase.NORMAL if verdict is Verdict.ALIVE else Phase.SUSPECT
    if state.authority_act.startswith(RETURNING):
        return Phase.WITHDRAWING
    if missing_overlays(state):
        return Phase.TAKING_OVER
    return Phase.PUBLISHED if found else Phase.TAKEN_OVER


def missing_overlays(state: GroupState) -> list[bytes]:
    """Owned prefixes that have no overlay in force. A source that leaves for its node needs none: its clients know us already."""
    if state.authority_act.startswith(PLANNED + GRADUATION):
        return []
    standing = live_overlays(state)
    return [prefix for prefix in state.prefixes if prefix not in standing]


def publications(state: GroupState) -> list[Publication]:
    """What every adapter must hold now: the overlays in force, or while giving back their withdrawal."""
    if state.authority_act.startswith(RETURNING) and not live_overlays(state):
        return [
            Publication(prefix_text(prefix), (), state.serial_highest, state.authority_act, withdrawn=True)
            for prefix in state.prefixes
        ]
    return [
        Publication(prefix_text(overlay.prefix), overlay.sites, overlay.serial, overlay.act)
        for overlay in live_overlays(state).values()
    ]


def unfit(state: GroupState) -> str:
    """Why answering for this source would help nobody; empty when it would."""
    if not state.ready:
        return "no complete copy is held"
    if state.verified is False or state.feed is FeedState.DIVERGED:
        return "the copy differs from the source's certificate"
    if not state.prefixes:
        return "the source owns no prefix"
    return ""


@dataclass(slots=True)
class Takeover:
    """Decides for one source. Made anew at every start; only waiting times live here."""

    own_site: bytes
    policy: Policy = field(default_factory=Policy)
    phase: Phase = Phase.NORMAL
    order: Order | None = None
    _well_since_ns: int | None = None
    _withdrawn_since_ns: int | None = None
    _returns_ns: list[int] = field(default_factory=list)
    _led: bool = False

    def step(self, world: World) -> tuple[Step, ...]:
        """What to do now; the caller steps again when the commits are applied or something changed."""
        state = world.state
        self._see_life(world)
        wanted = publications(state) if state.authority is Authority.RESOLUTION else []
        pending = [
            Publish(adapter, publication)
            for adapter in world.adapters
            for publication in wanted
            if not world.standings.get((adapter, publication.prefix), Standing()).meets(publication)
        ]
        self._move(phase_of(state, world.verdict, bool(world.adapters) and not pending), world)
        self._forget_done_order(state)
        if not world.leads:
            return ()
        match self.phase:
            case Phase.NORMAL | Phase.SUSPECT:
                return self._at_source(world)
            case Phase.TAKING_OVER:
                return (*self._overlay_next(world), *pending)
            case Phase.TAKEN_OVER | Phase.PUBLISHED:
                return (*(self._give_back(world) or self._renewed(world)), *pending)
            case Phase.WITHDRAWING:
                return self._withdraw(world, pending)
        return ()

    def _at_source(self, world: World) -> tuple[Step, ...]:
        state, order, why_not = world.state, self.order, unfit(world.state)
        if order is not None and order.take and not why_not:
            return (Commit(authority_entry(Authority.RESOLUTION, order.act, order.reason, at_ms=world.now_ms), "authority"),)
        held_off = state.authority_act.startswith(HELD_OFF)
        if held_off and world.verdict is Verdict.ALIVE and world.service_alive:
            seen = RETURNED + state.authority_act.removeprefix(HELD_OFF)
            return (Commit(authority_entry(Authority.SOURCE, seen, "seen alive again", at_ms=world.now_ms), "held-off ends"),)
        if world.verdict is Verdict.ALIVE and world.probes_failing >= PROBES_FAILING_MIN:
            text = f"{state.source} sends beats, but answers none of our probes: its clients may get nothing. Next: look at its"
            return (Alarm("alive_not_answering", f"{text} resolver, or zaibei takeover plan {state.source}"),)
        if world.verdict is not Verdict.DEAD:
            return ()
        if not self.policy.automatic or held_off:
            why = "an operator gave it back" if held_off else "automatic takeover is off"
            text = f"{state.source} is dead and not taken over ({why}). Next: zaibei takeover plan {state.source}"
            return (Alarm("dead_not_taken", text),)
        if why_not:
            return (Alarm("dead_unfit", f"{state.source} is dead and cannot be taken over: {why_not}"),)
        act = f"{AUTOMATIC}{state.source}:{state.index}"
        return (Commit(authority_entry(Authority.RESOLUTION, act, world.verdict_why, at_ms=world.now_ms), "authority"),)

    def _overlay_next(self, world: World) -> tuple[Step, ...]:
        if self._wants_back(world):
            return self._begin_return(world)
        return self._overlays(world, {prefix: world.node_sites.get(prefix, ()) for prefix in missing_overlays(world.state)})

    def _overlays(self, world: World, beside: Mapping[bytes, tuple[bytes, ...]], why: str = "") -> tuple[Step, ...]:
        """Our site for these prefixes, before these sites of the node."""
        state, steps = world.state, list[Step]()
        serial = serial_above(state, (self.own_site,)) if beside else 0
        for prefix, node_sites in list(beside.items())[:COMMITS_PER_STEP_MAX]:
            try:
                serial = max(serial, serial_above(state, node_sites))
                sites = resolution_sites(site_without(self.own_site, world.dead), node_sites, serial)
            except ZaibeiError as exc:
                return (*steps, Alarm("cannot_publish", f"{prefix_text(prefix)}: {exc.trouble.message}"))
            entry = overlay_entry(prefix, sites, serial, state.authority_act, at_ms=world.now_ms)
            steps.append(Commit(entry, f"overlay {prefix_text(prefix)} serial {serial}{why}"))
            serial += 1
        return tuple(steps)

    def _renewed(self, world: World) -> tuple[Step, ...]:
        """An address of ours died, or answers again: what is published follows, the node's sites stay as they were."""
        old = {
            prefix: overlay.sites[1:]
            for prefix, overlay in live_overlays(world.state).items()
            if overlay.sites and is_outdated(overlay.sites[0], self.own_site, world.dead)
        }
        return self._overlays(world, old, ", our addresses changed")

    def _give_back(self, world: World) -> tuple[Step, ...]:
        return self._begin_return(world) if self._wants_back(world) else ()

    def _wants_back(self, world: World) -> bool:
        """Ordered; or the source has looked well for long enough and nobody planned to keep it."""
        act = world.state.authority_act
        if self.order is not None and not self.order.take:
            return True
        if not self.policy.return_automatic or act.startswith(PLANNED) or self._well_since_ns is None:
            return False
        return world.now_ns - self._well_since_ns >= self._stable_ms(world.now_ns) * MS

    def _begin_return(self, world: World) -> tuple[Step, ...]:
        order = self.order
        held_off = order is not None and not order.take and world.verdict is not Verdict.ALIVE
        act = RETURNING + (HELD_OFF if held_off else "") + (order.act if order is not None else world.state.authority_act)
        reason = order.reason if order is not None else "the source is alive, its feed flows and our position reached its head"
        return (Commit(authority_entry(Authority.RESOLUTION, act, reason, at_ms=world.now_ms), "return begins"),)

    def _withdraw(self, world: World, pending: list[Publish]) -> tuple[Step, ...]:
        state = world.state
        act = state.authority_act.removeprefix(RETURNING)
        if world.verdict is Verdict.DEAD and self.policy.automatic and not act.startswith(HELD_OFF) and not unfit(state):
            again = f"{AUTOMATIC}{state.source}:{state.index}"
            return (Commit(authority_entry(Authority.RESOLUTION, again, world.verdict_why, at_ms=world.now_ms), "died again"),)
        overlays = live_overlays(state)
        if overlays:
            return tuple(
                Commit(
                    overlay_entry(prefix, (), serial, state.authority_act, withdrawn=True, at_ms=world.now_ms),
                    f"overlay {prefix_text(prefix)} withdrawn, serial {serial}",
                )
                for serial, prefix in enumerate(list(overlays)[:COMMITS_PER_STEP_MAX], serial_above(state, ()))
            )
        if act.startswith(GRADUATION) and state.ladder.stage is not Stage.OBSERVED:
            return ()  # nobody knows yet how old our copy of its new epoch is: until then what is held is answered as before
        if self._withdrawn_since_ns is None:
            self._withdrawn_since_ns = world.now_ns
        waited_long = world.now_ns - self._withdrawn_since_ns >= self.policy.unpublish_wait_ms_max * MS
        if pending and not waited_long:
            return tuple(pending)
        done = act if act.startswith(HELD_OFF) else RETURNED + act
        commit = Commit(authority_entry(Authority.SOURCE, done, "given back", at_ms=world.now_ms), "authority returned")
        if not pending:
            return (commit,)
        names = ", ".join(sorted({publish.adapter for publish in pending}))
        return (commit, Alarm("withdrawal_unconfirmed", f"{names} may still name our site for {state.source}: check it by hand"))

    def _see_life(self, world: World) -> None:
        state = world.state
        caught_up = world.age_ms is not None and world.age_ms <= FRESH_AGE_MS_MAX and state.feed is FeedState.FLOWING
        well = world.verdict is Verdict.ALIVE and world.service_alive and caught_up and state.authority is Authority.RESOLUTION
        if not well:
            self._well_since_ns = None
        elif self._well_since_ns is None:
            self._well_since_ns = world.now_ns
        if not state.authority_act.startswith(RETURNING):
            self._withdrawn_since_ns = None

    def _stable_ms(self, now_ns: int) -> int:
        """Bounded hysteresis: a source that flaps is trusted later each time."""
        recent = sum(1 for at in self._returns_ns if now_ns - at <= self.policy.return_recent_ms * MS)
        return min(self.policy.return_stable_ms << recent, self.policy.return_stable_ms_max)

    def _forget_done_order(self, state: GroupState) -> None:
        if self.order is None:
            return
        taken = state.authority is not Authority.SOURCE and not state.authority_act.startswith(RETURNING)
        if taken if self.order.take else not taken:
            self.order = None

    def _move(self, phase: Phase, world: World) -> None:
        """A member that only watches, or has just begun to lead, may see several moves as one."""
        legal = not self._led or phase is self.phase or phase in MOVES[self.phase]
        require(legal, f"a takeover cannot move from {self.phase} to {phase}")
        if self.phase is Phase.WITHDRAWING and phase in (Phase.NORMAL, Phase.SUSPECT):
            self._returns_ns = [*self._returns_ns[-8:], world.now_ns]
        self.phase, self._led = phase, world.leads
