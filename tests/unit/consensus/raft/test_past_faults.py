"""Faults of other Raft programs, each reproduced there by a script: none of them may happen here."""

from __future__ import annotations

import pytest

from replica.consensus.raft.values import Kind, Message, Role
from replica.model.errors import InvariantBroken
from tests.unit.consensus.raft.table import append, cut_off, elect, group, one, settle, state_at, vote

NO_PRE_VOTE = {"pre_vote": False, "check_quorum": False}


def test_a_vote_is_remembered_over_a_restart_and_a_step_down() -> None:
    member = one(2, **NO_PRE_VOTE)
    member.core.step(vote(2, 1, 1, (0, 0)))
    member.work()
    member.start()
    member.core.step(vote(2, 3, 1, (0, 0)))
    assert [reply.reject for reply in member.work()] == [True]
    candidate = one(1, **NO_PRE_VOTE)
    candidate.core.campaign()
    candidate.work()
    candidate.core.step(append(1, 3, 1, (0, 0), [1]))
    candidate.core.step(vote(1, 2, 1, (5, 1)))
    assert [reply.reject for reply in candidate.work() if reply.kind is Kind.VOTE_REPLY] == [True]


@pytest.mark.parametrize(("count", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_a_majority_is_more_than_half(count: int, needed: int) -> None:
    member = one(1, range(1, count + 1), **NO_PRE_VOTE)
    member.core.campaign()
    member.work()
    voters = 1
    while member.core.role is not Role.LEADER:
        voters += 1
        member.core.step(Message(Kind.VOTE_REPLY, 1, voters, 1))
    assert voters == needed


def test_a_doubled_vote_counts_once() -> None:
    member = one(1, range(1, 6), **NO_PRE_VOTE)
    member.core.campaign()
    member.work()
    for _ in range(5):
        member.core.step(Message(Kind.VOTE_REPLY, 1, 2, 1))
    assert member.core.role is Role.CANDIDATE


def test_a_doubled_append_erases_nothing() -> None:
    member = one(2)
    old = append(2, 1, 1, (0, 0), [1], commit=0)
    member.core.step(old)
    member.core.step(append(2, 1, 1, (1, 1), [1, 1], commit=3))
    member.work()
    member.core.step(old)
    replies = member.work()
    assert member.log() == [(1, 1), (2, 1), (3, 1)]
    assert [reply.index for reply in replies] == [3]


def test_an_append_that_contradicts_a_committed_entry_stops_the_member() -> None:
    member = one(2)
    member.core.step(append(2, 1, 1, (0, 0), [1, 1], commit=2))
    with pytest.raises(InvariantBroken, match="contradicts the committed entry 1"):
        member.core.step(append(2, 3, 2, (0, 0), [2, 2]))
    assert member.log() == [(1, 1), (2, 1)]


def test_a_member_that_lost_what_it_had_acknowledged_stops() -> None:
    member = one(2)
    with pytest.raises(InvariantBroken, match="acknowledged entries were lost"):
        member.core.step(Message(Kind.HEARTBEAT, 2, 3, 2, commit=5))


def test_entries_of_earlier_terms_commit_after_a_leader_was_killed() -> None:
    members = group(3)
    leader = elect(members, 1)
    leader.propose(b"x")
    settle(members, cut_off(3))
    del members[1]
    members[2].core.suspect()
    members[3].core.suspect()
    members[2].core.campaign()
    settle(members)
    assert members[2].core.role is Role.LEADER
    assert b"x" in [entry.data for entry in members[3].applied]


def test_entries_commit_after_a_restart_of_all() -> None:
    members = group(3)
    elect(members, 1).propose(b"x")
    settle(members)
    for member in members.values():
        member.start()
    assert members[1].core.commit == members[1].applied_index
    leader = elect(members, 2)
    assert leader.commit == leader.last_index


def test_each_proposal_has_its_own_place() -> None:
    leader = elect(members := group(3), 1)
    places = [leader.propose(b"same"), leader.propose(b"same")]
    settle(members)
    assert places == [(2, 1), (3, 1)]


def test_a_leader_does_not_acknowledge_what_no_follower_holds() -> None:
    members = group(3)
    leader = elect(members, 1)
    index, _ = leader.propose(b"x")
    for _ in range(3):
        leader.tick()
        settle(members, cut_off(2, 3))
    assert leader.commit < index


def test_an_entry_over_a_datagram_or_over_the_limit_of_a_message_is_replicated() -> None:
    members = group(3, append_octets_max=1000)
    leader = elect(members, 1)
    index, _ = leader.propose(bytes(100_000))
    settle(members)
    assert members[3].applied[-1].index == index
    assert leader.role is Role.LEADER


def test_a_frozen_leader_that_comes_back_commits_nothing_over_its_unverified_tail() -> None:
    members = group(3)
    leader = elect(members, 1)
    for number in range(5):
        leader.propose(b"lost %d" % number)
    members[1].work()  # saved on itself alone: the messages are lost
    others = {number: members[number] for number in (2, 3)}
    others[2].core.suspect(), others[3].core.suspect()
    elect(others, 2)
    for number in range(9):
        others[2].core.propose(b"kept %d" % number)
    settle(others)
    others[2].storage.keep_snapshot(state_at(others[2]))
    others[2].storage.compact(others[2].applied_index)
    commit_before = leader.commit
    others[2].core.tick(), others[2].core.tick()
    heartbeat = next(message for message in others[2].work() if message.to == 1)
    leader.step(heartbeat)
    assert leader.commit == commit_before, "a heartbeat moves commit only over what the new leader knows to match"
    deliver_back = [message for message in members[1].work() if message.to == 2]
    for message in deliver_back:
        others[2].core.step(message)
    settle(members)
    assert members[1].core.commit == others[2].core.commit
    assert not any(entry.data.startswith(b"lost") for entry in members[1].applied)


def test_a_state_that_is_offered_moves_commit_only_where_the_log_matches_it() -> None:
    member = one(2)
    member.hold(1, 1, 2)
    meta = state_at(member)
    offered = type(meta)(3, 4, member.membership)
    member.core.step(Message(Kind.SNAPSHOT, 2, 1, 4, snapshot=offered))
    assert member.core.log.restoring
    assert member.core.duties().committed == ()
    matching = one(2)
    matching.hold(1, 1, 2)
    matching.core.step(Message(Kind.SNAPSHOT, 2, 1, 4, snapshot=type(meta)(2, 1, member.membership)))
    assert (matching.core.commit, matching.core.log.restoring) == (2, False)
    assert matching.core.last_index == 3


def test_nothing_counts_before_it_is_saved() -> None:
    member = one(1, [1, 2])
    member.core.campaign()
    member.core.step(Message(Kind.PRE_VOTE_REPLY, 1, 2, 1))
    duties = member.take()
    member.core.step(Message(Kind.VOTE_REPLY, 1, 2, 1))
    assert member.core.role is Role.CANDIDATE, "its own vote is not saved yet"
    assert duties.hard is not None
    member.save()
    assert member.core.role is Role.LEADER
    member.take()
    member.core.step(Message(Kind.APPEND_REPLY, 1, 2, 1, index=1))
    assert member.core.commit == 0, "its own entry is not saved yet"
    member.save()
    assert member.core.commit == 1
