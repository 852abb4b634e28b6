"""Scenarios: whole groups of members, told step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from replica.consensus.raft.membership import ChangeRefused, MembershipChange, Step, Transition
from replica.consensus.raft.values import Dropped, Kind, Message, NotLeader
from tests.conformance.datadriven import Block, Command, parse_command
from tests.conformance.pure_files import ACTS
from tests.conformance.scene_node import Local, SceneNode, local_text
from tests.conformance.wording import NAMES, ROLES, entry_text, indent, message_text, progress_text

LEVELS = ("debug", "info", "warn", "error", "fatal", "none")
REPLIES = frozenset({Kind.APPEND_REPLY, Kind.VOTE_REPLY, Kind.PRE_VOTE_REPLY, Kind.HEARTBEAT_REPLY, Kind.READ_INDEX_REPLY})
ROUNDS_MAX = 10_000


class Refused(Exception):
    """What a command says when it is refused."""


class Scene:
    """One file: members numbered from 1, and messages on their way."""

    def __init__(self) -> None:
        self.nodes: dict[int, SceneNode] = {}
        self.wire: list[Message | Local] = []
        self.quiet = False
        self.old_style: frozenset[tuple[int, int]] = frozenset()

    def run(self, block: Block) -> str:
        """Output of a block: of its command, or of several when its further lines are commands."""
        lines = block.lines
        commands = [lines] if lines[0].split()[0] == "propose-conf-change" else [[line] for line in lines]
        said: list[str] = []
        for head, *body in commands:
            command = parse_command(head)
            quiet_before = self.quiet
            if "log-level" in command.named:
                self.quiet = command.text("log-level") == "none"
            try:
                text = COMMANDS[command.name](self, command, body)
            except Refused as exc:
                text = str(exc)
            if text and not self.quiet:
                said.append(text)
            if "log-level" in command.named:
                self.quiet = quiet_before
        return "\n".join(said) or "ok"

    def chosen(self, command: Command) -> list[SceneNode]:
        words = [int(word) for word in command.words]
        return [self.nodes[word] for word in words] if words else list(self.nodes.values())

    # ------------------------------------------------------------------------------------------------------------- set-up
    def add_nodes(self, command: Command, body: list[str]) -> str:
        for _ in range(int(command.words[0])):
            member = len(self.nodes) + 1
            self.nodes[member] = SceneNode(member, command)
        return ""

    def log_level(self, command: Command, body: list[str]) -> str:
        self.quiet = LEVELS.index(command.words[0].lower()) == len(LEVELS) - 1
        return ""

    # ---------------------------------------------------------------------------------------------------------- proposals
    def propose(self, command: Command, body: list[str]) -> str:
        return self._try(lambda: self.nodes[int(command.words[0])].core.propose(command.rest.encode()))

    def propose_change(self, command: Command, body: list[str]) -> str:
        steps = [Step(ACTS[token[0]], int(token[1:])) for token in " ".join(body).split() if token[0] in ACTS]
        transition = Transition[command.text("transition", "auto").upper()]
        core = self.nodes[int(command.words[0])].core
        change = MembershipChange(tuple(steps), transition)

        def propose() -> None:
            try:
                index, term = core.propose_change(change)
            except (ChangeRefused, Dropped):
                # In the files a leader puts an empty entry where a refused change would stand; when it takes no proposal at all,
                # this one is refused too.
                core.propose(b"")
                return
            if command.flag("v1"):
                self.old_style |= {(term, index)}

        return self._try(propose)

    @staticmethod
    def _try(call: Callable[[], object]) -> str:
        try:
            call()
        except (NotLeader, Dropped):
            raise Refused("raft proposal dropped") from None
        return ""

    # ----------------------------------------------------------------------------------------------------------- progress
    def ready(self, command: Command, body: list[str]) -> str:
        return self._each(command, "handling Ready", self._ready)

    def process_append(self, command: Command, body: list[str]) -> str:
        return self._each(command, "processing append thread", self._process_append)

    def process_apply(self, command: Command, body: list[str]) -> str:
        return self._each(command, "processing apply thread", self._process_apply)

    def _each(self, command: Command, title: str, do: Callable[[SceneNode], str]) -> str:
        nodes = self.chosen(command)
        if len(nodes) == 1:
            return do(nodes[0])
        return "\n".join(f"> {node.member} {title}\n{indent(do(node))}" for node in nodes)

    def _ready(self, node: SceneNode) -> str:
        text, out = node.ready(self.old_style)
        self.wire += out
        return text

    def _process_append(self, node: SceneNode) -> str:
        text, out = node.process_append(self.old_style)
        self.wire += out
        return text

    def _process_apply(self, node: SceneNode) -> str:
        text, out = node.process_apply(self.old_style)
        self.wire += out
        return text

    def deliver(self, command: Command, body: list[str]) -> str:
        kinds = {kind for kind, name in NAMES.items() if name == command.text("type")}
        said = [self._deliver(int(word), kinds, drop=False) for word in command.words]
        said += [self._deliver(member, kinds, drop=True) for member in command.numbers("drop")]
        return "\n".join(text for text in said if text) or "no messages"

    def _deliver(self, member: int, kinds: set[Kind], *, drop: bool) -> str:
        """Deliver or lose what is on its way to a member; the text shows it."""
        mine, rest = [], []
        for message in self.wire:
            wanted = message.to == member and (not kinds or (isinstance(message, Message) and message.kind in kinds))
            (mine if wanted else rest).append(message)
        self.wire = rest
        said = []
        for message in mine:
            text = local_text(message, self.old_style)
            if drop:
                said.append(f"dropped: {text}")
                continue
            said.append(text)
            node = self.nodes[member]
            if isinstance(message, Local):
                node.take_local(message)
            elif message.kind in REPLIES and message.sender not in node.core.membership.members:
                said.append("raft: cannot step as peer not found")
            else:
                node.keep_state()
                node.core.step(message)
        return "\n".join(said)

    def stabilize(self, command: Command, body: list[str]) -> str:
        nodes = self.chosen(command)
        said: list[str] = []
        for _ in range(ROUNDS_MAX):
            before = len(said)
            for node in nodes:
                if node.has_ready():
                    said.append(f"> {node.member} handling Ready\n{indent(self._ready(node))}")
            for node in nodes:
                text = self._deliver(node.member, set(), drop=False)
                if text:
                    said.append(f"> {node.member} receiving messages\n{indent(text)}")
            for node in nodes:
                said += self._drain(node, "append", lambda node: bool(node.append_work), self._process_append)
            for node in nodes:
                said += self._drain(node, "apply", lambda node: bool(node.apply_work), self._process_apply)
            if len(said) == before:
                return "\n".join(said)
        raise Refused(f"not stable after {ROUNDS_MAX} rounds")

    @staticmethod
    def _drain(node: SceneNode, thread: str, busy: Callable[[SceneNode], bool], do: Callable[[SceneNode], str]) -> Iterable[str]:
        said = []
        while busy(node):
            said.append(indent(do(node)))
        return [f"> {node.member} processing {thread} thread\n" + "\n".join(said)] if said else []

    # --------------------------------------------------------------------------------------------------------------- acts
    def campaign(self, command: Command, body: list[str]) -> str:
        self.nodes[int(command.words[0])].core.campaign()
        return ""

    def tick_election(self, command: Command, body: list[str]) -> str:
        return self._tick(command, lambda node: node.core.config.election_ticks)

    def tick_heartbeat(self, command: Command, body: list[str]) -> str:
        return self._tick(command, lambda node: node.core.config.heartbeat_ticks)

    def _tick(self, command: Command, ticks: Callable[[SceneNode], int]) -> str:
        node = self.nodes[int(command.words[0])]
        for _ in range(ticks(node)):
            node.core.tick()
        return ""

    def set_timeout(self, command: Command, body: list[str]) -> str:
        self.nodes[int(command.words[0])].core._timeout_ticks = command.number("timeout", 0)
        return ""

    def transfer(self, command: Command, body: list[str]) -> str:
        core = self.nodes[command.number("from", 0)].core
        return self._try(lambda: core.transfer(command.number("to", 0)))

    def forget_leader(self, command: Command, body: list[str]) -> str:
        self.nodes[int(command.words[0])].core.suspect()
        return ""

    def report_unreachable(self, command: Command, body: list[str]) -> str:
        self.nodes[int(command.words[0])].core.unreachable(int(command.words[1]))
        return ""

    def compact(self, command: Command, body: list[str]) -> str:
        node = self.nodes[int(command.words[0])]
        node.keep_state()
        node.storage.compact(int(command.words[1]))
        return self.raft_log(command, body)

    def send_snapshot(self, command: Command, body: list[str]) -> str:
        sender, to = int(command.words[0]), int(command.words[1])
        node = self.nodes[sender]
        message = Message(Kind.SNAPSHOT, to, sender, node.core.term, snapshot=node.states[-1])
        self.wire.append(message)
        return message_text(message, self.old_style)

    # ------------------------------------------------------------------------------------------------------------ looking
    def raft_log(self, command: Command, body: list[str]) -> str:
        storage = self.nodes[int(command.words[0])].storage
        first, last = storage.first_index(), storage.last_index()
        if last < first:
            return f"log is empty: first index={first}, last index={last}"
        return "\n".join(entry_text(entry, self.old_style) for entry in storage.entries(first, last, 2**62))

    def raft_state(self, command: Command, body: list[str]) -> str:
        lines = []
        for member, node in self.nodes.items():
            core = node.core
            voter = "(Voter)" if core.membership.votes(member) else "(Non-Voter)"
            lines.append(f"{member}: {ROLES[core.role]} {voter} Term:{core.term} Lead:{core.leader}")
        return "\n".join(lines)

    def status(self, command: Command, body: list[str]) -> str:
        node = self.nodes[int(command.words[0])]
        core = node.core
        found = [(member, core.progress(member)) for member in sorted(core.membership.members)]
        return "\n".join(
            progress_text(member, progress, core.membership, node.inflight_max) for member, progress in found if progress
        )


COMMANDS: dict[str, Callable[[Scene, Command, list[str]], str]] = {
    "add-nodes": Scene.add_nodes,
    "campaign": Scene.campaign,
    "compact": Scene.compact,
    "deliver-msgs": Scene.deliver,
    "forget-leader": Scene.forget_leader,
    "log-level": Scene.log_level,
    "process-append-thread": Scene.process_append,
    "process-apply-thread": Scene.process_apply,
    "process-ready": Scene.ready,
    "propose": Scene.propose,
    "propose-conf-change": Scene.propose_change,
    "raft-log": Scene.raft_log,
    "raft-state": Scene.raft_state,
    "report-unreachable": Scene.report_unreachable,
    "send-snapshot": Scene.send_snapshot,
    "set-randomized-election-timeout": Scene.set_timeout,
    "stabilize": Scene.stabilize,
    "status": Scene.status,
    "tick-election": Scene.tick_election,
    "tick-heartbeat": Scene.tick_heartbeat,
    "transfer-leadership": Scene.transfer,
}
