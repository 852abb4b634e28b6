"""The replica's side of one stream with a source, pure: messages, outcomes and time in, commands out.

The same session runs behind the push server and the pull client. It starts from the group's committed state, so a restart or a
change of leader forgets nothing. Received octets never raise beyond it: their faults become a Fault message and Close.
"""

from __future__ import annotations

from replica.feed.commands import Close, Command, Now, fault, trouble_of
from replica.feed.desk import Desk, Setup, newest, tails_of
from replica.feed.echoes import Echoes
from replica.feed.freshness import CopyAge
from replica.feed.intake import Intake, Then
from replica.feed.load import LOADS_ON, Load, Step
from replica.feed.marks import Checks, Marks
from replica.feed.meeting import Meeting
from replica.feed.phases import HEALS, MOVES, OPEN, RETRIED, TAKEN_OVER, Phase
from replica.feed.placing import Place, Placed, place_head, vouches
from replica.feed.ports import Difference, GroupReads, Staged
from replica.model.batch import BATCH_FORMAT, SUITE
from replica.model.errors import Code, Trouble, ZaibeiError, require
from replica.model.outcome import Outcome
from replica.model.position import Position
from replica.model.states import FeedState
from replica.v1 import source_pb2


class ReplicaSession:
    """One stream. Every method takes the moment and returns the commands to carry out, in order."""

    def __init__(self, setup: Setup, reads: GroupReads, age: CopyAge) -> None:
        self.desk = Desk(setup, reads, age)
        self.phase = Phase.OPENING
        self.marks = Marks(self.desk)
        self.checks = Checks(self.desk, self.marks)
        self.intake = self._make_intake()
        self.load = Load(
            self.desk, self._on_position, self.intake.switching, self._on_live, self._on_proved_fork, self._on_load_failed,
            self.intake.at_rest,
        )  # fmt: skip
        self.meeting = Meeting(self.desk, self._on_meeting, self._on_met, self._block, self._break)
        self.head: Position | None = None
        self.echoes = Echoes(self.desk)
        self._paused_until_ns: int | None = None
        self._resumed = self._skipped = False  # skipped: batches were let go by while a side generation was compared
        self._refetches, self._lost = 0, ""  # lost: why the log alone cannot bring us on

    def _make_intake(self) -> Intake:
        return Intake(self.desk, self._upset)

    # -- inputs

    def start(self, now: Now) -> list[Command]:
        """The stream is up."""
        self.desk.now = now
        self.desk.age.stream_opened()
        self.desk.age.applied(self.desk.state.position)
        state = self.desk.state
        sound = state.granted is not None and state.grant_taken and state.hold is None and state.feed is not FeedState.FORKED
        tail = self.intake.resume() if sound else None
        self._resumed = tail is not None
        self.desk.resume_from(tail, self.intake.credit(open_=tail is not None))
        return self._take()

    def received(self, message: source_pb2.SourceMessage, now: Now) -> list[Command]:
        """A message of the source; any octets that parse as one are safe."""
        if self.phase is Phase.CLOSED:
            return []
        require(not self.intake.looking, "messages come after the answer to a look")
        self.desk.now = now
        try:
            self._receive(message)
        except ZaibeiError as exc:
            self._break(exc.trouble)
        return self._take()

    def outcome(self, tag: int, outcome: Outcome | Trouble, now: Now) -> list[Command]:
        """What became of a proposal; each exactly once."""
        self.desk.now = now
        self.desk.settled(tag, outcome, heeded=self.phase is not Phase.CLOSED)
        return self._take()

    def state_changed(self, now: Now) -> list[Command]:
        """The group's state is another one."""
        if self.phase is Phase.CLOSED:
            return []
        self.desk.now = now
        state = self.desk.state
        self.desk.age.applied(state.position)
        self.load.state_changed()
        granting = state.granted is not None and not state.grant_taken
        if granting and self.phase in (*OPEN, Phase.AWAITING, Phase.BLOCKED) and self.head is not None:
            self._on_meeting()
            self.meeting.meet(self.head)
        elif state.hold is not None and self.phase in (*OPEN, Phase.AWAITING):
            self._move(Phase.BLOCKED)
        elif state.closed and self.phase in (*OPEN, Phase.AWAITING):
            self._closed_out()
        elif self.phase is Phase.BLOCKED and self._unblocked():
            self._resync()
        return self._take()

    def proved(self, proof: source_pb2.Proof, now: Now) -> list[Command]:
        """Answer to Prove."""
        self.desk.now = now
        try:
            (self.meeting if self.phase is Phase.MEETING else self.load).proved(proof)
        except ZaibeiError as exc:
            self._break(exc.trouble)
        return self._take()

    def snapshot_header(self, header: source_pb2.SnapshotHeader, now: Now) -> list[Command]:
        """Answer to FetchSnapshot."""
        self.desk.now = now
        try:
            self.load.header(header)
        except ZaibeiError as exc:
            self.load.failed(exc.trouble)
        return self._take()

    def loaded(self, staged: Staged, now: Now) -> list[Command]:
        """Answer to LoadParts."""
        self.desk.now = now
        self.load.loaded(staged)
        return self._take()

    def difference(self, found: list[Difference], now: Now) -> list[Command]:
        """Answer to Compare."""
        self.desk.now = now
        self.load.difference(found)
        return self._take()

    def looked(self, existing: list[bool] | Trouble, now: Now) -> list[Command]:
        """Answer to LookUp."""
        self.desk.now = now
        if self.phase is Phase.CLOSED:
            return []
        granted = self.desk.state.granted
        if isinstance(existing, Trouble):
            self._break(existing)
        elif granted is not None:
            self._skipped = self._quiet
            taking = self.phase in OPEN and self._paused_until_ns is None and not self._skipped
            self._after_batch(*self.intake.looked(existing, granted, open_=taking))
        return self._take()

    def job_failed(self, trouble: Trouble, now: Now) -> list[Command]:
        """Prove, FetchSnapshot, LoadParts or Compare did not succeed."""
        self.desk.now = now
        if self.phase is Phase.MEETING:
            self._break(trouble)
        else:
            self.load.failed(trouble)
        return self._take()

    def tick(self, now: Now) -> list[Command]:
        """Time passed; call at least every 100 ms, and soon after outcomes while `intake.receipt_waits`."""
        if self.phase is Phase.CLOSED:
            return []
        self.desk.now = now
        limits = self.desk.limits
        if self.echoes.due:
            self.echoes.send(self.intake.tail if self.phase in (*OPEN, Phase.AWAITING) else None)
        if self._paused_until_ns is not None and now.boot_ns >= self._paused_until_ns:
            self._paused_until_ns = None
            if self.phase in OPEN:
                self._resync()
        if self.meeting.since_ns is not None and now.boot_ns - self.meeting.since_ns > limits.answer_ns_max:
            self._break(Trouble(Code.UNREACHABLE, "the source does not answer a grant", retry=True))
        self.load.tick()
        if self._skipped and self.phase in OPEN and self.load.step is Step.IDLE:
            self._resync()
        if self.phase in (*OPEN, Phase.AWAITING):
            self._load_if_needed()
        elif self.phase is Phase.BLOCKED and self._unblocked():
            self._resync()
        self.marks.propose()
        return self._take()

    def close(self, now: Now) -> None:
        """The stream ended; what runs for it stops. Outcomes still come in and are only counted off."""
        self.desk.now = now
        self.load.drop()
        self.phase = Phase.CLOSED

    # -- dispatch

    def _receive(self, message: source_pb2.SourceMessage) -> None:
        body = message.WhichOneof("body")
        if self.phase is Phase.OPENING and body not in ("offer", "fault", "beat"):
            raise ZaibeiError(Code.MALFORMED, "a source speaks first with its offer")
        match body:
            case "batch":
                self._batch(message.batch)
            case "beat":
                self._beat(message.beat)
            case "certificate":
                self.checks.certificate(message.certificate, self.intake.live if self.phase in OPEN else None)
            case "offer":
                self._offer(message.offer.description)
            case "epoch_request":
                self.meeting.asked(Position.from_wire(message.epoch_request.head), message.epoch_request.reason)
            case "grant_accepted":
                self.meeting.accepted(Position.from_wire(message.grant_accepted.position))
            case "fault":
                self._fault(message.fault)
            case "lease_ask":
                self.meeting.leases.asked(message.lease_ask)
            case _:
                raise ZaibeiError(Code.MALFORMED, "a message without a body we know")

    def _offer(self, description: source_pb2.Description) -> None:
        if description.source != self.desk.setup.source:
            raise ZaibeiError(Code.WRONG_SOURCE, f"{self.desk.setup.source!r} offers the content of {description.source[:80]!r}")
        if description.suite != SUITE or BATCH_FORMAT not in description.formats:
            raise ZaibeiError(Code.MALFORMED, f"suite {description.suite[:20]!r}, formats {description.formats[:8]}: we speak 1")
        self.head = Position.from_wire(description.head)
        if self.phase is not Phase.OPENING:
            return
        self.desk.learn_node(description.resolution)
        state = self.desk.state
        if state.feed is FeedState.FORKED and (state.grant_taken or state.granted is None):
            self._move(Phase.BLOCKED)
        elif state.closed:
            self._closed_out()
        elif state.granted is not None and state.grant_taken:
            self._judge_head()
        else:
            self._move(Phase.MEETING)
            self.meeting.meet(self.head)

    def _judge_head(self) -> None:
        """The source has our newest grant, or says so: does its head lie where it must?"""
        granted, head = self.desk.state.granted, self.head
        require(granted is not None and head is not None, "a head is judged against a grant")
        if granted is None or head is None:
            return
        placed = self._place_head(head, newest(tails_of(self.desk.state)) or granted, granted)
        if placed.place is not Place.FOLLOWS:
            self._stop(placed, head)
        elif self.desk.state.hold is not None:
            self._move(Phase.BLOCKED)
            self.load.begin("a held load goes on") if self.desk.state.hold.side else None
        elif self._resumed:
            self._move(Phase.FLOWING)
            self._load_if_needed()
        else:
            self._resync()

    def _place_head(self, head: Position, tail: Position, granted: Position) -> Placed:
        return place_head(head, tail, granted)

    def _batch(self, raw: bytes) -> None:
        granted = self.desk.state.granted
        self.intake.arrived(len(raw))
        if self.phase not in OPEN or granted is None or self.intake.tail is None or self._paused_until_ns is not None:
            self.intake.ignore(len(raw))
            return
        if self._quiet:
            self._skipped = True
            self.intake.ignore(len(raw))
            return
        self._after_batch(*self.intake.batch(raw, granted))

    def _after_batch(self, then: Then, placed: Placed | None) -> None:
        if then is Then.GO_ON:
            if self.phase is Phase.REFETCHING and placed is None:
                self._flows()
        elif then is Then.HELD:
            self.desk.send(source_pb2.ReplicaMessage(fault=fault(Trouble(Code.HELD, "waits for two people", retry=True))))
            self._move(Phase.BLOCKED)
        elif then is Then.GAP and placed is not None:
            if self.echoes.barrier is None:
                self._gap(placed.reason)
        elif placed is not None:
            self._stop(placed, None)

    def _flows(self) -> None:
        self._refetches = 0
        self.echoes.barrier = None
        self._move(Phase.FLOWING)

    def _gap(self, reason: str) -> None:
        self._refetches += 1
        self.marks.want(FeedState.GAP, Code.GAP, reason, self.head)
        if self._refetches > self.desk.limits.gap_refetches_max:
            self._lose(f"{reason}; asked for {self._refetches - 1} times")
        else:
            self._resync()

    def _lose(self, reason: str) -> None:
        """The log cannot bring us on: load the full content beside."""
        self._lost = reason
        self.echoes.barrier = None
        if self.phase is not Phase.AWAITING:
            self._move(Phase.AWAITING)
        self._load_if_needed()

    def _beat(self, beat: source_pb2.Beat) -> None:
        head = Position.from_wire(beat.head)
        state = self.desk.state
        tail = self.echoes.heard(beat.nonce)
        if self.phase in (*OPEN, Phase.AWAITING) and state.granted is not None and tail is not None:
            placed = self._place_head(head, tail, state.granted)
            if placed.place is not Place.FOLLOWS:
                self._stop(placed, head)
                return
            if self.phase is Phase.REFETCHING and self.echoes.barrier is None and head == self.intake.tail:
                self._flows()
        if self.phase is not Phase.OPENING:
            self.head = head
        refused = state.closed or state.feed in (FeedState.FORKED, FeedState.FENCED) or self.phase is Phase.MEETING
        if not refused and vouches(head, state.position, self.intake.known):
            self.desk.age.beat(head, beat.nonce)

    def _fault(self, message: source_pb2.Fault) -> None:
        trouble = trouble_of(message)
        position = Position.from_wire(message.position) if message.HasField("position") else None
        if trouble.code is Code.SNAPSHOT_WANTED and self.phase in (*OPEN, Phase.OPENING):
            self.marks.want(FeedState.GAP, Code.SNAPSHOT_WANTED, trouble.message, position)
            if self.phase is Phase.OPENING:
                self._lost = trouble.message
            else:
                self._lose(trouble.message)
        elif trouble.code is Code.CONFLICT and self.phase is Phase.MEETING:
            self.meeting.conflict(position)
        elif trouble.code is not Code.SNAPSHOT_WANTED:
            self.desk.alarm(trouble.code, f"the source reports: {trouble.message}")
            if not trouble.retry:
                self._close(trouble)

    # -- flowing

    def _resync(self) -> None:
        """Resume from the committed state."""
        self._paused_until_ns, self._skipped = None, False
        tail = self.intake.resume()
        if tail is None or self._lost:
            self._resumed = False
            if self.phase is not Phase.AWAITING:
                self._move(Phase.AWAITING)
        else:
            if self.phase is not Phase.REFETCHING:
                self._move(Phase.FLOWING if self.phase is Phase.MEETING else Phase.REFETCHING)
            self._resumed = True
            self.desk.resume_from(tail, self.intake.credit(open_=True))
            self.echoes.send(self.intake.tail, barrier=True)
        self._load_if_needed()

    def _load_if_needed(self) -> None:
        state = self.desk.state
        live, _ = tails_of(state)
        if self.load.step is not Step.IDLE or state.hold is not None or state.feed in (FeedState.FORKED, FeedState.HELD):
            return
        if not state.ready:
            self.load.begin("no copy yet")
        elif live is None:
            self.load.begin("a new epoch")
        elif self._lost:
            self.load.begin(self._lost)
        elif state.side is not None:
            self.load.begin("an interrupted load goes on")

    # -- what the parts report

    def _on_meeting(self) -> None:
        """A new epoch: what the old one was loading is of no use."""
        if self.phase not in (Phase.MEETING, Phase.CLOSED):
            self.load.drop()
            self._move(Phase.MEETING)

    def _on_met(self) -> None:
        if self.phase is not Phase.MEETING:
            return
        if self.desk.state.feed in (FeedState.FORKED, FeedState.FENCED):  # a granted epoch is the way out of both
            behind = tails_of(self.desk.state)[0] is None
            self.marks.want(FeedState.LOADING if behind else FeedState.FLOWING, "", "a new epoch", self.head)
        self._resync()

    def _on_position(self, number: int, position: Position) -> None:
        """A side generation begins at `position`: resume from there."""
        self.intake.side_opened(number, position)
        if self.phase is Phase.AWAITING or (self.intake.live is not None and self.intake.live != position):
            self.intake.run += 1
            if self.phase is not Phase.REFETCHING:
                self._move(Phase.REFETCHING)
            self._resumed, self._skipped = True, False
            self._lost = ""
            self.desk.resume_from(position, self.intake.credit(open_=True))
            self.echoes.send(self.intake.tail, barrier=True)

    @property
    def _quiet(self) -> bool:
        """Nothing is taken while a side generation that is ahead of the live one is compared: nothing would judge it."""
        return self._skipped or (self.load.step is Step.COMPARING and self.intake.gap)

    def _on_live(self) -> None:
        self._lost = ""
        self.intake.switched()
        if self.phase in (Phase.BLOCKED, Phase.AWAITING) or (self._skipped and self.phase in OPEN):
            self._resync()

    def _on_load_failed(self) -> None:
        self.intake.side_dropped()
        if self.phase in (*OPEN, Phase.AWAITING):
            live, _ = tails_of(self.desk.state)
            if live is None or self._gap_is_open():
                self._lost = self._lost or "the load was given up"
                if self.phase is not Phase.AWAITING:
                    self._move(Phase.AWAITING)

    def _gap_is_open(self) -> bool:
        return self.desk.state.feed is not FeedState.FLOWING

    def _on_proved_fork(self, reason: str, theirs: Position | None) -> None:
        self._stop(Placed(Place.FORKED, Code.FORKED, reason), theirs)

    def _upset(self, what: Placed | Trouble) -> None:
        if self.phase not in OPEN:
            return
        if isinstance(what, Placed):
            self._gap(what.reason) if what.place is Place.GAP else self._stop(what, None)
        elif what.code in RETRIED:
            self.intake.run += 1
            self._paused_until_ns = self.desk.now.boot_ns + self.desk.limits.busy_pause_ns
        else:
            self._break(what)

    # -- stopping

    def _closed_out(self) -> None:
        """Nothing of the source's counts until the ladder hands it an epoch."""
        self.load.drop()
        self._move(Phase.BLOCKED)
        self.desk.send(source_pb2.ReplicaMessage(fault=fault(Trouble(Code.FENCED, TAKEN_OVER), self.desk.state.position)))

    def _stop(self, placed: Placed, theirs: Position | None) -> None:
        feed = FeedState.FENCED if placed.place is Place.FENCED else FeedState.FORKED
        self._block(feed, placed.code, placed.reason, theirs)

    def _block(self, feed: FeedState, code: Code, reason: str, theirs: Position | None) -> None:
        """Refuse the source by name; nothing of it is applied until people or a new epoch say otherwise."""
        if self.phase is Phase.CLOSED:
            return
        self.load.drop()
        if self.phase is not Phase.BLOCKED:
            self._move(Phase.BLOCKED)
        self.marks.want(feed, code, reason, theirs)
        self.desk.alarm(code, reason)
        self.desk.send(source_pb2.ReplicaMessage(fault=fault(Trouble(code, reason), self.desk.state.position)))

    def _unblocked(self) -> bool:
        state = self.desk.state
        blocked = (FeedState.FORKED, FeedState.FENCED, FeedState.HELD)
        wanted = self.marks.wanted[0] if self.marks.wanted is not None else None
        return (
            not (state.hold or state.closed)
            and state.feed not in blocked
            and wanted not in blocked
            and state.grant_taken
            and self.load.step in LOADS_ON
            and self.desk.unsettled == 0
        )

    def _break(self, trouble: Trouble) -> None:
        if self.phase is not Phase.CLOSED:
            self.desk.send(source_pb2.ReplicaMessage(fault=fault(trouble, self.desk.state.position)))
            self._close(trouble)

    def _close(self, trouble: Trouble) -> None:
        self.load.drop()
        self._move(Phase.CLOSED)
        self.desk.out.append(Close(trouble))

    # -- moves, results

    def _heal(self) -> None:
        """The feed flows again: say so, once."""
        state = self.desk.state
        if (
            self.phase is Phase.FLOWING
            and (state.feed in HEALS and not state.closed)
            and state.side is None
            and state.ready
            and self.load.step is Step.IDLE
            and not self._lost
            and self.marks.wanted is None
        ):
            self.marks.want(FeedState.FLOWING, "", "", None)

    def _move(self, phase: Phase) -> None:
        require(phase in MOVES[self.phase], f"a feed session cannot move from {self.phase.name} to {phase.name}")
        self.phase = phase

    def _take(self) -> list[Command]:
        if self.phase is not Phase.CLOSED:
            self._heal()
            self.intake.settle(open_=self.phase in OPEN and self._paused_until_ns is None and not self._quiet)
        commands, self.desk.out = self.desk.out, []
        return commands
