"""Any message at all: taken or refused for certain, and never an exception."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hosting.tenant.desk import Verdict
from hosting.tenant.edge_service import RegistrationService, refusal_of
from hosting.tenant.edge_stream import ChangeStream, NotTaken
from hosting.tenant.edge_turns import Turns
from hosting.tenant.memory import MemoryGroup
from hosting.tenant.offices import Offices, OfficeSettings
from hosting.v1 import registration_pb2
from replica.model.edge_identity import ensure_identity
from replica.model.handle.values import HandleValue, encode_values
from replica.model.identifier import prefix_key
from replica.model.identity import Peer, Pins

PREFIX = "88.118.9"
GOOD = encode_values([HandleValue(1, b"URL", b"a")])
NAMES = st.one_of(
    st.text(max_size=30),
    st.text(max_size=12).map(lambda text: f"{PREFIX}/{text}"),
    st.sampled_from(["0.NA/88.118.9.1", "0.NA/88.118.9", "oid:1.2", "gs1:01/x", "did:bid:a", "88.118.9", "/", "88.118.9/"]),
)
OCTETS = st.one_of(st.binary(max_size=80), st.just(GOOD), st.binary(min_size=1, max_size=4).map(lambda tail: GOOD + tail))
NEEDS = st.builds(
    registration_pb2.Precondition, kind=st.integers(0, 7), value_hash=st.sampled_from([b"", b"x", bytes(32), bytes(33)])
)
CHANGES = st.builds(
    registration_pb2.Change,
    number=st.integers(0, 2**64 - 1),
    identifier=NAMES,
    values=OCTETS,
    delete=st.booleans(),
    precondition=NEEDS,
)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Peer:
    folder: Path = tmp_path_factory.mktemp("tenant")
    return Peer("tenant-9", ensure_identity(folder / "i", "tenant-9").certificate_pem, role="registrar")


def untold(_: Verdict) -> None:
    """Nobody waits for an outcome."""


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(CHANGES, max_size=12))
def test_every_change_of_a_stream_has_a_definite_outcome(peer: Peer, changes: list[registration_pb2.Change]) -> None:
    async def run() -> None:
        group = MemoryGroup("region-9", [prefix_key(PREFIX)])
        service = RegistrationService(
            Offices([OfficeSettings("region-9", (prefix_key(PREFIX),), Pins((peer,)))], lambda _: group, lambda: 0)
        )

        async def messages() -> object:
            yield registration_pb2.PutManyRequest(changes=changes)

        stream = ChangeStream(partial(service._take, peer), refusal_of, Turns())
        results = [one async for response in stream.run(messages()) for one in response.results]  # type: ignore[arg-type]
        await stream.close()
        assert sorted(one.number for one in results) == sorted(one.number for one in changes)
        for one in results:
            assert one.HasField("position") is not one.HasField("refusal")
            assert not one.HasField("refusal") or (one.refusal.definite and one.refusal.message and one.refusal.code)
        assert sum(one.HasField("position") for one in results) == group.content.position.seq

    asyncio.run(run())


async def test_nobody_elses_prefix_reaches_a_desk(peer: Peer) -> None:
    group = MemoryGroup("region-9", [prefix_key(PREFIX)])
    offices = Offices([OfficeSettings("region-9", (prefix_key(PREFIX),), Pins((peer,)))], lambda _: group, lambda: 0)
    service = RegistrationService(offices)
    for name in ("88.118/A", "88.118.90/A", "88.118.9x/A", "0.NA/88.118.9", "0.NA/88", "oid:1.2.3", "9/88.118.9"):
        [taken] = await service._take(peer, [registration_pb2.Change(identifier=name, values=GOOD)], untold)
        assert isinstance(taken, NotTaken) and taken.trouble.code == "not_owner", name
    group.change_state(prefixes=(prefix_key(f"{PREFIX}.1"),), ownership_version=2)
    for names in (["A"], ["A", "B"]):
        changes = [registration_pb2.Change(identifier=f"{PREFIX}/{name}", values=GOOD) for name in names]
        taken = (await service._take(peer, changes, untold))[0]
        assert isinstance(taken, NotTaken) and taken.trouble.code == "not_owner", "what the group committed counts"
