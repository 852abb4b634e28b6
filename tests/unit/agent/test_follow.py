"""A source that comes back: it stops writing, keeps its own history until we have it, copies ours, and is handed an epoch."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from replica.agent import edge_follow as follow
from replica.agent.edge_log import AgentLog
from replica.model.batch import OP_PUT, Batch, Change, columns_of, cut_batch, open_batch
from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN, Position, epoch_start
from replica.model.signing import Signer, grant_octets
from replica.v1 import source_pb2
from tests.unit.agent.helpers import LINEAGE, MEMBER, SIGNER, SOURCE, commit, delete, grant, key, opened, put, total, value

WAIT_S = 5


def epoch_of(parent: Position, epoch: int, holder: str, signer: Signer = MEMBER) -> source_pb2.Grant:
    start = epoch_start(parent, LINEAGE, epoch)
    return source_pb2.Grant(
        source=SOURCE, parent=parent.to_wire(), start=start.to_wire(), reason="act", holder=holder,
        signature=signer.sign(grant_octets(SOURCE, parent, start, "act", holder)),
    )  # fmt: skip


def start_of(given: source_pb2.Grant) -> Position:
    return Position.from_wire(given.start)


def cut(before: Position, *changes: Change) -> Batch:
    return cut_batch(SOURCE, before, columns_of(changes), len(changes), 0)


def content_of(log: AgentLog) -> dict[bytes, bytes]:
    return log.content.values_of([key(name) for name in "abcdefgh"])


def nothing(changes: Sequence[Change]) -> None:
    pass


class Taken:
    """Its log after first contact: `common` was copied, one write behind it was not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = opened(folder)
        commit(self.log, put("a", "1"), put("b", "1"))
        self.log._accept_grant(grant(self.log.head()))
        self.common = commit(self.log, put("c", "1"))
        self.own = commit(self.log, put("a", "own"), delete("b"))
        self.ours = epoch_of(self.common, 2, "copy")

    def reopen(self) -> AgentLog:
        self.log.close()
        self.log = opened(self.folder)
        return self.log


@pytest.fixture
def taken(tmp_path: Path) -> Taken:
    return Taken(tmp_path)


def test_its_own_writing_ends_for_good_until_it_is_handed_an_epoch(taken: Taken) -> None:
    assert taken.log.describe().HasField("own_end") is False
    assert follow.stop_writing(taken.log) == taken.own == follow.stop_writing(taken.log)
    for _ in range(2):
        with pytest.raises(ZaibeiError) as refused:
            commit(taken.log, put("z", "late"))
        assert refused.value.code is Code.FENCED
        assert Position.from_wire(taken.log.describe().own_end) == taken.own and taken.log.head() == taken.own
        taken.reopen()


def test_nothing_is_overwritten_before_our_ledger_has_it(taken: Taken) -> None:
    follow.stop_writing(taken.log)
    with pytest.raises(ZaibeiError) as refused:
        follow.begin(taken.log, taken.ours, taken.common)
    assert refused.value.code is Code.REFUSED and taken.log.head() == taken.own
    assert content_of(taken.log)[key("a")] == value("own")


def test_it_copies_our_history_over_its_own_and_goes_on_in_its_new_epoch(taken: Taken) -> None:
    seen: list[Change] = []
    follow.stop_writing(taken.log)
    assert follow.following(taken.log) is None
    assert follow.begin(taken.log, taken.ours, taken.own)
    start = start_of(taken.ours)
    assert taken.log.head() == start == follow.following(taken.log)
    one = cut(start, put("d", "2"), put("a", "2"), put("a", "3"))
    two = cut(one.after, put("b", "1"))
    assert follow.take(taken.log, [one.raw, two.raw], seen.extend) == two.after
    held = {key("a"): value("3"), key("b"): value("1"), key("c"): value("1"), key("d"): value("2")}
    for _ in range(2):
        assert content_of(taken.log) == held
        assert (taken.log.content.digest.records, taken.log.content.digest.total) == total(held)
        assert follow.following(taken.log) == two.after
        taken.reopen()
    assert [change.key for change in seen] == [key("d"), key("a"), key("a"), key("b")]
    back = epoch_of(two.after, 3, SOURCE)
    taken.log._accept_grant(back)
    assert taken.log.own_end is None and taken.log.head() == start_of(back)
    after = commit(taken.log, put("e", "4"))
    assert taken.reopen().head() == after
    assert taken.log.own_end is None and taken.log.describe().HasField("own_end") is False


