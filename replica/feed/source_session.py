"""The source's side of one stream, pure: what the replica says, what the log holds and time in; messages and requests out.

| phase | what happens |
| --- | --- |
| OFFERED | the Offer (and, when the log lost its state, a request for an epoch) was sent; the replica resumes, or grants |
| STREAMING | batches after the cursor within the replica's credit, certificates behind the batches they cover, beats |
| STUCK | the log cannot go on from the cursor, or the replica refused us by name: beats only, until it resumes elsewhere |
| CLOSED | nothing, for good |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from replica.feed.commands import Alarm, Close, Now, fault, trouble_of
from replica.feed.limits import MS, NONCE_OCTETS
from replica.feed.source_port import WriteAsk
from replica.model.drained import Drained
from replica.model.errors import Code, Trouble, ZaibeiError, require
from replica.model.position import Position
from replica.model.signing import grant_octets, receipt_octets, verify
from replica.model.states import ReceiptLevel
from replica.v1 import position_pb2, source_pb2

READ_OCTETS_MAX = 4 * 1024 * 1024
# SEMANTICS 10: one at least every 5 s. A busy log holds one for a boundary of each second: each is asked about, once it is time.
CERTIFICATE_INTERVAL_NS = 4_000 * MS
CERTIFICATE_ASKED_NS = 1_500 * MS  # so long; a log that holds none by then is left alone for half an interval
CERTIFICATE_IDLE_NS = 500 * MS  # after the last batch, when nothing follows
LEASE_MS_MAX = 600_000  # of one retention lease; the replica renews it while it loads
LEVELS = frozenset(int(level) for level in ReceiptLevel)
BEAT_INTERVAL_MS_MIN, BEAT_INTERVAL_MS_MAX = 10, 5_000


class SourcePhase(Enum):
    """See the table of the module."""

    OFFERED = "offered"
    STREAMING = "streaming"
    STUCK = "stuck"
    CLOSED = "closed"


SOURCE_MOVES: dict[SourcePhase, frozenset[SourcePhase]] = {
    SourcePhase.OFFERED: frozenset({SourcePhase.STREAMING, SourcePhase.STUCK, SourcePhase.CLOSED}),
    SourcePhase.STREAMING: frozenset({SourcePhase.OFFERED, SourcePhase.STUCK, SourcePhase.CLOSED}),
    SourcePhase.STUCK: frozenset({SourcePhase.OFFERED, SourcePhase.STREAMING, SourcePhase.CLOSED}),
    SourcePhase.CLOSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Say:
    """Put a message on the stream."""

    message: source_pb2.SourceMessage


@dataclass(frozen=True, slots=True)
class Read:
    """Read the log after a boundary; report with `batches(run, …)`."""

    run: int
    after: Position
    octets_max: int


@dataclass(frozen=True, slots=True)
class Certify:
    """Look for a certificate of exactly this boundary; report with `certified(…)`."""

    position: Position


@dataclass(frozen=True, slots=True)
class TakeGrant:
    """Put a granted epoch on disk; report with `grant_taken(…)` or `grant_refused(…)`."""

    grant: source_pb2.Grant


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand a verified receipt to the log."""

    receipt: source_pb2.Receipt


@dataclass(frozen=True, slots=True)
class Retain:
    """Keep the log from here for so long."""

    position: Position
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Leased:
    """The replica's answer to a question for a write-path lease; 0 ms: none is given."""

    lease: source_pb2.Lease


@dataclass(frozen=True, slots=True)
class EndWriting:
    """The replica's group drains this source: its guard ends the writing; report with `drained(…)`."""

    act: str


@dataclass(frozen=True, slots=True)
class PushSnapshot:
    """The replica wants the full content, and cannot call us to fetch it."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Send datagram beats: key, receivers, interval."""

    key: bytes = field(repr=False)
    receivers: tuple[source_pb2.Endpoint, ...]
    interval_ms: int


SourceCommand = Say | Read | Certify | TakeGrant | Deliver | Retain | Leased | EndWriting | PushSnapshot | Arm | Alarm | Close


@dataclass(frozen=True, slots=True)
class Cut:
    """A batch as the log gave it."""

    raw: bytes
    after: Position


