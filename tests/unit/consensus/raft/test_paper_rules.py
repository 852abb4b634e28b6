"""One test per rule of the Raft paper's one-page summary (figure 2): arrange, act, check."""

from __future__ import annotations

import pytest

from replica.consensus.raft.values import Kind, Message, NotLeader, Role
from tests.unit.consensus.raft.table import append, cut_off, elect, group, one, only, settle, vote

NO_PRE_VOTE = {"pre_vote": False, "check_quorum": False}


# ------------------------------------------------------------------------------------------------------- persistent state
def test_term_vote_and_log_are_saved_before_a_reply_leaves() -> None:
    member = one(2)
    member.core.step(append(2, 1, 3, (0, 0), [3]))
    duties = member.take()
    assert duties.send_now == ()
    assert (duties.hard.term, [entry.index for entry in duties.entries]) == (3, [1])
    assert [message.kind for message in member.save()] == [Kind.APPEND_REPLY]


# ---------------------------------------------------------------------------------------------------------- AppendEntries
def test_append_1_refused_when_its_term_is_older() -> None:
    member = one(2)
    member.hold(1, 1, 5)
    member.core.step(append(2, 1, 4, (3, 5), [4]))
    replies = member.work()
    assert [(reply.kind, reply.term, reply.index) for reply in replies] == [(Kind.APPEND_REPLY, 5, 0)]
    assert member.log() == [(1, 1), (2, 1), (3, 5)]


@pytest.mark.parametrize("before", [(3, 2), (5, 2)], ids=["another term there", "nothing there"])
def test_append_2_refused_when_the_entry_before_does_not_match(before: tuple[int, int]) -> None:
    member = one(2)
    member.hold(1, 1, 1)
    member.core.step(append(2, 1, 2, before, [2]))
    (reply,) = member.work()
    assert (reply.reject, reply.index) == (True, before[0])
    assert member.log() == [(1, 1), (2, 1), (3, 1)]


def test_append_3_a_conflicting_entry_and_all_behind_it_go() -> None:
    member = one(2)
    member.hold(1, 1, 2, 2, 2)
    member.core.step(append(2, 1, 3, (2, 1), [3]))
    member.work()
    assert member.log() == [(1, 1), (2, 1), (3, 3)]
    assert member.storage.last_index() == 3


def test_append_4_only_entries_that_are_missing_are_added() -> None:
    member = one(2)
    member.hold(1, 1, 1, 1)
    member.core.step(append(2, 1, 1, (0, 0), [1, 1]))
    member.core.step(append(2, 1, 1, (2, 1), [1, 1, 1]))
    duties = member.take()
    assert [entry.index for entry in duties.entries] == [5]
    assert duties.cut_after is None


@pytest.mark.parametrize(("leader_commit", "expected"), [(9, 3), (2, 2)], ids=["last new entry", "leader's commit"])
def test_append_5_commit_is_the_lower_of_the_leaders_and_the_last_new_entry(leader_commit: int, expected: int) -> None:
    member = one(2)
    member.hold(1, 1, 1, 1, 1)
    member.core.step(append(2, 1, 2, (2, 1), [1], commit=leader_commit))
    assert member.core.commit == expected


# ------------------------------------------------------------------------------------------------------------ RequestVote
def test_vote_1_not_given_in_an_older_term() -> None:
    member = one(2)
    member.hold(5)
    member.core.step(vote(2, 1, 4, (9, 4)))
    assert member.work() == []
    assert (member.core.term, member.core.vote) == (5, 0)


def test_vote_2_given_once_a_term_and_again_to_the_same_candidate() -> None:
    member = one(2)
    answers = []
    for candidate in (1, 3, 1):
        member.core.step(vote(2, candidate, 1, (0, 0)))
        answers += [reply.reject for reply in member.work()]
    assert answers == [False, True, False]
    assert (member.hard.term, member.hard.vote) == (1, 1)


@pytest.mark.parametrize(
    ("last", "granted"),
    [((1, 3), True), ((3, 2), True), ((4, 2), True), ((2, 2), False), ((9, 1), False)],
    ids=["later term, shorter", "equal", "longer", "shorter", "earlier term, longer"],
)
def test_vote_2_only_for_a_log_at_least_as_current(last: tuple[int, int], granted: bool) -> None:
    member = one(2)
    member.hold(1, 2, 2)
    member.core.step(vote(2, 1, 7, last))
    assert [reply.reject for reply in member.work()] == [not granted]


# ------------------------------------------------------------------------------------------------------------ all servers
def test_all_committed_entries_are_applied_in_order() -> None:
    member = one(2)
    member.core.step(append(2, 1, 1, (0, 0), [1, 1, 1], commit=2))
    member.work()
    member.core.step(append(2, 1, 1, (3, 1), commit=3))
    member.work()
    assert [entry.index for entry in member.applied] == [1, 2, 3]


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_all_a_later_term_makes_a_follower(role: Role) -> None:
    members = group(3, **NO_PRE_VOTE)
    if role is not Role.FOLLOWER:
        members[1].core.campaign()
        settle(members, cut_off(1) if role is Role.CANDIDATE else lambda message: False)
    core = members[1].core
    assert core.role is role
    core.step(Message(Kind.APPEND_REPLY, 1, 2, core.term + 1))
    assert (core.role, core.leader, core.vote) == (Role.FOLLOWER, 0, 0)


