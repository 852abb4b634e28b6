"""Files about quorums and changes of a membership: pure functions of the core, shown as the files show them."""

from __future__ import annotations

from collections.abc import Mapping

from replica.consensus.raft.membership import (
    Act,
    Changed,
    ChangeRefused,
    Fault,
    Membership,
    Step,
    change_simply,
    enter_joint,
    leave_joint,
)
from replica.consensus.raft.progress import Progress, keep_progress
from replica.consensus.raft.quorum import NO_LIMIT, Verdict, joint_index, joint_verdict, majority_index, majority_verdict
from tests.conformance.datadriven import Block, Command, parse_command
from tests.conformance.wording import membership_text, progress_text

QUORUM_COMMANDS = frozenset({"committed", "vote"})
CHANGE_COMMANDS = frozenset({"simple", "enter-joint", "leave-joint"})
VERDICTS = {Verdict.PENDING: "VotePending", Verdict.LOST: "VoteLost", Verdict.WON: "VoteWon"}
FAULTS = {
    Fault.NOT_JOINT: "can't leave a non-joint config",
    Fault.NO_VOTERS_YET: "can't make a zero-voter config joint",
    Fault.ALL_REMOVED: "removed all voters",
    Fault.TOO_MANY: "more than one voter changed without entering joint config",
}
ACTS = {"v": Act.ADD_VOTER, "l": Act.ADD_LEARNER, "r": Act.REMOVE}


def run_quorum(block: Block) -> str:
    command = parse_command(" ".join(block.lines))
    voters = command.numbers("cfg")
    joint = "cfgj" in command.named
    outgoing = [] if command.text("cfgj") == "zero" or not joint else command.numbers("cfgj")
    members = [*voters, *[member for member in outgoing if member not in voters]]
    if command.name == "vote":
        return _vote(command, members, voters, outgoing, joint=joint)
    given = zip(members, command.named.get("idx", []), strict=False)
    indexes = {member: int(index) for member, index in given if index != "_"}
    index = joint_index(voters, outgoing, indexes) if joint else majority_index(voters, indexes)
    lines = [_describe(sorted(members), indexes) + _index_text(index)]
    if not joint:
        same = {
            "zero-joint quorum": joint_index(voters, [], indexes),
            "self-joint quorum": joint_index(voters, voters, indexes),
        }
        lines += [f"{_index_text(other)} <-- via {name}" for name, other in same.items() if other != index]
    elif (other := joint_index(outgoing, voters, indexes)) != index:
        lines.append(f"{_index_text(other)} <-- via symmetry")
    return "\n".join(lines)


def _vote(command: Command, members: list[int], voters: list[int], outgoing: list[int], *, joint: bool) -> str:
    given = zip(members, command.named.get("votes", []), strict=False)
    votes = {member: vote == "y" for member, vote in given if vote != "_"}
    verdict = joint_verdict(voters, outgoing, votes) if joint else majority_verdict(voters, votes)
    others = [joint_verdict(outgoing, voters, votes)] if joint else [joint_verdict(voters, voters, votes)]
    return "\n".join([VERDICTS[verdict], *[f"{VERDICTS[other]} <-- another way" for other in others if other != verdict]])


def _describe(members: list[int], indexes: Mapping[int, int]) -> str:
    """A table with a bar per member: as long as the number of members that stand below it."""
    if not members:
        return "<empty majority quorum>"
    width = len(members)
    lines = [" " * width + "    idx"]
    for member in members:
        index = indexes.get(member)
        below = sum(1 for other in members if indexes.get(other, 0) < (index or 0))
        bar = "?" + " " * width if index is None else "x" * below + ">" + " " * (width - below)
        lines.append(f"{bar} {index or 0:5d}    (id={member})")
    return "\n".join(lines) + "\n"


def _index_text(index: int) -> str:
    return "∞" if index == NO_LIMIT else str(index)


class ChangeFile:
    """State of one file about changes: each command stands for one index of a log."""

    def __init__(self) -> None:
        self._membership = Membership()
        self._progress: dict[int, Progress] = {}
        self._last = 0

    def run(self, block: Block) -> str:
        command = parse_command(block.lines[0])
        last, self._last = self._last, self._last + 1
        tokens = " ".join(block.lines[1:]).split()
        steps = [Step(ACTS[token[0]], int(token[1:])) for token in tokens if token[0] in ACTS]
        try:
            changed = self._change(command, steps)
        except ChangeRefused as exc:
            already = (
                "config is already joint" if command.name != "simple" else "can't apply simple config change in joint config"
            )
            return FAULTS.get(exc.fault, already)
        self._progress = keep_progress(self._progress, changed, last)
        self._membership = changed.membership
        lines = [progress_text(member, self._progress[member], self._membership) for member in sorted(self._progress)]
        return "\n".join([membership_text(self._membership), *lines])

    def _change(self, command: Command, steps: list[Step]) -> Changed:
        if command.name == "leave-joint":
            return leave_joint(self._membership)
        if command.name == "enter-joint":
            return enter_joint(self._membership, steps, auto_leave=command.flag("autoleave"))
        return change_simply(self._membership, steps)
