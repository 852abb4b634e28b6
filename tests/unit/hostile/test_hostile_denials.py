"""Each refused attempt is counted, with who, at which source and why: over every protocol, and nothing else is."""

from __future__ import annotations

import pytest

from hosting.guard.guesses import WRONG_PER_MINUTE
from hosting.tenant.denials import NO_RIGHT, NOBODY, NOT_HEARD, NOT_PROVED
from hosting.tenant.papers import Quota, Right, Tenant
from hosting.v1 import registration_pb2
from replica.model.handle.bodies import HandleRequest
from replica.model.handle.codes import OpCode
from replica.model.handle.values import Reference, encode_values
from replica.model.identity import Peer
from tests.unit.hostile.hostile_world import KEYS, NAMES, SECRETS, SEEN, A, B, C, Calling, Place, Refused, basic, changes, url


def counted(place: Place) -> set[tuple[str, str, str, int]]:
    return {(one.source, one.who, one.why, one.count) for one in place.offices.denials.rest()}


async def test_refusals_over_handle_and_json() -> None:
    place, me = Place(), f"300:{A}/ADMIN"
    for op, body in changes(f"{B}/DATA", KEYS[A]):
        await place.ask(op, body, KEYS[A], SECRETS[A])
    await place.code(OpCode.LIST_HANDLES, HandleRequest(f"0.NA/{C}".encode()))
    await place.json("PUT", f"/api/handles/{B}/X", basic(KEYS[A], SECRETS[A]), [{"index": 1, "type": "URL", "data": "x"}])
    await place.json("GET", f"/api/handles?prefix={B}", basic(KEYS[A], SECRETS[A]))
    assert [await place.code(op, body) for op, body in changes(f"{A}/NEW", KEYS[A])] == [1, 1, 1, 1]
    assert await place.code(OpCode.DELETE_HANDLE, HandleRequest(f"{A}/NONE".encode())) == 100
    # a list of C is asked of its prefix's record, which A keeps
    assert counted(place) == {(NAMES[B], me, NO_RIGHT, 5), ("", me, NO_RIGHT, 1), (NAMES[A], me, NO_RIGHT, 1)}


async def test_wrong_proofs_by_whom_they_claim_to_be() -> None:
    place, nobody = Place(), Reference(f"{B}/NOBODY".encode(), 300)
    ask = (OpCode.DELETE_HANDLE, HandleRequest(f"{B}/DATA".encode()))
    for key in (KEYS[B], KEYS[B], nobody):
        await place.ask(*ask, key, b"guessed")
    await place.json("DELETE", f"/api/handles/{B}/DATA", basic(KEYS[B], b"guessed"))
    for _ in range(WRONG_PER_MINUTE):
        await place.json("DELETE", f"/api/handles/{B}/DATA", basic(nobody, b"guessed"))
    rows = place.offices.denials.rest()
    assert {(one.who, one.why, one.count) for one in rows} == {
        (f"300:{B}/ADMIN", NOT_PROVED, 3), (f"300:{B}/NOBODY", NOT_PROVED, 17), (f"300:{B}/NOBODY", NOT_HEARD, 4)}  # fmt: skip
    assert {one.client for one in rows} == {SEEN}


async def test_over_quota_and_suspended() -> None:
    place, me = Place(), f"300:{A}/ADMIN"
    place.say(A, NAMES[A], Tenant(title="A"))
    place.say(A, "r1", Right(who=me, operations=("create", "modify", "delete"), under=A))
    place.say(A, "tenant", Quota(registrations_per_s=1.0, burst_s=1.0))
    create = changes(f"{A}/N1", KEYS[A])[0]
    assert await place.code(*create) == 1
    with pytest.raises(AssertionError):  # refused before a challenge
        await place.code(*changes(f"{A}/N2", KEYS[A])[0])
    assert counted(place) == {(NAMES[A], NOBODY, "over quota", 1)}
    place.say(A, "tenant", Quota())
    place.say(A, NAMES[A], Tenant(title="A", suspended="unpaid"))
    await place.code(*changes(f"{A}/N3", KEYS[A])[0])
    assert counted(place) == {(NAMES[A], me, "registrations are refused", 1)}


async def test_refusals_over_grpc(peers: dict[str, Peer]) -> None:
    place, me = Place(peers), Calling(peers[A].certificate_pem)
    put = registration_pb2.PutRequest(identifier=f"{B}/X", values=encode_values([url()]))

    async def stream():  # type: ignore[no-untyped-def]
        names = enumerate(f"{prefix}/X" for prefix in (A, B, C, C))
        changes = [registration_pb2.Change(number=number, identifier=name, values=put.values) for number, name in names]
        yield registration_pb2.PutManyRequest(changes=changes)

    for caller in (me, Calling(b"")):
        with pytest.raises(Refused):
            await place.service.Put(put, caller)  # type: ignore[arg-type]
    async for _ in place.service.PutMany(stream(), me):  # type: ignore[arg-type]
        pass
    who = peers[A].fingerprint
    unknown = ("", "a certificate that is no registrar's", NO_RIGHT, 1)
    assert counted(place) == {unknown, (NAMES[B], who, NO_RIGHT, 2), (NAMES[C], who, NO_RIGHT, 2)}
