"""What a core asks of its caller: the order of duties, saves that overlap, and what waits for which save."""

from __future__ import annotations

import pytest

from replica.consensus.raft.membership import Membership
from replica.consensus.raft.values import Dropped, Kind, Message, Role, SnapshotMeta
from replica.model.errors import InvariantBroken
from tests.unit.consensus.raft.table import append, cut_off, elect, group, one, only, settle, state_at, vote


def test_nothing_is_said_twice() -> None:
    member = one(2)
    member.core.step(append(2, 1, 1, (0, 0), [1], commit=1))
    assert member.core.has_duties()
    member.work()
    assert not member.core.has_duties()
    again = member.core.duties()
    assert (again.number, again.send_now, again.entries, again.committed, again.soft) == (0, (), (), (), None)


def test_an_entry_is_handed_out_only_after_it_is_saved() -> None:
    member = one(2)
    member.core.step(append(2, 1, 1, (0, 0), [1], commit=1))
    assert member.take().committed == ()
    assert not member.core.has_duties()
    member.save()
    assert [entry.index for entry in member.take().committed] == [1]


def test_a_leader_sends_its_appends_beside_its_own_save() -> None:
    members = group(3)
    leader = elect(members, 1)
    leader.propose(b"x")
    duties = members[1].take()
    assert [message.kind for message in duties.send_now] == [Kind.APPEND, Kind.APPEND]
    assert [entry.data for entry in duties.entries] == [b"x"]


def test_a_reply_waits_for_the_save_that_is_on_its_way() -> None:
    member = one(2)
    old = append(2, 1, 1, (0, 0), [1])
    member.core.step(old)
    member.take()
    member.core.step(old)
    second = member.take()
    assert (second.number, list(second.entries), second.send_now) == (2, [], ())
    assert only(member.save(), Kind.APPEND_REPLY) != []
    assert only(member.save(), Kind.APPEND_REPLY) != []


def test_an_entry_that_was_overwritten_and_written_again_counts_with_its_last_save() -> None:
    member = one(2)
    member.core.step(append(2, 1, 1, (0, 0), [1, 1]))
    member.take()
    member.core.step(append(2, 3, 2, (1, 1), [2]))
    member.take()
    member.core.step(append(2, 1, 3, (1, 1), [1]))
    assert member.take().cut_after == 1
    saved = []
    while member.saves:
        member.save()
        saved.append((member.core.saved_index, member.storage.last_index(), member.storage.term(2)))
    assert saved == [(1, 2, 1), (1, 2, 2), (2, 2, 1)]


def test_saves_return_in_order() -> None:
    member = one(2)
    member.core.step(append(2, 1, 1, (0, 0), [1]))
    number = member.take().number
    with pytest.raises(InvariantBroken):
        member.core.saved(number + 1)


def test_a_vote_request_of_a_saved_log_leaves_at_once_and_of_an_unsaved_one_waits() -> None:
    member = one(2, pre_vote=False)
    member.core.campaign()
    assert [message.kind for message in member.take().send_now] == [Kind.VOTE, Kind.VOTE]
    member = one(2, pre_vote=False)
    member.core.step(append(2, 1, 1, (0, 0), [1]))
    member.core.campaign()
    assert only(member.take().send_now, Kind.VOTE) == []
    assert len(only(member.save(), Kind.VOTE)) == 2


def test_nobody_leads_before_its_own_vote_is_saved() -> None:
    member = one(1, range(1, 6), pre_vote=False)
    member.core.campaign()
    member.take()
    for voter in (2, 3, 4):
        member.core.step(Message(Kind.VOTE_REPLY, 1, voter, 1))
    assert member.core.role is Role.CANDIDATE
    member.save()
    assert member.core.role is Role.LEADER


def test_a_late_save_of_an_earlier_election_elects_nobody() -> None:
    member = one(1, [1], pre_vote=False)
    member.core.campaign()
    member.take()
    member.core.step(append(1, 2, 5, (0, 0), [5]))
    member.core.campaign()
    assert (member.core.role, member.core.term) == (Role.CANDIDATE, 6)
    member.save()
    assert member.core.role is Role.CANDIDATE
    member.take()
    member.save()
    assert member.core.role is Role.LEADER


