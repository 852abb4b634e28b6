"""The agent's log: durable, gapless, in epochs it was granted, and never more on the wire than on disk."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replica.agent.edge_log import AgentLog
from replica.agent.nature import Transaction
from replica.agent.retention import Spool
from replica.model.batch import BATCH_CHANGES_MAX, BATCH_COLUMNS_OCTETS_MAX, Change, open_batch
from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN, Position, epoch_start
from replica.native import split
from replica.v1 import source_pb2
from tests.unit.agent.helpers import (
    LINEAGE,
    MEMBER,
    SIGNER,
    Content,
    Turned,
    commit,
    delete,
    grant,
    key,
    opened,
    put,
    quorum,
    total,
    value,
)


def replay(log: AgentLog, after: Position) -> tuple[list[bytes], Content]:
    """Everything after a boundary, with the content it leads to from nothing; checks chain and gaplessness on the way."""
    raws: list[bytes] = []
    content: Content = {}
    at = after
    while batches := log.read(at, 100_000):
        for raw in batches:
            batch = open_batch(raw)
            assert batch.before == at
            for name, octets, op in zip(*split(batch.columns), strict=True):
                if op == 1:
                    content[name] = octets
                else:
                    del content[name]
            at = batch.after
        raws += batches
    assert at == log.head()
    return raws, content


def test_positions_go_on_after_a_restart(tmp_path: Path) -> None:
    log = opened(tmp_path)
    assert log.head() == ORIGIN
    first = commit(log, put("A"), put("B"))
    log.close()
    log = opened(tmp_path)
    assert log.head() == first
    second = commit(log, delete("A"), put("B", "y"))
    assert second.seq == first.seq + 2
    assert replay(log, ORIGIN)[1] == {key("B"): value("y")}
    assert (log.content.digest.records, log.content.digest.total) == total({key("B"): value("y")})
    log.close()


def test_what_changes_nothing_is_not_published(tmp_path: Path) -> None:
    log = opened(tmp_path)
    head = commit(log, put("A"), put("A", "y"), put("B"), delete("B"))
    assert head.seq == 1
    assert commit(log, put("A", "y"), delete("NOT-THERE")) == head
    two = log.append([Transaction([put("C")]), Transaction([delete("C"), put("A", "y")])])
    assert [position.seq for position in two] == [2, 3]
    log.close()


def test_batches_keep_both_limits_and_say_that_the_transaction_goes_on(tmp_path: Path) -> None:
    log = opened(tmp_path)
    many = [put(f"M{number:05d}") for number in range(2_500)]
    large = [Change(1, key(f"L{number}"), value("z" * 250_000)) for number in range(7)]
    log.append([Transaction(many), Transaction(large)])
    batches = [open_batch(raw) for raw in replay(log, ORIGIN)[0]]
    assert [(batch.count, batch.continues) for batch in batches] == [
        (1_000, True), (1_000, True), (500, False), (3, True), (3, True), (1, False),
    ]  # fmt: skip
    assert all(len(batch.columns) <= BATCH_COLUMNS_OCTETS_MAX and batch.count <= BATCH_CHANGES_MAX for batch in batches)
    log.close()


@pytest.mark.parametrize(
    "change",
    [Change(1, b"", b"\x01"), Change(1, b"h", b""), Change(2, b"h", b"x"), Change(3, b"h", b"x"), Change(1, b"h" * 5_000, b"x")],
)
def test_a_change_no_batch_may_carry_is_refused_whole(tmp_path: Path, change: Change) -> None:
    log = opened(tmp_path)
    with pytest.raises(ZaibeiError, match="malformed"):
        commit(log, put("A"), change)
    assert log.head() == ORIGIN
    log.close()


def test_nothing_is_readable_before_the_fsync_returned(tmp_path: Path) -> None:
    """SEMANTICS 12: the agent's own log is fsynced before a batch is sent or offered."""
    seen: list[tuple[Position, list[bytes] | None]] = []
    log: AgentLog | None = None

    def fsync(handle: int) -> None:
        if log is not None:
            seen.append((log.head(), log.read(ORIGIN, 1_000)))
        os.fsync(handle)

    log = opened(tmp_path, fsync=fsync)
    commit(log, put("A"))
    assert seen == [(ORIGIN, [])]
    assert log.read(ORIGIN, 1_000)
    log.close()


