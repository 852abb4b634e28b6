"""Appends that tell commit alone wait for entries to go with; nothing else waits."""

from __future__ import annotations

from replica.consensus.notices import Notices, is_notice
from replica.consensus.raft.progress import Progress
from replica.consensus.raft.values import Kind, Message
from replica.model.outcome import LogEntry


def append(to: int, commit: int, *entries: LogEntry) -> Message:
    return Message(Kind.APPEND, to, 1, 3, 3, 10, entries, commit)


def following() -> Progress:
    progress = Progress(11)
    progress.replicate()
    return progress


def test_only_an_append_without_entries_to_a_member_that_follows_is_a_notice() -> None:
    assert is_notice(append(2, 10), following())
    assert not is_notice(append(2, 10, LogEntry(11, 3, b"x")), following())
    assert not is_notice(append(2, 10), Progress(11)), "a member that is probed answers it: it may not wait"
    assert not is_notice(Message(Kind.HEARTBEAT, 2, 1, 3), following())
    assert not is_notice(append(2, 10), None)


def test_the_newest_notice_of_each_group_and_member_is_taken_once() -> None:
    notices = Notices()
    for group, message in ((7, append(2, 10)), (7, append(3, 10)), (8, append(2, 4)), (7, append(2, 11))):
        notices.hold(group, message)
    assert [(group, one.to, one.commit) for group, one in notices.take()] == [(7, 2, 11), (7, 3, 10), (8, 2, 4)]
    assert not notices.take() and not len(notices)


def test_entries_that_leave_take_the_place_of_the_notice_to_that_member_alone() -> None:
    notices = Notices()
    notices.hold(7, append(2, 10))
    notices.hold(7, append(3, 10))
    notices.told(7, Message(Kind.HEARTBEAT, 3, 1, 3))
    notices.told(7, append(2, 10, LogEntry(11, 3, b"x")))
    assert [(group, one.to) for group, one in notices.take()] == [(7, 3)]


def test_a_notice_may_be_taken_alone() -> None:
    notices = Notices()
    notices.hold(7, append(2, 10))
    notices.hold(7, append(3, 10))
    taken = notices.take_of(7, 2)
    assert taken is not None and taken.to == 2
    assert notices.take_of(7, 2) is None and len(notices) == 1