def test_commit_alone_asks_for_no_save() -> None:
    member = one(2)
    member.core.step(append(2, 1, 1, (0, 0), [1]))
    member.work()
    member.core.step(Message(Kind.HEARTBEAT, 2, 1, 1, commit=1))
    duties = member.take()
    assert (duties.number, duties.hard, [entry.index for entry in duties.committed]) == (0, None, [1])


def test_a_restart_goes_on_from_what_was_saved() -> None:
    members = group(3)
    elect(members, 1).propose(b"x")
    settle(members)
    member = members[2]
    member.core.step(append(2, 1, 1, (2, 1), [1]))
    member.take()  # never saved
    member.start()
    assert (member.core.last_index, member.core.term, member.core.vote, member.core.applied_index) == (2, 1, 1, 2)


def test_entries_to_apply_come_in_portions() -> None:
    member = one(2, committed_octets_max=3)
    member.core.step(append(2, 1, 1, (0, 0), [1] * 7, commit=7))
    member.take()
    member.save()
    portions = []
    while member.core.has_duties():
        portions.append([entry.index for entry in member.take().committed])
    assert [index for portion in portions for index in portion] == [1, 2, 3, 4, 5, 6, 7]
    assert len(portions) == 3


def test_a_restored_state_drops_the_log_and_is_confirmed_after_its_save() -> None:
    member = one(2)
    member.hold(1, 1, 1)
    meta = SnapshotMeta(9, 2, Membership(frozenset({1, 2}), learners=frozenset({3})))
    member.core.step(Message(Kind.SNAPSHOT, 2, 1, 2, snapshot=meta))
    member.core.step(append(2, 1, 2, (9, 2), [2], commit=10))
    duties = member.take()
    assert (duties.snapshot, [entry.index for entry in duties.entries]) == (meta, [10])
    assert (member.core.membership, member.core.saved_index) == (meta.membership, 0)
    assert [(reply.kind, reply.index) for reply in member.save()] == [(Kind.APPEND_REPLY, 9), (Kind.APPEND_REPLY, 10)]
    assert (member.core.saved_index, member.core.applied_index) == (10, 9)
    assert [entry.index for entry in member.take().committed] == [10]


def test_entries_that_are_not_at_hand_are_asked_for_again() -> None:
    members = group(2)
    leader = elect(members, 1)
    storage = members[1].storage
    entries, storage.entries = storage.entries, lambda first, last, octets_max: ()  # type: ignore[method-assign]
    leader.propose(b"x")
    settle(members, cut_off(2))
    members[2].start()
    leader.memory_lost(2)
    leader.tick(), leader.tick()
    settle(members)
    assert not leader.has_duties(), "it waits, it does not spin"
    storage.entries = entries  # type: ignore[method-assign]
    leader.entries_at_hand()
    settle(members)
    leader.tick(), leader.tick()
    settle(members)
    assert members[2].applied_index == members[1].applied_index == leader.last_index


# ------------------------------------------------------------------------------------------------------------- flow, feeding
def test_a_pipeline_is_bounded_by_messages_and_by_octets() -> None:
    for limit in ({"inflight_messages_max": 3}, {"inflight_octets_max": 3000}):
        members = group(3, **limit)
        leader = elect(members, 1)
        for _ in range(10):
            leader.propose(bytes(1000))
        assert len([message for message in members[1].take().send_now if message.to == 2]) == 3
        settle(members)


