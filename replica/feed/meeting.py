"""Meeting a source: first contact, grants, asking for an epoch (SEMANTICS 1.2). Only our group grants; a source may ask. Pure.

First contact: Offer(head at epoch 0) -> the source proves that head -> entry Grant{parent = head} -> Grant on the stream -> the
source has it on disk, GrantAccepted -> entry GrantTaken. An operator's grant after a fork (`grant_entry`) goes the same way from
its second half. A grant that was committed and not confirmed is sent again at every meeting.
"""

from __future__ import annotations

from collections.abc import Callable

from replica.feed.commands import Prove
from replica.feed.desk import Desk
from replica.feed.leases import Leases
from replica.model.errors import Code, Trouble, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.outcome import Outcome, OutcomeKind
from replica.model.position import NO_LINEAGE, Position, epoch_start
from replica.model.signing import Signer, grant_octets
from replica.model.states import FeedState
from replica.v1 import entry_pb2, source_pb2

GRANTS_MAX = 16  # of one meeting: a source that writes all the time moves its head under the first ones
FIRST_CONTACT = "first contact"

Refused = Callable[[FeedState, Code, str, Position], None]


def next_epoch(state: GroupState, parent: Position, lineage: bytes) -> int:
    """Number of the epoch to grant: above everything granted, and above what the parent says within our lineage."""
    granted = state.granted.epoch if state.granted is not None else 0
    return max(granted, parent.epoch if parent.lineage == lineage else 0) + 1


def signed_grant(source: str, parent: Position, start: Position, reason: str, signer: Signer) -> source_pb2.Grant:
    """A grant as it travels and is committed."""
    return source_pb2.Grant(
        source=source,
        parent=parent.to_wire(),
        start=start.to_wire(),
        reason=reason,
        holder=source,
        signature=signer.sign(grant_octets(source, parent, start, reason, source)),
    )


def grant_entry(state: GroupState, parent: Position, lineage: bytes, reason: str, signer: Signer) -> entry_pb2.Entry:
    """The entry that grants the next epoch to the source itself; for operators too, after a fork they looked at.

    Args:
        parent: the head of the source that the epoch begins at.
    """
    start = epoch_start(parent, lineage, next_epoch(state, parent, lineage))
    return entry_pb2.Entry(grant=signed_grant(state.source, parent, start, reason, signer))


def _nothing_copied(state: GroupState) -> bool:
    """An empty registry was met, filled up before it took its first grant: nothing of it was ever receipted."""
    return not state.grant_taken and state.position.seq == 0


