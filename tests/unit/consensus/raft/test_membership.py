"""Changes of a membership: their octets, one at a time, joint and simple, learners, and a leader that removes itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.consensus.port import HardState
from replica.consensus.raft.membership import (
    Act,
    ChangeRefused,
    Fault,
    Membership,
    MembershipChange,
    Step,
    Transition,
    change_membership,
)
from replica.consensus.raft.values import Dropped, Kind, Message, NotLeader, Role
from replica.model.outcome import EntryKind, LogEntry
from tests.unit.consensus.raft.table import Member, cut_off, elect, group, one, settle, state_at

MEMBERS = st.integers(1, 6)
STEPS = st.lists(st.builds(Step, st.sampled_from(Act), MEMBERS), max_size=5).map(tuple)
CHANGES = st.builds(MembershipChange, STEPS, st.sampled_from(Transition))


def change(text: str, transition: Transition = Transition.AUTO) -> MembershipChange:
    acts = {"v": Act.ADD_VOTER, "l": Act.ADD_LEARNER, "r": Act.REMOVE}
    return MembershipChange(tuple(Step(acts[word[0]], int(word[1:])) for word in text.split()), transition)


def newcomer(members: dict[int, Member], number: int) -> None:
    """A member that begins with what the group began with."""
    members[number] = one(number, members[1].membership.voters)


@given(CHANGES)
def test_octets_of_a_change_are_read_back(made: MembershipChange) -> None:
    assert MembershipChange.decode(made.encode()) == made


@pytest.mark.parametrize(
    "octets", [b"", b"\x01", b"\x02\x00\x00\x00", b"\x01\x00\x00\x01", b"\x01\x09\x00\x00", b"\x01\x00\x00\x00x"]
)
def test_other_octets_are_refused(octets: bytes) -> None:
    with pytest.raises(ValueError):
        MembershipChange.decode(octets)


def test_octets_are_persistent() -> None:
    assert change("v2 l3", Transition.EXPLICIT).encode().hex() == "01020002" + "010000000000000002" + "020000000000000003"


@given(st.lists(CHANGES, max_size=12))
def test_majorities_before_and_after_a_change_always_meet(changes: list[MembershipChange]) -> None:
    now = Membership(frozenset({1, 2, 3}))
    for made in changes:
        try:
            new = change_membership(now, made).membership
        except ChangeRefused:
            continue
        old_sets = [voters for voters in (now.voters, now.outgoing) if voters]
        new_sets = [voters for voters in (new.voters, new.outgoing) if voters]
        # Some set of the old and some set of the new differ in at most one voter: their majorities share a member.
        assert any(len(old ^ fresh) <= 1 for old in old_sets for fresh in new_sets)
        assert new.voters
        assert not new.learners & (new.voters | new.outgoing)
        assert new.learners_next <= new.outgoing
        now = new


def test_a_voter_is_added_and_takes_part() -> None:
    members = group(3)
    leader = elect(members, 1)
    newcomer(members, 4)
    leader.propose_change(change("v4"))
    settle(members)
    assert {member.core.membership for member in members.values()} == {Membership(frozenset({1, 2, 3, 4}))}
    assert members[4].applied_index == leader.commit


def test_one_change_at_a_time() -> None:
    members = group(3)
    leader = elect(members, 1)
    leader.propose_change(change("l4"))
    with pytest.raises(Dropped):
        leader.propose_change(change("l5"))
    with pytest.raises(NotLeader):
        members[2].core.propose_change(change("l5"))
    settle(members)
    leader.propose_change(change("l5"))


def test_a_new_leader_changes_nothing_before_what_it_found_is_applied() -> None:
    members = group(3)
    elect(members, 1).propose_change(change("l4"))
    settle(members, lambda message: message.kind is not Kind.APPEND)
    members[2].core.suspect(), members[3].core.suspect()
    members[2].core.campaign()
    settle(members, lambda message: message.kind is Kind.APPEND or 1 in (message.to, message.sender))
    assert members[2].core.role is Role.LEADER
    with pytest.raises(Dropped):
        members[2].core.propose_change(change("l5"))


@pytest.mark.parametrize(
    ("text", "fault"), [("r1 r2 r3", Fault.ALL_REMOVED), ("", Fault.NOT_JOINT)], ids=["all removed", "nothing to leave"]
)
def test_a_change_that_cannot_be_taken_never_enters_the_log(text: str, fault: Fault) -> None:
    members = group(3)
    leader = elect(members, 1)
    with pytest.raises(ChangeRefused) as caught:
        leader.propose_change(change(text))
    assert (caught.value.fault, leader.last_index) == (fault, 1)


def test_several_voters_change_jointly_and_the_leader_leaves_by_itself() -> None:
    members = group(3)
    leader = elect(members, 1)
    newcomer(members, 4), newcomer(members, 5)
    leader.propose_change(change("v4 v5 r3"))
    settle(members)
    assert leader.membership == Membership(frozenset({1, 2, 4, 5}))
    assert members[5].membership == leader.membership


def test_an_explicit_joint_membership_needs_both_majorities_until_it_is_left() -> None:
    members = group(3)
    leader = elect(members, 1)
    for number in (4, 5, 6):
        newcomer(members, number)
    leader.propose_change(change("r1 r2 r3 v4 v5 v6", Transition.EXPLICIT))
    settle(members)
    assert leader.membership == Membership(frozenset({4, 5, 6}), frozenset({1, 2, 3}))
    index, _ = leader.propose(b"x")
    settle(members, cut_off(4, 5))
    assert leader.commit < index, "old majority alone"
    leader.tick(), leader.tick()
    settle(members, cut_off(2, 3))
    settle(members)
    assert leader.commit == index
    leader.propose_change(MembershipChange())
    settle(members)
    assert leader.membership == Membership(frozenset({4, 5, 6}))
    assert leader.role is Role.FOLLOWER, "a leader that is no voter any more steps down"


def test_an_automatic_change_goes_on_under_the_next_leader() -> None:
    members = group(3)
    leader = elect(members, 1)
    newcomer(members, 4), newcomer(members, 5)
    index, _ = leader.propose_change(change("v4 v5"))
    while leader.applied_index < index:
        for number in (1, 2, 3):
            for message in members[number].work():
                if message.to in (1, 2, 3) and leader.applied_index < index:
                    members[message.to].core.step(message)
    del members[1]
    for number in (2, 3):
        members[number].core.suspect()
    for _ in range(60):
        for member in members.values():
            member.core.tick()
        settle(members)
    assert {member.core.membership for member in members.values()} == {Membership(frozenset({1, 2, 3, 4, 5}))}


def test_a_learner_gets_the_log_and_never_counts() -> None:
    members = group(1)
    leader = elect(members, 1)
    newcomer(members, 2)
    leader.propose_change(change("l2"))
    settle(members)
    index, _ = leader.propose(b"x")
    settle(members, cut_off(2))
    assert leader.commit == index
    leader.tick(), leader.tick()
    settle(members)
    assert members[2].applied_index == index
    members[2].core.campaign()
    assert members[2].core.role is Role.FOLLOWER


def test_a_member_that_knows_of_a_committed_change_takes_it_before_it_stands() -> None:
    members = group(3)
    leader = elect(members, 1)
    leader.propose_change(change("l4"))
    settle(members, cut_off(3))
    leader.tick(), leader.tick()
    for message in members[1].work():
        if message.to == 2:
            members[2].core.step(message)
    follower = members[2].core
    follower.applied_index = 1
    follower.commit = 2
    follower.campaign()
    assert follower.role is Role.FOLLOWER


def test_a_member_that_lost_its_memory_becomes_a_learner_and_is_fed_anew() -> None:
    members = group(3)
    leader = elect(members, 1)
    for _ in range(5):
        leader.propose(b"x")
    settle(members)
    initial = Membership(frozenset({1, 2, 3}))
    members[3] = Member(3, initial)
    members[3].core.allow_elections(False)
    leader.memory_lost(3)
    leader.propose_change(change("l3"))
    settle(members)
    leader.tick(), leader.tick()
    settle(members)
    assert members[3].applied_index == leader.commit
    assert leader.membership == Membership(frozenset({1, 2}), learners=frozenset({3}))


def test_the_voter_that_is_left_of_two_can_lead() -> None:
    # The change that demotes the old leader is committed, only the old leader knows, and it holds one entry more.
    members = group(2)
    leader = elect(members, 1)
    leader.propose_change(change("r1 l1", Transition.EXPLICIT))
    settle(members)
    leader.propose_change(MembershipChange())
    for message in members[1].work():
        members[2].core.step(message)
    for message in members[2].work():
        leader.step(message)
    leader.propose(b"more")
    members[1].work()
    assert leader.role is Role.FOLLOWER
    assert members[2].core.membership.joint
    for _ in range(60):
        members[1].core.tick(), members[2].core.tick()
        settle(members)
    assert members[2].core.role is Role.LEADER


def test_a_voter_that_does_not_know_it_is_told_so_by_the_leader_that_left() -> None:
    members = group(1)
    leader = elect(members, 1)
    newcomer(members, 2)

    def hears_of_no_commit(message: Message) -> bool:
        if message.to == 2:
            message.commit = 0
        return False

    leader.propose_change(change("v2 l1", Transition.EXPLICIT))
    settle(members, hears_of_no_commit)
    leader.propose_change(MembershipChange())
    settle(members, hears_of_no_commit)
    assert leader.role is Role.FOLLOWER
    newest = members[2].core
    assert (newest.membership, newest.last_index, newest.commit) == (Membership(frozenset({1})), leader.last_index, 0)
    for _ in range(60):
        leader.tick(), newest.tick()
        settle(members)
    assert newest.role is Role.LEADER


def test_a_newcomer_is_fed_by_a_state_when_the_log_is_gone() -> None:
    members = group(3)
    leader = elect(members, 1)
    leader.propose(b"x")
    settle(members)
    members[1].storage.keep_snapshot(state_at(members[1]))
    members[1].storage.compact(2)
    members[4] = Member(4, Membership())
    leader.propose_change(change("l4"))
    settle(members)
    leader.tick(), leader.tick()
    settle(members)
    assert members[4].core.last_index == leader.last_index


@pytest.mark.parametrize("role", [Role.PRE_CANDIDATE, Role.CANDIDATE])
def test_who_learns_that_it_was_removed_while_it_asks_for_votes_gives_up(role: Role) -> None:
    member = one(1, (1, 2, 3, 4), pre_vote=role is Role.PRE_CANDIDATE)
    member.storage.append([LogEntry(1, 1, change("r1", Transition.AUTO).encode(), EntryKind.MEMBERSHIP)])
    member.hard = HardState(1)
    member.start()
    core = member.core
    core.campaign()
    member.work()
    assert core.role is role and core.membership.votes(1)
    reply = Kind.PRE_VOTE_REPLY if role is Role.PRE_CANDIDATE else Kind.VOTE_REPLY
    core.step(Message(reply, 1, 2, core.term, commit=1, hint=1, reject=True))
    member.work()
    assert core.commit == 1 and not core.membership.votes(1)
    for voter in (3, 4, 2):
        core.step(Message(reply, 1, voter, 2))
        member.work()
    assert core.role is Role.FOLLOWER, "it would lead what it may not write, and nobody else would be elected"
