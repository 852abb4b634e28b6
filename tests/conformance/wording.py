"""How the files word memberships, progress, entries and messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from replica.consensus.raft.membership import Act, Membership, MembershipChange
from replica.consensus.raft.progress import Feeding, Progress
from replica.consensus.raft.values import Kind, Message, Role, SnapshotMeta
from replica.model.outcome import EntryKind, LogEntry

NAMES = {
    Kind.APPEND: "MsgApp",
    Kind.APPEND_REPLY: "MsgAppResp",
    Kind.HEARTBEAT: "MsgHeartbeat",
    Kind.HEARTBEAT_REPLY: "MsgHeartbeatResp",
    Kind.VOTE: "MsgVote",
    Kind.VOTE_REPLY: "MsgVoteResp",
    Kind.PRE_VOTE: "MsgPreVote",
    Kind.PRE_VOTE_REPLY: "MsgPreVoteResp",
    Kind.SNAPSHOT: "MsgSnap",
    Kind.TIMEOUT_NOW: "MsgTimeoutNow",
    Kind.READ_INDEX: "MsgReadIndex",
    Kind.READ_INDEX_REPLY: "MsgReadIndexResp",
    Kind.TRANSFER: "MsgTransferLeader",
}
OF_ELECTIONS = frozenset({Kind.VOTE, Kind.PRE_VOTE, Kind.VOTE_REPLY, Kind.PRE_VOTE_REPLY})
ROLES = {
    Role.FOLLOWER: "StateFollower",
    Role.PRE_CANDIDATE: "StatePreCandidate",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
}
FEEDING = {Feeding.PROBE: "StateProbe", Feeding.REPLICATE: "StateReplicate", Feeding.SNAPSHOT: "StateSnapshot"}
ACTS = {Act.ADD_VOTER: "v", Act.ADD_LEARNER: "l", Act.REMOVE: "r"}


def indent(text: str) -> str:
    return "\n".join(f"  {line}" if line else line for line in text.split("\n"))


def _ids(members: Iterable[int]) -> str:
    return " ".join(str(member) for member in sorted(members))


def membership_text(membership: Membership) -> str:
    text = f"voters=({_ids(membership.voters)})"
    if membership.outgoing:
        text += f"&&({_ids(membership.outgoing)})"
    if membership.learners:
        text += f" learners=({_ids(membership.learners)})"
    if membership.learners_next:
        text += f" learners_next=({_ids(membership.learners_next)})"
    return text + (" autoleave" if membership.auto_leave else "")


def progress_text(member: int, progress: Progress, membership: Membership, inflight_max: int = 0) -> str:
    """`inflight_max`: messages that fill the pipeline; 0: a file about changes, where activity is not shown."""
    text = f"{member}: {FEEDING[progress.feeding]} match={progress.match} next={progress.next}"
    if member in membership.learners:
        text += " learner"
    if not inflight_max:
        return text
    if progress.is_paused:
        text += " paused"
    if progress.pending:
        text += f" pendingSnap={progress.pending}"
    if not progress.active:
        text += " inactive"
    if progress.inflight:
        text += f" inflight={len(progress.inflight)}" + ("[full]" if len(progress.inflight) >= inflight_max else "")
    return text


def quoted(data: bytes) -> str:
    escaped = data.decode(errors="replace").replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def entry_text(entry: LogEntry, old_style: frozenset[tuple[int, int]]) -> str:
    """`old_style`: (term, index) of changes that the file proposed in the other project's older form."""
    head = f"{entry.term}/{entry.index}"
    if entry.kind is EntryKind.DATA:
        return f"{head} EntryNormal {quoted(entry.data)}"
    steps = " ".join(f"{ACTS[step.act]}{step.member}" for step in MembershipChange.decode(entry.data).steps)
    name = "EntryConfChange" if (entry.term, entry.index) in old_style else "EntryConfChangeV2"
    return f"{head} {name} {steps}".rstrip()


def entries_text(entries: Sequence[LogEntry], old_style: frozenset[tuple[int, int]]) -> str:
    if not entries:
        return ""
    if len(entries) == 1:
        return f" Entries:[{entry_text(entries[0], old_style)}]"
    lines = "\n".join(f"  {entry_text(entry, old_style)}" for entry in entries)
    return f" Entries:[\n{lines}\n]"


def snapshot_text(meta: SnapshotMeta) -> str:
    membership = meta.membership
    groups = [membership.voters, membership.outgoing, membership.learners, membership.learners_next]
    voters, outgoing, learners, learners_next = (f"[{_ids(members)}]" for members in groups)
    return (
        f"Index:{meta.index} Term:{meta.term} ConfState:Voters:{voters} VotersOutgoing:{outgoing} Learners:{learners} "
        f"LearnersNext:{learners_next} AutoLeave:{str(membership.auto_leave).lower()}"
    )


def message_text(message: Message, old_style: frozenset[tuple[int, int]]) -> str:
    log_term, index = message.log_term, message.index
    text = f"{message.sender}->{message.to} {NAMES[message.kind]} Term:{message.term} Log:{log_term}/{index}"
    of_election = message.kind in OF_ELECTIONS  # what these tell of commit has no place in the files
    if message.reject:
        text += f" Rejected (Hint: {0 if of_election else message.hint})"
    if message.commit and not of_election:
        text += f" Commit:{message.commit}"
    text += entries_text(message.entries, old_style)
    if message.snapshot is not None:
        text += f"\n  Snapshot: {snapshot_text(message.snapshot)}"
    return text
