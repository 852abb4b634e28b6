"""A source that was taken over and comes back: its own history ends, it copies ours, and is handed the next epoch (SEMANTICS 8).

Its log keeps what it wrote by itself, behind the common position, until the copy says that all of it lies in its ledger; only
then does a new run of segments begin at our epoch, and our batches go over what it holds. A source that lost its disk takes the
whole content. Every step is on disk before the next, so that a crash anywhere goes on where it stood. Call from worker threads,
one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from replica.agent.edge_content import Step
from replica.agent.edge_log import OWN_END, AgentLog
from replica.agent.log import same_epoch
from replica.model.batch import OP_DELETE, OP_PUT, Batch, Change, open_batch
from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN, Position, epoch_start
from replica.model.signing import grant_octets, verify
from replica.native import split
from replica.v1 import source_pb2

Taken = Callable[[Sequence[Change]], None]
"""The registry takes our changes into its own records; called again for the same ones after a crash."""


def stop_writing(agent: AgentLog) -> Position:
    """From now on nothing of the registry's own is appended, also after a restart, until an epoch is handed to it. Idempotent.

    Returns:
        Where its own history ends.
    """
    with agent.turn():
        if agent.own_end is None:
            end = agent.head()
            agent.content.note(OWN_END, str(end))
            agent.content.sync()
            agent.own_end = end
            agent._waiters.wake()
        return agent.own_end


def following(agent: AgentLog) -> Position | None:
    """Where its copy of our history stands; None: it does not copy it yet."""
    head = agent.head()
    return None if agent.own_end is None or head == agent.own_end else head


def check_grant(agent: AgentLog, grant: source_pb2.Grant, key: bytes) -> tuple[Position, Position]:
    """Parent and start of the epoch in which we write for this source.

    Raises:
        ZaibeiError: NOT_AUTHORISED (another's signature), WRONG_SOURCE, MALFORMED.
    """
    parent, start = Position.from_wire(grant.parent), Position.from_wire(grant.start)
    if grant.source != agent.nature.source:
        raise ZaibeiError(Code.WRONG_SOURCE, f"an epoch of {grant.source!r} was shown to {agent.nature.source!r}")
    if not verify(key, grant_octets(grant.source, parent, start, grant.reason, grant.holder), grant.signature):
        raise ZaibeiError(Code.NOT_AUTHORISED, "the epoch shown to us is not signed by the member that shows it")
    if start.epoch <= parent.epoch or start != epoch_start(parent, start.lineage, start.epoch):
        raise ZaibeiError(Code.MALFORMED, "the start of the epoch shown to us does not follow from its parent")
    return parent, start


def begin(agent: AgentLog, grant: source_pb2.Grant, taken_in: Position) -> bool:
    """Begin to copy our history from the common position on.

    Args:
        grant: of the epoch we write in, checked; its parent is the common position.
        taken_in: our ledger holds the source's own history up to here, on a majority of our disks.
    Returns:
        False: this log does not hold the common position; only the whole content helps (`load`).
    Raises:
        ZaibeiError(REFUSED): its own history is not in the ledger to its end.
    """
    parent, start = Position.from_wire(grant.parent), Position.from_wire(grant.start)
    with agent.turn():
        own, head = agent.own_end, agent.head()
        if own is None or taken_in != own:
            raise ZaibeiError(
                Code.REFUSED,
                f"the ledger holds {taken_in.short()}, not all that this source wrote: nothing is overwritten",
                retry=True,
            )
        if same_epoch(head, start):
            return True
        if agent.prove(parent).result != source_pb2.Proof.RESULT_PROVED or not same_epoch(parent, own):
            return False
        if agent._files.segments[-1].start != start:  # else a crash came in between
            agent._files.start_segment(start, grant.SerializeToString())
        with agent._state:
            agent.content.begin_epoch(start)
            agent._pins.clear()
        agent.content.sync()
        agent._waiters.wake()
        return True


def take(agent: AgentLog, raws: Sequence[bytes], taken: Taken) -> Position:
    """Take batches of our history, in order; on disk when this returns.

    Raises:
        ZaibeiError: MALFORMED, CONFLICT (they do not follow); nothing behind the last good one was taken.
    """
    with agent.turn():
        for raw in raws:
            batch, head = open_batch(raw), agent.head()
            if agent.own_end is None or batch.before != head:
                raise ZaibeiError(Code.CONFLICT, f"a batch after {batch.before.short()} came where {head.short()} stands")
            _take(agent, batch, taken)
        agent._waiters.wake()
        return agent.head()


def _take(agent: AgentLog, batch: Batch, taken: Taken) -> None:
    keys, values, ops = split(batch.columns)
    taken([Change(op, key, value) for key, value, op in zip(keys, values, ops, strict=True)])
    last = {key: place for place, key in enumerate(keys)}  # the content is stored key by key: the last word counts
    chosen = sorted(last.values())
    held = agent.content.values_of([keys[place] for place in chosen])
    step = Step(
        [keys[place] for place in chosen],
        bytes(ops[place] for place in chosen),
        [values[place] for place in chosen],
        [held.get(keys[place]) for place in chosen],
        batch.after,
        True,
    )
    agent._files.append([batch])
    published = agent.content.apply([step])
    with agent._state:
        agent.content.publish(published)
    agent._appended_s = agent._clocks.boottime_s()
    agent.content.fold()


def load(agent: AgentLog, grant: source_pb2.Grant, position: Position, parts: Iterable[bytes], taken: Taken) -> None:
    """Take our whole content at a position: for a log that does not hold the common one. The old content is replaced in one
    transaction.

    Args:
        parts: columns octets, keys ascending; whoever hands them in verified the end of the snapshot by when they run out.
    """

    def columns() -> Iterable[tuple[list[bytes], list[bytes]]]:
        for octets in parts:
            keys, values, ops = split(octets)
            if set(ops) - {OP_PUT} or OP_DELETE in ops:
                raise ZaibeiError(Code.MALFORMED, "a snapshot part holds a delete")
            taken([Change(OP_PUT, key, value) for key, value in zip(keys, values, strict=True)])
            yield list(keys), list(values)

    with agent.turn():
        if agent.own_end is None:
            raise ZaibeiError(Code.REFUSED, "this source still writes by itself: nothing is overwritten")
        agent._files.start_segment(position, grant.SerializeToString())
        digest, sums = agent.content.replace(columns(), position)  # takes long, and waits for whoever brings the parts
        with agent._state:
            agent.content.publish_whole(digest, sums)
            agent._pins.clear()
        agent.content.sync()
        agent._waiters.wake()


def lost_everything(agent: AgentLog) -> bool:
    """Its own history ended before it began: its disk was lost."""
    return agent.own_end == ORIGIN
