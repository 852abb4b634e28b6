"""Planted bugs: each turns off one rule, in a subclass that only the simulation knows, and must turn a seed red.

`PLANTS` is the table: what is wrong -> the rule, and the world that lacks it. `python -m tests.simulation.raft.table`
looks for the first run that each turns red and writes the table into ops/docs/simulation.md; test_raft_planted.py replays it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from replica.consensus.raft.core import RaftCore
from tests.simulation.raft.disk import Disk, View
from tests.simulation.raft.member import Member
from tests.simulation.raft.planted_amnesia import (
    AmnesiacTakesPart,
    BootNotJudged,
    FedWithAnything,
    FedWithoutRaise,
    HealedForGood,
    HelloTellsNothing,
    HoleForgiven,
    JudgedByLengthAlone,
    LossForgotten,
    MatchKept,
    MatchTableStays,
    NoHelloFirst,
    NotJudged,
    VoteRecordForgotten,
)
from tests.simulation.raft.planted_core import (
    CampaignsOverChange,
    ChangesOverlap,
    CommitsBeyondMessage,
    CommitsOldTerms,
    CountsUnsaved,
    CountsVotesTwice,
    CutsAndGoesOn,
    CutsBelowCommit,
    ElectsAnybody,
    ForgetsVoteOnStepDown,
    GoesOn,
    HalfIsEnough,
    HeartbeatsCommit,
    JointIsNotJoint,
    LeadsUnsaved,
    LearnersCount,
    NoFirstEntry,
    NoLimit,
    OldRepliesCount,
    ReadsBeforeOwnTerm,
    ReadsWithoutRound,
    RepliesBeforeSave,
    SplitsEntries,
    TransferCommits,
    VoteApart,
    VotesAgain,
)
from tests.simulation.raft.planted_driver import (
    AcknowledgesWhenAppended,
    BelievesNames,
    BelievesStrangers,
    CompactionLosesEntries,
    CompactsBeforeStore,
    FailedOnStepDown,
    FramedByNewline,
    GoesOnAfterFailedFsync,
    IndexApart,
    KeyedByIndex,
    NoChecksum,
    NoFsync,
    OneFuture,
    ReadsLocally,
    SwitchesAfterJournal,
    UdpWorld,
    VoteNotKept,
    VotesUnsaved,
)
from tests.simulation.raft.seat import Seat
from tests.simulation.raft.world import World


def world_of(core: type[RaftCore] = RaftCore, seat: type[Seat] = Seat, member: type[Member] = Member) -> type[World]:
    """A world whose members run these classes."""
    seats = type("PlantedSeat", (seat,), {"core_type": core})
    members = type("PlantedMember", (member,), {"seat_type": seats})
    return type("PlantedWorld", (World,), {"member_type": members})


def _disk(view: type[View] | None = None, disk: type[Disk] = Disk) -> type[Member]:
    kept = type("PlantedDisk", (disk,), {"view_type": view} if view is not None else {})
    return type("MemberOnIt", (Member,), {"disk_type": kept})


@dataclass(frozen=True, slots=True)
class Plant:
    """A planted bug.

    Args:
        rule: of the table. make: the world that lacks it. story: named schedule it is looked for in, "" = any seed.
        beside: the world that lacks only what is off besides, a second net that would catch the bug; it must hold there.
        stands_still: the harm is that nothing goes on; else only a broken promise counts as red.
    """

    rule: str
    make: Callable[[], type[World]]
    story: str = ""
    beside: Callable[[], type[World]] | None = None
    stands_still: bool = False


def _core(core: type[RaftCore]) -> Callable[[], type[World]]:
    return lambda: world_of(core=core)


def _seat(seat: type[Seat]) -> Callable[[], type[World]]:
    return lambda: world_of(seat=seat)


def _member(member: type[Member]) -> Callable[[], type[World]]:
    return lambda: world_of(member=member)


def _on(view: type[View] | None = None, disk: type[Disk] = Disk) -> Callable[[], type[World]]:
    return lambda: world_of(member=_disk(view, disk))


PLANTS: dict[str, Plant] = {
    "replies leave before the save": Plant("1", lambda: world_of(RepliesBeforeSave, NotJudged), beside=_seat(NotJudged)),
    "a leader counts itself before its flush": Plant("1", _core(CountsUnsaved), "full leader"),
    "a leader leads before its own vote is saved": Plant("1", _core(LeadsUnsaved), "full candidate"),
    "the vote is not in the same write": Plant("1", lambda: world_of(seat=VotesUnsaved, member=_disk(VoteApart))),
    "two votes in one term": Plant("2", _core(VotesAgain)),
    "the vote is forgotten on step-down": Plant("2", _core(ForgetsVoteOnStepDown), "stepped down"),
    "replies of an older term count": Plant("2", _core(OldRepliesCount), "old grants"),
    "votes are a number, not a set": Plant("2", _core(CountsVotesTwice)),
    "truncation without a conflict": Plant("3", _core(CutsAndGoesOn), "erased", beside=_core(GoesOn)),
    "truncation at or below commit": Plant("3", _core(CutsBelowCommit), "doubled appends", beside=_core(GoesOn)),
    "commit beyond this message": Plant("3", _core(CommitsBeyondMessage), "cold tails"),
    "heartbeats advance commit past the match": Plant("3", _core(HeartbeatsCommit)),
    "a transfer's announcement advances commit": Plant("3", _core(TransferCommits), "tails"),
    "proposals known by index alone": Plant("4", _seat(KeyedByIndex)),
    "one future for all callers": Plant("4", _seat(OneFuture)),
    "failed, not unknown, on step-down": Plant("4", _seat(FailedOnStepDown)),
    "acknowledged when appended": Plant("4", _seat(AcknowledgesWhenAppended)),
    "no limit of octets in a message": Plant("5", _core(NoLimit)),
    "entries are cut at a limit": Plant("5", _core(SplitsEntries)),
    "the applied index is apart from the state": Plant("6", _seat(IndexApart)),
    "amnesia is not judged": Plant("6", _seat(NotJudged)),
    "amnesia is judged by the log's length alone": Plant("6", _seat(JudgedByLengthAlone), "long old tail"),
    "the boot number is not judged": Plant("6", _seat(BootNotJudged), "old lives"),
    "the match table does not ride on heartbeats": Plant("6", _seat(MatchTableStays), "long old tail"),
    "a Hello does not say what is remembered": Plant("6", _member(HelloTellsNothing), "long old tail"),
    "a hole below the flushed mark is forgiven": Plant("6", _seat(HoleForgiven), "hole"),
    "a loss is forgotten with the next start": Plant("6", _seat(LossForgotten), "hole twice"),
    "an AMNESIAC member takes part": Plant("6", _member(AmnesiacTakesPart), "long old tail"),
    "no Hello before the first vote": Plant("6", _seat(NoHelloFirst)),
    "a lost record of a vote is a free vote": Plant("6", _seat(VoteRecordForgotten), "lost vote"),
    "fed without raising the term": Plant("6", _seat(FedWithoutRaise)),
    "fed with a state that covers nothing, and no learner": Plant(
        "6", _seat(FedWithAnything), "fed short", beside=_seat(HealedForGood)
    ),
    "a match is kept over a member's restart": Plant("6", _seat(MatchKept), "kept match"),
    "a failed fsync does not stop the member": Plant("7", _member(GoesOnAfterFailedFsync), "failed fsync"),
    "records without a checksum": Plant("7", _on(NoChecksum)),
    "the name in a message is believed": Plant(
        "8", lambda: world_of(GoesOn, member=BelievesNames), "forged", beside=_core(GoesOn)
    ),
    "another cluster is believed": Plant("8", _member(BelievesStrangers), "strangers"),
    "votes without looking at the log": Plant("Raft", _core(ElectsAnybody)),
    "entries of older terms are committed by counting": Plant("Raft", _core(CommitsOldTerms), "figure 8"),
    "changes of membership overlap": Plant("Raft", _core(ChangesOverlap)),
    "only the new half of a joint membership counts": Plant("Raft", _core(JointIsNotJoint), "joint"),
    "learners count": Plant("Raft", _core(LearnersCount)),
    "an election over an unapplied change": Plant("Raft", _core(CampaignsOverChange), "unapplied change"),
    "reads without a round": Plant("Raft", _core(ReadsWithoutRound), "stale leader"),
    "reads before the own term's first commit": Plant("Raft", _core(ReadsBeforeOwnTerm)),
    "reads of the own state alone": Plant("Raft", _seat(ReadsLocally)),
    "the journal is cut before the store is durable": Plant("Raft", _seat(CompactsBeforeStore)),
    "the journal begins anew before the state is durable": Plant("Raft", _seat(SwitchesAfterJournal)),
    "raftos: the log cannot be read back": Plant("raftos", _on(FramedByNewline), "restarts", stands_still=True),
    "raftos: two leaders in one term, the vote is in memory": Plant(
        "raftos", lambda: world_of(seat=VotesUnsaved, member=_disk(VoteNotKept)), "votes"
    ),
    "raftos: two leaders in one term, the vote is forgotten on step-down": Plant(
        "raftos", _core(ForgetsVoteOnStepDown), "stepped down"
    ),
    "raftos: a majority by arithmetic": Plant("raftos", _core(HalfIsEnough), "four members"),
    "raftos: a doubled vote counts twice": Plant("raftos", _core(CountsVotesTwice), "doubled votes"),
    "raftos: a doubled append erases committed entries": Plant(
        "raftos", _core(CutsBelowCommit), "doubled appends", beside=_core(GoesOn)
    ),
    "raftos: a concurrent command is acknowledged": Plant("raftos", _seat(OneFuture), "concurrent commands"),
    "raftos: nothing commits after the leader's death": Plant("raftos", _core(NoFirstEntry), "restarts", stands_still=True),
    "raftos: entries over 65,507 octets never arrive": Plant("raftos", lambda: UdpWorld, "long entries", stands_still=True),
    "PySyncObj: commit over an unverified tail": Plant("PySyncObj", _core(TransferCommits), "tails"),
    "PySyncObj: acknowledged without fsync": Plant(
        "PySyncObj", lambda: world_of(seat=NotJudged, member=_disk(disk=NoFsync)), "restarts", beside=_seat(NotJudged)
    ),
    "PySyncObj: a kill during compaction loses the journal": Plant("PySyncObj", _on(disk=CompactionLosesEntries), "compactions"),
    "PySyncObj: octets from the peer port before it is known who speaks": Plant(
        "PySyncObj", lambda: world_of(GoesOn, member=BelievesNames), "forged", beside=_core(GoesOn)
    ),
}
