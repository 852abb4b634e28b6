"""Lots: what is judged together ends as it would have ended alone, and is looked at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hosting.tenant.edge_clerk import Told
from hosting.tenant.edge_service import RegistrationService, refusal_of
from hosting.tenant.edge_stream import ChangeStream, NotTaken, Taken
from hosting.tenant.edge_turns import Turns
from hosting.tenant.limits import LOT_MAX
from hosting.tenant.lots import Below, below_of, drafts_of, lot_of
from hosting.tenant.memory import MemoryGroup
from hosting.tenant.offices import Office, Offices, OfficeSettings
from hosting.tenant.papers import AnyPaper, Quota, Right, Tenant, key_of, value_of
from hosting.tenant.records import named
from hosting.v1 import registration_pb2
from replica.model.batch import OP_PUT, Change
from replica.model.edge_identity import ensure_identity
from replica.model.errors import ZaibeiError
from replica.model.handle.values import HandleValue, Reference, encode_values
from replica.model.identifier import prefix_key
from replica.model.identity import Peer, Pins
from replica.model.precondition import NOTHING, value_hash

PREFIX = "88.118.9"
WAIT_S = 30.0
GOOD = encode_values([HandleValue(1, b"URL", b"a")])
USUAL = [GOOD, encode_values([HandleValue(1, b"URL", b"b" * 90), HandleValue(7, b"EMAIL", b"c")])]
UNUSUAL = [
    b"",
    b"no values",
    GOOD + b"\0",
    encode_values([HandleValue(2, b"A", b"1"), HandleValue(1, b"B", b"2")]),
    encode_values([HandleValue(1, "类".encode(), b"1")]),
    encode_values([HandleValue(1, b"\xff", b"1")]),
    encode_values([HandleValue(1, b"URL", b"1", references=(Reference(b"0.NA/1", 1),))]),
]
Changes = st.SearchStrategy[list[registration_pb2.Change]]
SUFFIXES = st.sampled_from(["A", "a", "b", "C/D", "类", "", "x:y", "A" * 2_039, "A" * 2_040])
PREFIXES = st.sampled_from([PREFIX] * 12 + ["88.118.90", "88.118.9.1", "0.NA", "oid:1.2", "88..9"])
NEEDS = st.one_of(
    st.none(),
    st.builds(registration_pb2.Precondition, kind=st.integers(0, 2)),
    st.just(registration_pb2.Precondition(kind=registration_pb2.Precondition.KIND_EQUAL, value_hash=value_hash(b"\1" + GOOD))),
)
BAD_NEEDS = st.just(registration_pb2.Precondition(kind=registration_pb2.Precondition.KIND_EQUAL, value_hash=b"short"))


def changes(values: list[bytes], needs: st.SearchStrategy[registration_pb2.Precondition | None]) -> Changes:
    return st.lists(
        st.builds(
            lambda prefix, suffix, values, delete, need: registration_pb2.Change(
                identifier=f"{prefix}/{suffix}", values=b"" if delete else values, delete=delete, precondition=need
            ),
            PREFIXES,
            SUFFIXES,
            st.sampled_from(values),
            st.sampled_from([False] * 5 + [True]),
            needs,
        ),
        max_size=20,
    )


ANY = changes(USUAL * 4 + UNUSUAL, st.one_of(NEEDS, BAD_NEEDS))
GOOD_ONES = changes(USUAL, NEEDS)  # of what is malformed and over a rate it is not promised which is told
ROOM = st.builds(Quota, identifiers=st.sampled_from([None, 0, 2, 5, 100]), octets=st.sampled_from([None, 0, 120, 400, 100_000]))
RATES = st.builds(Quota, registrations_per_s=st.sampled_from([0.0, 3.0, 1_000.0]), burst_s=st.just(1.0))
RIGHTS = st.sampled_from([("create", "modify", "delete"), ("create",), ("modify",), ("delete",), ("create", "delete")])


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Peer:
    folder: Path = tmp_path_factory.mktemp("tenant")
    return Peer("tenant-9", ensure_identity(folder / "i", "tenant-9").certificate_pem, role="registrar")


class Port:
    """A tenant's registration port over a group in memory. `alone`: each change is looked at by itself."""

    def __init__(self, peer: Peer, *, alone: bool) -> None:
        self.peer, self.group = peer, MemoryGroup("region-9", [prefix_key(PREFIX)])
        settings = OfficeSettings("region-9", (prefix_key(PREFIX),), Pins((peer,)))
        self.offices = Offices([settings], lambda _: self.group, lambda: 1_000)
        self.service, self._alone = RegistrationService(self.offices), alone
        self.sizes: list[int] = []

    @property
    def office(self) -> Office:
        return self.offices.office_of("region-9")

    async def begun(self, quota: Quota, operations: tuple[str, ...]) -> None:
        papers: list[tuple[str, AnyPaper]] = [
            ("region-9", Tenant(title="Region 9")),
            ("r", Right(who=self.peer.fingerprint, operations=operations, under=PREFIX)),
            ("tenant", quota),
        ]
        for ident, paper in papers:
            verdict = await self.office.clerk.change(Change(OP_PUT, key_of(paper, ident), value_of(paper)), NOTHING)
            assert verdict.position is not None, verdict

    async def _take(self, changes: Sequence[registration_pb2.Change], told: Told) -> list[Taken | NotTaken]:
        found = await self.service._take(self.peer, changes[:1] if self._alone else changes, told)
        self.sizes.append(len(found))
        return found

    async def stream(self, changes: Sequence[registration_pb2.Change]) -> dict[int, str]:
        async def messages() -> object:
            numbered = list[registration_pb2.Change]()
            for number, change in enumerate(changes):
                numbered.append(registration_pb2.Change())
                numbered[-1].CopyFrom(change)
                numbered[-1].number = number
            yield registration_pb2.PutManyRequest(changes=numbered)

        stream = ChangeStream(self._take, refusal_of, Turns(lambda: 0.0))  # no other round comes between
        told = {
            one.number: f"{one.refusal.code}: {one.refusal.message}"
            if one.HasField("refusal")
            else one.value_hash.hex() or "gone"
            async for response in stream.run(messages())  # type: ignore[arg-type]
            for one in response.results
        }
        await stream.close()
        return told


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.one_of(st.tuples(ANY, ROOM), st.tuples(GOOD_ONES, RATES)), operations=RIGHTS)
@example(([registration_pb2.Change(identifier=f"{PREFIX}/A", values=GOOD)] * 5, Quota(identifiers=2)), ("create", "modify"))
def test_what_is_judged_together_ends_as_it_would_alone(
    peer: Peer, asked: tuple[list[registration_pb2.Change], Quota], operations: tuple[str, ...]
) -> None:
    async def run() -> None:
        ports = [Port(peer, alone=True), Port(peer, alone=False)]
        told = []
        for port in ports:
            await port.begun(asked[1], operations)
            told.append(await port.stream(asked[0]))
        one, other = ports
        assert told[0] == told[1]
        assert one.group.content.records == other.group.content.records
        assert one.offices.denials.total == other.offices.denials.total

    asyncio.run(run())