def test_a_failed_fsync_is_final(tmp_path: Path) -> None:
    broken = False

    def fsync(handle: int) -> None:
        if broken:
            raise OSError(5, "Input/output error")
        os.fsync(handle)

    log = opened(tmp_path, fsync=fsync)
    head = commit(log, put("A"))
    broken = True
    with pytest.raises(ZaibeiError, match="disk_failed"):
        commit(log, put("B"))
    broken = False
    with pytest.raises(ZaibeiError, match="disk_failed"):
        commit(log, put("C"))
    assert log.head() == head
    assert log.failed is not None
    log.close()


def segment_file(folder: Path) -> Path:
    return max((folder / "state" / "log").glob("*.seg"))


@given(cut=st.integers(0, 900), fill=st.sampled_from([b"", b"\0" * 40, b"ZBf1garbage-behind-the-end"]))
@settings(max_examples=30)
def test_a_torn_tail_is_healed(tmp_path_factory: pytest.TempPathFactory, cut: int, fill: bytes) -> None:
    """A write a crash cut off was never told to anybody: the log goes on from the last whole batch."""
    folder = tmp_path_factory.mktemp("torn")
    log = opened(folder)
    first = commit(log, put("A"))
    size = segment_file(folder).stat().st_size
    log.close()
    octets = segment_file(folder).read_bytes()
    log = opened(folder)
    commit(log, put("B", "b" * 800))
    log.close()
    whole = segment_file(folder).read_bytes()
    segment_file(folder).write_bytes(whole[: size + min(cut, len(whole) - size - 1)] + fill)
    (folder / "state" / "content.db").unlink()  # not fsynced either
    for name in ("content.db-wal", "content.db-shm"):
        (folder / "state" / name).unlink(missing_ok=True)
    log = opened(folder)
    assert log.head() == first
    assert segment_file(folder).read_bytes() == octets
    commit(log, put("C"))
    assert set(replay(log, ORIGIN)[1]) == {key("A"), key("C")}
    log.close()


def test_damage_below_an_fsync_is_refused(tmp_path: Path) -> None:
    log = opened(tmp_path)
    for name in "ABC":
        commit(log, put(name))
    log.close()
    path = segment_file(tmp_path)
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    path.write_bytes(octets)
    with pytest.raises(ZaibeiError, match=r"damaged.*Restore the folder"):
        opened(tmp_path)


def test_a_lost_tail_that_the_content_vouches_for_is_refused(tmp_path: Path) -> None:
    log = opened(tmp_path)
    commit(log, put("A"))
    size = segment_file(tmp_path).stat().st_size
    commit(log, put("B"))
    log.close()
    os.truncate(segment_file(tmp_path), size)
    with pytest.raises(ZaibeiError, match="which its log does not hold"):
        opened(tmp_path)


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    log = opened(tmp_path)
    commit(log, put("A"))
    asyncio.run(log.accept_grant(grant(log.head())))
    commit(log, put("B"))
    asyncio.run(log.accept_grant(grant(log.head(), epoch=2)))
    log.close()
    sorted((tmp_path / "state" / "log").glob("*.seg"))[1].unlink()
    with pytest.raises(ZaibeiError, match="missing"):
        opened(tmp_path)


def test_content_is_rebuilt_from_the_log(tmp_path: Path) -> None:
    log = opened(tmp_path)
    commit(log, put("A"), put("B"))
    asyncio.run(log.accept_grant(grant(log.head())))
    commit(log, delete("A"), put("C"))
    digest = log.content.digest
    log.close()
    for path in (tmp_path / "state").glob("content.db*"):
        path.unlink()
    log = opened(tmp_path)
    assert log.content.digest == digest
    log.close()


