"""One member of a scenario: a core, its storage, and the threads that append and apply where the scenario has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from replica.consensus.raft.core import RaftCore
from replica.consensus.raft.membership import Membership, MembershipChange
from replica.consensus.raft.storage import MemoryStorage
from replica.consensus.raft.values import CoreConfig, CoreStart, Duties, Kind, Message, Role, SnapshotMeta
from replica.model.outcome import EntryKind, LogEntry
from tests.conformance.datadriven import Command
from tests.conformance.wording import ROLES, entries_text, entry_text, message_text, snapshot_text

UNLIMITED = 2**31 - 1
AFTER_SAVE = frozenset({Kind.APPEND_REPLY, Kind.VOTE_REPLY, Kind.PRE_VOTE_REPLY})
OldStyle = frozenset[tuple[int, int]]


class SceneCore(RaftCore):
    """The core, with the rules that some files want turned off."""

    leaves_when_removed = True
    checks_changes = True

    def _steps_down_when_removed(self) -> bool:
        return self.leaves_when_removed

    def _change_may_start(self) -> bool:
        return not self.checks_changes or super()._change_may_start()

    def _check_change(self, change: MembershipChange) -> None:
        if self.checks_changes:
            super()._check_change(change)


@dataclass(slots=True)
class Local:
    """A message between a core and its threads: shown, never sent. `text` is all of it but the responses."""

    text: str
    to: int
    number: int = 0  # of the save that it reports; 0: none
    applied: int = 0


@dataclass(slots=True)
class Work:
    """Work of the append or the apply thread."""

    text: str
    responses: list[Message | Local] = field(default_factory=list)
    duties: Duties | None = None
    entries: Sequence[LogEntry] = ()

    @property
    def reports(self) -> bool:
        return any(isinstance(response, Local) for response in self.responses)


class SceneNode:
    """See the module."""

    def __init__(self, member: int, command: Command) -> None:
        index = command.number("index", 0)
        membership = Membership(frozenset(command.numbers("voters")), learners=frozenset(command.numbers("learners")))
        meta = SnapshotMeta(index, 1, membership) if index else SnapshotMeta(0, 0, membership)
        self.member = member
        self.storage = MemoryStorage(meta)
        self.states = [meta]  # states that a follower could be fed from, one per applied entry
        self.asynchronous = command.flag("async-storage-writes")
        self.inflight_max = command.number("inflight", UNLIMITED)
        self.core = SceneCore(
            CoreConfig(
                member,
                Random(member),
                election_ticks=3,
                heartbeat_ticks=1,
                pre_vote=command.flag("prevote"),
                check_quorum=command.flag("checkquorum"),
                inflight_messages_max=self.inflight_max,
                inflight_octets_max=2**62,
                append_octets_max=2**62,
                committed_octets_max=max(command.number("max-committed-size-per-ready", 2**62), 1),
            ),
            self.storage,
            CoreStart(membership=membership, applied=index),
        )
        self.core.leaves_when_removed = command.flag("step-down-on-removal")
        self.core.checks_changes = not command.flag("disable-conf-change-validation")
        self.append_work: deque[Work] = deque()
        self.apply_work: deque[Work] = deque()
        self._shown_hard = (self.core.term, self.core.vote, self.core.commit)
        self._shown_applied = index
        self._returned: deque[tuple[int, bool]] = deque()  # saves on their way: (number, returned)

    def keep_state(self) -> None:
        """The newest state is what followers are fed from."""
        self.storage._meta = self.states[-1]

    def has_ready(self) -> bool:
        core = self.core
        may_apply = core.saved_index if self.asynchronous else core.last_index
        return (
            core.has_duties()
            or (core.term, core.vote, core.commit) != self._shown_hard
            or min(core.commit, may_apply) > self._shown_applied
        )

    # ------------------------------------------------------------------------------------------------------------- ready
    def ready(self, old_style: OldStyle) -> tuple[str, list[Message]]:
        """Take duties and do them: what is shown, and what goes out."""
        if not self.has_ready():
            return "<empty Ready>", []
        core = self.core
        duties = core.duties()
        unsaved = core.saved_index < core.last_index or duties.snapshot is not None
        hard = (core.term, core.vote, core.commit)
        hard_changed, vote_changed = hard != self._shown_hard, hard[:2] != self._shown_hard[:2]
        self._shown_hard = hard
        if not self.asynchronous:
            self._save(duties)
        committed = self._committed(duties)
        lines = [f"Ready MustSync={str(bool(duties.entries) or vote_changed).lower()}:"]
        if duties.soft is not None:
            lines.append(f"Lead:{duties.soft.leader} State:{ROLES[duties.soft.role]}")
        if hard_changed:
            lines.append(f"HardState Term:{hard[0]}" + (f" Vote:{hard[1]}" if hard[1] else "") + f" Commit:{hard[2]}")
        for title, entries in (("Entries", duties.entries), ("CommittedEntries", committed)):
            if title == "CommittedEntries" and duties.snapshot is not None:
                lines.append(f"Snapshot {snapshot_text(duties.snapshot)}")
            if entries:
                lines += [f"{title}:", *[entry_text(entry, old_style) for entry in entries]]
        if self.asynchronous:
            out, shown = self._hand_to_threads(duties, committed, old_style, hard=hard if hard_changed else None, unsaved=unsaved)
        else:
            out = [*duties.send_now, *duties.send_after_save]
            shown = [message_text(message, old_style) for message in out]
        if shown:
            lines += ["Messages:", *shown]
        if not self.asynchronous:
            self._apply(committed)
            if duties.number:
                core.saved(duties.number)
            if committed:
                core.applied(committed[-1].index)
        return "\n".join(lines), out

    def _save(self, duties: Duties) -> None:
        if duties.snapshot is not None:
            self.storage.restart_at(duties.snapshot)
            self.states.append(duties.snapshot)
            self._shown_applied = duties.snapshot.index
        if duties.cut_after is not None:
            self.storage.cut_after(duties.cut_after)
        self.storage.append(duties.entries)

    def _committed(self, duties: Duties) -> Sequence[LogEntry]:
        """What is applied with this round; where storing is synchronous, also what this very round saved."""
        entries = duties.committed
        if not self.asynchronous:
            first, last = self._shown_applied + 1, self.core.commit
            entries = self.storage.entries(first, last, self.core.config.committed_octets_max) if last >= first else ()
        if entries:
            self._shown_applied = entries[-1].index
        return entries

    def _apply(self, entries: Sequence[LogEntry]) -> None:
        for entry in entries:
            membership = self.states[-1].membership
            if entry.kind is EntryKind.MEMBERSHIP:
                membership = self.core.apply_change(entry)
            self.states.append(SnapshotMeta(entry.index, entry.term, membership))
        self.keep_state()

    # ----------------------------------------------------------------------------------------------------------- threads
    def _hand_to_threads(
        self,
        duties: Duties,
        committed: Sequence[LogEntry],
        old_style: OldStyle,
        *,
        hard: tuple[int, int, int] | None,
        unsaved: bool,
    ) -> tuple[list[Message], list[str]]:
        out = [message for message in duties.send_now if message.kind not in AFTER_SAVE]
        waiting = [message for message in duties.send_now if message.kind in AFTER_SAVE]
        waiting += duties.send_after_save
        shown = [message_text(message, old_style) for message in out]
        if hard or duties.entries or duties.snapshot or waiting:
            append = self._append_work(duties, waiting, old_style, hard=hard, unsaved=unsaved)
            self.append_work.append(append)
            shown.append(_with_responses(append, old_style))
        if committed:
            apply = self._apply_work(committed, old_style)
            self.apply_work.append(apply)
            shown.append(_with_responses(apply, old_style))
        return out, shown

    def _append_work(
        self, duties: Duties, waiting: list[Message], old_style: OldStyle, *, hard: tuple[int, int, int] | None, unsaved: bool
    ) -> Work:
        core, me = self.core, self.member
        text = f"{me}->AppendThread MsgStorageAppend Term:{hard[0] if hard else 0} Log:0/0"
        if hard:
            text += f" Commit:{hard[2]}" + (f" Vote:{hard[1]}" if hard[1] else "")
        text += entries_text(duties.entries, old_style)
        if duties.snapshot is not None:
            text += f"\n  Snapshot: {snapshot_text(duties.snapshot)}"
        work = Work(text, [*waiting], duties)
        number = duties.number
        if duties.hard is not None and core.role is Role.CANDIDATE:
            work.responses.append(Local(f"{me}->{me} MsgVoteResp Term:{core.term} Log:0/0", me, number))
        if core.role is Role.LEADER:
            lines = [f"{me}->{me} MsgAppResp Term:{core.term} Log:0/{entry.index}" for entry in duties.entries]
            work.responses += [Local(line, me, number) for line in lines]
        if unsaved:
            last = f"{core.log.last_term}/{core.last_index}"
            work.responses.append(Local(f"AppendThread->{me} MsgStorageAppendResp Term:{core.term} Log:{last}", me, number))
        if number:
            self._returned.append((number, False))
        return work

    def _apply_work(self, committed: Sequence[LogEntry], old_style: OldStyle) -> Work:
        entries = entries_text(committed, old_style)
        response = f"ApplyThread->{self.member} MsgStorageApplyResp Term:0 Log:0/0{entries}"
        local = Local(response, self.member, applied=committed[-1].index)
        return Work(f"{self.member}->ApplyThread MsgStorageApply Term:0 Log:0/0{entries}", [local], entries=committed)

    def process_append(self, old_style: OldStyle) -> tuple[str, list[Message | Local]]:
        if not self.append_work:
            return "no append work to perform", []
        work = self.append_work.popleft()
        if work.duties is not None:
            self._save(work.duties)
            if work.duties.number and not work.reports:
                self.save_returned(work.duties.number)
        return _processed(work, old_style), work.responses

    def process_apply(self, old_style: OldStyle) -> tuple[str, list[Message | Local]]:
        if not self.apply_work:
            return "no apply work to perform", []
        work = self.apply_work.popleft()
        self._apply(work.entries)
        return _processed(work, old_style), work.responses

    def take_local(self, message: Local) -> None:
        """A thread's answer reached the core."""
        if message.number:
            self.save_returned(message.number)
        if message.applied:
            self.core.applied(message.applied)

    def save_returned(self, number: int) -> None:
        """Tell the core in the order of the saves, each once."""
        self._returned = deque((other, done or other == number) for other, done in self._returned)
        while self._returned and self._returned[0][1]:
            self.core.saved(self._returned.popleft()[0])


def local_text(message: Message | Local, old_style: OldStyle) -> str:
    return message.text if isinstance(message, Local) else message_text(message, old_style)


def _with_responses(work: Work, old_style: OldStyle) -> str:
    if not work.responses:
        return work.text
    lines = "\n".join(f"  {local_text(response, old_style)}" for response in work.responses)
    return f"{work.text} Responses:[\n{lines}\n]"


def _processed(work: Work, old_style: OldStyle) -> str:
    return "\n".join(["Processing:", work.text, "Responses:", *[local_text(response, old_style) for response in work.responses]])
