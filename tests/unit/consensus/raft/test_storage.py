"""The contract of LogStorage, on its memory twin."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from replica.consensus.raft.membership import Membership
from replica.consensus.raft.storage import MemoryStorage
from replica.consensus.raft.values import SnapshotMeta
from replica.model.errors import InvariantBroken
from replica.model.outcome import LogEntry

BEGIN = SnapshotMeta(10, 3, Membership(frozenset({1})))


def entries(first: int, *terms: int) -> list[LogEntry]:
    return [LogEntry(index, term, bytes(10)) for index, term in enumerate(terms, first)]


@pytest.fixture(params=[MemoryStorage])
def make(request: pytest.FixtureRequest) -> Callable[..., MemoryStorage]:
    return request.param  # type: ignore[no-any-return]


def test_an_empty_log_begins_at_one(make: Callable[..., MemoryStorage]) -> None:
    storage = make()
    assert (storage.first_index(), storage.last_index(), storage.term(0), storage.term(1)) == (1, 0, 0, None)
    assert storage.snapshot() is None


def test_the_floor_is_known_by_its_term(make: Callable[..., MemoryStorage]) -> None:
    storage = make(BEGIN)
    storage.append(entries(11, 3, 4))
    assert (storage.first_index(), storage.last_index()) == (11, 12)
    assert [storage.term(index) for index in (9, 10, 11, 12, 13)] == [None, 3, 3, 4, None]


@pytest.mark.parametrize(("octets_max", "count"), [(0, 1), (10, 1), (19, 1), (20, 2), (10**6, 3)])
def test_entries_stop_at_the_limit_but_at_least_one_comes(
    make: Callable[..., MemoryStorage], octets_max: int, count: int
) -> None:
    storage = make(BEGIN)
    storage.append(entries(11, 3, 3, 3, 3))
    assert [entry.index for entry in storage.entries(11, 13, octets_max)] == [11, 12, 13][:count]


def test_entries_outside_the_log_are_a_fault_of_the_caller(make: Callable[..., MemoryStorage]) -> None:
    storage = make(BEGIN)
    storage.append(entries(11, 3))
    for first, last in ((10, 11), (11, 12)):
        with pytest.raises(InvariantBroken):
            storage.entries(first, last, 100)


def test_a_cut_drops_what_is_behind(make: Callable[..., MemoryStorage]) -> None:
    storage = make(BEGIN)
    storage.append(entries(11, 3, 3, 3))
    storage.cut_after(11)
    storage.append(entries(12, 5))
    assert [storage.term(index) for index in (11, 12, 13)] == [3, 5, None]
    with pytest.raises(InvariantBroken):
        storage.append(entries(14, 5))


def test_compaction_keeps_the_term_of_the_floor_and_needs_a_state(make: Callable[..., MemoryStorage]) -> None:
    storage = make(BEGIN)
    storage.append(entries(11, 3, 4, 5))
    with pytest.raises(InvariantBroken):
        storage.compact(12)
    storage.keep_snapshot(SnapshotMeta(12, 4, Membership(frozenset({1}))))
    storage.compact(12)
    storage.compact(11)
    assert (storage.first_index(), storage.last_index(), storage.term(12), storage.term(11)) == (13, 13, 4, None)
    meta = storage.snapshot()
    assert meta is not None
    assert meta.index == 12


def test_a_restart_drops_everything(make: Callable[..., MemoryStorage]) -> None:
    storage = make(BEGIN)
    storage.append(entries(11, 3, 4))
    storage.restart_at(SnapshotMeta(20, 6, Membership(frozenset({2}))))
    assert (storage.first_index(), storage.last_index(), storage.term(20), storage.snapshot()) == (
        21,
        20,
        6,
        SnapshotMeta(20, 6, Membership(frozenset({2}))),
    )