@given(PREFIXES, st.one_of(SUFFIXES, st.text(max_size=20)), st.booleans())
def test_a_name_has_the_key_and_spelling_that_taking_it_apart_gives(prefix: str, suffix: str, sensitive: bool) -> None:
    name = f"{prefix}/{suffix}"
    below = below_of(name)
    if below is None:
        return
    try:
        whole = named(name)
    except ZaibeiError:
        with pytest.raises(ZaibeiError):
            below.key(name, sensitive=sensitive)
        return
    key = whole.key(case_sensitive=sensitive)
    assert (below.prefix, below.key(name, sensitive=sensitive)) == (whole.owner, (key, whole.spelling(key)))


@pytest.mark.parametrize("name", ["0.NA/88.118.9", "0.na/88", "oid:1.2/x", "88.118.9", "", "/x", "88..9/x", "did:bid:a/b"])
def test_what_has_rules_of_its_own_is_in_no_lot(name: str) -> None:
    assert below_of(name) is None


def test_a_prefix_in_another_spelling_is_another_lot_of_the_same_keys() -> None:
    low, high = below_of("88.works/a"), below_of("88.WORKS/a")
    assert low is not None and high is not None and (low.canonical, high.canonical) == (False, True)
    assert low.key("88.works/a", sensitive=True) == (high.key("88.WORKS/a", sensitive=True)[0], b"88.works/a")


async def test_a_message_is_looked_at_a_lot_at_a_time(peer: Peer) -> None:
    port = Port(peer, alone=False)
    await port.begun(Quota(), ("create",))
    told = await port.stream([registration_pb2.Change(identifier=f"{PREFIX}/{number}", values=GOOD) for number in range(150)])
    assert len(told) == 150 and port.sizes == [LOT_MAX, LOT_MAX, 150 - 2 * LOT_MAX]


async def test_whoever_has_no_outcome_in_time_is_given_one(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hosting.tenant.edge_stream.OUTCOME_S_MAX", 0.05)
    port = Port(peer, alone=False)
    await port.begun(Quota(), ("create",))
    port.group._at_once = False  # what is proposed stays under way
    changes = [registration_pb2.Change(identifier=f"{PREFIX}/{number % 2}", values=GOOD) for number in range(3)]
    async with asyncio.timeout(WAIT_S):
        told = await port.stream(changes)
    assert [told[number].partition(":")[0] for number in range(3)] == ["unknown", "unknown", "busy"], (
        "the third waits for the first"
    )


def test_of_a_lot_the_usual_values_are_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = list[bytes]()
    monkeypatch.setattr("hosting.tenant.lots.put_of", lambda key, spelling, values: looked.append(values))
    changes = [registration_pb2.Change(identifier=f"{PREFIX}/A", values=values) for values in [*USUAL, *UNUSUAL, *USUAL]]
    below = below_of(changes[0].identifier)
    assert isinstance(below, Below)
    drafts_of(lot_of(changes, below), below, sensitive=False)
    assert looked == UNUSUAL
