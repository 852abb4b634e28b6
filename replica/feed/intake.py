"""Batches of one stream: placed, judged, proposed, accounted for; credits and receipts that follow from it. Pure.

A receipt `quorum` leaves only after the outcome of an entry (which follows its commit, fsynced on a majority) on the live
generation; changes that so far went to a side generation alone are receipted when it became the live one. `received` is for a
batch the brake holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from replica.feed.admission import BrakeVerdict, Judged, brake_verdict, judge, put_keys, trip_text
from replica.feed.commands import LookUp
from replica.feed.desk import Desk, newest, tails_of
from replica.feed.placing import Place, Placed, place_batch
from replica.model.brake import Count
from replica.model.errors import Code, Trouble, ZaibeiError, require
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.position import Position
from replica.model.signing import receipt_octets
from replica.model.states import ReceiptLevel
from replica.v1 import entry_pb2, source_pb2

APPLIED = (OutcomeKind.APPLIED, OutcomeKind.ALREADY)
RECENT_MAX = 4_096  # boundaries of this stream kept in memory for telling a duplicate from a fork


class Then(Enum):
    """What the session must do after a batch."""

    GO_ON = "go on"
    GAP = "gap"
    STOP = "stop"  # forked or fenced: see the Placed
    HELD = "held"
    LOOK = "look"  # waits for a look into the store; see `looked`


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch that was proposed. `live`: it names the live generation; `run`: which resumption it belongs to."""

    after: Position
    live: bool
    octets: int
    counts: list[Count]
    keys: Callable[[], list[bytes]]
    run: int


@dataclass(frozen=True, slots=True)
class Look:
    """A batch that waits until somebody looked which of its keys are held; `flying`: keys that unapplied batches put."""

    judged: Judged
    flying: frozenset[bytes]
    run: int


