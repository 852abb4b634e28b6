"""Random and half-right messages into both sessions: a fault by name, never an exception, never applied."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from replica.model.batch import columns_of, cut_batch
from replica.model.states import FeedState
from replica.v1 import position_pb2, source_pb2
from tests.fuzz.feed_target import Target
from tests.simulation.feed_world import put

numbers = st.one_of(st.integers(0, 5), st.just(2**63), st.just(2**64 - 1))
positions = st.builds(
    position_pb2.Position,
    lineage=st.sampled_from([b"", bytes(16), b"\x11" * 16, b"x"]),
    epoch=numbers,
    seq=numbers,
    chain=st.sampled_from([bytes(32), b"", b"y" * 32]),
)
octets = st.binary(max_size=60)
digests = st.builds(position_pb2.ContentDigest, format=numbers.filter(lambda n: n < 2**32), position=positions, sum=octets)
messages = st.one_of(
    st.builds(source_pb2.SourceMessage, batch=octets),
    st.builds(source_pb2.SourceMessage, beat=st.builds(source_pb2.Beat, head=positions, nonce=octets)),
    st.builds(source_pb2.SourceMessage, certificate=st.builds(position_pb2.Certificate, digest=digests)),
    st.builds(
        source_pb2.SourceMessage, epoch_request=st.builds(source_pb2.EpochRequest, head=positions, reason=st.text(max_size=9))
    ),
    st.builds(source_pb2.SourceMessage, grant_accepted=st.builds(source_pb2.GrantAccepted, position=positions)),
    st.builds(
        source_pb2.SourceMessage,
        fault=st.builds(source_pb2.Fault, code=st.sampled_from(["forked", "snapshot_wanted", "?", ""]), position=positions),
    ),
    st.builds(source_pb2.SourceMessage, offer=st.builds(source_pb2.Offer)),
    st.just(source_pb2.SourceMessage()),
)


@settings(max_examples=60)
@given(st.lists(messages, max_size=6))
def test_the_replica_survives_its_source(said: list[source_pb2.SourceMessage]) -> None:
    target = Target()
    held = dict(target.world.store.content)
    for message in said:
        target.hears(message)
    assert target.world.store.content == held


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([b"b", b"w", b"s", b"r"]), octets), max_size=6))
def test_random_octets(said: list[tuple[bytes, bytes]]) -> None:
    target = Target()
    for which, body in said:
        target(which + body)


def test_the_source_survives_its_replica() -> None:
    """A fuzzer's find: an open enum of protobuf may be negative."""
    target = Target()
    for level in (-1, 0, 4):
        receipt = source_pb2.Receipt(source="secondary-88-118", position=target.world.log.head().to_wire())
        receipt.level = level  # type: ignore[assignment]
        target(b"s" + source_pb2.ReplicaMessage(receipt=receipt).SerializeToString())
        assert any("source closes: malformed" in line for line in target.world.history)


def test_more_than_the_credit_ends_the_stream() -> None:
    target = Target()
    world = target.world
    tail = world.log.head()
    for _ in range(200):  # nothing is committed meanwhile
        batch = cut_batch(world.log.source, tail, columns_of([put("A")]), 1, 0)
        tail = batch.after
        if world.session is None:
            break
        world.replica_does(world.session.received(source_pb2.SourceMessage(batch=batch.raw), world.now))
    assert world.session is None
    assert any("no_credit" in line for line in world.history)
    assert world.state().feed in (FeedState.FLOWING, FeedState.GAP)
