"""Failback: from SERVING back to the source, in steps that are each safe if the process dies right after (SEMANTICS 8). Pure.

`Failback.step` takes the present and says what to do next. Everything a restart needs is committed: the stage (model/ladder.py),
the ledger, the grants. So a failback that is begun twice, or by a new leader, goes on where it stood, and ends in one state.

| stage | what is waited for, and what is done |
| --- | --- |
| SERVING | an operator's order |
| RETURN_REQUESTED | the source is reached, and says where its own history ends |
| CATCHING_UP | its own history enters the ledger, every line is settled, its copy comes near our position |
| FROZEN | its digest at exactly our position, at most 30 s |
| SOURCE_EQUAL | nothing: the next epoch is granted to it |
| HANDED_BACK | the grant is on its disk; the feed carries it there |
| ACCEPTED | the node answers what was registered here (hand_back.py): then the sites published for us are withdrawn; |
| | and it was seen well in that epoch for a while |
| OBSERVED | the resolution is its own too |

A source that lives here leaves for a node of its own the same way, from NORMAL (model/ladder_leaving.py): the node is new and has
written nothing, and what fails leads back to NORMAL.

Invariants: nothing of the source is overwritten before its own writes are committed here; while both could write, neither does;
before HANDED_BACK every failure leads back to SERVING, after it a silent source is a new takeover.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from replica.model.digest import ContentDigest
from replica.model.group_state import GroupState
from replica.model.ladder import FREEZE_MS_MAX, GRADUATION, Stage
from replica.model.ladder_epochs import GIVING_BACK, KEPT
from replica.model.ledger import unsettled
from replica.model.position import Position
from replica.model.states import Authority, FeedState
from replica.model.view import FRESH_AGE_MS_MAX
from replica.takeover.detector import MS
from replica.takeover.hand_back import Answers
from replica.takeover.ledger import Policies
from replica.takeover.overlay import authority_entry
from replica.v1 import entry_pb2, source_pb2

FREEZE_BEHIND_MAX = 1_000  # changes the source's copy may lack when we freeze: a second's worth
NEAR, NEARING_MS_MAX = 20, 2_000  # so few are a moment's worth, and are waited for so long: nobody registers while we freeze
FREEZES_MAX = 3  # of one order: then people look
OBSERVE_MS = 2_000  # the source must look well so long in its new epoch
SILENT_MS = 10_000  # after the hand-back, without a word of the source: people are told
ENTRY_FORMAT = 1

S = Stage


class Wish(Enum):
    """What an operator ordered."""

    RETURN = "return"
    ABORT = "abort"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True)
class Order:
    """An operator's run of a plan; repeating it changes nothing. `policies`: what decides where both sides wrote a key."""

    wish: Wish
    reason: str
    policies: Policies = field(default_factory=Policies)


@dataclass(frozen=True, slots=True)
class Node:
    """What is known of the returning source at this moment, by its own words.

    Args:
        own: where its own history ends; it writes no more in it. None: not known, or it still writes.
        follows: its copy of our history stands here; None: it does not copy it.
        digest: what it states, signed, of the content it holds at `follows`.
        why: what is in the way, for people.
    """

    reached: bool = False
    own: Position | None = None
    follows: Position | None = None
    digest: ContentDigest | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class World:
    """The present, as plain values.

    Args:
        service_alive: the newest probe of the source's own service was answered.
        age_ms: age of our position (SEMANTICS 4); None: unknown.
        now_ns: boot time; now_ms: Unix.
        answers: the newest comparison of the node's own answers since it was handed back; None: none was made.
    """

    state: GroupState
    leads: bool
    node: Node
    service_alive: bool
    age_ms: int | None
    now_ns: int
    now_ms: int
    answers: Answers | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """Propose this entry; look again when it is applied."""

    entry: entry_pb2.Entry
    what: str


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring the source's own history from `after` to `until` into the ledger, classified (ledger.py)."""

    common: Position
    until: Position