class Intake:
    """One stream's batches. `upset` is called with what apply found wrong with a batch of the present run."""

    __slots__ = (
        "_acked", "_credit", "_desk", "_flight", "_held", "_keys", "_look", "_outcomes", "_receipted", "_receipted_ns", "_recent",
        "_resend", "_upset", "duplicates", "handled", "handled_octets", "ignored", "live", "quarantined", "received",
        "received_octets", "run", "side", "side_number",
    )  # fmt: skip

    def __init__(self, desk: Desk, upset: Callable[[Placed | Trouble], None]) -> None:
        self._desk = desk
        self._upset = upset
        self._flight: deque[InFlight] = deque()
        self._keys: dict[int, frozenset[bytes]] = {}
        self._look: Look | None = None
        self._held: frozenset[bytes] | None = None  # what the look at the batch in hand found
        self._recent: dict[int, Position] = {}
        self._credit = (0, 0)
        self._acked: Position | None = None
        self._receipted: Position | None = None
        self._receipted_ns = 0
        self._outcomes = 0
        self._resend = False
        self.live: Position | None = None
        self.side: Position | None = None
        self.side_number = 0
        self.run = 0
        self.received = self.received_octets = self.handled = self.handled_octets = 0
        self.duplicates = self.ignored = self.quarantined = 0

    @property
    def tail(self) -> Position | None:
        """The newest boundary admitted, committed or not."""
        return newest((self.live, self.side))

    def resume(self) -> Position | None:
        """Start again from the committed state; what is in flight of an earlier run is accounted for and else ignored.

        Returns:
            The boundary to resume from; None: a snapshot must come first. While a generation loads it is that one's: what the
            live one has already comes again and is told apart; the other way round the loading one would miss it for good.
        """
        state = self._desk.state
        self.run += 1
        self.live, self.side = tails_of(state)
        self.side_number = state.side.number if state.side is not None else 0
        self._recent.clear()
        self._keys.clear()
        for tail in (self.live, self.side):
            if tail is not None:
                self._recent[tail.seq] = tail
        self._ack(self.live)
        self._resend = True
        return self.side or self.live

    @property
    def gap(self) -> bool:
        """The live generation misses what the side one has: changes go to the side one alone, where no brake counts them."""
        return self.side is not None and (self.live is None or self.live.seq < self.side.seq)

    def at_rest(self) -> bool:
        """The side generation holds all it must have before it can be compared and switched to."""
        live, side = tails_of(self._desk.state)
        behind = live is not None and side is not None and side.seq < live.seq
        return not behind and not (self.gap and self._flight)

    def side_opened(self, number: int, position: Position) -> None:
        """Changes after `position` go to side generation `number` from now on."""
        self.side_number, self.side = number, position
        self._recent = {tail.seq: tail for tail in (self.live, self.side) if tail is not None}

    def known(self, epoch: int, seq: int) -> Position | None:
        """Our boundary at a place, batches in flight included."""
        tail = self.tail
        if tail is not None and epoch == tail.epoch and seq in self._recent:
            return self._recent[seq]
        return self._desk.reads.chain_at(epoch, seq)

    # -- batches

    def arrived(self, octets: int) -> None:
        """Account for a batch against the credit.

        Raises:
            ZaibeiError(NO_CREDIT): the source sent more than it may; the stream ends.
        """
        self.received += 1
        self.received_octets += octets
        if self.received > self._credit[0] or self.received_octets > self._credit[1]:
            raise ZaibeiError(Code.NO_CREDIT, f"{self.received} batches came, {self._credit[0]} were allowed")

    def ignore(self, octets: int) -> None:
        """A batch nobody looks at (we are blocked, or it was on its way before we resumed)."""
        self.ignored += 1
        self._handled(octets)

    def batch(self, raw: bytes, granted: Position) -> tuple[Then, Placed | None]:
        """Judge and place one batch that `arrived`; propose it where it follows.

        Raises:
            ZaibeiError(MALFORMED, WRONG_SOURCE): the stream ends; nothing of the batch is applied.
        """
        return self._take(self._judge(raw), granted)

    @property
    def looking(self) -> bool:
        """A batch waits for `looked`; none may come in before it."""
        return self._look is not None

    def looked(self, existing: Sequence[bool], granted: Position, *, open_: bool) -> tuple[Then, Placed | None]:
        """Go on with the batch that waited. Its place is judged again: time has passed. `open_`: batches are taken at all.

        What was in flight when the look began counts as held, since it may have been applied after the look.
        """
        look, self._look = self._look, None
        require(look is not None, "an answer to a look that nobody took")
        if look is None or look.run != self.run or not open_:
            self.ignore(len(look.judged.batch.raw) if look is not None else 0)
            return Then.LOOK, None
        here = (key for key, held in zip(put_keys(look.judged), existing, strict=True) if held)
        self._held = look.flying.union(here)
        try:
            return self._take(look.judged, granted)
        finally:
            self._held = None

    def _take(self, judged: Judged, granted: Position) -> tuple[Then, Placed | None]:
        octets = len(judged.batch.raw)
        tails = [tail for tail in (self.live, self.side) if tail is not None]
        placed = self._place(judged, tails, granted)
        match placed.place:
            case Place.FOLLOWS:
                return self._admit(judged), None
            case Place.DUPLICATE:
                self.duplicates += 1
                self._resend = True
                self._handled(octets)
                return Then.GO_ON, None
            case Place.GAP:
                self._handled(octets)
                return Then.GAP, placed
        self._handled(octets)
        return Then.STOP, placed

    def _judge(self, raw: bytes) -> Judged:
        return judge(raw, self._desk.rights())

    def _place(self, judged: Judged, tails: list[Position], granted: Position) -> Placed:
        return place_batch(judged.batch.before, judged.batch.after, tails, granted, self.known)

    def _admit(self, judged: Judged) -> Then:
        batch = judged.batch
        verdict = self._brake(judged)
        if verdict is None:
            keys = put_keys(judged)
            self._look = Look(judged, self._flying(keys), self.run)
            self._desk.out.append(LookUp(keys))
            return Then.LOOK
        if verdict.trips:
            self._hold(judged, verdict)
            return Then.HELD
        live = batch.before == self.live
        side = self.side_number if batch.before == self.side else 0
        append = entry_pb2.AppendBatch(
            batch=batch.raw,
            follows=batch.before.to_wire(),
            live=live,
            side=side,
            quarantined=[entry_pb2.Quarantined(ordinal=place, reason=why) for place, why in judged.quarantined],
        )
        if verdict.exact:
            append.brake.extend(entry_pb2.BrakeCount(prefix=p, removed=d, rewritten=w) for p, d, w in verdict.counts if d or w)
        flight = InFlight(batch.after, live, len(batch.raw), verdict.counts, lambda: judged.scan.keys, self.run)
        self._flight.append(flight)
        self._recent[batch.after.seq] = batch.after
        while len(self._recent) > RECENT_MAX:
            del self._recent[next(iter(self._recent))]
        self.quarantined += len(judged.quarantined)
        self.live = batch.after if live else self.live
        self.side = batch.after if side else self.side
        self._desk.propose(entry_pb2.Entry(append=append), lambda outcome: self._outcome(flight, outcome))
        return Then.GO_ON

    def _brake(self, judged: Judged) -> BrakeVerdict | None:
        state = self._desk.state
        if not self._desk.limits.brake or not state.ready or judged.batch.before != self.live:
            return BrakeVerdict(judged.counts, False, [])  # a side generation is compared as a whole before it is switched to
        in_flight = [count for flight in self._flight if flight.live for count in flight.counts]
        live_records = self._desk.reads.live_records
        return brake_verdict(judged, state.brake, in_flight, self._desk.now.wall_ms, live_records, self._held)

    def _flying(self, keys: Sequence[bytes]) -> frozenset[bytes]:
        """Those of the keys that a batch in flight changes."""
        wanted, found = frozenset(keys), set[bytes]()
        for flight in self._flight:
            seq = flight.after.seq
            if seq not in self._keys:
                self._keys[seq] = frozenset(flight.keys())
            found |= wanted & self._keys[seq]
        return frozenset(found)

    def _hold(self, judged: Judged, verdict: BrakeVerdict) -> None:
        batch = judged.batch
        hold = entry_pb2.HoldBatch(
            batch=batch.raw,
            follows=batch.before.to_wire(),
            reason=trip_text(verdict.trips),
            would_be=[entry_pb2.BrakeCount(prefix=p, removed=d, rewritten=w) for p, d, w in verdict.counts],
            quarantined=[entry_pb2.Quarantined(ordinal=place, reason=why) for place, why in judged.quarantined],
        )

        def then(outcome: Outcome | Trouble) -> None:
            self._handled(len(batch.raw))
            hold = self._desk.state.hold
            if isinstance(outcome, Trouble):
                self._upset(outcome)
            elif hold is not None and hold.batch == batch.raw:  # stored; HELD alone may mean that it waits behind another one
                self._receipt(batch.after, ReceiptLevel.RECEIVED)
            elif outcome.kind not in (*APPLIED, OutcomeKind.HELD):
                self._upset(Placed(Place.GAP, Code.GAP, outcome.detail))

        self._desk.alarm(Code.HELD, f"held for two people: {hold.reason}")
        self._desk.propose(entry_pb2.Entry(hold=hold), then)

    def _outcome(self, flight: InFlight, outcome: Outcome | Trouble) -> None:
        self._flight.remove(flight)
        self._keys.pop(flight.after.seq, None)
        self._handled(flight.octets)
        if isinstance(outcome, Outcome) and outcome.kind in APPLIED:
            if flight.live:
                self._ack(flight.after)
                self._outcomes += 1
            return
        if flight.run != self.run:
            return  # the run it belonged to was given up already
        if isinstance(outcome, Trouble):
            self._upset(outcome)
        elif outcome.kind is OutcomeKind.CONFLICT:
            self._upset(Placed(Place.FORKED, Code.FORKED, outcome.detail or "apply found other content at the same place"))
        elif outcome.kind is OutcomeKind.FENCED:
            self._upset(Placed(Place.FENCED, Code.FENCED, outcome.detail or "apply found an older epoch"))
        elif outcome.kind is OutcomeKind.GAP:
            self._upset(Placed(Place.GAP, Code.GAP, outcome.detail or "apply found a gap"))
        elif outcome.kind is OutcomeKind.UNKNOWN:
            self._upset(Trouble(Code.UNKNOWN, "this member cannot tell what became of a batch", definite=False, retry=True))

    def _ack(self, position: Position | None) -> None:
        """Applied up to here; boundaries of epochs that are over do not count."""
        granted = self._desk.state.granted
        both = [one for one in (self._acked, position) if one is not None and granted is not None and one.epoch == granted.epoch]
        self._acked = newest(both)

    # -- credits and receipts

    def _handled(self, octets: int) -> None:
        self.handled += 1
        self.handled_octets += octets

    def credit(self, *, open_: bool) -> source_pb2.Credit:
        """What the source may send in all; it never shrinks, and stays where it is under pressure or while we are blocked."""
        limits = self._desk.limits
        if open_ and not self._desk.reads.pressure:
            batches, octets = self.handled + limits.credit_batches, self.handled_octets + limits.credit_octets
            self._credit = (max(batches, self._credit[0]), max(octets, self._credit[1]))
        return source_pb2.Credit(batches_total=self._credit[0], octets_total=self._credit[1])

    def settle(self, *, open_: bool) -> None:
        """Send what became due: more credit once a quarter of the window was used, one receipt for a group of outcomes."""
        desk, before = self._desk, self._credit
        limits = desk.limits
        used = self.handled + limits.credit_batches - before[0], self.handled_octets + limits.credit_octets - before[1]
        if open_ and (used[0] * 4 >= limits.credit_batches or used[1] * 4 >= limits.credit_octets):
            credit = self.credit(open_=True)
            if self._credit != before:
                desk.send(source_pb2.ReplicaMessage(credit=credit))
        self._settle_receipt()

    def _settle_receipt(self) -> None:
        acked, state = self._acked, self._desk.state
        if acked is None or (acked == self._receipted and not self._resend):
            return
        if not state.ready or not state.position.covers(acked):
            return  # said twice, on two paths: no receipt beyond what the live generation has applied
        since_ns = self._desk.now.boot_ns - self._receipted_ns
        if self._outcomes >= self._desk.limits.receipt_batches or since_ns >= self._desk.limits.receipt_interval_ns:
            self._receipt(acked, ReceiptLevel.QUORUM)
            self._receipted, self._outcomes, self._resend = acked, 0, False
            self._receipted_ns = self._desk.now.boot_ns

    @property
    def receipt_waits(self) -> bool:
        """A receipt is owed and waits for its interval: tick soon."""
        return self._acked is not None and self._acked != self._receipted

    def switching(self) -> None:
        """The switch is on its way: what is proposed from now on names both generations, whichever it finds."""
        self.live = self.side or self.live

    def switched(self) -> None:
        """The side generation is the live one: everything applied to it is now vouched for."""
        self._ack(tails_of(self._desk.state)[0])
        self.live = newest((self.live, self.side))
        self.side, self.side_number = None, 0

    def side_dropped(self) -> None:
        """The side generation was abandoned."""
        self.side, self.side_number = None, 0

    def _receipt(self, position: Position, level: ReceiptLevel) -> None:
        setup, wall_ms = self._desk.setup, self._desk.now.wall_ms
        octets = receipt_octets(setup.source, 0, position, int(level), setup.member, wall_ms)
        self._desk.send(
            source_pb2.ReplicaMessage(
                receipt=source_pb2.Receipt(
                    source=setup.source,
                    position=position.to_wire(),
                    level=source_pb2.Receipt.Level.ValueType(int(level)),
                    member=setup.member,
                    stated_ms=wall_ms,
                    signature=setup.signer.sign(octets),
                )
            )
        )
