"""Each rule of the feed, with the scenario that goes red when the rule is switched off.

`RULES` is the table: rule of SEMANTICS.md -> (scenario, world with the rule, world without it). `test_rule` runs the real thing;
`test_scenario_sees_the_rule_missing` runs the same scenario on a subclass that lacks the rule and must fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from replica.feed.admission import BrakeVerdict, Judged
from replica.feed.freshness import CopyAge
from replica.feed.intake import Intake, Then
from replica.feed.load import Load
from replica.feed.marks import Checks, Marks
from replica.feed.meeting import grant_entry
from replica.feed.memory_store import MemoryStore
from replica.feed.placing import FOLLOWS, Placed
from replica.feed.session import ReplicaSession
from replica.model.batch import Batch, columns_of, cut_batch, open_batch
from replica.model.errors import Trouble
from replica.model.outcome import OutcomeKind
from replica.model.position import Position, epoch_start
from replica.model.states import FeedState, ReceiptLevel
from replica.v1 import entry_pb2, position_pb2, source_pb2
from tests.simulation.feed_world import LINEAGE, MEMBER_SIGNER, World, delete, key, put, record


def copied(world: World, *names: str) -> Position:
    """A world whose source holds these records, copied."""
    world.write(*[put(name) for name in names])
    world.connect()
    run(world, 14)
    assert world.caught_up()
    return world.state().position


def run(world: World, steps: int) -> None:
    for _ in range(steps):
        world.step()
        world.check()


# -- scenarios


def altered_batch_is_refused(world: World) -> None:
    copied(world, "A", "B")
    batch = cut_batch(world.log.source, world.log.head(), columns_of([put("C", "https://true.cn/")]), 1, 0)
    world.down.append(source_pb2.SourceMessage(batch=batch.raw.replace(b"https://true", b"https://evil")))
    run(world, 4)
    assert key("C") not in world.store.content


def batches_are_not_cut_again(world: World) -> None:
    copied(world, "A", "B")
    before = world.log.head()
    world.write(put("C"))
    world.write(put("D"))
    run(world, 6)
    held = world.state().position
    again = cut_batch(world.log.source, before, columns_of([put("C"), put("D"), put("E")]), 3, 0)
    world.down.append(source_pb2.SourceMessage(batch=again.raw))
    run(world, 6)
    assert (world.state().feed, world.state().position) == (FeedState.FORKED, held)


def ungranted_epoch_is_forked(world: World) -> None:
    held = copied(world, "A")
    world.cut()
    head = world.log.head()
    world.log._at(epoch_start(head, LINEAGE, head.epoch + 1))
    world.write(put("B"))
    world.connect()
    run(world, 10)
    assert (world.state().feed, world.state().position) == (FeedState.FORKED, held)


def refusals_survive_a_restart(world: World) -> None:
    copied(world, "A")
    back = world.log.head()
    world.write(put("B"))
    run(world, 6)
    world.cut()
    world.log.rewind(back)
    world.write(put("X"))
    world.connect()
    run(world, 6)
    world.crash_member()
    assert world.state().feed is FeedState.FORKED


def an_old_leaders_batch_changes_nothing(world: World) -> None:
    copied(world, "A")
    before = world.log.head()
    world.write(delete("A"), put("B"))
    first = world.log.batches[-1].raw
    world.write(put("A"))
    run(world, 6)
    late = entry_pb2.AppendBatch(batch=first, follows=before.to_wire(), live=True)
    world.journal.append((None, 0, entry_pb2.Entry(format=1, append=late).SerializeToString()))
    run(world, 2)
    assert world.state().position == world.log.head()
    assert world.store.content == world.log.content


def mass_delete_is_held(world: World) -> None:
    names = [f"R{place}" for place in range(300)]
    copied(world, *names)
    held = world.state().position
    world.write(*[delete(name) for name in names[:120]])
    world.write(put("LATER"))
    run(world, 10)
    assert (world.state().feed, world.state().position) == (FeedState.HELD, held)
    assert [level for position, level in world.receipts if position.seq > held.seq] == [1], "received, never quorum"


def many_in_flight_are_held(world: World) -> None:
    names = [f"R{place}" for place in range(300)]
    copied(world, *names)
    for start in range(0, 120, 30):
        world.write(*[put(name, "https://other.cn/") for name in names[start : start + 30]])
    run(world, 10)
    assert world.state().feed is FeedState.HELD


def changes_flow_while_a_snapshot_loads(world: World) -> None:
    world.write(*[put(f"A{place}") for place in range(5)])
    world.connect()
    world.slow_load = 30
    run(world, 6)
    assert world.state().side is not None
    for place in range(5):
        world.write(put(f"B{place}"))
        run(world, 2)
    assert world.log.retained, "the source holds its log under a lease that we renew"
    world.log.forget_before(world.log.head())
    run(world, 40)
    assert world.caught_up()
    assert sum(line.startswith("entry load_begin") for line in world.history) == 1


def unproved_snapshot_stays_beside(world: World) -> None:
    copied(world, "A")
    back = world.log.head()
    world.write(put("B"))
    run(world, 6)
    held = world.state().position
    world.cut()
    world.log.rewind(back)
    world.write(put("X"))
    entry = _regrant(world)
    world.journal.append((None, 0, entry.SerializeToString()))
    world.commit()
    world.connect()
    run(world, 30)
    assert (world.state().feed, world.state().position) == (FeedState.HELD, held)


def _regrant(world: World) -> entry_pb2.Entry:
    entry = grant_entry(world.state(), world.log.head(), LINEAGE, "looked at", MEMBER_SIGNER)
    entry.format = 1
    return entry


def beats_in_a_buffer_say_nothing(world: World) -> None:
    copied(world, "A")
    run(world, 30)
    assert world.source is not None and world.session is not None
    again = source_pb2.ReplicaMessage(nonce=source_pb2.Nonce(nonce=world.source.nonce))
    world.source_does(world.source.received(again, world.now))
    world.boot_ns += 10_000_000_000  # the machine was suspended with the beat in its buffer
    while world.down:
        world.replica_does(world.session.received(world.down.popleft(), world.now))
    age = world.age.age_ms(world.boot_ns)
    assert age is None or age >= 9_000


def heads_not_reached_say_nothing(world: World) -> None:
    copied(world, "A")
    run(world, 30)
    world.limits = replace(world.limits)
    world.pressure = True  # nothing more is admitted once the credit is used
    for place in range(80):
        world.write(put(f"B{place}"))
    run(world, 200)
    age = world.age.age_ms(world.boot_ns)
    assert world.state().position != world.log.head()
    assert age is not None and age > 2_000


def other_content_at_equal_chain_is_seen(world: World) -> None:
    copied(world, "A", "B")
    world.write(put("C"))
    run(world, 3)
    world.store.content[key("A")] = record("https://drifted.cn/")
    world.content_at[world.state().position] = dict(world.store.content)
    run(world, 40)
    assert world.state().feed is FeedState.DIVERGED
    assert world.store.content[key("A")] == record("https://drifted.cn/"), "the copy never edits itself"


def receipts_follow_what_is_applied(world: World) -> None:
    copied(world, "A")
    world.write(put("B"))
    for _ in range(3):  # delivered, and nothing committed
        world.tick()
        world.deliver()
        world.deliver()
        world.boot_ns += 20_000_000
        world.tick()
    stated = [position for position, level in world.receipts if level == 2]
    assert all(world.state().position.covers(position) for position in stated)
    run(world, 6)


# -- the same without the rule


class Unchecked(Intake):
    """1.1: hash and chain are not checked."""

    def _judge(self, raw: bytes) -> Judged:
        batch = open_batch(raw, verify=False)
        columns = batch.columns
        message = position_pb2.Batch.FromString(raw)
        fixed = cut_batch(batch.source, batch.before, columns, message.count, batch.stated_ms)
        judged = super()._judge(fixed.raw)
        return Judged(replace(judged.batch, raw=raw, after=batch.after), judged.scan, judged.quarantined, judged.counts)


class Unplaced(Intake):
    """1.1: a batch is taken wherever its seq goes on."""

    def _place(self, judged: Judged, tails: list[Position], granted: Position) -> Placed:
        return FOLLOWS if judged.batch.after.seq > tails[0].seq else super()._place(judged, tails, granted)


class Unbraked(Intake):
    """2.3: no brake."""

    def _brake(self, judged: Judged) -> BrakeVerdict:
        return BrakeVerdict(judged.counts, False, [])


class BrakedOneByOne(Intake):
    """2.3: what is in flight is not counted."""

    def _brake(self, judged: Judged) -> BrakeVerdict | None:
        flight, self._flight = self._flight, type(self._flight)()
        verdict = super()._brake(judged)
        self._flight = flight
        return verdict


class Eager(Intake):
    """Promise 1: a receipt leaves when a batch was proposed."""

    def _admit(self, judged: Judged):  # type: ignore[no-untyped-def]
        then = super()._admit(judged)
        self._receipt(judged.batch.after, ReceiptLevel.QUORUM)
        return then


class SideIgnored(Intake):
    """3.2: changes that come while a snapshot loads do not enter the log."""

    def side_opened(self, number: int, position: Position) -> None:
        super().side_opened(number, position)
        self.side_number = 0

    def _admit(self, judged: Judged):  # type: ignore[no-untyped-def]
        if self._desk.state.side is not None:
            self.ignore(len(judged.batch.raw))
            return Then.GO_ON
        return super()._admit(judged)


def session_with(intake: type[Intake]) -> type[ReplicaSession]:
    class Planted(ReplicaSession):
        def _make_intake(self) -> Intake:
            return intake(self.desk, self._upset)

    return Planted


class AnyHead(ReplicaSession):
    """1.2: a head is believed."""

    def _place_head(self, head: Position, tail: Position, granted: Position) -> Placed:
        return FOLLOWS


class SilentMarks(Marks):
    def propose(self) -> None:
        return


class Forgetful(ReplicaSession):
    """1.4: named states are kept in memory only."""

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        self.marks = SilentMarks(self.desk)


class Unproved(ReplicaSession):
    """3.3: the proof is not looked at."""

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        self.load.__class__ = _Believing


class _Believing(Load):
    __slots__ = ()

    def proved(self, proof: source_pb2.Proof) -> None:
        super().proved(source_pb2.Proof(result=source_pb2.Proof.RESULT_PROVED))

    def header(self, header: source_pb2.SnapshotHeader) -> Trouble | None:
        trouble = super().header(header)
        self._unfit = ""
        return trouble


class NoChecks(ReplicaSession):
    """10: certificates are not compared."""

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        self.checks = _Deaf(self.desk, self.marks)


class _Deaf(Checks):
    def certificate(self, certificate: position_pb2.Certificate, live: Position | None) -> None:
        return


class ReceiveTime(CopyAge):
    """4: age from when a beat arrived."""

    world: World

    def beat(self, head: Position, nonce: bytes) -> bool:
        self._nonces[nonce] = self.world.boot_ns
        return super().beat(head, nonce)


class AnyBeat(CopyAge):
    """4: every beat counts, whatever head it states."""

    def _settle(self) -> None:
        while self._heads:
            self._base_ns = max(self._heads.popleft()[1], self._base_ns or 0)


class Shuffled(MemoryStore):
    """2.1: apply does not look at what an entry follows."""

    def _place(self, batch: Batch, position: Position) -> OutcomeKind:
        return OutcomeKind.APPLIED


def with_age(age: type[CopyAge]) -> Callable[[], World]:
    def make() -> World:
        world = World(3)
        world.age = age()
        world.age.world = world  # type: ignore[attr-defined]
        return world

    return make


def with_session(session: type[ReplicaSession]) -> Callable[[], World]:
    return lambda: World(3, session_class=session)


@dataclass(frozen=True)
class Rule:
    text: str
    scenario: Callable[[World], None]
    without: Callable[[], World]


RULES = [
    Rule("1.1 octets are what they say", altered_batch_is_refused, with_session(session_with(Unchecked))),
    Rule("1.1 cut once", batches_are_not_cut_again, with_session(session_with(Unplaced))),
    Rule("1.2 only our group grants", ungranted_epoch_is_forked, with_session(AnyHead)),
    Rule("1.4 named states are committed", refusals_survive_a_restart, with_session(Forgetful)),
    Rule("2.1 order at apply", an_old_leaders_batch_changes_nothing, lambda: World(3, store_class=Shuffled)),
    Rule("2.3 brake", mass_delete_is_held, with_session(session_with(Unbraked))),
    Rule("2.3 brake counts in flight", many_in_flight_are_held, with_session(session_with(BrakedOneByOne))),
    Rule("3.2 changes flow beside", changes_flow_while_a_snapshot_loads, with_session(session_with(SideIgnored))),
    Rule("3.3 our position is proved", unproved_snapshot_stays_beside, with_session(Unproved)),
    Rule("4 buffered beats say nothing", beats_in_a_buffer_say_nothing, with_age(ReceiveTime)),
    Rule("4 only heads that we reached count", heads_not_reached_say_nothing, with_age(AnyBeat)),
    Rule("10 certificates are compared in order", other_content_at_equal_chain_is_seen, with_session(NoChecks)),
    Rule("promise 1: receipts follow apply", receipts_follow_what_is_applied, with_session(session_with(Eager))),
]  # fmt: skip
NAMES = [rule.text for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_rule(rule: Rule) -> None:
    rule.scenario(World(3))


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_scenario_sees_the_rule_missing(rule: Rule) -> None:
    with pytest.raises(AssertionError):
        rule.scenario(rule.without())