def test_a_running_transfer_is_not_ended_by_compaction() -> None:
    members = group(3)
    leader = elect(members, 1)
    keeper = members[1]

    def compact() -> None:
        leader.propose(b"x")
        settle(members, cut_off(3))
        keeper.storage.keep_snapshot(state_at(keeper))
        keeper.storage.compact(keeper.applied_index)

    members[3] = one(3)
    leader.memory_lost(3)
    compact()
    sent: list[Message] = []
    for _ in range(6):
        leader.tick(), leader.tick()
        sent += settle(members, lambda message: message.kind is Kind.SNAPSHOT)
        compact()
    assert len(only(sent, Kind.SNAPSHOT)) == 1, "it runs: no second one is begun"
    leader.snapshot_finished(3, False)
    leader.tick(), leader.tick()
    sent = settle(members)
    assert len(only(sent, Kind.SNAPSHOT)) == 1
    assert members[3].core.commit == leader.commit


def test_a_state_behind_the_log_floor_is_not_sent() -> None:
    members = group(3)
    leader = elect(members, 1)
    settle(members)
    members[1].storage.keep_snapshot(state_at(members[1]))
    members[1].storage.compact(members[1].applied_index)
    members[1].storage._meta = SnapshotMeta(0, 0, Membership())
    members[3] = one(3)
    leader.memory_lost(3)
    leader.tick(), leader.tick()
    assert only(settle(members), Kind.SNAPSHOT) == []


# ------------------------------------------------------------------------------------------------------------- elections
def test_pre_vote_a_member_that_was_cut_off_disturbs_nobody() -> None:
    members = group(3)
    leader = elect(members, 1)
    for _ in range(100):
        members[3].core.tick()
        leader.tick()
        settle(members, cut_off(3))
    settle(members)
    assert (leader.role, leader.term, members[3].core.term) == (Role.LEADER, 1, 1)


def test_lease_a_candidate_is_not_answered_while_the_leader_is_heard() -> None:
    members = group(3)
    elect(members, 1)
    members[2].core.step(vote(2, 3, 9, (99, 9)))
    assert (members[2].work(), members[2].core.term) == ([], 1)


def test_suspect_ends_the_lease_and_brings_an_election_within_few_ticks() -> None:
    members = group(3)
    elect(members, 1)
    for number in (2, 3):
        members[number].core.suspect()
        assert members[number].core.leader == 0
    for _ in range(3):
        for number in (2, 3):
            members[number].core.tick()
            settle({2: members[2], 3: members[3]})
    assert Role.LEADER in (members[2].core.role, members[3].core.role)


def test_suspect_is_forgotten_when_the_leader_speaks() -> None:
    members = group(3)
    leader = elect(members, 1)
    members[2].core.suspect()
    leader.tick(), leader.tick()
    settle(members)
    assert members[2].core.leader == 1
    members[2].core.tick()
    assert members[2].core.role is Role.FOLLOWER


def test_check_quorum_a_leader_that_hears_no_quorum_steps_down() -> None:
    members = group(3)
    leader = elect(members, 1)
    for _ in range(2 * members[1].core.config.election_ticks):
        leader.tick()
    assert (leader.role, leader.leader) == (Role.FOLLOWER, 0)


def test_a_member_that_may_not_elect_asks_for_no_vote_and_gives_none() -> None:
    member = one(2)
    member.core.allow_elections(False)
    member.core.campaign()
    for _ in range(100):
        member.core.tick()
    assert member.work() == []  # nor does it tell what is committed
    for kind in (Kind.VOTE, Kind.PRE_VOTE):
        member.core.step(vote(2, 1, 5, (9, 4), kind))
        assert [reply.reject for reply in member.work()] == [True]
    assert member.core.vote == 0
    member.core.allow_elections(True)
    member.core.step(vote(2, 1, 5, (9, 4)))
    assert [reply.reject for reply in member.work()] == [False]


def test_a_granted_pre_vote_of_an_earlier_round_does_not_count() -> None:
    member = one(1)
    member.hold(3)
    member.core.campaign()
    member.core.step(Message(Kind.PRE_VOTE_REPLY, 1, 2, 3))
    assert member.core.role is Role.PRE_CANDIDATE
    member.core.step(Message(Kind.PRE_VOTE_REPLY, 1, 2, 4))
    assert member.core.role is Role.CANDIDATE


