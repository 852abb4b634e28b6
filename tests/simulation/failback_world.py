"""A source, its group and a leader in one thread: the real rules of apply and the real failback, crashing wherever a seed says.

The node is what a registry with our agent is: it may write in an epoch until it begins to follow, keeps its own history until it
is handed back, copies ours from the common position (or as a whole when it lost its disk), and takes grants from its head alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from replica.model.batch import OP_DELETE, OP_PUT, Change, columns_of, cut_batch, open_batch
from replica.model.digest import ContentDigest
from replica.model.group_state import GroupState
from replica.model.ladder import REGISTERING, Ladder, Stage
from replica.model.ladder_epochs import GIVING_BACK
from replica.model.ladder_rules import move
from replica.model.ladder_values import Moment, Moved
from replica.model.ledger import COMPARED_SEQ, Line, Verdict, Written
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.position import ORIGIN, Position, epoch_start
from replica.model.states import Authority
from replica.native import split
from replica.store.edge_ledger import apply_ledger, read_lines
from replica.store.state_row import Stored
from replica.takeover.failback import Certify, Commit, Compare, Failback, Fetch, Node, Order, Settle, Wish, World
from replica.takeover.hand_back import Answers, answers_of
from replica.takeover.ledger import OurSide, Policies, Policy, SourceWrite, classify, order, our_written
from replica.v1 import entry_pb2, source_pb2
from tests.unit.store.support import LINEAGE, SOURCE, content_sum, key, value

KEYS = [key(number) for number in range(6)]
MS = 1_000_000
CHUNK = 3  # lines of one entry


class Crashed(Exception):
    """The leader's process died here."""


@dataclass
class Group:
    """The committed state and what lies beside it; `apply` is what every member does with an entry."""

    state: GroupState
    content: dict[bytes, bytes] = field(default_factory=dict)
    rows: dict[bytes, bytes] = field(default_factory=dict)
    history: list[tuple[Position, bytes]] = field(default_factory=list)  # (boundary after, batch)
    own_writes: list[tuple[bytes, bytes | None]] = field(default_factory=list)  # of our clients, since the epoch was closed
    stages: list[Stage] = field(default_factory=list)

    def digest(self) -> ContentDigest:
        return ContentDigest(self.state.position, len(self.content), content_sum(self.content))

    # -- what the rules of the ledger see of a generation
    @property
    def row(self) -> Any:
        return SimpleNamespace(position=self.state.position)

    @property
    def rocks(self) -> Any:
        rows = self.rows
        return SimpleNamespace(
            get=rows.get, rows=lambda start, stop: iter(sorted((k, v) for k, v in rows.items() if start <= k < stop))
        )

    def stored(self, keys: list[bytes]) -> list[bytes | None]:
        return [self.content.get(one) for one in keys]

    def begin(self) -> Any:
        rows: dict[bytes, bytes] = {}
        return SimpleNamespace(position=self.state.position, rows=rows, wb=SimpleNamespace(put=rows.__setitem__), batch=None)

    def begin_batch(self, batch: Any, _: object) -> Any:
        change = self.begin()
        change.position, change.batch = batch.after, batch
        return change

    def take(self, batch: Any) -> None:
        keys, values, ops = split(batch.columns)
        for one, octets, op in zip(keys, values, ops, strict=True):
            if op == OP_PUT:
                self.content[one] = octets
            else:
                self.content.pop(one, None)
        self.history.append((batch.after, batch.raw))
        self.state = replace(self.state, position=batch.after)

    def apply(self, entry: entry_pb2.Entry) -> Outcome:
        kind = entry.WhichOneof("body")
        state = self.state = replace(self.state, index=self.state.index + 1)
        if kind == "ladder":
            judged = move(state, entry.ladder, Moment(state.index, state.position, self.digest()))
            if not isinstance(judged, Moved):
                return Outcome(judged.kind, state.position, judged.why)
            self.state = judged.group if judged.moved is None else replace(judged.group, position=judged.moved)
            self.stages.append(self.state.ladder.stage)
        elif kind is not None and kind.startswith("ledger"):
            stored, change, outcome = apply_ledger(kind, entry, self, Stored(state))  # type: ignore[arg-type]
            self.state = stored.group
            self.rows.update(change.rows)
            if change.batch is not None:
                self.take(change.batch)
            return outcome
        elif kind == "authority":
            kind_now, act = Authority(entry.authority.kind), entry.authority.act
            self.state = replace(state, authority=kind_now, authority_act=act)
        elif kind == "grant_taken":
            assert Position.from_wire(entry.grant_taken.position) == state.granted
            self.state = replace(state, grant_taken=True)
        return Outcome(OutcomeKind.APPLIED, self.state.position)

    def lines(self) -> list[Line]:
        ledger = self.state.ledger
        return [] if ledger is None else read_lines(self, ledger.common, b"", 10_000)  # type: ignore[arg-type]