class Meeting:
    """The part of a session before batches flow. `on_begin`: an epoch is being granted; `on_met`: the source is in the granted
    epoch; `on_refused`: it is not, and why; `on_broken`: the stream must end."""

    __slots__ = (
        "_asked", "_desk", "_grants", "_on_begin", "_on_broken", "_on_met", "_on_refused", "_parent", "leases", "since_ns",
    )  # fmt: skip

    def __init__(
        self,
        desk: Desk,
        on_begin: Callable[[], None],
        on_met: Callable[[], None],
        on_refused: Refused,
        on_broken: Callable[[Trouble], None],
    ) -> None:
        self._desk = desk
        self.leases = Leases(desk)
        self._on_begin, self._on_met, self._on_refused, self._on_broken = on_begin, on_met, on_refused, on_broken
        self._grants = 0
        self._parent: Position | None = None  # head whose proof or grant is under way
        self._asked: Position | None = None  # head of the newest question for an epoch on this stream
        self.since_ns: int | None = None  # waiting for the source since then

    def meet(self, head: Position) -> None:
        """The source stated its head; the newest granted epoch may be missing, unconfirmed or taken."""
        state = self._desk.state
        if state.granted is not None and state.grant_taken:
            self._on_met()
        elif head.lineage not in (NO_LINEAGE, self._desk.setup.lineage):
            self._on_refused(
                FeedState.FENCED, Code.WRONG_LINEAGE, f"the source follows another cluster's lineage {head.lineage.hex()}", head
            )
        elif state.granted is None:
            self._prove(head)
        else:
            self._offer(state.granted, head)

    def _prove(self, head: Position) -> None:
        self._grants += 1
        if self._grants > GRANTS_MAX:
            self._on_broken(Trouble(Code.BUSY, f"the source's head moved under {GRANTS_MAX} grants: meet again", retry=True))
            return
        self._parent, self.since_ns = head, self._desk.now.boot_ns
        self._desk.out.append(Prove(head))

    def proved(self, proof: source_pb2.Proof) -> None:
        """The source's answer about the head it stated."""
        parent = self._parent
        if parent is None:
            return
        if proof.result != source_pb2.Proof.RESULT_PROVED:
            self._on_broken(Trouble(Code.CONFLICT, "the source cannot prove the head it offered", retry=True))
            return
        self.grant(parent, FIRST_CONTACT)

    def grant(self, parent: Position, reason: str) -> None:
        """Grant the next epoch from the source's head."""
        self._on_begin()
        self._parent, self.since_ns = parent, None
        entry = grant_entry(self._desk.state, parent, self._desk.setup.lineage, reason, self._desk.setup.signer)
        self._desk.propose(entry, self._granted)

    def _granted(self, outcome: Outcome | Trouble) -> None:
        granted, parent = self._desk.state.granted, self._parent
        if isinstance(outcome, Trouble):
            self._on_broken(outcome)
        elif outcome.kind not in (OutcomeKind.APPLIED, OutcomeKind.ALREADY) or granted is None or parent is None:
            self._on_broken(Trouble(Code.CONFLICT, f"the grant was not taken: {outcome.detail or outcome.kind}", retry=True))
        else:
            self._offer(granted, parent)

    def _offer(self, granted: Position, head: Position) -> None:
        """Send the committed grant, unless the source has it already."""
        state, setup = self._desk.state, self._desk.setup
        if (head.lineage, head.epoch) == (granted.lineage, granted.epoch) and head.seq >= granted.seq:
            self._confirm(granted)  # its acceptance was lost on the way
        elif epoch_start(head, granted.lineage, granted.epoch) == granted if self._may_start(head, granted) else False:
            self._parent, self.since_ns = head, self._desk.now.boot_ns
            grant = signed_grant(setup.source, head, granted, FIRST_CONTACT if not state.ready else "granted", setup.signer)
            self._desk.send(source_pb2.ReplicaMessage(grant=grant))
        elif state.side is None and (not state.ready or _nothing_copied(state)):
            self._prove(head)  # begin at the newer head
        else:
            reason = f"epoch {granted.epoch} was not granted from the source's head {head.short()}"
            self._on_refused(FeedState.FORKED, Code.FORKED, reason, head)

    @staticmethod
    def _may_start(head: Position, granted: Position) -> bool:
        return head.lineage != granted.lineage or head.epoch < granted.epoch

    def accepted(self, position: Position) -> None:
        """The source has the grant on its disk.

        Raises:
            ZaibeiError(MALFORMED): it accepted something that was not offered.
        """
        granted = self._desk.state.granted
        if granted is None or position != granted:
            raise ZaibeiError(Code.MALFORMED, f"the source accepted {position.short()}, which was not offered")
        if not self._desk.state.grant_taken:
            self._confirm(granted)

    def _confirm(self, granted: Position) -> None:
        self.since_ns = None
        self._desk.propose(entry_pb2.Entry(grant_taken=entry_pb2.GrantTaken(position=granted.to_wire())), self._taken)

    def _taken(self, outcome: Outcome | Trouble) -> None:
        if isinstance(outcome, Trouble):
            self._on_broken(outcome)
        elif not self._desk.state.grant_taken:
            self._on_broken(Trouble(Code.CONFLICT, f"the acceptance was not taken: {outcome.detail}", retry=True))
        else:
            self._on_met()

    def conflict(self, head: Position | None) -> None:
        """The source refused a grant because its head moved on."""
        state = self._desk.state
        if state.granted is not None and not state.grant_taken and head is not None:
            self._offer(state.granted, head)

    def asked(self, head: Position, reason: str) -> None:
        """The source asks for a new epoch: noted; granted at once only when its head is exactly our applied position."""
        if head == self._asked:
            return  # it says so again: one entry tells it all
        self._asked = head
        ask = entry_pb2.EpochAsk(head=head.to_wire(), reason=reason[:1_000])

        def then(outcome: Outcome | Trouble) -> None:
            state = self._desk.state
            if isinstance(outcome, Trouble):
                self._on_broken(outcome)
            elif state.granted is None or not state.grant_taken:
                pass  # the meeting goes on with a grant anyway
            elif head == state.position and state.ready and state.feed not in (FeedState.FORKED, FeedState.HELD):
                self.grant(head, f"asked for: {reason[:200]}")
            else:
                self._on_refused(
                    FeedState.FORKED,
                    Code.FORKED,
                    f"the source asks for a new epoch at {head.short()}, we hold {state.position.short()} ({reason[:200]}): "
                    "look at both, then grant one",
                    head,
                )

        self._desk.propose(entry_pb2.Entry(epoch_ask=ask), then)
