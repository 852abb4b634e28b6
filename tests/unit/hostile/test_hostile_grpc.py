"""The registrar of one tenant, and strangers, against the data of another over hosting.v1.Registration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hosting.tenant.memory import MemoryGroup
from hosting.tenant.offices import Offices, OfficeSettings
from hosting.tenant.pages import token_after
from hosting.tenant.papers import Right, Tenant
from hosting.v1 import registration_pb2
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import decode_values, encode_values
from replica.model.identifier import Identifier, prefix_key
from replica.model.identity import Peer, Pins
from replica.model.precondition import value_hash
from tests.unit.hostile.hostile_world import KEYS, NAMES, NOW_MS, SECRETS, A, B, C, Calling, Place, Refused, admin, url


@pytest.mark.parametrize("name", [f"{B}/DATA", f"{B}/NONE", f"{C}/DATA", f"{C}/data", f"0.NA/{B}.1", f"0.NA/{C}.1"])
async def test_a_registrar_of_a_is_told_the_same_of_what_is_there_and_what_is_not(name: str, peers: dict[str, Peer]) -> None:
    place = Place(peers)
    before, me = place.kept(B, C), Calling(peers[A].certificate_pem)
    put = registration_pb2.PutRequest(identifier=name, values=encode_values([url()]))
    calls = [
        place.service.Put(put, me),  # type: ignore[arg-type]
        place.service.Delete(registration_pb2.DeleteRequest(identifier=name), me),  # type: ignore[arg-type]
        place.service.Get(registration_pb2.GetRequest(identifiers=[name]), me),  # type: ignore[arg-type]
        place.service.Get(registration_pb2.GetRequest(identifiers=[f"{A}/DATA", name], stale=True), me),  # type: ignore[arg-type]
    ]
    told = set()
    for call in calls:
        with pytest.raises(Refused) as refused:
            await call
        told.add(refused.value.args)
    owner = NAMES[B] if B in name else NAMES[C]
    [(status, text)] = told
    assert status == "PERMISSION_DENIED" and f"is no registrar of {owner}" in text and "DATA" not in text.upper()
    assert place.kept(B, C) == before


async def test_a_stream_of_many_prefixes_changes_its_own_alone(peers: dict[str, Peer]) -> None:
    place = Place(peers)
    before = place.kept(B, C)
    names = [f"{A}/X", f"{B}/X", f"{A}.2/X", f"{C}/X", f"0.NA/{C}.5", f"{A}/Y", f"{B}/DATA", f"{C}/DATA"]

    async def messages() -> AsyncIterator[registration_pb2.PutManyRequest]:
        yield registration_pb2.PutManyRequest(
            changes=[
                registration_pb2.Change(number=number, identifier=name, values=encode_values([url()]))
                for number, name in enumerate(names)
            ]
        )

    me = Calling(peers[A].certificate_pem)
    found = {
        one.number: one.refusal.code
        async for said in place.service.PutMany(messages(), me)  # type: ignore[arg-type]
        for one in said.results
    }
    assert found == {n: "" if n in (0, 2, 5) else "not_authorised" for n in range(len(names))}
    assert place.kept(B, C) == before


async def test_a_page_token_of_another_tenant_opens_nothing(peers: dict[str, Peer]) -> None:
    place = Place(peers)
    me, its = Calling(peers[A].certificate_pem), Calling(peers[B].certificate_pem)
    page = await place.service.List(registration_pb2.ListRequest(prefix=B, limit=1), its)  # type: ignore[arg-type]
    assert page.next_page_token
    for prefix in (A, B, C):
        with pytest.raises(Refused) as refused:
            await place.service.List(registration_pb2.ListRequest(prefix=prefix, page_token=page.next_page_token), me)  # type: ignore[arg-type]
        assert refused.value.args[0] == ("INVALID_ARGUMENT" if prefix == A else "PERMISSION_DENIED")
    below = token_after(Identifier.parse(f"{C}/A").key())  # C lies in A's range: the token is taken, and A's own are told
    told = await place.service.List(registration_pb2.ListRequest(prefix=A, page_token=below), me)  # type: ignore[arg-type]
    whole = await place.service.List(registration_pb2.ListRequest(prefix=A), me)  # type: ignore[arg-type]
    assert not any(one.identifier.startswith((f"{B}/", f"{C}/")) for one in [*told.records, *whole.records])
    assert any(one.identifier == f"{A}/DATA" for one in whole.records)


@pytest.mark.parametrize("known", [False, True])
async def test_who_shows_no_certificate_of_ours_reaches_no_desk(known: bool, peers: dict[str, Peer], tmp_path: Path) -> None:
    place = Place(peers)
    pem = ensure_identity(tmp_path, NAMES[B]).certificate_pem if known else b""  # the right name, another key
    with pytest.raises(Refused) as refused:
        await place.service.Get(registration_pb2.GetRequest(identifiers=[f"{B}/DATA"]), Calling(pem))  # type: ignore[arg-type]
    assert refused.value.args[0] == "PERMISSION_DENIED" and NAMES[B] not in refused.value.args[1]


async def test_a_prefix_is_one_in_any_spelling_and_so_is_its_owner(peers: dict[str, Peer]) -> None:
    settings = [
        OfficeSettings("region-a", (prefix_key(A),), Pins((peers[A],))),
        OfficeSettings("works", (prefix_key(f"{A}.Works"),), Pins((peers[B],))),
    ]
    groups = {one.source: MemoryGroup(one.source, one.prefixes) for one in settings}
    offices = Offices(settings, groups.get, lambda: NOW_MS)
    for spelled in ("works", "WORKS", "wOrKs"):
        assert offices.office(prefix_key(f"{A}.{spelled}"), peers[B]).source == "works"
        with pytest.raises(ZaibeiError) as refused:
            offices.office(prefix_key(f"{A}.{spelled}"), peers[A])
        assert refused.value.code is Code.NOT_AUTHORISED
    assert offices.office(prefix_key(f"{A}.workshop"), peers[A]).source == "region-a"


async def test_a_registrar_without_the_right_to_read_is_told_no_secret(peers: dict[str, Peer]) -> None:
    """With a secret key it could sign in as an administrator, who has more rights than it."""
    place, me = Place(peers), Calling(peers[A].certificate_pem)
    asked = registration_pb2.GetRequest(identifiers=[f"{A}/ADMIN", f"{A}/DATA", f"{A}/OPEN"])
    listed = registration_pb2.ListRequest(prefix=A)
    place.put(A, f"{A}/OPEN", url(), admin(KEYS[A]))
    whole = await place.service.Get(asked, me)  # type: ignore[arg-type]
    assert SECRETS[A] in whole.records[0].values and all(one.value_hash for one in whole.records), "no documents: all of it"
    place.say(A, NAMES[A], Tenant(title="A"))
    place.say(A, "r1", Right(who=peers[A].fingerprint, operations=("create", "list"), under=A))
    place.say(A, "r2", Right(who=peers[A].fingerprint, operations=("read",), under=f"{A}.7"))
    told = await place.service.Get(asked, me)  # type: ignore[arg-type]
    page = await place.service.List(listed, me)  # type: ignore[arg-type]
    names = await place.service.List(registration_pb2.ListRequest(prefix=A, names_only=True), me)  # type: ignore[arg-type]
    for answer in (told, page, names):
        octets = answer.SerializeToString()
        assert SECRETS[A] not in octets and b"hidden" not in octets
        assert not any(value_hash(place.groups[A].content.records[key]) in octets for key in place.hiding(A)), "nor its hash"
    assert decode_values(told.records[1].values) == (url(), admin(KEYS[A])) and told.records[0].found
    assert told.records[2] == whole.records[2], "where nothing is kept back, all is told"
    place.say(A, "r3", Right(who=peers[A].fingerprint, operations=("read",), under=A))
    assert await place.service.Get(asked, me) == whole  # type: ignore[arg-type]


async def test_whose_prefix_moved_away_is_told_nothing_of_it(peers: dict[str, Peer]) -> None:
    place, me = Place(peers), Calling(peers[B].certificate_pem)
    assert (await place.service.List(registration_pb2.ListRequest(prefix=B), me)).records  # type: ignore[arg-type]
    place.groups[B].change_state(prefixes=(prefix_key("88.118.91"),), ownership_version=2)
    for call in (
        place.service.List(registration_pb2.ListRequest(prefix=B), me),  # type: ignore[arg-type]
        place.service.Get(registration_pb2.GetRequest(identifiers=[f"{B}/DATA"]), me),  # type: ignore[arg-type]
    ):
        with pytest.raises(Refused) as refused:
            await call
        assert refused.value.args[0] == "PERMISSION_DENIED"