async def test_a_grant_is_taken_once_and_only_at_its_parent(tmp_path: Path) -> None:
    """SEMANTICS 1.2: only the group grants; the parent must be the head; later batches are cut in the granted epoch."""
    log = opened(tmp_path)
    stale = log.head()
    await asyncio.to_thread(commit, log, put("A"))
    with pytest.raises(ZaibeiError, match="conflict"):
        await log.accept_grant(grant(stale))
    parent = log.head()
    start = await log.accept_grant(grant(parent))
    assert start == epoch_start(parent, LINEAGE, 1) == log.head()
    assert await log.accept_grant(grant(parent)) == start
    log.close()
    log = opened(tmp_path)
    assert log.head() == start
    after = await asyncio.to_thread(commit, log, put("B"))
    assert await log.accept_grant(grant(parent)) == start
    assert (after.epoch, after.lineage, after.seq) == (1, LINEAGE, 2)
    assert log.floor() == start
    assert log.read(parent, 1_000) is None  # the next epoch starts at its granted position
    with pytest.raises(ZaibeiError, match="malformed"):
        forged = grant(log.head(), epoch=2)
        forged.start.seq += 1
        await log.accept_grant(forged)
    log.trust_granters([MEMBER.public])
    with pytest.raises(ZaibeiError, match="not_authorised"):
        await log.accept_grant(grant(log.head(), epoch=2, signer=SIGNER))
    log.close()


async def test_after_a_lost_race_cutting_pauses_for_the_next_grant(tmp_path: Path) -> None:
    clock = Turned()
    log = opened(tmp_path, clock=clock)
    stale = log.head()
    await asyncio.to_thread(commit, log, put("A"))
    with pytest.raises(ZaibeiError, match="conflict"):
        await log.accept_grant(grant(stale))
    wanted = grant(log.head())
    waiting = asyncio.create_task(asyncio.to_thread(commit, log, put("B")))
    await asyncio.wait({waiting}, timeout=0.3)  # time enough for a cut, were it not held back
    assert (await log.accept_grant(wanted)).epoch == 1
    assert (await waiting).epoch == 1
    log.close()


def test_lost_state_asks_for_an_epoch_and_invents_none(tmp_path: Path) -> None:
    log = opened(tmp_path)
    commit(log, put("A"))
    assert log.epoch_wanted() == ""
    asyncio.run(log.accept_grant(grant(log.head())))
    log.close()
    (tmp_path / "state").rename(tmp_path / "gone")
    log = opened(tmp_path)
    assert "lost" in log.epoch_wanted()
    commit(log, put("A"))
    assert log.head().epoch == 0
    asyncio.run(log.accept_grant(grant(log.head(), epoch=2)))
    assert log.epoch_wanted() == ""
    log.close()


def test_an_older_copy_put_back_is_refused(tmp_path: Path) -> None:
    log = opened(tmp_path)
    asyncio.run(log.accept_grant(grant(log.head())))
    log.receipt(quorum(commit(log, put("A"))))
    log.housekeeping()
    log.close()
    content = tmp_path / "state" / "content.db"
    import sqlite3

    db = sqlite3.connect(content)
    db.execute("UPDATE meta SET value = ? WHERE name = 'note-receipt'", (str(Position(LINEAGE, 1, 9, bytes(32))),))
    db.commit()
    db.close()
    with pytest.raises(ZaibeiError, match="an older copy was put back"):
        opened(tmp_path)


def test_spool_stops_intake_drops_nothing_and_goes_on_with_a_receipt(tmp_path: Path) -> None:
    log = opened(tmp_path, spool=Spool(octets_max=4_000, keep_octets=0))
    for number in range(20):  # epoch 0: nothing is promised yet
        commit(log, put(f"E{number}", "x" * 400))
    asyncio.run(log.accept_grant(grant(log.head())))
    start = log.head()
    taken = 0
    with pytest.raises(ZaibeiError, match="spool is full"):
        for number in range(100):
            commit(log, put(f"F{number}", "x" * 400))
            taken += 1
    assert 0 < taken < 12
    assert len(replay(log, start)[0]) == taken
    assert not log.wait_room(0.0)
    log.receipt(quorum(Position(LINEAGE, 1, 10_000, bytes(32))))  # not of our history
    assert log.full()
    log.receipt(quorum(log.head()))
    assert not log.full()
    commit(log, put("G"))
    log.close()


