"""Loading a snapshot beside the live copy: one job at a time, pure (SEMANTICS 3).

| step | waits for | then |
| --- | --- | --- |
| PROOF | the source's proof of our position | proved: go on; unproved: go on, but the result stays beside, HELD |
| HEADER | the snapshot's header: its position P | P lies in the granted epoch |
| BEGIN | entry LoadBegin | changes after P flow into the side generation; the parts load |
| PARTS | count, digest and ordered hash compared, files on disk | |
| STAGING | entry LoadStaged of a majority of the members, each with the files on its disk | |
| COMPARING | what a switch would remove and rewrite | over the brake, unproved, or behind our receipts: HELD |
| SWITCHING | entry LoadSwitch | the copy is live |
| HELD | two people | |
The live copy is untouched until SWITCHING, whatever fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from replica.feed.admission import trip_text
from replica.feed.commands import Compare, DropSnapshot, FetchSnapshot, LoadParts, Prove
from replica.feed.desk import Desk, tails_of
from replica.feed.ports import Difference, Staged
from replica.model.brake import Count
from replica.model.digest import ContentDigest
from replica.model.errors import Code, Trouble, require
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.position import Position
from replica.model.states import FeedState
from replica.v1 import entry_pb2, source_pb2

RELEASED, DISCARDED = "released", "discarded"  # feed codes of the store after two people decided
LINES_MAX = 1_000  # lines of a difference that travel in an entry; what is left goes into one line of the whole source
LINES_OCTETS_MAX = 256 * 1024


class Step(Enum):
    """Steps of a load; see the table of the module."""

    IDLE = "idle"
    PROOF = "proof"
    HEADER = "header"
    BEGIN = "begin"
    PARTS = "parts"
    STAGING = "staging"
    COMPARING = "comparing"
    SWITCHING = "switching"
    HELD = "held"
    ABORTING = "aborting"


MOVES: dict[Step, frozenset[Step]] = {
    Step.IDLE: frozenset({Step.PROOF, Step.HEADER, Step.HELD, Step.ABORTING, Step.SWITCHING}),
    Step.PROOF: frozenset({Step.HEADER, Step.COMPARING, Step.IDLE}),
    Step.HEADER: frozenset({Step.BEGIN, Step.IDLE}),
    Step.BEGIN: frozenset({Step.PARTS, Step.IDLE}),
    Step.PARTS: frozenset({Step.STAGING, Step.ABORTING, Step.IDLE}),
    Step.STAGING: frozenset({Step.COMPARING, Step.SWITCHING, Step.ABORTING, Step.IDLE}),
    Step.COMPARING: frozenset({Step.SWITCHING, Step.HELD, Step.ABORTING, Step.IDLE}),
    Step.SWITCHING: frozenset({Step.ABORTING, Step.IDLE}),
    Step.HELD: frozenset({Step.SWITCHING, Step.ABORTING, Step.IDLE}),
    Step.ABORTING: frozenset({Step.IDLE}),
}
EARLY = frozenset({Step.PROOF, Step.HEADER})
LOADS_ON = frozenset({Step.IDLE, Step.PARTS, Step.STAGING, Step.COMPARING})  # batches may flow meanwhile
BESIDE = frozenset({Step.PARTS, Step.STAGING, Step.COMPARING, Step.HELD, Step.SWITCHING})


class Load:
    """One load. `on_position` is called with the number and P once changes may flow to it, `on_switching` when the switch is
    proposed, `on_live` when it happened, `on_stop` with a fork that the proof showed, `on_failed` when the load was given up (the
    next one waits for a pause). `at_rest`: the side generation has all that the live one has, and nothing is on its way to it
    that would be compared with nothing."""

    __slots__ = (
        "_again", "_at_rest", "_caught_up_to", "_counts", "_desk", "_failures", "_not_before_ns", "_on_failed", "_on_live",
        "_on_position", "_on_stop", "_on_switching", "_reason", "_renew_ns", "_staged", "_unfit", "side", "since_ns", "step",
    )  # fmt: skip

    def __init__(
        self,
        desk: Desk,
        on_position: Callable[[int, Position], None],
        on_switching: Callable[[], None],
        on_live: Callable[[], None],
        on_stop: Callable[[str, Position | None], None],
        on_failed: Callable[[], None],
        at_rest: Callable[[], bool],
    ) -> None:
        self._desk = desk
        self._on_position, self._on_switching, self._on_live = on_position, on_switching, on_live
        self._on_stop, self._on_failed, self._at_rest = on_stop, on_failed, at_rest
        self.step = Step.IDLE
        self.side = 0
        self.since_ns = 0
        self._reason = ""
        self._again: Callable[[], None] | None = None  # a proposal our own back-pressure refused
        self._counts: list[Count] = []  # what a switch takes from the live copy
        self._caught_up_to: Position | None = None
        self._unfit = ""  # why the result must not be switched to without two people
        self._staged: Staged | None = None
        self._failures = 0
        self._not_before_ns = 0
        self._renew_ns = 0

    def _move(self, step: Step) -> None:
        require(step in MOVES[self.step], f"a load cannot move from {self.step.name} to {step.name}")
        self.step, self.since_ns, self._again = step, self._desk.now.boot_ns, None

    # -- beginning

    def begin(self, reason: str) -> None:
        """Start a load; nothing happens before the pause after a failed one is over, or while one runs."""
        if self.step is not Step.IDLE or self._desk.now.boot_ns < self._not_before_ns:
            return
        state = self._desk.state
        self._reason, self._unfit, self._staged, self._counts = reason, "", None, []
        if state.side is not None:
            self.side = state.side.number
            if state.hold is not None and state.hold.side == self.side:
                self._move(Step.HELD)
            elif not state.side.staged or tails_of(state)[1] is None:
                self._abort("the load was interrupted, or is of an epoch that is over")
            elif state.feed_code == DISCARDED:
                self._abort("discarded by two people")
            elif not state.ready or state.feed_code == RELEASED:  # decided while nobody was connected
                self._switch()
            else:  # proved again: what was said about it before the interruption is not committed anywhere
                self._move(Step.PROOF)
                self._desk.out.append(Prove(state.position))
            return
        if state.position.seq == 0:  # nothing was ever copied: there is nothing to prove, and nothing to lose
            self._header()
            return
        self._move(Step.PROOF)
        self._desk.out.append(Prove(state.position))

    def proved(self, proof: source_pb2.Proof) -> None:
        """The source's answer about our position (SEMANTICS 3.3)."""
        if self.step is not Step.PROOF:
            return
        ours = self._desk.state.position
        match proof.result:
            case source_pb2.Proof.RESULT_PROVED:
                pass
            case source_pb2.Proof.RESULT_DIFFERENT if self._same_epoch(ours):
                self._move(Step.IDLE)
                theirs = Position.from_wire(proof.position) if proof.HasField("position") else None
                self._on_stop(f"at {ours.seq} the source knows {theirs.short() if theirs else 'another chain'}", theirs)
                return
            case source_pb2.Proof.RESULT_DIFFERENT:
                self._unfit = f"the source's history does not hold our position {ours.short()}"
            case _:
                self._unfit = f"the source cannot prove our position {ours.short()}"
        self._header()

    def _same_epoch(self, ours: Position) -> bool:
        granted = self._desk.state.granted
        return granted is not None and (ours.lineage, ours.epoch) == (granted.lineage, granted.epoch)

    def _header(self) -> None:
        if self._desk.state.side is not None:  # staged before an interruption
            self._move(Step.COMPARING)
            self._after_staged()
            return
        self._move(Step.HEADER)
        self._desk.out.append(FetchSnapshot())

    def header(self, header: source_pb2.SnapshotHeader) -> Trouble | None:
        """The snapshot's header.

        Returns:
            What is wrong with it; the snapshot was dropped then.
        """
        if self.step is not Step.HEADER:
            self._desk.out.append(DropSnapshot())
            return None
        state, position = self._desk.state, Position.from_wire(header.position)
        granted = state.granted
        if header.source != self._desk.setup.source or header.shard != 0 or header.format != 1 or header.suite != "std":
            return self._refuse(f"a snapshot of {header.source!r}/{header.shard}, format {header.format}: not what we asked for")
        if granted is None or (position.lineage, position.epoch) != (granted.lineage, granted.epoch):
            return self._refuse(f"a snapshot at {position.short()} lies outside the granted epoch")
        live, _ = tails_of(state)
        if (live is not None and position.seq < live.seq) or (live is None and state.ready and position.seq < state.position.seq):
            self._unfit = self._unfit or f"the snapshot at {position.short()} lacks changes we gave a receipt for"
        self.side = state.generation + 1
        self._move(Step.BEGIN)
        needed = self._desk.setup.members_needed()
        begin = entry_pb2.LoadBegin(side=self.side, position=position.to_wire(), reason=self._reason, members_needed=needed)
        self._desk.propose(entry_pb2.Entry(load_begin=begin), lambda outcome: self._begun(position, outcome))
        return None

    def _refuse(self, why: str) -> Trouble:
        self._fail(Code.SNAPSHOT_REFUSED, why)
        return Trouble(Code.SNAPSHOT_REFUSED, why)

    def _begun(self, position: Position, outcome: Outcome | Trouble) -> None:
        if self.step is not Step.BEGIN:
            return
        if not _applied(outcome):
            self._fail(Code.BUSY, f"the load could not begin: {_why(outcome)}")
            return
        self._move(Step.PARTS)
        self._renew_ns = 0
        self._desk.out.append(LoadParts(self.side, position))
        self._on_position(self.side, position)

    # -- the parts are on disk

    def loaded(self, staged: Staged) -> None:
        """All parts are on disk and equal what the source stated."""
        if self.step is not Step.PARTS:
            return
        self._staged = staged
        self._move(Step.STAGING)
        self._propose_staged(staged)

    def _propose_staged(self, staged: Staged) -> None:
        entry = entry_pb2.LoadStaged(side=self.side, member=self._desk.setup.member, manifest_hash=staged.manifest_hash)
        self._desk.propose(entry_pb2.Entry(load_staged=entry), self._staged_outcome)

    def _staged_outcome(self, outcome: Outcome | Trouble) -> None:
        staged = self._staged
        if self.step is not Step.STAGING or staged is None:
            return
        if isinstance(outcome, Trouble) and outcome.retry:
            self._again = lambda: self._propose_staged(staged)
        elif not _applied(outcome):
            self._abort(f"staging: {_why(outcome)}")
        else:
            self._when_staged()

    def _when_staged(self) -> None:
        """Go on once a majority of the members has the files: what is switched to must outlive any minority."""
        side = self._desk.state.side
        if self.step is not Step.STAGING or side is None or side.number != self.side:
            return
        if not side.staged:
            if self._desk.now.boot_ns - self.since_ns > self._desk.limits.staging_ns_max:
                self._abort("too few members fetched the loaded content")
            else:
                self._again = self._when_staged
        elif self._desk.state.ready:
            self._move(Step.COMPARING)
            self._after_staged()
        else:
            self._switch()

    def _after_staged(self) -> None:
        """Compare, once that says something: not while the side generation lacks what the live one has applied."""
        if not self._unfit and not self._at_rest():
            side = self._desk.state.side
            if side is not None and side.position != self._caught_up_to:  # it goes on
                self._caught_up_to, self.since_ns = side.position, self._desk.now.boot_ns
            if self._desk.now.boot_ns - self.since_ns > self._desk.limits.answer_ns_max:
                self._abort("the changes behind the snapshot do not come")
            else:
                self._again = self._after_staged
            return
        self._desk.out.append(Compare(self.side))

    def difference(self, found: Sequence[Difference]) -> None:
        """What a switch would change; over the brake it waits for two people."""
        if self.step is not Step.COMPARING:
            return
        state, desk = self._desk.state, self._desk
        counts: list[Count] = [(one.prefix, one.removed, one.rewritten) for one in found]
        reason = self._unfit
        if not reason and desk.limits.brake:
            trips = state.brake.trips(counts, desk.now.wall_ms, desk.reads.live_records)
            reason = f"a switch to the new content would change {trip_text(trips)}" if trips else ""
        if not reason:
            self._counts = counts
            self._switch()
            return
        self._move(Step.HELD)
        desk.alarm(Code.HELD, f"held for two people: {reason}")
        hold = entry_pb2.HoldBatch(
            side=self.side,
            follows=state.position.to_wire(),
            reason=reason,
            would_be=brake_lines(counts),
        )
        desk.propose(entry_pb2.Entry(hold=hold), self._held_outcome)

    def _held_outcome(self, outcome: Outcome | Trouble) -> None:
        if self.step is Step.HELD and isinstance(outcome, Trouble):
            self._abort(f"holding: {outcome}")

    def state_changed(self) -> None:
        """Two people may have decided, or the generation may have gone away."""
        state = self._desk.state
        if self.step is not Step.HELD or state.hold is not None or state.feed is FeedState.HELD:
            return
        if state.side is None or state.side.number != self.side:
            live = state.generation == self.side
            self._move(Step.IDLE)
            if live:
                self._on_live()
            else:
                self._on_failed()
        elif state.feed_code == DISCARDED:
            self._abort("discarded by two people")
        else:
            self._switch()

    def _switch(self) -> None:
        self._move(Step.SWITCHING)
        self._propose_switch()

    def _propose_switch(self) -> None:
        digest: ContentDigest | None = None if self._staged is None else self._staged.digest
        stated = None if digest is None else digest.to_wire()
        switch = entry_pb2.LoadSwitch(side=self.side, digest=stated, brake=brake_lines(self._counts))
        self._desk.propose(entry_pb2.Entry(load_switch=switch), self._switched)
        self._on_switching()

    def _switched(self, outcome: Outcome | Trouble) -> None:
        if self.step is not Step.SWITCHING:
            return
        if outcome.retry if isinstance(outcome, Trouble) else outcome.kind is OutcomeKind.GAP:  # busy, or the live one moved on
            self._again = self._propose_switch
            return
        if not _applied(outcome):
            self._abort(f"switching: {_why(outcome)}")
            return
        self._move(Step.IDLE)
        self._failures, self._staged = 0, None
        self._on_live()

    # -- ends

    def failed(self, trouble: Trouble) -> None:
        """The edge could not prove, open, read or build; nothing live was touched."""
        if self.step in EARLY or self.step is Step.BEGIN:
            self._fail(trouble.code, trouble.message)
        elif self.step in (Step.PARTS, Step.COMPARING):
            self._abort(trouble.message)

    def drop(self) -> None:
        """The stream ends or is blocked: what runs in the edge stops; a committed side generation waits for the next stream."""
        if self.step in (Step.HEADER, Step.BEGIN, Step.PARTS):
            self._desk.out.append(DropSnapshot())
        if self.step is not Step.IDLE:
            self.step, self._again = Step.IDLE, None

    def _abort(self, why: str) -> None:
        if self.step is Step.PARTS:
            self._desk.out.append(DropSnapshot())
        if self.step is not Step.ABORTING:
            self._move(Step.ABORTING)
        self._pause()
        self._desk.alarm(Code.SNAPSHOT_REFUSED, f"a load was given up, the live copy is untouched: {why}")
        abort = entry_pb2.LoadAbort(side=self.side, reason=why[:1_000])
        self._desk.propose(entry_pb2.Entry(load_abort=abort), self._aborted)

    def _aborted(self, _: Outcome | Trouble) -> None:
        if self.step is Step.ABORTING:
            self._move(Step.IDLE)
            self._on_failed()

    def _fail(self, code: Code, why: str) -> None:
        self._desk.out.append(DropSnapshot())
        self._pause()
        self._desk.alarm(code, f"a load could not begin, the live copy is untouched: {why}")
        self._move(Step.IDLE)
        self._on_failed()

    def _pause(self) -> None:
        limits = self._desk.limits
        pause_ns = min(limits.load_retry_ns << min(self._failures, 16), limits.load_retry_ns_max)
        self._failures += 1
        self._not_before_ns = self._desk.now.boot_ns + pause_ns

    def tick(self) -> None:
        """Renew the retention lease; give up on an answer that does not come."""
        desk = self._desk
        again, self._again = self._again, None
        if again is not None:
            again()
        if self.step in EARLY and desk.now.boot_ns - self.since_ns > desk.limits.answer_ns_max:
            self._fail(Code.UNREACHABLE, f"the source did not answer within {desk.limits.answer_ns_max // 10**9} s")
        side = desk.state.side
        if self.step in BESIDE and side is not None and desk.now.boot_ns >= self._renew_ns:
            self._renew_ns = desk.now.boot_ns + desk.limits.retention_ms * 1_000_000 // 3
            lease = source_pb2.Lease(kind=source_pb2.Lease.KIND_RETENTION, duration_ms=desk.limits.retention_ms)
            getattr(lease, "from").CopyFrom(side.position.to_wire())
            desk.send(source_pb2.ReplicaMessage(lease=lease))


def brake_lines(counts: Sequence[Count]) -> list[entry_pb2.BrakeCount]:
    """A difference as it travels in an entry: the largest lines, and one of the whole source with the sums of the others."""
    touched = sorted((count for count in counts if count[1] or count[2]), key=lambda count: -count[1] - count[2])
    lines: list[entry_pb2.BrakeCount] = []
    octets = 0
    for place, (prefix, removed, rewritten) in enumerate(touched):
        octets += len(prefix)
        if place == LINES_MAX or octets > LINES_OCTETS_MAX:
            left = touched[place:]
            sums = sum(count[1] for count in left), sum(count[2] for count in left)
            return [*lines, entry_pb2.BrakeCount(removed=sums[0], rewritten=sums[1])]
        lines.append(entry_pb2.BrakeCount(prefix=prefix, removed=removed, rewritten=rewritten))
    return lines


def _applied(outcome: Outcome | Trouble) -> bool:
    return isinstance(outcome, Outcome) and outcome.kind in (OutcomeKind.APPLIED, OutcomeKind.ALREADY)


def _why(outcome: Outcome | Trouble) -> str:
    return str(outcome) if isinstance(outcome, Trouble) else f"{outcome.kind}: {outcome.detail}"