def test_its_own_history_can_be_read_while_it_follows(taken: Taken) -> None:
    follow.stop_writing(taken.log)
    follow.begin(taken.log, taken.ours, taken.own)
    follow.take(taken.log, [cut(start_of(taken.ours), put("d")).raw], nothing)
    [raw] = taken.log.read(taken.common, 1 << 20) or []
    assert open_batch(raw).after == taken.own
    assert taken.log.prove(taken.common).result == source_pb2.Proof.RESULT_PROVED


@pytest.mark.parametrize("where", ["before the log", "before the content", "before a batch's content"])
def test_a_crash_anywhere_goes_on_where_it_stood(taken: Taken, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    follow.stop_writing(taken.log)
    one = cut(start_of(taken.ours), put("d", "2"))

    def crash(*_: object) -> None:
        raise SystemExit

    def all_steps() -> None:
        follow.begin(taken.log, taken.ours, taken.own)
        if taken.log.head() == start_of(taken.ours):
            follow.take(taken.log, [one.raw], nothing)

    with monkeypatch.context() as patch:
        match where:
            case "before the log":
                patch.setattr(taken.log._files, "start_segment", crash)
            case "before the content":
                patch.setattr(taken.log.content, "begin_epoch", crash)
            case _:
                patch.setattr(taken.log.content, "apply", crash)
        with pytest.raises(SystemExit):
            all_steps()
    taken.reopen()
    all_steps()
    assert taken.log.head() == one.after and content_of(taken.log)[key("d")] == value("2")


def test_a_hand_back_whose_note_was_lost_is_found_at_open(taken: Taken) -> None:
    follow.stop_writing(taken.log)
    follow.begin(taken.log, taken.ours, taken.own)
    back = epoch_of(start_of(taken.ours), 3, SOURCE)
    noted = taken.log.content.noted("own-end")
    taken.log._accept_grant(back)
    taken.log.content.note("own-end", str(noted))  # as if the crash came just before
    assert taken.reopen().own_end is None
    commit(taken.log, put("e"))


def test_what_does_not_follow_is_refused(taken: Taken) -> None:
    follow.stop_writing(taken.log)
    follow.begin(taken.log, taken.ours, taken.own)
    start = start_of(taken.ours)
    later = cut(cut(start, put("d")).after, put("e"))
    with pytest.raises(ZaibeiError) as refused:
        follow.take(taken.log, [later.raw], nothing)
    assert refused.value.code is Code.CONFLICT and taken.log.head() == start


def test_only_the_members_own_word_counts(taken: Taken) -> None:
    follow.stop_writing(taken.log)
    assert follow.check_grant(taken.log, taken.ours, MEMBER.public) == (taken.common, start_of(taken.ours))
    with pytest.raises(ZaibeiError) as refused:
        follow.check_grant(taken.log, epoch_of(taken.common, 2, "copy", SIGNER), MEMBER.public)
    assert refused.value.code is Code.NOT_AUTHORISED
    foreign = source_pb2.Grant.FromString(taken.ours.SerializeToString())
    foreign.source = "other"
    with pytest.raises(ZaibeiError) as wrong:
        follow.check_grant(taken.log, foreign, MEMBER.public)
    assert wrong.value.code is Code.WRONG_SOURCE


def test_a_source_that_lost_its_disk_takes_the_whole_content(tmp_path: Path) -> None:
    log = opened(tmp_path)
    assert follow.stop_writing(log) == ORIGIN and follow.lost_everything(log)
    common = Position(LINEAGE, 1, 7, b"c" * 32)
    ours = epoch_of(common, 2, "copy")
    assert not follow.begin(log, ours, ORIGIN), "it does not hold the common position"
    position = cut(start_of(ours), put("z")).after
    held = {key(name): value(name) for name in "abc"}
    parts = [columns_of([Change(OP_PUT, one, octets)]) for one, octets in sorted(held.items())]
    follow.load(log, ours, position, parts, nothing)
    following = cut(position, put("d", "5"))
    follow.take(log, [following.raw], nothing)
    log.close()
    log = opened(tmp_path)
    held[key("d")] = value("5")
    assert content_of(log) == held and log.head() == following.after
    assert (log.content.digest.records, log.content.digest.total) == total(held)
    back = epoch_of(following.after, 3, SOURCE)
    log._accept_grant(back)
    commit(log, put("e"))
    log.close()
    assert opened(tmp_path).own_end is None


async def test_while_a_whole_content_comes_the_event_loop_that_brings_it_is_not_held_up(tmp_path: Path) -> None:
    """Replicas ask for certificates and sums there; each would wait for the load, and the load for the loop."""
    log, loop = opened(tmp_path), asyncio.get_running_loop()
    commit(log, put("a"))
    follow.stop_writing(log)
    ours = epoch_of(Position(LINEAGE, 1, 7, b"c" * 32), 2, "copy")
    position = cut(start_of(ours), put("z")).after

    async def next_part() -> bytes:
        assert log.certificate(log.head()) is not None
        assert log.digest(source_pb2.DigestRequest(position=log.head().to_wire())).HasField("digest")
        return columns_of([put("b", "new")])

    def parts() -> Iterator[bytes]:
        yield asyncio.run_coroutine_threadsafe(next_part(), loop).result(WAIT_S)

    await asyncio.to_thread(follow.load, log, ours, position, parts(), nothing)
    assert content_of(log) == {key("b"): value("new")} and log.head() == position
    log.close()


def test_a_content_that_breaks_off_leaves_the_old_one(taken: Taken) -> None:
    follow.stop_writing(taken.log)
    before = content_of(taken.log)
    position = cut(start_of(taken.ours), put("z")).after

    def broken():  # type: ignore[no-untyped-def]
        yield columns_of([put("a", "new")])
        raise ZaibeiError(Code.UNREACHABLE, "broke off", retry=True)

    with pytest.raises(ZaibeiError):
        follow.load(taken.log, taken.ours, position, broken(), nothing)
    assert content_of(taken.log) == before and taken.log.head() == taken.own
    assert content_of(taken.reopen()) == before
    with pytest.raises(ZaibeiError) as refused:
        follow.load(taken.log, taken.ours, position, [columns_of([delete("a")])], nothing)
    assert refused.value.code is Code.MALFORMED and content_of(taken.log) == before
    follow.load(taken.log, taken.ours, position, [columns_of([put("a", "new")])], nothing)
    assert content_of(taken.reopen()) == {key("a"): value("new")}


def test_a_log_that_was_closed_is_left_as_it_is(taken: Taken) -> None:
    """A follower that is cancelled leaves its thread behind; the folder may be another process's by then."""
    follow.stop_writing(taken.log)
    position = cut(start_of(taken.ours), put("z")).after
    taken.log.close()
    found = sorted(path.name for path in taken.folder.rglob("*"))
    acts: list[Callable[[], object]] = [
        lambda: follow.stop_writing(taken.log),
        lambda: follow.begin(taken.log, taken.ours, taken.own),
        lambda: follow.take(taken.log, [], nothing),
        lambda: follow.load(taken.log, taken.ours, position, [], nothing),
    ]
    for act in acts:
        with pytest.raises(ZaibeiError, match="stopping"):
            act()
    assert sorted(path.name for path in taken.folder.rglob("*")) == found


@pytest.mark.parametrize("seed", range(20))
def test_random_histories_end_with_our_content(tmp_path: Path, seed: int) -> None:
    """Reopened at random; what it is left with is what our history says."""
    chance = random.Random(seed)
    one = Taken(tmp_path)
    follow.stop_writing(one.log)
    follow.begin(one.log, one.ours, one.own)
    at, held = one.log.head(), content_of(one.log)
    for _ in range(12):
        changes = [
            put(chance.choice("abcdefgh"), str(chance.random())) if chance.random() < 0.7 else delete(chance.choice("abcdefgh"))
            for _ in range(chance.randrange(1, 4))
        ]
        batch = cut(at, *changes)
        follow.take(one.log, [batch.raw], nothing)
        for change in changes:
            held.pop(change.key, None)
            if change.op == OP_PUT:
                held[change.key] = change.value
        at = batch.after
        if chance.random() < 0.3:
            one.reopen()
    assert content_of(one.log) == held
    assert (one.log.content.digest.records, one.log.content.digest.total) == total(held)