def test_released_is_only_what_receipts_and_leases_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replica.agent.log.SEGMENT_OCTETS_MAX", 1_500)
    clock = Turned()
    log = opened(tmp_path, spool=Spool(octets_max=10**6, keep_octets=0), clock=clock)
    asyncio.run(log.accept_grant(grant(log.head())))
    start = log.head()
    positions = [commit(log, put(f"A{number}", "x" * 500)) for number in range(12)]
    log.housekeeping()
    assert log.floor() == start
    log.retain(positions[1], 30_000)
    log.receipt(quorum(positions[8]))
    log.housekeeping()
    assert log.read(positions[1], 10**6) is not None
    clock.now_s += 31
    log.housekeeping()
    assert log.read(start, 10**6) is None
    assert len(log.read(positions[8], 10**6) or []) == 3
    assert log.prove(positions[1]).result == source_pb2.Proof.RESULT_PROVED  # chains outlive batches
    head = log.head()
    log.close()
    log = opened(tmp_path)
    assert log.head() == head
    assert log.covered(positions[8]) and not log.covered(head)
    log.close()


async def test_waiting_ends_with_a_new_head(tmp_path: Path) -> None:
    log = opened(tmp_path)
    waiting = asyncio.create_task(log.wait(log.head(), 30.0))
    await asyncio.sleep(0)
    await asyncio.to_thread(commit, log, put("A"))
    await waiting
    await log.wait(log.head(), 0.0)
    log.close()


async def test_nobody_waits_for_a_closed_log(tmp_path: Path) -> None:
    """Its head can be read still: a stream that went on asking it would hold up everything else on its loop for ever."""
    log = opened(tmp_path)
    log.close()
    with pytest.raises(ZaibeiError) as caught:
        await log.wait(log.head(), 30.0)
    assert caught.value.code is Code.STOPPING


def test_a_failed_store_of_content_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    commit(log, put("A"))
    real = log.content.apply
    full = ZaibeiError(Code.DISK_FULL, "no room", retry=True)

    def fails(*_: object) -> list[tuple[object, bytes]]:
        raise full

    monkeypatch.setattr(log.content, "apply", fails)
    with pytest.raises(ZaibeiError, match="disk_full"):
        commit(log, put("B"))
    assert log.head().seq == 1
    assert log.read(log.head(), 1_000) == []  # on disk, not published
    monkeypatch.setattr(log.content, "apply", real)
    commit(log, put("C"))
    assert set(replay(log, ORIGIN)[1]) == {key("A"), key("B"), key("C")}
    log.close()


@given(st.lists(st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.integers(0, 3)), max_size=8), max_size=12), st.data())
@settings(max_examples=25)
def test_any_history_equals_its_model(
    tmp_path_factory: pytest.TempPathFactory, history: list[list[tuple[bool, int, int]]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("model")
    log = opened(folder)
    model: Content = {}
    boundaries = [ORIGIN]
    for step in history:
        changes = [put(f"K{number}", f"v{text}") if is_put else delete(f"K{number}") for is_put, number, text in step]
        for change in changes:
            if change.op == 1:
                model[change.key] = change.value
            else:
                model.pop(change.key, None)
        boundaries.append(commit(log, *changes))
        if data.draw(st.booleans()):
            log.close()
            log = opened(folder)
    assert replay(log, ORIGIN)[1] == model
    assert (log.content.digest.records, log.content.digest.total) == total(model)
    raws = replay(log, ORIGIN)[0]
    for boundary in set(boundaries):
        tail = [raw for raw in raws if open_batch(raw).before.seq >= boundary.seq]
        assert (log.read(boundary, 10**9) or []) == tail
    log.close()