def test_a_refused_vote_tells_what_is_committed_where_the_terms_agree() -> None:
    for term, commit in ((1, 2), (2, 0)):
        member = one(1)
        member.hold(1, 1)
        member.core.campaign()
        member.core.step(Message(Kind.PRE_VOTE_REPLY, 1, 2, 1, hint=term, commit=2, reject=True))
        assert member.core.commit == commit


# -------------------------------------------------------------------------------------------------------------- transfer
def test_a_transfer_hands_over_once_the_member_holds_all() -> None:
    members = group(3)
    leader = elect(members, 1)
    leader.propose(b"x")
    leader.transfer(3)
    with pytest.raises(Dropped):
        leader.propose(b"y")
    settle(members)
    assert (members[3].core.role, members[3].core.term, leader.leader) == (Role.LEADER, 2, 3)


def test_a_transfer_to_a_silent_member_is_given_up() -> None:
    members = group(3)
    leader = elect(members, 1)
    leader.transfer(3)
    for _ in range(leader.config.election_ticks):
        leader.tick()
        settle(members, cut_off(3))
    assert leader.propose(b"x") == (2, 1)


def test_a_follower_asks_its_leader_to_hand_over() -> None:
    members = group(3)
    elect(members, 1)
    members[2].core.transfer(2)
    settle(members)
    assert members[2].core.role is Role.LEADER
    with pytest.raises(Dropped):
        members[2].core.transfer(9)


# ----------------------------------------------------------------------------------------------------------------- reads
def test_a_read_waits_for_a_quorum_of_heartbeats() -> None:
    members = group(3)
    leader = elect(members, 1)
    leader.read_index(b"a")
    leader.read_index(b"b")
    duties = members[1].take()
    assert len(only(duties.send_now, Kind.HEARTBEAT)) == 2, "reads share a round"
    assert members[1].reads == []
    beat = next(message for message in duties.send_now if message.to == 2)
    members[2].core.step(beat)
    for reply in members[2].work():
        leader.step(reply)
    members[1].take()
    assert [(read.context, read.index) for read in members[1].reads] == [(b"a", 1), (b"b", 1)]


def test_a_follower_reads_by_way_of_its_leader() -> None:
    members = group(3)
    elect(members, 1).propose(b"x")
    settle(members)
    members[3].core.read_index(b"r")
    settle(members)
    assert [(read.context, read.index) for read in members[3].reads] == [(b"r", 2)]


def test_a_read_before_the_own_terms_first_commit_waits_for_it() -> None:
    members = group(3)
    members[1].core.campaign()
    settle(members, lambda message: message.kind is Kind.APPEND)
    members[1].core.read_index(b"early")
    settle(members, lambda message: message.kind in (Kind.APPEND, Kind.HEARTBEAT))
    assert members[1].reads == []
    members[1].core.tick(), members[1].core.tick()
    settle(members)
    members[1].core.tick(), members[1].core.tick()
    settle(members)
    assert [(read.context, read.index) for read in members[1].reads] == [(b"early", 1)]


def test_a_deposed_leader_answers_no_read() -> None:
    members = group(3)
    leader = elect(members, 1)
    leader.read_index(b"old")
    settle(members, cut_off(1))
    members[2].core.suspect(), members[3].core.suspect()
    elect({2: members[2], 3: members[3]}, 2)
    settle(members)
    leader.tick(), leader.tick()
    settle(members)
    assert members[1].reads == []


def test_one_voter_reads_at_once_and_too_many_reads_are_refused() -> None:
    members = group(1)
    leader = elect(members, 1)
    leader.read_index(b"r")
    members[1].work()
    assert [read.context for read in members[1].reads] == [b"r"]
    members = group(3, reads_waiting_max=1)
    leader = elect(members, 1)
    leader.read_index(b"a")
    with pytest.raises(Dropped):
        leader.read_index(b"b")
    with pytest.raises(Dropped):
        one(2).core.read_index(b"no leader")