# -------------------------------------------------------------------------------------------------------------- followers
def test_followers_answer_and_never_propose() -> None:
    members = group(3)
    elect(members, 1)
    with pytest.raises(NotLeader) as caught:
        members[2].core.propose(b"x")
    assert caught.value.leader == 1


def test_followers_that_hear_nothing_stand_for_election() -> None:
    member = one(2, **NO_PRE_VOTE)
    for _ in range(2 * member.core.config.election_ticks):
        member.core.tick()
    assert member.core.role is Role.CANDIDATE


def test_followers_that_hear_a_leader_or_give_a_vote_wait_anew() -> None:
    for message in (Message(Kind.HEARTBEAT, 2, 1, 1), vote(2, 1, 1, (0, 0))):
        member = one(2, **NO_PRE_VOTE)
        for _ in range(5):
            member.core.step(message)
            member.work()
            for _ in range(member.core.config.election_ticks - 1):
                member.core.tick()
        assert member.core.role is Role.FOLLOWER


# ------------------------------------------------------------------------------------------------------------- candidates
def test_candidates_raise_the_term_vote_for_themselves_and_ask_all_others() -> None:
    member = one(1, **NO_PRE_VOTE)
    member.hold(1, 1)
    member.core.campaign()
    requests = member.work()
    assert (member.hard.term, member.hard.vote) == (2, 1)
    assert [(ask.kind, ask.to, ask.term, ask.index, ask.log_term) for ask in requests] == [
        (Kind.VOTE, 2, 2, 2, 1),
        (Kind.VOTE, 3, 2, 2, 1),
    ]


def test_candidates_lead_with_votes_of_a_majority() -> None:
    member = one(1, range(1, 6), **NO_PRE_VOTE)
    member.core.campaign()
    member.work()
    roles = []
    for voter in (2, 3):
        member.core.step(Message(Kind.VOTE_REPLY, 1, voter, 1))
        roles.append(member.core.role)
    assert roles == [Role.CANDIDATE, Role.LEADER]


def test_candidates_follow_a_leader_of_their_term() -> None:
    member = one(1, **NO_PRE_VOTE)
    member.core.campaign()
    member.work()
    member.core.step(append(1, 2, 1, (0, 0), [1]))
    assert (member.core.role, member.core.leader, member.core.vote) == (Role.FOLLOWER, 2, 1)


def test_candidates_that_time_out_begin_another_election() -> None:
    member = one(1, **NO_PRE_VOTE)
    member.core.campaign()
    for _ in range(2 * member.core.config.election_ticks):
        member.core.tick()
    assert (member.core.role, member.core.term) == (Role.CANDIDATE, 2)


# ---------------------------------------------------------------------------------------------------------------- leaders
def test_leaders_speak_at_once_and_then_with_heartbeats() -> None:
    members = group(3)
    members[1].core.campaign()
    first = only(settle(members), Kind.APPEND)
    assert {message.to for message in first} == {2, 3}
    for _ in range(members[1].core.config.heartbeat_ticks):
        members[1].core.tick()
    assert {message.to for message in only(members[1].work(), Kind.HEARTBEAT)} == {2, 3}


def test_leaders_know_of_members_nothing_at_first() -> None:
    member = one(1, **NO_PRE_VOTE)
    member.hold(1, 1)
    member.core.campaign()
    member.work()
    member.core.step(Message(Kind.VOTE_REPLY, 1, 2, 2))
    progress = member.core.progress(2)
    assert progress is not None
    assert (progress.match, progress.next) == (0, 3)


def test_leaders_hand_a_command_out_only_when_it_is_committed() -> None:
    members = group(3)
    leader = elect(members, 1)
    index, _ = leader.propose(b"x")
    settle(members, cut_off(2, 3))
    assert leader.commit < index
    assert members[1].applied[-1].index < index
    leader.tick(), leader.tick()
    settle(members)
    assert [entry.data for entry in members[1].applied][-1] == b"x"


def test_leaders_step_back_after_a_refusal_until_logs_meet() -> None:
    members = group(3)
    members[1].hold(1, 1, 3, 3)
    members[2].hold(1, 1, 2, 2, 2, 2)
    members[3].hold(1)
    elect(members, 1)
    assert members[1].log() == members[2].log() == members[3].log() == [(1, 1), (2, 1), (3, 3), (4, 3), (5, 4)]


def test_leaders_commit_what_a_majority_holds() -> None:
    members = group(5)
    leader = elect(members, 1)
    index, _ = leader.propose(b"x")
    settle(members, cut_off(3, 4, 5))
    assert leader.commit < index
    leader.tick(), leader.tick()
    settle(members, cut_off(4, 5))
    assert leader.commit == index


def test_leaders_commit_by_counting_only_entries_of_their_own_term() -> None:
    # Figure 8: an entry of term 2 on a majority is not committed by a leader of term 4 until an own entry is.
    member = one(1, **NO_PRE_VOTE)
    member.hold(1, 2)
    member.hard = type(member.hard)(3)
    member.start()
    member.core.campaign()
    member.work()
    member.core.step(Message(Kind.VOTE_REPLY, 1, 2, 4))
    member.work()
    member.core.step(Message(Kind.APPEND_REPLY, 1, 2, 4, index=2))
    assert member.core.commit == 0
    member.core.step(Message(Kind.APPEND_REPLY, 1, 2, 4, index=3))
    assert member.core.commit == 3
