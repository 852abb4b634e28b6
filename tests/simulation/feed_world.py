"""A source and a replica joined by a link that a seed disturbs; no sockets, no clock, every failure replayed from its seed.

The real sessions run here with memory twins behind them. `content_at` remembers what the registry held at every position it ever
stood at (forks and rewinds too), so that a copy can be judged at whatever position it claims.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from replica.feed.admission import judge_part
from replica.feed.commands import (
    Alarm,
    Close,
    Command,
    Compare,
    DropSnapshot,
    FetchSnapshot,
    LoadParts,
    LookUp,
    Now,
    Propose,
    Prove,
    Send,
)
from replica.feed.desk import Setup
from replica.feed.freshness import CopyAge
from replica.feed.limits import MS, FeedLimits
from replica.feed.memory_source import MemorySourceLog, after_of
from replica.feed.memory_store import MemoryLoader, MemoryStore
from replica.feed.session import ReplicaSession
from replica.feed.snapshot import check_end
from replica.feed.source_session import (
    Arm,
    Certify,
    Cut,
    Deliver,
    PushSnapshot,
    Read,
    Retain,
    Say,
    SourceCommand,
    SourceSession,
    TakeGrant,
)
from replica.model.batch import OP_DELETE, OP_PUT, Change
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.outcome import Outcome
from replica.model.position import Position
from replica.model.signing import Signer
from replica.v1 import entry_pb2, source_pb2

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # isort: skip

SOURCE_SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
MEMBER_SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
LINEAGE = bytes.fromhex("11" * 16)
SOURCE = "secondary-88-118"
STEP_NS = 20 * MS


def record(text: str) -> bytes:
    """A stored record with one URL value."""
    kind, data = b"URL", text.encode()
    value = struct.pack(">IIBIBI", 1, 0, 0, 86_400, 0x0E, len(kind)) + kind + struct.pack(">I", len(data)) + data + bytes(4)
    return b"\x01" + struct.pack(">I", 1) + value


def key(name: str, prefix: str = "88.118") -> bytes:
    return prefix_key(prefix) + b"\0" + name.upper().encode()


def put(name: str, text: str = "https://example.cn/", prefix: str = "88.118") -> Change:
    return Change(OP_PUT, key(name, prefix), record(text))


def delete(name: str, prefix: str = "88.118") -> Change:
    return Change(OP_DELETE, key(name, prefix))


@dataclass(frozen=True)
class LinkFaults:
    """Chances per message, out of 1000."""

    drop: int = 0
    duplicate: int = 0
    swap: int = 0
    cut: int = 0


class World:
    """One source, one replica, one stream at a time."""

    def __init__(
        self,
        seed: int = 0,
        faults: LinkFaults = LinkFaults(),
        limits: FeedLimits | None = None,
        session_class: type[ReplicaSession] = ReplicaSession,
        source_class: type[SourceSession] = SourceSession,
        store_class: type[MemoryStore] = MemoryStore,
    ) -> None:
        self.random = Random(seed)
        self.faults = faults
        self.limits = limits or FeedLimits()
        self.session_class, self.source_class = session_class, source_class
        self.log = MemorySourceLog(SOURCE, SOURCE_SIGNER, ["88.118"])
        self.store = store_class(SOURCE)
        self.age = CopyAge()
        self.boot_ns, self.wall_ms = 10**12, 1_700_000_000_000
        self.session: ReplicaSession | None = None
        self.source: SourceSession | None = None
        self.up: deque[source_pb2.ReplicaMessage] = deque()  # to the source
        self.down: deque[source_pb2.SourceMessage] = deque()  # to the replica
        self.journal: deque[tuple[ReplicaSession | None, int, bytes]] = deque()
        self.jobs: list[tuple[ReplicaSession, Callable[[ReplicaSession], list[Command]]]] = []
        self.looks: list[tuple[ReplicaSession | None, list[bool]]] = []
        self.parts: list[source_pb2.SnapshotPart] = []
        self.pressure = False
        self.busy = 0  # so many proposals are refused
        self.hold_jobs = False
        self.slow_load = 0  # so many steps a load waits before it reads its parts
        self.history: list[str] = []
        self.receipts: list[tuple[Position, int]] = []
        self.alarms: list[Alarm] = []
        self.content_at: dict[Position, dict[bytes, bytes]] = {}
        self.applied: list[Position] = []

    # -- GroupReads

    def state(self):  # type: ignore[no-untyped-def]
        return self.store.state()

    def live_records(self, level: bytes) -> int:
        return self.store.live_records(level)

    def chain_at(self, epoch: int, seq: int) -> Position | None:
        return self.store.chain_at(epoch, seq)

    # -- doings of the world

    @property
    def now(self) -> Now:
        return Now(self.boot_ns, self.wall_ms)

    def note(self, line: str) -> None:
        self.history.append(line)

    def write(self, *changes: Change) -> Position:
        after = self.log.write(changes).after
        self.remember()
        return after

    def remember(self) -> None:
        self.content_at[self.log.head()] = dict(self.log.content)

    def setup(self) -> Setup:
        return Setup(
            source=SOURCE,
            source_key=SOURCE_SIGNER.public,
            pinned=frozenset({prefix_key("88.118")}),
            member="member-1",
            signer=MEMBER_SIGNER,
            lineage=LINEAGE,
            random=self.random.randbytes,
            limits=self.limits,
        )

    def connect(self) -> None:
        self.cut()
        self.remember()
        while self.journal:  # as the driver does: an earlier stream's proposals are settled first
            self.commit()
        self.session = self.session_class(self.setup(), self, self.age)
        self.source = self.source_class(self.log.describe(), self.log.epoch_wanted(), MEMBER_SIGNER.public)
        self.note("connected")
        self.replica_does(self.session.start(self.now))
        self.source_does(self.source.start(self.now))

    def cut(self) -> None:
        if self.session is not None:
            self.session.close(self.now)
            self.note("cut")
        self.session = self.source = None
        self.up.clear()
        self.down.clear()
        self.jobs.clear()

    def crash_member(self) -> None:
        """The member dies: what was proposed and not yet committed may be there or not, from one point on."""
        self.cut()
        survives = self.random.randrange(len(self.journal) + 1)
        kept = [(None, tag, data) for _, tag, data in list(self.journal)[:survives]]
        self.journal = deque(kept)
        while self.journal:
            self.commit()
        if self.store.side is not None and not self.store.side.state.staged:
            self.store.side.content = None
        self.age = CopyAge()
        self.note("member crashed")

    def step(self) -> None:
        """One disturbed step: time, messages, commits, jobs."""
        self.boot_ns += STEP_NS
        self.wall_ms += STEP_NS // MS
        self.log.wall_ms = self.wall_ms
        chance = self.random.randrange
        if self.session is not None and self.faults.cut and chance(1000) < self.faults.cut:
            self.cut()
        for _ in range(chance(4) if self.faults.swap else 8):
            self.deliver()
        for _ in range(chance(4) if self.faults.swap else 8):
            self.commit()
        if self.looks and chance(2):
            self.look()
        if self.jobs and not self.hold_jobs:
            session, job = self.jobs.pop(0)
            if session is self.session:
                self.replica_does(job(session))
        self.tick()

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def tick(self) -> None:
        if self.source is not None:
            self.source_does(self.source.moved(self.log.head(), self.log.floor(), self.now))
        if self.source is not None:
            self.source_does(self.source.tick(self.now))
        if self.session is not None:
            self.replica_does(self.session.tick(self.now))

    def deliver(self) -> None:
        if self.up and self.source is not None:
            self.source_does(self.source.received(self._next(self.up), self.now))
        if self.down and self.session is not None and not self.session.intake.looking:
            message = self._next(self.down)
            self.replica_does(self.session.received(message, self.now))

    def _next(self, queue):  # type: ignore[no-untyped-def]
        chance = self.random.randrange
        if len(queue) > 1 and chance(1000) < self.faults.swap:
            queue[0], queue[1] = queue[1], queue[0]
        message = queue.popleft()
        if chance(1000) < self.faults.duplicate:
            queue.appendleft(message)
        if queue and chance(1000) < self.faults.drop:
            return queue.popleft()
        return message

    def commit(self) -> None:
        """The oldest proposal becomes durable and is applied."""
        if not self.journal:
            return
        session, tag, data = self.journal.popleft()
        before = self.store.state()
        outcome = self.store.apply(data)
        self._note_applied(data, outcome)
        if self.store.state().position != before.position:
            self.applied.append(self.store.state().position)
        if session is not None and session is self.session:
            self.replica_does(session.outcome(tag, outcome, self.now))
        if self.session is not None:
            self.replica_does(self.session.state_changed(self.now))

    def _note_applied(self, data: bytes, outcome: Outcome) -> None:
        entry = entry_pb2.Entry.FromString(data)
        body = entry.WhichOneof("body")
        detail = ""
        if body == "grant":  # the first boundary of an epoch has its parent's content
            parent, start = Position.from_wire(entry.grant.parent), Position.from_wire(entry.grant.start)
            if parent in self.content_at:
                self.content_at.setdefault(start, self.content_at[parent])
        if body == "mark":
            detail = " " + entry_pb2.FeedMark.State.Name(entry.mark.state).removeprefix("STATE_")
        elif body == "append":
            where = "+".join(
                [*(["live"] if entry.append.live else []), *([f"side {entry.append.side}"] if entry.append.side else [])]
            )
            bad = "".join(f" quarantined {one.ordinal}:{one.reason}" for one in entry.append.quarantined)
            detail = f" {after_of(entry.append.batch).epoch}/{after_of(entry.append.batch).seq} {where}{bad}"
        elif body == "check":
            detail = f" {outcome.detail}"
        self.note(f"entry {body}{detail}: {outcome.kind}")

    # -- commands

    def replica_does(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Send(message):
                    self._note_said("replica", message)
                    self.up.append(message)
                case Propose(tag, entry):
                    self._propose(tag, entry)
                case Prove(position):
                    self._job(lambda s, p=position: s.proved(self.log.prove(p), self.now))
                case FetchSnapshot():
                    self._job(self._open_snapshot)
                case LoadParts(side, position):
                    self._job(lambda s, n=side, p=position: self._load(s, n, p))
                case Compare(side):
                    self._job(lambda s, n=side: self._compare(s, n))
                case DropSnapshot():
                    self.parts = []
                case LookUp(keys):
                    self._look_up(keys)
                case Alarm():
                    self.alarms.append(command)
                    self.note(f"alarm {command.code}: {command.message}")
                case Close(trouble):
                    self.note(f"replica closes: {trouble.code if trouble else 'done'}")
                    self.cut()
                    return

    def _look_up(self, keys: list[bytes]) -> None:
        """At once, or in a world with disturbances some steps later; no message is delivered before it."""
        existing = self.store.existing(keys)
        self.looks.append((self.session, existing))
        if not self.faults.swap:
            self.look()

    def look(self) -> None:
        """The oldest look into the store comes back."""
        session, existing = self.looks.pop(0)
        if session is not None and session is self.session:
            self.replica_does(session.looked(existing, self.now))

    def _propose(self, tag: int, entry: entry_pb2.Entry) -> None:
        if self.busy and self.session is not None:
            self.busy -= 1
            session = self.session
            self.jobs.append((session, lambda s: s.outcome(tag, Trouble(Code.BUSY, "full", retry=True), self.now)))
            return
        self.journal.append((self.session, tag, entry.SerializeToString()))

    def _job(self, job: Callable[[ReplicaSession], list[Command]]) -> None:
        if self.session is not None:
            self.jobs.append((self.session, job))

    def _open_snapshot(self, session: ReplicaSession) -> list[Command]:
        self.parts = self.log.snapshot_parts()
        self.remember()
        return session.snapshot_header(self.parts[0].header, self.now)

    def _load(self, session: ReplicaSession, side: int, position: Position) -> list[Command]:
        if self.slow_load:
            self.slow_load -= 1
            self._job(lambda s: self._load(s, side, position))
            return []
        if not self.parts:
            return session.job_failed(Trouble(Code.UNREACHABLE, "the snapshot was dropped", retry=True), self.now)
        loader = MemoryLoader(self.store, side, position)
        try:
            for part in self.parts[1:-1]:
                loader.take(part.chunk.columns, judge_part(part.chunk.columns, session.desk.rights()))
            end = self.parts[-1].end
            check_end(SOURCE, position, SOURCE_SIGNER.public, end)
            return session.loaded(loader.verify(end), self.now)
        except ZaibeiError as exc:
            return session.job_failed(exc.trouble, self.now)

    def _compare(self, session: ReplicaSession, side: int) -> list[Command]:
        try:
            return session.difference(self.store.difference(side), self.now)
        except ZaibeiError as exc:
            return session.job_failed(exc.trouble, self.now)

    def source_does(self, commands: list[SourceCommand]) -> None:
        for command in commands:
            match command:
                case Say(message):
                    self._note_said("source", message)
                    self.down.append(message)
                case Read(run, after, octets_max):
                    raws = self.log.read(after, octets_max)
                    cuts = None if raws is None else [Cut(raw, after_of(raw)) for raw in raws]
                    if self.source is not None:
                        self.source_does(self.source.batches(run, cuts, self.now))
                case Certify(position):
                    if self.source is not None:
                        self.source_does(self.source.certified(self.log.certificate(position), self.now))
                case TakeGrant(grant):
                    self._take_grant(grant)
                case Deliver(receipt):
                    self.log.receipt(receipt)
                    self.receipts.append((Position.from_wire(receipt.position), receipt.level))
                case Retain(position, duration_ms):
                    self.log.retain(position, duration_ms)
                case PushSnapshot() | Arm() | Alarm():
                    pass
                case Close(trouble):
                    self.note(f"source closes: {trouble.code if trouble else 'done'}")
                    self.cut()
                    return

    def _take_grant(self, grant: source_pb2.Grant) -> None:
        if self.source is None:
            return
        try:
            start = self.log.take_grant(grant)
        except ZaibeiError as exc:
            self.source_does(self.source.grant_refused(exc.trouble, self.log.head(), self.now))
            return
        self.remember()
        self.source_does(self.source.grant_taken(start, self.now))

    def _note_said(self, who: str, message: source_pb2.ReplicaMessage | source_pb2.SourceMessage) -> None:
        body = message.WhichOneof("body")
        if body in ("nonce", "beat", "credit"):
            return
        value = getattr(message, body or "")
        detail = ""
        if body == "resume":
            detail = f" from {value.position.epoch}/{value.position.seq}" if value.position.lineage else " from nothing"
        elif body == "receipt":
            name = source_pb2.Receipt.Level.Name(value.level).removeprefix("LEVEL_").lower()
            detail = f" {name} {value.position.epoch}/{value.position.seq}"
            if name == "quorum":
                stated, ours = Position.from_wire(value.position), self.store.state().position
                if not ours.covers(stated):
                    raise AssertionError(f"receipt {stated.short()} is beyond the applied {ours.short()}")
        elif body == "batch":
            detail = f" {after_of(value).epoch}/{after_of(value).seq}"
        elif body == "fault":
            detail = f" {value.code}"
        elif body == "grant":
            detail = f" {value.start.epoch}/{value.start.seq}"
        elif body == "grant_accepted":
            detail = f" {value.position.epoch}/{value.position.seq}"
        elif body == "certificate":
            detail = f" {value.digest.position.epoch}/{value.digest.position.seq}"
        elif body == "offer":
            detail = f" {value.description.head.epoch}/{value.description.head.seq}"
        self.note(f"{who}: {body}{detail}")

    # -- judging

    def check(self) -> None:
        """What must hold after every step."""
        state = self.store.state()
        if state.ready:
            truth = self.content_at.get(state.position)
            assert truth is not None, f"applied position {state.position.short()} was never one of the source's"
            assert self.store.content == truth, f"content at {state.position.short()} is not the source's"

    def caught_up(self) -> bool:
        state = self.store.state()
        return state.ready and state.position == self.log.head() and state.side is None