@dataclass(frozen=True, slots=True)
class Settle:
    """Judge open lines again and let those enter that are accepted (reentry.py)."""

    common: Position


@dataclass(frozen=True, slots=True)
class Certify:
    """Ask the source for its digest at exactly this position."""

    position: Position


@dataclass(frozen=True, slots=True)
class Compare:
    """Ask the node itself for records that were changed here; not oftener than every second."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Tell people; repeated by `step` as long as it holds, the edge tells each once."""

    code: str
    text: str


Step = Commit | Fetch | Settle | Certify | Compare | Alarm
GrantOf = Callable[[GroupState, str], source_pb2.Grant]
"""The next epoch, granted to the source itself at our position, signed."""


def move_entry(state: GroupState, stage: Stage, reason: str, now_ms: int, act: str = "", **fields: object) -> entry_pb2.Entry:
    """A move on the ladder from where it stands; `act`: of one that begins, else the one under way."""
    ladder = state.ladder
    body = entry_pb2.Ladder(
        stage=entry_pb2.Ladder.Stage.ValueType(int(stage)),
        act=act or ladder.act,
        reason=reason,
        decided_ms=now_ms,
        **fields,  # type: ignore[arg-type]
    )
    setattr(body, "from", int(ladder.stage))
    return entry_pb2.Entry(format=ENTRY_FORMAT, admitted_ms=now_ms, ladder=body)