@dataclass
class Registry:
    """The returning node. What is in fields but `up` is on its disk."""

    head: Position
    content: dict[bytes, bytes]
    up: bool = True
    diverged: list[SourceWrite] = field(default_factory=list)  # its own history behind the common position
    own: Position | None = None  # set when it begins to follow: it writes no more
    follows: Position | None = None
    holds: Position | None = None  # the epoch it was handed
    lost: bool = False
    resolver: dict[bytes, bytes] = field(default_factory=dict)  # what it answers: its content of some time ago

    def writes(self) -> bool:
        return self.up and (self.own is None or self.holds is not None)


class Scene:
    """One seed."""

    def __init__(self, seed: int, policy: Policy) -> None:
        self.chance = random.Random(seed)
        self.policies = Policies(policy)
        self.now_ns, self.number = 10_000 * MS, 0
        start = epoch_start(ORIGIN, LINEAGE, 1)
        base = {one: value(f"base{place}") for place, one in enumerate(KEYS[:4])}
        common = Position(LINEAGE, 1, 7, b"c" * 32)
        ladder = Ladder(stage=Stage.SERVING, act="act", closed_at=common, since_ms=1)
        ours = epoch_start(common, LINEAGE, 2)
        self.common = common
        self.group = Group(
            GroupState(
                SOURCE, ready=True, position=ours, granted=ours, grant_taken=True, authority=Authority.REGISTRATION,
                authority_act="act", ladder=ladder, prefixes=(b"h88",),
            ),
            dict(base),
        )  # fmt: skip
        assert start.epoch < ours.epoch
        self.node = Registry(common, dict(base), resolver=dict(base))
        self.failback = self.leader()
        self.acked: list[tuple[str, bytes, bytes | None]] = []
        self.frozen_ns: int | None = None
        self.crash_in: int | None = None
        self.fate: dict[bytes, list[bytes | None]] = {}
        self.answers: Answers | None = None
        self.handed: dict[bytes, bytes] | None = None  # what we held when it was handed back
        self.later: dict[bytes, int] = {}  # so many writes of a key were before that
        self.held_up = 0  # comparisons that found its resolver old

    # -- the leader

    def leader(self) -> Failback:
        made = Failback(SOURCE, self._grant)
        made.ordered(Order(Wish.RETURN, "test"))  # the operator's command runs on
        return made

    def _grant(self, state: GroupState, reason: str) -> source_pb2.Grant:
        start = epoch_start(state.position, LINEAGE, (state.granted or state.position).epoch + 1)
        return source_pb2.Grant(
            source=SOURCE, parent=state.position.to_wire(), start=start.to_wire(), reason=reason, holder=SOURCE
        )

    def view(self) -> World:
        node, registry = Node(), self.node
        if registry.up:
            digest = None
            if registry.follows is not None and registry.follows == self.group.state.position:
                digest = ContentDigest(registry.follows, len(registry.content), content_sum(registry.content))
            node = Node(True, registry.own, registry.follows, digest)
        well = registry.up and registry.holds is not None
        if self.group.state.ladder.stage is not Stage.ACCEPTED:
            self.answers = None
        elif self.handed is None:
            self.handed, self.later = dict(self.group.content), {one: len(told) for one, told in self.fate.items()}
        return World(self.group.state, True, node, well, 0 if well else None, self.now_ns, self.now_ns // MS, self.answers)

    def lead(self) -> None:
        """One step of the leader and what follows from it; a crash may end it anywhere."""
        try:
            for step in self.failback.step(self.view()):
                self._crash_point()
                match step:
                    case Commit(entry, _):
                        if entry.WhichOneof("body") == "authority":
                            self._nobody_is_sent_to_old_answers()
                        outcome = self.group.apply(entry)
                        if outcome.kind is OutcomeKind.CONFLICT and entry.ladder.stage == Stage.SOURCE_EQUAL:
                            for back in self.failback.differs(self.view(), outcome.detail):
                                assert isinstance(back, Commit)
                                self.group.apply(back.entry)
                    case Fetch(common, until):
                        self._fetch(common, until)
                    case Settle(common):
                        self._settle(common)
                    case Certify():
                        pass  # the view looks again
                    case Compare():
                        self._compare()
                self._crash_point()
        except Crashed:
            self.failback, self.answers = self.leader(), None

    def _compare(self) -> None:
        node, handed, content = self.node, self.handed or {}, self.group.content
        as_held = {one.hex(): node.resolver.get(one) in (content.get(one), handed.get(one)) for one in self.later}
        self.answers = answers_of(sorted(as_held), {"node": {name: held if node.up else None for name, held in as_held.items()}})
        self.held_up += bool(self.answers.old)

    def _nobody_is_sent_to_old_answers(self) -> None:
        """Our sites are given back in this moment."""
        assert self.handed is not None
        for one, count in self.later.items():
            right = [self.handed.get(one), *self.fate[one][count:]]
            assert self.node.resolver.get(one) in right, "its resolver answers what was before the takeover"

    def reads(self) -> None:
        """The node's resolver reads its content."""
        self.node.resolver = dict(self.node.content)

    def _crash_point(self) -> None:
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                self.crash_in = None
                raise Crashed

    def _sides(self, keys: list[bytes]) -> list[OurSide]:
        written = {one for one, _ in self.group.own_writes}
        entered: dict[bytes, list[bytes | None]] = {}
        for line in self.group.lines():
            if line.verdict is Verdict.ENTERED:
                entered.setdefault(line.key, []).append(line.theirs)
        sides = []
        for one in sorted(set(keys)):
            held = self.group.content.get(one)
            mine = Written.YES if one in written else Written.UNKNOWN if self.node.lost else Written.NO
            sides.append(OurSide(one, held, our_written(held, mine, entered.get(one, ()))))
        return sides

    def _judge(self, writes: list[SourceWrite]) -> list[Line]:
        return list(classify(sorted(writes, key=order), self._sides([one.key for one in writes]), self.policies))

    def _open_writes(self) -> list[SourceWrite]:
        return [
            SourceWrite(line.key, line.seq, line.theirs, line.certain)
            for line in self.group.lines()
            if line.verdict in (Verdict.ACCEPT, Verdict.HOLD, Verdict.STATE)
        ]

    def _fetch(self, common: Position, until: Position) -> None:
        if not self.node.up:
            return
        writes = list(self.node.diverged)
        known = {(one.key, one.seq) for one in writes}
        lines = self._judge(writes + [one for one in self._open_writes() if (one.key, one.seq) not in known])
        chunks = [lines[at : at + CHUNK] for at in range(0, len(lines), CHUNK)] or [[]]
        for place, chunk in enumerate(chunks):
            self._crash_point()
            body = entry_pb2.LedgerLines(
                common=common.to_wire(), theirs=until.to_wire(), complete=place == len(chunks) - 1,
                lines=[line.pack() for line in chunk],
            )  # fmt: skip
            self.group.apply(entry_pb2.Entry(ledger=body))

    def _settle(self, common: Position) -> None:
        ledger = self.group.state.ledger
        assert ledger is not None
        again = self._judge(self._open_writes())
        body = entry_pb2.LedgerLines(
            common=common.to_wire(), theirs=ledger.theirs.to_wire(), complete=True, lines=[line.pack() for line in again]
        )
        self.group.apply(entry_pb2.Entry(ledger=body))
        self._crash_point()
        idents = [line.ident for line in self.group.lines() if line.verdict in (Verdict.ACCEPT, Verdict.STATE)]
        self.chance.shuffle(idents)
        self.group.apply(entry_pb2.Entry(ledger_enter=entry_pb2.LedgerEnter(common=common.to_wire(), lines=idents[:CHUNK])))

    # -- the node

    def follow(self) -> None:
        """The node copies our history: one batch at a time, the whole content when its disk was lost."""
        node, state = self.node, self.group.state
        if not node.up or node.own is None or node.holds is not None:
            return
        if node.follows is None:
            if node.lost:
                node.follows, node.content = state.position, dict(self.group.content)
                return
            if state.ledger is None or not state.ledger.complete or state.ledger.theirs != node.own:
                return  # it keeps its own history until it is in the ledger
            node.follows = epoch_start(self.common, LINEAGE, 2)
        for after, raw in self.group.history:
            batch = open_batch(raw)
            if batch.before == node.follows and after.epoch == 2:
                keys, values, ops = split(batch.columns)
                for one, octets, op in zip(keys, values, ops, strict=True):
                    if op == OP_DELETE:
                        node.content.pop(one, None)
                    else:
                        node.content[one] = octets
                node.follows = after
                return

    def meet(self) -> None:
        """The feed carries a grant to a node that stands exactly at its parent; and its writes to us."""
        node, state = self.node, self.group.state
        if not node.up or state.granted is None:
            return
        meets = not state.grant_taken and node.follows is not None and node.holds is None
        if meets and node.follows is not None and epoch_start(node.follows, LINEAGE, state.granted.epoch) == state.granted:
            node.holds = node.head = state.granted
        if node.holds == state.granted and not state.grant_taken:
            self.group.apply(entry_pb2.Entry(grant_taken=entry_pb2.GrantTaken(position=state.granted.to_wire())))

    def withdraw(self) -> None:
        """The resolution machine gives the overlays back after ACCEPTED."""
        state = self.group.state
        if state.authority is Authority.RESOLUTION and state.authority_act.startswith(GIVING_BACK):
            self.group.state = replace(state, authority=Authority.SOURCE, authority_act="returned:act")

    # -- clients

    def _octets(self) -> bytes | None:
        self.number += 1
        return None if self.chance.random() < 0.2 else value(f"v{self.number}")

    def write_here(self) -> None:
        state = self.group.state
        if state.authority is not Authority.REGISTRATION or state.ladder.stage not in REGISTERING:
            return
        assert self.node.holds is None, "two writers"
        one, octets = self.chance.choice(KEYS), self._octets()
        change = Change(OP_DELETE, one) if octets is None else Change(OP_PUT, one, octets)
        self.group.take(cut_batch(SOURCE, state.position, columns_of([change]), 1, 0))
        self.group.own_writes.append((one, octets))
        self.fate.setdefault(one, []).append(octets)

    def write_there(self) -> None:
        node = self.node
        if not node.writes():
            return
        one, octets = self.chance.choice(KEYS), self._octets()
        if node.holds is None:
            node.head = Position(LINEAGE, 0 if node.lost else 1, node.head.seq + 1, random.Random(node.head.seq).randbytes(32))
            if node.lost:  # its content is compared: the last word on each key is what is seen
                node.diverged = [kept for kept in node.diverged if kept.key != one]
                if octets is not None:
                    node.diverged.append(SourceWrite(one, COMPARED_SEQ + node.head.seq, octets, certain=False))
            else:
                node.diverged.append(SourceWrite(one, node.head.seq, octets))
        else:
            assert self.group.state.ladder.stage not in REGISTERING, "two writers"
            change = Change(OP_DELETE, one) if octets is None else Change(OP_PUT, one, octets)
            if self.group.state.grant_taken:
                self.group.take(cut_batch(SOURCE, self.group.state.position, columns_of([change]), 1, 0))
                self.fate.setdefault(one, []).append(octets)
            else:
                return
        if octets is None:
            node.content.pop(one, None)
        else:
            node.content[one] = octets

    def watch_freeze(self) -> None:
        stage = self.group.state.ladder.stage
        if stage not in (Stage.FROZEN, Stage.SOURCE_EQUAL):
            self.frozen_ns = None
        elif self.frozen_ns is None:
            self.frozen_ns = self.now_ns
