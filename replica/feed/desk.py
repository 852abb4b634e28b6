"""What the parts of a replica session share: who we are, the moment, the commands gathered, and who waits for which outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from replica.feed.admission import Rights
from replica.feed.commands import Alarm, Command, Now, Propose, Send
from replica.feed.freshness import CopyAge
from replica.feed.limits import BEAT_KEY_OCTETS, FeedLimits
from replica.feed.ports import GroupReads, OwnerOf
from replica.model.errors import Code, Trouble, require
from replica.model.group_state import GroupState
from replica.model.node import endpoints_of
from replica.model.outcome import Outcome
from replica.model.position import Position
from replica.model.signing import Signer
from replica.model.states import FeedState
from replica.v1 import entry_pb2, source_pb2

ENTRY_FORMAT = 1
Then = Callable[[Outcome | Trouble], None]


def nobody_owns(_: bytes) -> str | None:
    """An OwnerOf for a cluster without delegations."""
    return None


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything fixed about one source's feed on one member.

    Args:
        source: name in the source's certificate; source_key: its signing key, 32 octets; pinned: key parts it may write.
        member: our name; signer: our key; lineage: of our cluster.
        random: n -> that many random octets.
        members_needed: how many members must have a loaded generation's files on disk before it may be switched to: a majority.
        beat_key, beat_to: key and receivers of datagram beats; no receivers: none wanted.
    """

    source: str
    source_key: bytes
    pinned: frozenset[bytes]
    member: str
    signer: Signer
    lineage: bytes
    random: Callable[[int], bytes]
    owner_of: OwnerOf = nobody_owns
    limits: FeedLimits = field(default_factory=FeedLimits)
    members_needed: Callable[[], int] = lambda: 1
    beat_key: bytes = field(default=bytes(BEAT_KEY_OCTETS), repr=False)
    beat_to: tuple[source_pb2.Endpoint, ...] = ()


class Desk:
    """Gathers commands; the session hands them out."""

    __slots__ = ("_rights", "_rights_version", "_tag", "_waiting", "age", "now", "out", "reads", "setup")

    def __init__(self, setup: Setup, reads: GroupReads, age: CopyAge) -> None:
        self.setup = setup
        self.reads = reads
        self.age = age
        self.now = Now(0, 0)
        self.out: list[Command] = []
        self._waiting: dict[int, Then] = {}
        self._tag = 0
        self._rights: Rights | None = None
        self._rights_version = -1

    @property
    def state(self) -> GroupState:
        return self.reads.state()

    @property
    def limits(self) -> FeedLimits:
        return self.setup.limits

    @property
    def unsettled(self) -> int:
        """Proposals without an outcome."""
        return len(self._waiting)

    def send(self, message: source_pb2.ReplicaMessage) -> None:
        self.out.append(Send(message))

    def alarm(self, code: Code, message: str) -> None:
        self.out.append(Alarm(code, message))

    def propose(self, entry: entry_pb2.Entry, then: Then) -> None:
        """Propose an entry with its body set; `then` gets its outcome."""
        self._tag += 1
        entry.format = ENTRY_FORMAT
        entry.admitted_ms = self.now.wall_ms
        self._waiting[self._tag] = then
        self.out.append(Propose(self._tag, entry))

    def settled(self, tag: int, outcome: Outcome | Trouble, *, heeded: bool) -> None:
        """A proposal has its outcome; not heeded: the session is closed and only counts it off."""
        then = self._waiting.pop(tag, None)
        require(then is not None, f"an outcome for the unknown proposal {tag}")
        if then is not None and heeded:
            then(outcome)

    def resume_from(self, tail: Position | None, credit: source_pb2.Credit) -> None:
        """Say where we stand; None: nothing is asked for yet."""
        setup, state = self.setup, self.state
        self.send(
            source_pb2.ReplicaMessage(
                resume=source_pb2.Resume(
                    position=None if tail is None else tail.to_wire(),
                    member=setup.member,
                    credit=credit,
                    beat_key=setup.beat_key,
                    beat_to=setup.beat_to,
                    beat_interval_ms=setup.limits.beat_interval_ms,
                    state=state.feed.name.lower(),
                    state_reason=state.feed_reason,
                )
            )
        )

    def mark(self, feed: FeedState, code: Code | str, reason: str, theirs: Position | None, then: Then) -> None:
        """Propose the feed's named state."""
        mark = entry_pb2.FeedMark(
            state=entry_pb2.FeedMark.State.ValueType(int(feed)),
            code=str(code),
            reason=reason,
            ours=self.state.position.to_wire(),
            theirs=None if theirs is None else theirs.to_wire(),
        )
        self.propose(entry_pb2.Entry(mark=mark), then)

    def learn_node(self, resolution: Sequence[source_pb2.Endpoint]) -> None:
        """Where the node itself answers: members without this stream probe it too, and two of them decide whether it is dead."""
        stated = endpoints_of(resolution)
        if stated != self.state.node:
            wire = [source_pb2.Endpoint(protocol=one.protocol, address=one.address, port=one.port) for one in stated]
            self.propose(entry_pb2.Entry(node=entry_pb2.NodeStated(resolution=wire)), lambda _outcome: None)

    def rights(self) -> Rights:
        """What the source may write by its pin and the group's newest ownership entry."""
        state = self.state
        if self._rights is None or self._rights_version != state.ownership_version:
            owned = frozenset(state.prefixes) if state.ownership_version else None
            self._rights = Rights(self.setup.source, self.setup.pinned, owned, self.setup.owner_of)
            self._rights_version = state.ownership_version
        return self._rights


def tails_of(state: GroupState) -> tuple[Position | None, Position | None]:
    """Newest boundaries of the live and the side generation as far as they lie in the granted epoch."""
    granted = state.granted
    if granted is None:
        return None, None

    def within(position: Position | None) -> Position | None:
        same = position is not None and (position.lineage, position.epoch) == (granted.lineage, granted.epoch)
        return position if same else None

    return within(state.position), within(state.side.position if state.side is not None else None)


def newest(positions: Sequence[Position | None]) -> Position | None:
    """The one with the highest seq; None when there is none."""
    return max((one for one in positions if one is not None), key=lambda one: one.seq, default=None)