@dataclass(slots=True)
class Failback:
    """Decides for one source. Made anew at every start; only waiting times and the operator's order live here."""

    source: str
    grant_of: GrantOf
    order: Order | None = None
    freezes: int = 0  # of this order
    failure: str = ""  # why the newest attempt led back to SERVING
    rejudge: bool = False  # a new order came, perhaps with other policies: what waits for a person is judged again
    _stage: Stage = Stage.NORMAL
    _since_ns: int = 0  # at this stage, as far as we saw
    _well_since_ns: int | None = None
    _nearing_ns: int | None = None  # its copy lacks fewer than FREEZE_BEHIND_MAX since then

    def step(self, world: World) -> tuple[Step, ...]:
        """What to do now; the caller steps again when it is done or something changed."""
        state = world.state
        stage = state.ladder.stage
        if stage is not self._stage:
            if stage is S.FROZEN:
                self.freezes += 1
            self._stage, self._since_ns, self._well_since_ns, self._nearing_ns = stage, world.now_ns, None, None
        self._forget_done_order(state)
        if not world.leads:
            return ()
        match stage:
            case S.NORMAL if state.lives_here:
                return self._serving(world)
            case S.SERVING:
                return self._serving(world)
            case S.RETURN_REQUESTED | S.CATCHING_UP:
                return self._before_the_freeze(world)
            case S.FROZEN | S.SOURCE_EQUAL:
                return self._frozen(world)
            case S.HANDED_BACK:
                return self._handed_back(world)
            case S.ACCEPTED:
                return self._accepted(world)
            case S.OBSERVED:
                if state.authority is Authority.SOURCE:
                    return (self._move(world, S.NORMAL, "the source registers and answers again"),)
        return ()

    # -- before the hand-back: every failure leads to SERVING

    def _serving(self, world: World) -> tuple[Step, ...]:
        order = self.order
        if order is None:
            return ()
        if order.wish is Wish.TRANSFER:
            return (self._move(world, S.TRANSFERRED, order.reason),)
        if self.freezes >= FREEZES_MAX:
            text = f"failback of {self.source} was given up after {self.freezes} freezes ({self.failure})"
            command = "tenant graduate" if world.state.lives_here else "failback plan"
            return (Alarm("failback_failed", f"{text}. Next: zaibei {command} {self.source}"),)
        act = f"{GRADUATION}{self.source}:{world.state.index}" if world.state.lives_here else ""
        return (self._move(world, S.RETURN_REQUESTED, order.reason, act=act),)

    def _before_the_freeze(self, world: World) -> tuple[Step, ...]:
        state, node = world.state, world.node
        if self.order is not None and self.order.wish is Wish.ABORT:
            return self._back(world, self.order.reason)
        if not node.reached:
            return (Alarm("failback_waits", f"{self.source} is not reached: {node.why or 'no word of it yet'}"),)
        if node.own is None:
            text = f"{self.source} has not said that its own writing ended: {node.why or 'let it follow us'}"
            return (Alarm("failback_waits", f"{text}. Next, at the source: zaibei source follow"),)
        if state.lives_here and node.own.seq:
            text = (
                f"the node of {self.source} has written {node.own.seq} changes of its own: only an empty one takes over from here"
            )
            return (Alarm("node_not_empty", f"{text}. Next, at the node: an empty data folder, then zaibei source follow"),)
        if state.ladder.stage is S.RETURN_REQUESTED:
            return (self._move(world, S.CATCHING_UP, f"its own history ended at {node.own.short()}"),)
        common = state.ladder.closed_at
        if common is None:  # the rules of the ladder keep it from FENCED on
            return (Alarm("failback_waits", f"{self.source}: nobody noted where its epoch was closed"),)
        ledger = state.ledger
        if ledger is None or ledger.common != common or not ledger.complete or ledger.theirs != node.own:
            return (Fetch(common, node.own),)
        if ledger.counts.accepted or ledger.counts.stating or (self.rejudge and ledger.counts.held):
            self.rejudge = False
            return (Settle(common),)
        if ledger.counts.held:
            text = f"{ledger.counts.held} writes of {self.source} wait for a person"
            return (Alarm("conflicts_wait", f"{text}. Next: zaibei failback conflicts {self.source}"),)
        return self._near(world)

    def _near(self, world: World) -> tuple[Step, ...]:
        """The ledger is settled: freeze as soon as the source's copy is near, or as near as it comes while changes go on."""
        ours, theirs = world.state.position, world.node.follows
        if theirs is None or (theirs.lineage, theirs.epoch) != (ours.lineage, ours.epoch):
            where = "nowhere" if theirs is None else f"at {theirs.short()}"
            return (Alarm("failback_waits", f"{self.source} copies our history and stands {where}, we at {ours.short()}"),)
        behind = ours.seq - theirs.seq
        if behind > FREEZE_BEHIND_MAX:
            self._nearing_ns = None
            return ()
        self._nearing_ns = world.now_ns if self._nearing_ns is None else self._nearing_ns
        if behind > NEAR and world.now_ns - self._nearing_ns < NEARING_MS_MAX * MS:
            return ()
        return (self._move(world, S.FROZEN, f"the source is {behind} changes behind"),)

    def _frozen(self, world: World) -> tuple[Step, ...]:
        state, node = world.state, world.node
        if self._frozen_ms(world) >= FREEZE_MS_MAX:
            return self._back(world, f"the source was not equal within {FREEZE_MS_MAX // 1_000} s")
        if self.order is not None and self.order.wish is Wish.ABORT:
            return self._back(world, self.order.reason)
        if not node.reached:
            return self._back(world, f"the source fell silent: {node.why or 'no word of it'}")
        why = unsettled(state.ledger, state.ladder.closed_at)
        if not why and state.ledger is not None and node.own != state.ledger.theirs:
            why = "the source wrote by itself meanwhile"
        if why:
            return self._back(world, why)
        if state.ladder.stage is S.SOURCE_EQUAL:
            grant = self.grant_of(state, "handed back")
            return (self._move(world, S.HANDED_BACK, "the source holds what we hold", grant=grant),)
        if node.follows != state.position or node.digest is None or node.digest.position != state.position:
            return (Certify(state.position),)
        return (self._move(world, S.SOURCE_EQUAL, "equal at the frozen position", digest=node.digest.to_wire()),)

    def _frozen_ms(self, world: World) -> int:
        """By our own clock since we saw it, or by the leader's that froze, whichever is longer."""
        return max((world.now_ns - self._since_ns) // MS, world.now_ms - world.state.ladder.since_ms)

    def differs(self, world: World, why: str) -> tuple[Step, ...]:
        """The group refused SOURCE_EQUAL: the contents differ."""
        return self._back(world, why) if world.state.ladder.stage is S.FROZEN else ()

    def _back(self, world: World, why: str) -> tuple[Step, ...]:
        self.failure = why
        return (self._move(world, world.state.home, why),)

    # -- from the hand-back on: only forward

    def _handed_back(self, world: World) -> tuple[Step, ...]:
        if world.state.grant_taken:
            return (self._move(world, S.ACCEPTED, "the source has the grant on its disk", sites_stay=True),)
        if world.now_ns - self._since_ns >= SILENT_MS * MS:
            text = f"{self.source} was handed back and has not taken its epoch. If it stays silent, that is a new takeover"
            return (Alarm("handed_back_silent", f"{text}. Next: zaibei takeover plan {self.source}"),)
        return ()

    def _accepted(self, world: World) -> tuple[Step, ...]:
        state = world.state
        look = self._look_well(world)
        if state.authority is Authority.RESOLUTION and state.authority_act == KEPT + state.ladder.act:
            return (*self._withdraw(world), *(step for step in look if isinstance(step, Alarm)))
        return look

    def _withdraw(self, world: World) -> tuple[Step, ...]:
        """Our sites stand: until the node answers what was registered here, nobody is sent to it."""
        found, state = world.answers, world.state
        if found is None:
            return (Compare(),)
        if not found.agreed:
            return (Compare(), Alarm("old_answers", found.trouble(self.source)))
        act = GIVING_BACK + state.ladder.act
        entry = authority_entry(Authority.RESOLUTION, act, found.reason(), at_ms=world.now_ms)
        return (Commit(entry, f"our sites are withdrawn: {found.reason()}"),)

    def _look_well(self, world: World) -> tuple[Step, ...]:
        fresh = world.age_ms is not None and world.age_ms <= FRESH_AGE_MS_MAX and world.state.feed is FeedState.FLOWING
        if not (fresh and world.service_alive):
            self._well_since_ns = None
            if world.now_ns - self._since_ns >= SILENT_MS * MS:
                text = f"{self.source} has its epoch and is not seen to work in it: its feed or its service does not answer"
                text = f"{text}. Start both there; if it stays silent, that is a new takeover"
                return (Alarm("accepted_silent", f"{text}. Next: zaibei takeover plan {self.source}"),)
            return ()
        if self._well_since_ns is None:
            self._well_since_ns = world.now_ns
        if world.now_ns - self._well_since_ns < OBSERVE_MS * MS:
            return ()
        return (self._move(world, S.OBSERVED, "its feed flows and its service answers"),)

    def _move(self, world: World, stage: Stage, reason: str, act: str = "", **fields: object) -> Commit:
        return Commit(move_entry(world.state, stage, reason, world.now_ms, act, **fields), f"{stage.name.lower()}: {reason}")

    def _forget_done_order(self, state: GroupState) -> None:
        order, stage = self.order, state.ladder.stage
        if order is None:
            return
        beyond = stage in (S.HANDED_BACK, S.ACCEPTED, S.OBSERVED, S.TRANSFERRED)
        beyond = beyond or (stage is S.NORMAL and not state.lives_here)
        if beyond or (order.wish is Wish.ABORT and stage is state.home):
            self.order, self.freezes = None, 0

    def ordered(self, order: Order) -> None:
        """An operator's run; a new one is tried as often as the first."""
        self.order, self.freezes, self.failure, self.rejudge = order, 0, "", True
