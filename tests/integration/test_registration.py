"""Registration over gRPC against a whole member: outcomes, preconditions, rights, restart, and abuse of the port."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from hosting.tenant.edge_client import OPTIONS, Done, Put, RegistrationClient
from hosting.tenant.edge_service import REFUSAL_KEY
from hosting.v1 import registration_pb2
from replica.member import reseed
from replica.member.hosted import next_founding
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue, Reference, encode_values
from replica.model.precondition import ABSENT, NOTHING, PRESENT, Must, Precondition
from replica.model.states import Authority
from replica.model.view import SourceView
from tests.integration.tenant_world import HOSTED, OTHER_PREFIX, PREFIX, Region, region, url

NAME = f"{PREFIX}/A"


def code_of(done: Done) -> Code | None:
    return None if done.trouble is None else done.trouble.code


async def test_a_registration_is_answered_and_survives(tmp_path: Path) -> None:
    async with region(tmp_path) as here, here.client() as client:
        done = await client.put(NAME, url("https://example.cn/a"), ABSENT)
        assert done.ok and done.position is not None and (done.position.epoch, done.position.seq) == (1, 1)
        [found] = await client.get([NAME])
        assert found.found and found.values == tuple(url("https://example.cn/a")) and found.value_hash == done.value_hash
        copy = here.world.copy(HOSTED)
        state = copy.store.state()
        assert (state.authority, state.grant_taken, state.records) == (Authority.REGISTRATION, True, 1)
        values, view = here.member.read({HOSTED: [b"h88\x01118\x019\0A", b"h88\x01118\x019\0B"]})[HOSTED]
        assert isinstance(view, SourceView) and values[0] is not None and values[1] is None
        assert (view.ready, view.freshness.value, view.authority) == (True, "fresh", Authority.REGISTRATION)
        await client.delete(f"{PREFIX}/GONE")
        position = copy.store.state().position
    async with region(tmp_path) as here, here.client() as client:
        assert here.world.copy(HOSTED).store.state().position == position, "founded once"
        [found] = await client.get([NAME])
        assert found.found
        again = await client.put(NAME, url("x"), ABSENT)
        assert (again.ok, code_of(again)) == (False, Code.CONFLICT)
        assert (await client.put(NAME, url("y"), found.unchanged)).ok


async def test_each_precondition(tmp_path: Path) -> None:
    async with region(tmp_path) as here, here.client() as client:
        wrong = Precondition(Must.EQUAL, bytes(32))
        for need, ok in ((PRESENT, False), (wrong, False), (ABSENT, True), (ABSENT, False), (PRESENT, True), (wrong, False)):
            done = await client.put(NAME, url("a"), need)
            assert done.ok is ok and code_of(done) == (None if ok else Code.CONFLICT), (need, done)
        [found] = await client.get([NAME])
        assert (await client.delete(NAME, wrong)).ok is False
        assert (await client.delete(NAME, found.unchanged)).ok is True
        assert (await client.delete(NAME, PRESENT)).ok is False
        assert (await client.delete(NAME)).ok is True, "harmless when it is not there"


async def test_appends_of_many_clients_are_lost_by_nobody(tmp_path: Path) -> None:
    """Read and conditional put: what was told to be done is there, once, in some order."""
    async with region(tmp_path) as here, here.client() as first, here.client() as second:
        done: list[str] = []

        async def add(client: RegistrationClient, number: int) -> None:
            for turn in range(5):
                element = f"{number}-{turn}"
                while not (told := await client.append(NAME, element)).ok:
                    assert told.ok is False and code_of(told) in (Code.CONFLICT, Code.BUSY)
                done.append(element)

        await asyncio.gather(*(add(client, number) for number, client in enumerate([first, second] * 3)))
        [found] = await first.get([NAME])
        listed = found.values[0].data.decode().split(",")
        assert sorted(listed) == sorted(done) and len(listed) == 30
        for number in range(6):
            assert [one for one in listed if one.startswith(f"{number}-")] == [f"{number}-{turn}" for turn in range(5)]


async def test_many_in_one_stream_have_an_outcome_each(tmp_path: Path) -> None:
    async with region(tmp_path) as here, here.client() as client:
        changes = [Put(f"{PREFIX}/{number:05}", url(str(number))) for number in range(3_000)]
        changes[10] = Put(f"{PREFIX}/00011", url("first"), PRESENT)
        changes[20] = Put("88.999/X", url("x"))
        changes[30] = Put(f"{PREFIX}/00029", (), PRESENT)
        done = await client.put_many(changes)
        assert [place for place, one in enumerate(done) if not one.ok] == [10, 20]
        assert (code_of(done[10]), code_of(done[20])) == (Code.CONFLICT, Code.NOT_OWNER)
        state = here.world.copy(HOSTED).store.state()
        assert state.records == 3_000 - 4, "two refused, one deleted that was put, and 00030 never put"
        assert state.index < 300, "many share an entry: alone they would be 3,000"
        names = [found.identifier async for found in client.list(PREFIX, page=700, names_only=True)]
        assert names == sorted(names) and len(names) == state.records


async def test_listing_holds_every_record_once(tmp_path: Path) -> None:
    async with region(tmp_path) as here, here.client() as client:
        names = [f"{PREFIX}/{number:03}" for number in range(50)] + [f"{PREFIX}.5/{number}" for number in range(9)]
        await client.put_many([Put(name, url(name)) for name in names])
        await client.put(f"{PREFIX}.CS/MixedCase", url("m"))
        await client.put(f"{PREFIX}/folded", url("f"))
        for page in (1, 7, 1_000):
            found = [one async for one in client.list(PREFIX, page=page)]
            assert {one.identifier for one in found} == {*names, f"{PREFIX}.CS/MixedCase", f"{PREFIX}/folded"}
            assert len(found) == len(names) + 2 and all(one.values for one in found)
        below = [one.identifier async for one in client.list(f"{PREFIX}.5")]
        assert below == [f"{PREFIX}.5/{number}" for number in range(9)]
        assert [one async for one in client.list(f"{PREFIX}.6")] == []
        stub = client._stub(here.addresses[0])
        for token in (b"\x01h88\x01118\x018\0", b"\x02h88", b"\x01", b"\xff" * 5_000):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.List(registration_pb2.ListRequest(prefix=PREFIX, page_token=token))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_registrar_writes_and_reads_its_own_source_alone(tmp_path: Path) -> None:
    async with region(tmp_path) as here, here.client() as mine, here.client(here.stranger) as strange:
        assert (await mine.put(NAME, url("a"))).ok
        for done in (
            await strange.put(NAME, url("b")),
            await strange.delete(NAME),
            *(await strange.put_many([Put(NAME, url("c"))])),
        ):
            assert (done.ok, code_of(done)) == (False, Code.NOT_AUTHORISED)
        for read in (strange.get([NAME]), anext(strange.list(PREFIX)), strange.get([NAME], stale=True)):
            with pytest.raises(ZaibeiError) as refused:
                await read
            assert refused.value.code is Code.NOT_AUTHORISED
        assert (await strange.put(f"{OTHER_PREFIX}/A", url("b"))).ok
        with pytest.raises(ZaibeiError) as refused:
            await mine.get([NAME, f"{OTHER_PREFIX}/A"])
        assert refused.value.code is Code.NOT_AUTHORISED
        [found] = await mine.get([NAME])
        assert found.values == tuple(url("a"))
        assert here.world.copy(HOSTED).store.state().position.seq == 1


async def test_a_strangers_certificate_does_not_get_in(tmp_path: Path) -> None:
    unknown = ensure_identity(tmp_path / "unknown", "tenant-9")  # the right name, another key
    async with region(tmp_path) as here, here.client(unknown, patience_s=1.5) as client:
        done = await client.put(NAME, url("a"))
        assert (done.ok, code_of(done), done.tries) == (False, Code.UNREACHABLE, 0), "nothing was sent"


MALFORMED = [
    (b"", "empty"),
    (b"\0\0\0\0", "no value"),
    (b"\xff" * 40, "not values"),
    (encode_values(url("a")) + b"x", "octets behind the values"),
    (encode_values([HandleValue(1, b"URL", b"a"), HandleValue(1, b"URL", b"b")]), "an index twice"),
    (encode_values([HandleValue(1, b"", b"a")]), "no type"),
    (encode_values([HandleValue(1, b"\xff", b"a")]), "a type that is not UTF-8"),
    (encode_values([HandleValue(1, b"T" * 256, b"a")]), "a long type"),
    (encode_values([HandleValue(1, b"URL", b"a" * 260_000)]), "a record over 252 KiB"),
    (encode_values([HandleValue(1, b"URL", b"a", references=(Reference(b"", 1),))]), "a reference to nothing"),
    (encode_values([HandleValue(1, b"URL", b"a", references=(Reference(b"x", 1),) * 65)]), "many references"),
    (encode_values([HandleValue(1, b"URL", b"a", references=(Reference(b"x" * 3_000, 1),))]), "a long reference"),
]


@pytest.fixture
async def stub_of(tmp_path: Path) -> object:
    async with region(tmp_path) as here, here.client() as client:
        yield client._stub(here.addresses[0]), here


async def refused_by(call: object) -> tuple[grpc.StatusCode, registration_pb2.Refusal]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call  # type: ignore[misc]
    metadata = dict(refused.value.trailing_metadata() or ())
    return refused.value.code(), registration_pb2.Refusal.FromString(metadata.get(REFUSAL_KEY, b""))


async def test_bad_input_is_refused_with_a_reason_and_changes_nothing(stub_of: tuple[object, Region]) -> None:
    stub, here = stub_of
    Need = registration_pb2.Precondition
    puts = [(NAME, values, None, why) for values, why in MALFORMED]
    good = encode_values(url("a"))
    puts += [
        ("", good, None, "no name"),
        ("a" * 3_000, good, None, "a long name"),
        (f"{PREFIX}//", b"", None, "odd name, no values"),
        ("..//", good, None, "empty segments"),
        (NAME, good, Need(kind=99), "unknown precondition"),  # type: ignore[arg-type]
        (NAME, good, Need(kind=Need.KIND_EQUAL, value_hash=b"short"), "short hash"),
        (NAME, good, Need(kind=Need.KIND_ABSENT, value_hash=bytes(32)), "a hash with absent"),
        (NAME, good, Need(value_hash=bytes(32)), "a hash alone"),
    ]
    for name, values, need, why in puts:
        request = registration_pb2.PutRequest(identifier=name, values=values, precondition=need)
        status, refusal = await refused_by(stub.Put(request))  # type: ignore[attr-defined]
        assert (status, refusal.code, refusal.definite) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed", True), why
        assert refusal.message, why
    for name, code in (("88.119/A", "not_owner"), ("0.NA/88.118.9", "not_owner"), ("gs1:01/09506000134352", "not_owner")):
        _, refusal = await refused_by(stub.Put(registration_pb2.PutRequest(identifier=name, values=good)))  # type: ignore[attr-defined]
        assert refusal.code == code, name
    gets = [[], [NAME] * 1_001, [""], [NAME, f"{OTHER_PREFIX}/X"]]
    for names in gets:
        await refused_by(stub.Get(registration_pb2.GetRequest(identifiers=names)))  # type: ignore[attr-defined]
    for request in (
        registration_pb2.ListRequest(),
        registration_pb2.ListRequest(prefix=PREFIX, limit=1_001),
        registration_pb2.ListRequest(prefix="a..b"),
    ):
        status, _ = await refused_by(stub.List(request))  # type: ignore[attr-defined]
        assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert here.world.copy(HOSTED).store.state().position.seq == 0
    request = registration_pb2.PutRequest(identifier="0.NA/88.118.9.4", values=good)
    await stub.Put(request)  # type: ignore[attr-defined] - a prefix below ours has its own record with us


async def test_a_message_that_is_too_large_ends_its_call_alone(stub_of: tuple[object, Region]) -> None:
    stub, _ = stub_of
    huge = registration_pb2.PutRequest(identifier=NAME, values=b"x" * (5 << 20))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Put(huge)  # type: ignore[attr-defined]
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    many = registration_pb2.PutManyRequest(changes=[registration_pb2.Change(identifier=NAME)] * 1_001)

    async def messages() -> object:
        yield many

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in stub.PutMany(messages()):  # type: ignore[attr-defined]
            pass
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await stub.Put(registration_pb2.PutRequest(identifier=NAME, values=encode_values(url("a"))))).position.seq == 1  # type: ignore[attr-defined]


async def test_octets_that_are_no_message(tmp_path: Path) -> None:
    async with region(tmp_path) as here:
        credentials = grpc.ssl_channel_credentials(
            here.identity.certificate_pem, here.tenant.tls_key_pem, here.tenant.certificate_pem
        )
        async with grpc.aio.secure_channel(here.addresses[0], credentials, options=OPTIONS) as channel:
            for method in ("Put", "Delete", "Get", "List"):
                call = channel.unary_unary(f"/hosting.v1.Registration/{method}")
                with pytest.raises(grpc.aio.AioRpcError):
                    await call(b"\xff\xff\xff\x01")
        async with here.client() as client:
            assert (await client.put(NAME, url("a"))).ok


async def test_who_goes_away_leaves_nothing_behind(stub_of: tuple[object, Region]) -> None:
    stub, here = stub_of
    calls = [
        stub.Put(registration_pb2.PutRequest(identifier=f"{PREFIX}/{number}", values=encode_values(url("a"))))  # type: ignore[attr-defined]
        for number in range(200)
    ]
    await asyncio.sleep(0.005)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    async with here.client() as client:
        assert (await client.put(NAME, url("a"))).ok
    office = next(iter(here.port._offices._open.values()))
    assert (office.clerk.desk.waiting, office.clerk.desk.in_flight, office.clerk._told) == (0, 0, {})


async def test_a_source_that_was_copied_is_not_hosted_by_a_line(tmp_path: Path) -> None:
    async with region(tmp_path) as here:
        copy = here.world.copy(HOSTED)
        copied = replace(copy.store.state(), authority=Authority.SOURCE, authority_act="")
        with pytest.raises(ZaibeiError) as refused:
            next_founding(copied, copy.lineage, copy.signer)
        assert refused.value.code is Code.REFUSED
        with pytest.raises(ZaibeiError) as refused:
            reseed.plan_of(here.member, HOSTED)
        assert refused.value.code is Code.REFUSED, "this store may be the only copy"


async def test_stopping_tells_definitely(tmp_path: Path) -> None:
    async with region(tmp_path) as here, here.client(patience_s=2.0) as client:
        assert (await client.put(NAME, url("a"))).ok
        await here.port.stop()
        done = await client.put(NAME, url("b"), NOTHING)
        assert done.ok is not True
        assert isinstance(here.tenant, Identity)
