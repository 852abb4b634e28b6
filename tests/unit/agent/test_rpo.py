"""Back-pressure at the source: the oldest commit without a receipt decides."""

from __future__ import annotations

from replica.agent.rpo import COMMITS_MAX, RpoWindow
from replica.model.position import Position


def at(seq: int, epoch: int = 1) -> Position:
    return Position(b"L" * 16, epoch, seq, bytes(32))


def test_nothing_waits_within_the_target_and_the_oldest_does_beyond_it() -> None:
    window = RpoWindow(2.0)
    assert window.waits_for(100.0) is None
    window.committed(at(1), 100.0)
    window.committed(at(2), 101.0)
    assert window.waits_for(101.9) is None
    assert window.waits_for(102.0) == at(1)
    assert window.age_s(102.5) == 2.5
    window.covered(at(1))
    assert window.waits_for(102.5) is None
    assert window.age_s(102.5) == 1.5
    window.covered(at(2))
    assert window.age_s(200.0) == 0.0


def test_a_target_of_zero_waits_for_each_commit_itself() -> None:
    window = RpoWindow(0.0)
    window.committed(at(1), 5.0)
    assert window.waits_for(5.0) == at(1)
    window.covered(at(1))
    assert window.waits_for(5.0) is None


def test_no_receipt_is_not_a_receipt() -> None:
    window = RpoWindow(1.0)
    window.committed(at(1), 0.0)
    window.covered(None)
    window.covered(at(0))
    assert window.waits_for(1.0) == at(1)


def test_an_empty_commit_is_the_boundary_before_and_memory_is_bounded() -> None:
    window = RpoWindow(1.0)
    window.committed(at(1), 0.0)
    window.committed(at(1), 9.0)
    assert window.age_s(9.0) == 9.0
    for seq in range(2, COMMITS_MAX + 10):
        window.committed(at(seq), 1.0)
    window.covered(at(COMMITS_MAX + 8))
    assert window.waits_for(10.0) == at(COMMITS_MAX + 9)  # merged with those before it: it waits for the newest of them
    window.epoch_began()
    assert window.waits_for(10.0) is None