class SourceSession:
    """One stream, offered or pushed. Every method takes the moment and returns commands, in order.

    Args:
        description: of the log, at the start of the stream; epoch_wanted: empty, or why a new epoch is asked for.
        replica_key: signing key of the replica's member, 32 octets.
    """

    def __init__(self, description: source_pb2.Description, epoch_wanted: str, replica_key: bytes, instance: bytes = b"") -> None:
        self.source = description.source
        self.phase = SourcePhase.OFFERED
        self.head = Position.from_wire(description.head)
        self.floor = Position.from_wire(description.floor)
        self.cursor: Position | None = None
        self.nonce = bytes(NONCE_OCTETS)
        self.replica_state = ""
        self.armed: Arm | None = None
        self._description, self._wanted, self._replica_key = description, epoch_wanted, replica_key
        self._instance = instance
        self._interval_ns = _interval_ms(description.beat_interval_ms) * MS
        self._credit = self._sent = (0, 0)
        self._run = 0
        self._reading = False
        self._dry: Position | None = None  # head at which the log had nothing behind the cursor
        self._beat_ns = self._batch_ns = self._certificate_ns = 0
        self._certified: Position | None = None
        self._asked = 0  # number of the newest question for a lease that went out here
        self._backlog: list[Cut] = []
        self._out: list[SourceCommand] = []
        self._now = Now(0, 0)

    @property
    def beat_interval_s(self) -> float:
        """How often a beat goes out; ticks come at least twice as often."""
        return self._interval_ns / 1e9

    # -- inputs

    def start(self, now: Now) -> list[SourceCommand]:
        """The stream is up."""
        self._now, self._certificate_ns = now, now.boot_ns - CERTIFICATE_INTERVAL_NS
        self._say(source_pb2.SourceMessage(offer=source_pb2.Offer(description=self._description, instance=self._instance)))
        if self._wanted:
            request = source_pb2.EpochRequest(head=self.head.to_wire(), reason=self._wanted[:1_000])
            self._say(source_pb2.SourceMessage(epoch_request=request))
        return self._take()

    def received(self, message: source_pb2.ReplicaMessage, now: Now) -> list[SourceCommand]:
        """A message of the replica; any octets that parse as one are safe."""
        if self.phase is SourcePhase.CLOSED:
            return []
        self._now = now
        try:
            self._receive(message)
        except ZaibeiError as exc:
            self._say(source_pb2.SourceMessage(fault=fault(exc.trouble, self.head)))
            self._close(exc.trouble)
        return self._take()

    def moved(self, head: Position, floor: Position, now: Now) -> list[SourceCommand]:
        """The log's head (or floor) is another one."""
        self._now, self.head, self.floor = now, head, floor
        self._go_on()
        return self._take()

    def batches(self, run: int, cuts: Sequence[Cut] | None, now: Now) -> list[SourceCommand]:
        """Answer to Read. None: the log cannot go on from there."""
        self._now, self._reading = now, False
        if run == self._run and self.phase is SourcePhase.STREAMING:
            if cuts is None:
                self._move(SourcePhase.STUCK)
                trouble = Trouble(Code.SNAPSHOT_WANTED, "the log does not go back there: take the full content", retry=True)
                self._say(source_pb2.SourceMessage(fault=fault(trouble, self.floor)))
            else:
                self._backlog.extend(cuts)
                self._dry = None if cuts else self.head
        self._go_on()
        return self._take()

    def certified(self, certificate: position_pb2.Certificate | None, now: Now) -> list[SourceCommand]:
        """Answer to Certify; None: the log holds none for that boundary."""
        self._now = now
        if certificate is not None and self.phase is SourcePhase.STREAMING:
            position = Position.from_wire(certificate.digest.position)
            if position == self.cursor:
                self._say(source_pb2.SourceMessage(certificate=certificate))
                self._certified, self._certificate_ns = position, now.boot_ns
        self._go_on()
        return self._take()

    def grant_taken(self, position: Position, now: Now) -> list[SourceCommand]:
        """A grant is on disk."""
        self._now, self.head, self._wanted = now, position, ""
        self._run += 1
        self.cursor, self._backlog = None, []  # the replica resumes in the new epoch
        if self.phase not in (SourcePhase.CLOSED, SourcePhase.OFFERED):
            self._move(SourcePhase.OFFERED)
        if self.phase is not SourcePhase.CLOSED:
            self._say(source_pb2.SourceMessage(grant_accepted=source_pb2.GrantAccepted(position=position.to_wire())))
        return self._take()

    def grant_refused(self, trouble: Trouble, head: Position, now: Now) -> list[SourceCommand]:
        """A grant does not start at our head; nothing changed."""
        self._now, self.head = now, head
        if self.phase is not SourcePhase.CLOSED:
            self._say(source_pb2.SourceMessage(fault=fault(trouble, head)))
        return self._take()

    def tick(self, now: Now) -> list[SourceCommand]:
        """Time passed; call at least as often as the beat interval."""
        self._now = now
        if self.phase is SourcePhase.CLOSED:
            return []
        if now.boot_ns - self._beat_ns >= self._interval_ns:
            self._beat()
        if self.phase is SourcePhase.STREAMING and self.cursor is not None:
            resting = self.cursor == self.head and self._certified != self.cursor
            idle = resting and now.boot_ns - self._batch_ns >= CERTIFICATE_IDLE_NS
            if idle or now.boot_ns - self._certificate_ns >= CERTIFICATE_INTERVAL_NS:
                self._out.append(Certify(self.cursor))
        self._go_on()
        return self._take()

    def ask_lease(self, ask: WriteAsk, now: Now) -> list[SourceCommand]:
        """Put the guard's question on the stream, once, where the replica is in our epoch."""
        self._now = now
        if self.phase is SourcePhase.STREAMING and ask.number > self._asked and ask.epoch == self.head.epoch:
            self._asked = ask.number
            lease_ask = source_pb2.LeaseAsk(number=ask.number, epoch=ask.epoch, duration_ms=ask.duration_ms)
            self._say(source_pb2.SourceMessage(lease_ask=lease_ask))
        return self._take()

    def drained(self, said: Drained, now: Now) -> list[SourceCommand]:
        """Answer to EndWriting. Its last batches may follow it: the replica waits for them."""
        self._now = now
        if self.phase is not SourcePhase.CLOSED:
            self._say(source_pb2.SourceMessage(drained=said.to_wire()))
        return self._take()

    # -- dispatch

    def _receive(self, message: source_pb2.ReplicaMessage) -> None:
        match message.WhichOneof("body"):
            case "resume":
                self._resume(message.resume)
            case "credit":
                self._add_credit(message.credit)
            case "nonce":
                if len(message.nonce.nonce) != NONCE_OCTETS:
                    raise ZaibeiError(Code.MALFORMED, f"a nonce has {NONCE_OCTETS} octets")
                self.nonce = message.nonce.nonce
                self._beat()
            case "receipt":
                self._receipt(message.receipt)
            case "grant":
                self._grant(message.grant)
            case "lease":
                if message.lease.kind == source_pb2.Lease.KIND_RETENTION:
                    position = Position.from_wire(getattr(message.lease, "from"))
                    self._out.append(Retain(position, min(message.lease.duration_ms, LEASE_MS_MAX)))
                elif message.lease.kind == source_pb2.Lease.KIND_WRITE:
                    self._out.append(Leased(message.lease))
            case "drain":
                self._drain(message.drain)
            case "fault":
                self._fault(message.fault)
            case _:
                raise ZaibeiError(Code.MALFORMED, "a message without a body we know")

    def _resume(self, resume: source_pb2.Resume) -> None:
        self._run += 1
        self._backlog = []
        self.replica_state = resume.state[:64]
        self._add_credit(resume.credit)
        if resume.beat_interval_ms:
            self._interval_ns = _interval_ms(resume.beat_interval_ms) * MS
        if resume.beat_to and (resume.beat_key, tuple(resume.beat_to)) != (self.armed and (self.armed.key, self.armed.receivers)):
            self.armed = Arm(resume.beat_key, tuple(resume.beat_to)[:8], _interval_ms(resume.beat_interval_ms))
            self._out.append(self.armed)
        if not resume.HasField("position") or not resume.position.lineage:
            self.cursor = None
            if self.phase is not SourcePhase.OFFERED:
                self._move(SourcePhase.OFFERED)
            return
        self.cursor = Position.from_wire(resume.position)
        if self.phase is not SourcePhase.STREAMING:
            self._move(SourcePhase.STREAMING)
        self._certified, self._reading, self._dry = None, False, None
        self._batch_ns = self._now.boot_ns
        self._ask()

    def _add_credit(self, credit: source_pb2.Credit) -> None:
        self._credit = (max(self._credit[0], credit.batches_total), max(self._credit[1], credit.octets_total))
        self._go_on()

    def _receipt(self, receipt: source_pb2.Receipt) -> None:
        position = Position.from_wire(receipt.position)
        if receipt.level not in LEVELS:
            raise ZaibeiError(Code.MALFORMED, f"a receipt of level {receipt.level}")
        octets = receipt_octets(receipt.source, receipt.shard, position, receipt.level, receipt.member, receipt.stated_ms)
        if receipt.source != self.source or not verify(self._replica_key, octets, receipt.signature):
            raise ZaibeiError(Code.NOT_AUTHORISED, "a receipt that the replica's key did not sign")
        self._out.append(Deliver(receipt))

    def _grant(self, grant: source_pb2.Grant) -> None:
        parent, start = Position.from_wire(grant.parent), Position.from_wire(grant.start)
        octets = grant_octets(grant.source, parent, start, grant.reason, grant.holder)
        if grant.source != self.source or not verify(self._replica_key, octets, grant.signature):
            raise ZaibeiError(Code.NOT_AUTHORISED, "a grant that the replica's key did not sign")
        self._out.append(TakeGrant(grant))

    def _drain(self, ask: source_pb2.Drain) -> None:
        if ask.epoch == self.head.epoch and self.phase is SourcePhase.STREAMING:
            self._out.append(EndWriting(ask.act))
            return
        why = f"it writes in epoch {self.head.epoch}, not {ask.epoch}, and stands {self.phase.value}"
        self._say(source_pb2.SourceMessage(drained=Drained(ask.act, None, why).to_wire()))

    def _fault(self, message: source_pb2.Fault) -> None:
        trouble = trouble_of(message)
        if trouble.code is Code.SNAPSHOT_WANTED:
            self._out.append(PushSnapshot())
            return
        self._out.append(Alarm(trouble.code, f"the replica reports: {trouble.message}"))
        if trouble.code in (Code.FORKED, Code.FENCED, Code.WRONG_LINEAGE, Code.HELD):
            if self.phase is SourcePhase.STREAMING:
                self._move(SourcePhase.STUCK)
        elif not trouble.retry:
            self._close(trouble)

    # -- streaming

    def _go_on(self) -> None:
        """Send what the credit allows; read on when the backlog is empty."""
        if self.phase is not SourcePhase.STREAMING or self.cursor is None:
            return
        while self._backlog:
            cut = self._backlog[0]
            batches, octets = self._sent[0] + 1, self._sent[1] + len(cut.raw)
            if batches > self._credit[0] or octets > self._credit[1]:
                return
            del self._backlog[0]
            self._sent = (batches, octets)
            self._say(source_pb2.SourceMessage(batch=cut.raw))
            self.cursor, self._batch_ns = cut.after, self._now.boot_ns
            late_ns = self._now.boot_ns - self._certificate_ns - CERTIFICATE_INTERVAL_NS
            if late_ns > CERTIFICATE_ASKED_NS:
                self._certificate_ns = self._now.boot_ns - CERTIFICATE_INTERVAL_NS // 2
            elif late_ns >= 0:
                self._out.append(Certify(cut.after))
                return  # the certificate belongs behind this very batch; `certified` or the next event goes on
        if self.cursor != self.head:
            self._ask()

    def _ask(self) -> None:
        if not self._reading and self.cursor is not None and self._sent[0] < self._credit[0] and self._dry != self.head:
            self._reading = True
            octets = max(1, min(READ_OCTETS_MAX, self._credit[1] - self._sent[1]))
            self._out.append(Read(self._run, self.cursor, octets))

    def _beat(self) -> None:
        self._beat_ns = self._now.boot_ns
        beat = source_pb2.Beat(head=self.head.to_wire(), nonce=self.nonce, stated_ms=self._now.wall_ms)
        self._say(source_pb2.SourceMessage(beat=beat))

    def _say(self, message: source_pb2.SourceMessage) -> None:
        self._out.append(Say(message))

    def _close(self, trouble: Trouble) -> None:
        self._move(SourcePhase.CLOSED)
        self._out.append(Close(trouble))

    def _move(self, phase: SourcePhase) -> None:
        require(phase in SOURCE_MOVES[self.phase], f"a source session cannot move from {self.phase.name} to {phase.name}")
        self.phase = phase

    def _take(self) -> list[SourceCommand]:
        commands, self._out = self._out, []
        return commands


def _interval_ms(stated: int) -> int:
    return min(max(stated or 500, BEAT_INTERVAL_MS_MIN), BEAT_INTERVAL_MS_MAX)
