"""Registration over the Handle protocol, from octets to octets, against a memory twin of a hosted source."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from hosting.answer.port import MemoryAnswerPort
from hosting.guard.guesses import WRONG_PER_MINUTE
from hosting.handle.edge_look import Looks
from hosting.handle.edge_registrar import CHANGES, REGISTERS, Registrar, Sources
from hosting.tenant.memory import MemoryGroup
from hosting.tenant.offices import Offices, OfficeSettings
from hosting.tenant.papers import Quota, Right, Tenant, key_of, value_of
from replica.model.catalog import Catalog, Owner
from replica.model.errors import Code, Trouble
from replica.model.handle import admin_bodies, proofs
from replica.model.handle.bodies import (
    ErrorResponse,
    HandleRequest,
    IndexesRequest,
    ListResponse,
    Request,
    ValuesRequest,
    decode_response,
)
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, OpFlag, ResponseCode
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_message, request_digest
from replica.model.handle.proofs import MacCode
from replica.model.handle.types import ADMIN_ALL, AdminPermission, HsAdmin, encode_admin, encode_vlist
from replica.model.handle.values import HandleValue, Reference, decode_record, encode_record
from replica.model.identifier import Identifier, PrefixTree, prefix_key
from replica.model.identity import Pins
from replica.model.states import Freshness, Mode
from replica.model.view import SourceView

PREFIX = "88.118.9"
KEY = Reference(b"88.118.9/ADMIN", 300)
OTHER = Reference(b"88.118.9/OTHER", 300)
SECRETS = {KEY: b"a secret", OTHER: b"another"}
NOW_MS = 1_700_000_000_000


def admin(key: Reference = KEY, bits: int = ADMIN_ALL, index: int = 100) -> HandleValue:
    return HandleValue(index, b"HS_ADMIN", encode_admin(HsAdmin(bits, key)))


def url(index: int = 1, data: bytes = b"x") -> HandleValue:
    return HandleValue(index, b"URL", data)


def group(*references: Reference) -> HandleValue:
    return HandleValue(200, b"HS_VLIST", encode_vlist(references))


class World:
    """A hosted source, the copy of its parent's node, and a client that answers challenges."""

    def __init__(self, *above: HandleValue, server_key: rsa.RSAPrivateKey | None = None) -> None:
        self.group = MemoryGroup("region-9", [prefix_key(PREFIX)])
        for key, secret in SECRETS.items():
            self.put(key.handle.decode(), HandleValue(key.index, b"HS_SECKEY", secret, permissions=0x0C), admin(key))
        route = Identifier.parse(f"0.NA/{PREFIX}").key()
        view = SourceView("top", age_ms=10, freshness=Freshness.FRESH, ready=True)
        self.port = MemoryAnswerPort(
            Catalog(1, PrefixTree({prefix_key("88.118"): Owner("top", Mode.RECORDS)})),
            {"top": view},
            {"top": {route: encode_record(above or (admin(),))}},
        )
        self.now_ms = NOW_MS
        chance = itertools.count(1)
        offices = Offices(
            [OfficeSettings("region-9", (prefix_key(PREFIX),), Pins(()))], lambda _: self.group, lambda: self.now_ms
        )
        random: Callable[[int], bytes] = lambda octets: next(chance).to_bytes(octets, "big")  # noqa: E731
        sources = Sources(lambda: self.now_ms, random)
        self.registrar = Registrar(Looks(offices, self.port), sources, server_key=server_key)

    def put(self, name: str, *values: HandleValue) -> None:
        self.group.content.records[Identifier.parse(name).key()] = encode_record(values)

    def values(self, name: str) -> tuple[HandleValue, ...] | None:
        record = self.group.content.records.get(Identifier.parse(name).key())
        return None if record is None else decode_record(record).values

    async def send(self, octets: bytes, client: str = "192.0.2.1") -> Message:
        [answer] = await self.registrar.answer(octets, client)
        return decode_message(answer)

    async def challenged(self, op: OpCode, body: Request, flags: int = 0) -> tuple[Message, bytes]:
        octets = request(op, body, flags)
        said = await self.send(octets)
        assert said.header.response_code == ResponseCode.AUTHENTICATION_NEEDED
        return said, octets

    async def ask(self, op: OpCode, body: Request, *, key: Reference = KEY, flags: int = 0) -> tuple[int, Message]:
        """(response code, first answer) of a request whose challenge is answered."""
        said, octets = await self.challenged(op, body, flags)
        found = await self.send(answer_of(said, octets, key))
        return found.header.response_code, found


def request(op: int, body: Request, flags: int = 0) -> bytes:
    return encode_message(Message(Envelope(7, 0), Header(op, flags=FLAGS_DEFAULT | flags), body.encode()))


def answer_of(said: Message, octets: bytes, key: Reference = KEY, secret: bytes | None = None) -> bytes:
    challenge = admin_bodies.decode_challenge(said)
    assert request_digest(octets, admin_bodies.digest_type_for((2, 11)))[1:] == challenge.digest
    proof = proofs.prove_secret(
        SECRETS[key] if secret is None else secret, challenge.nonce, challenge.digest, MacCode.HMAC_SHA256
    )
    body = admin_bodies.ChallengeAnswer(admin_bodies.HS_SECKEY, key, proof).encode()
    return encode_message(Message(Envelope(8, 0, session_id=said.envelope.session_id), Header(OpCode.CHALLENGE_RESPONSE), body))


CREATE = ValuesRequest(b"88.118.9/New", (url(), admin()))
NAME = "88.118.9/New"


async def test_a_handle_lives_from_create_to_delete() -> None:
    world = World()
    code, said = await world.ask(OpCode.CREATE_HANDLE, CREATE)
    assert code == 1 and said.envelope.request_id == 8 and said.header.op_code == OpCode.CREATE_HANDLE
    assert said.header.expiration == NOW_MS // 1_000 + 43_200
    steps: Sequence[tuple[OpCode, Request, int, list[int] | None]] = [
        (OpCode.CREATE_HANDLE, CREATE, 101, [1, 100]),
        (OpCode.ADD_VALUE, ValuesRequest(b"88.118.9/NEW", (url(2),)), 1, [1, 2, 100]),
        (OpCode.ADD_VALUE, ValuesRequest(b"88.118.9/NEW", (url(2),)), 201, [1, 2, 100]),
        (OpCode.MODIFY_VALUE, ValuesRequest(b"88.118.9/NEW", (url(2, b"y"),)), 1, [1, 2, 100]),
        (OpCode.REMOVE_VALUE, IndexesRequest(b"88.118.9/NEW", (1,)), 1, [2, 100]),
        (OpCode.DELETE_HANDLE, HandleRequest(b"88.118.9/NEW"), 1, None),
        (OpCode.DELETE_HANDLE, HandleRequest(b"88.118.9/NEW"), 100, None),
    ]
    for op, body, wanted, indexes in steps:
        code, _ = await world.ask(op, body)
        values = world.values(NAME)
        assert (code, None if values is None else [value.index for value in values]) == (wanted, indexes), op


async def test_a_name_keeps_the_spelling_it_was_created_with() -> None:
    world = World()
    assert (await world.ask(OpCode.CREATE_HANDLE, CREATE))[0] == 1
    assert (await world.ask(OpCode.ADD_VALUE, ValuesRequest(b"88.118.9/NEW", (url(2),))))[0] == 1
    record = world.group.content.records[Identifier.parse(NAME).key()]
    assert decode_record(record).spelling == b"88.118.9/New"
    assert [value.timestamp for value in decode_record(record).values] == [NOW_MS // 1_000] * 3


async def test_a_minted_name_is_told() -> None:
    world = World()
    code, said = await world.ask(OpCode.CREATE_HANDLE, ValuesRequest(b"88.118.9/M-", (admin(),)), flags=OpFlag.MINT)
    name = said.body[4:].decode()
    assert code == 1 and name.startswith("88.118.9/M-") and len(name) == len("88.118.9/M-") + 32
    assert world.values(name) is not None


async def test_overwriting_replaces_the_whole_record() -> None:
    world = World()
    world.put(NAME, url(5), admin())
    assert (await world.ask(OpCode.CREATE_HANDLE, CREATE, flags=OpFlag.OVERWRITE))[0] == 1
    assert [value.index for value in world.values(NAME) or ()] == [1, 100]


async def test_a_list_comes_in_messages_and_holds_this_prefix_alone() -> None:
    world = World()
    for number in range(120):
        world.put(f"{PREFIX}/{number:03}", admin())
    world.put(f"{PREFIX}.1/BELOW", admin())
    said, octets = await world.challenged(OpCode.LIST_HANDLES, HandleRequest(b"0.NA/88.118.9"))
    answers = [decode_message(one) for one in await world.registrar.answer(answer_of(said, octets), "192.0.2.1")]
    found = [decode_response(one) for one in answers]
    names = [name for one in found if isinstance(one, ListResponse) for name in one.handles]
    assert names == sorted(names) and len(names) == 122 and b"88.118.9.1/BELOW" not in names
    assert [bool(one.header.flags & OpFlag.CONTINUOUS) for one in answers] == [True, True, False]


# ---------------------------------------------------------------------------------------------------------- who may not
async def test_nothing_is_done_or_told_before_a_proof() -> None:
    world = World()
    bodies: dict[int, Request] = {OpCode.REMOVE_VALUE: IndexesRequest(b"88.118.9/X", (1,))}
    values = ValuesRequest(b"88.118.9/X", (admin(),))
    bodies |= dict.fromkeys((OpCode.CREATE_HANDLE, OpCode.ADD_VALUE, OpCode.MODIFY_VALUE), values)
    bodies |= dict.fromkeys((OpCode.DELETE_HANDLE, OpCode.LIST_HANDLES), HandleRequest(b"88.118.9/X"))
    assert {*bodies} == CHANGES
    for op, body in bodies.items():
        assert (await world.send(request(op, body))).header.response_code == ResponseCode.AUTHENTICATION_NEEDED
    assert world.group.content.position.seq == world.group.barriers == 0
    assert (await world.send(request(OpCode.LIST_NA, HandleRequest(b"0.NA/1")))).header.response_code == 5


@pytest.mark.parametrize("why", ["secret", "key", "index", "kind", "late", "client", "replay", "session"])
async def test_what_is_no_proof_changes_nothing(why: str) -> None:
    world = World()
    said, octets = await world.challenged(OpCode.CREATE_HANDLE, CREATE)
    answer, client, wanted = answer_of(said, octets), "192.0.2.1", ResponseCode.AUTHEN_TIMEOUT
    if why == "secret":
        answer, wanted = answer_of(said, octets, secret=b"guessed"), ResponseCode.AUTHENTICATION_FAILED
    elif why in ("key", "index"):
        nobody = Reference(b"88.118.9/NOBODY", 300) if why == "key" else Reference(KEY.handle, 0)
        answer, wanted = answer_of(said, octets, nobody, SECRETS[KEY]), ResponseCode.AUTHENTICATION_FAILED
    elif why == "kind":
        body = admin_bodies.ChallengeAnswer(b"HS_OTHER", KEY, b"").encode()
        answer = encode_message(
            Message(Envelope(8, 0, session_id=said.envelope.session_id), Header(OpCode.CHALLENGE_RESPONSE), body)
        )
        wanted = ResponseCode.AUTHENTICATION_FAILED
    elif why == "late":
        world.now_ms += 60_000
    elif why == "client":
        client = "192.0.2.2"
    elif why == "replay":
        await world.send(answer_of(said, octets, secret=b"guessed"))
    else:
        answer = answer[:4] + b"\x7f\0\0\1" + answer[8:]
    assert (await world.send(answer, client)).header.response_code == wanted
    assert world.values(NAME) is None and world.group.content.position.seq == 0


async def test_a_key_of_nobodys_concern_is_told_nothing_of_the_record() -> None:
    world = World()
    world.put(NAME, url(), admin())
    for body in (CREATE, ValuesRequest(b"88.118.9/NONE", (admin(),))):
        assert (await world.ask(OpCode.CREATE_HANDLE, body, key=OTHER))[0] == ResponseCode.INSUFFICIENT_PERMISSIONS
        assert (await world.ask(OpCode.ADD_VALUE, body, key=OTHER))[0] == ResponseCode.INSUFFICIENT_PERMISSIONS
    gone = await world.ask(OpCode.DELETE_HANDLE, HandleRequest(b"88.118.9/NEW"), key=OTHER)
    listed = await world.ask(OpCode.LIST_HANDLES, HandleRequest(b"0.NA/88.118.9"), key=OTHER)
    assert gone[0] == listed[0] == ResponseCode.INSUFFICIENT_PERMISSIONS
    assert world.group.content.position.seq == 0


@pytest.mark.parametrize(
    ("bits", "code"),
    [
        (AdminPermission.ADD_VALUE, 1),
        (AdminPermission.ADD_ADMIN, 401),
        (ADMIN_ALL & ~AdminPermission.ADD_VALUE, 401),
    ],
)
async def test_each_operation_needs_its_bit(bits: int, code: int) -> None:
    world = World()
    world.put(NAME, admin(OTHER, bits))
    assert (await world.ask(OpCode.ADD_VALUE, ValuesRequest(b"88.118.9/NEW", (url(),)), key=OTHER))[0] == code


async def test_groups_give_what_their_administrator_value_says() -> None:
    world = World(admin(Reference(b"88.118.9/GROUP", 200), AdminPermission.ADD_HANDLE))
    assert (await world.ask(OpCode.CREATE_HANDLE, CREATE, key=OTHER))[0] == 401
    world.put("88.118.9/GROUP", group(Reference(b"88.118.9/GROUP", 200), OTHER), admin())
    assert (await world.ask(OpCode.CREATE_HANDLE, CREATE, key=OTHER))[0] == 1
    assert (await world.ask(OpCode.LIST_HANDLES, HandleRequest(b"0.NA/88.118.9"), key=OTHER))[0] == 401


async def test_another_sources_handle_is_not_registered_here() -> None:
    world = World()
    for name in (b"88.118/A", b"0.NA/88.118.9", b"88.118.90/A", b"0.NA/88"):
        code, _ = await world.ask(OpCode.CREATE_HANDLE, ValuesRequest(name, (admin(),)))
        assert code == ResponseCode.SERVER_NOT_RESP, name


async def test_a_prefix_record_that_nobody_vouches_for_permits_nothing() -> None:
    world = World()
    world.port.views["top"] = SourceView("top", ready=False)
    assert (await world.ask(OpCode.CREATE_HANDLE, CREATE))[0] == ResponseCode.ERROR
    world.put(NAME, url(), admin())
    assert (await world.ask(OpCode.DELETE_HANDLE, HandleRequest(b"88.118.9/NEW")))[0] == 1, "its own record permits it"


async def test_who_cannot_do_it_or_cannot_know_sends_the_client_on() -> None:
    world = World()
    world.group.leader = False
    assert (await world.ask(OpCode.CREATE_HANDLE, CREATE))[0] == ResponseCode.ERROR
    world.group.leader = True
    world.port.trouble = Trouble(Code.UNREACHABLE, "away")
    assert (await world.ask(OpCode.CREATE_HANDLE, CREATE))[0] == ResponseCode.ERROR
    assert world.values(NAME) is None


@pytest.mark.parametrize(
    ("suspended", "operations", "code"),
    [("", ("create",), 1), ("", ("delete",), ResponseCode.INSUFFICIENT_PERMISSIONS), ("unpaid", ("create",), 7)],
)
async def test_a_tenants_documents_must_permit_it_too(suspended: str, operations: tuple[str, ...], code: int) -> None:
    world = World()
    right = Right(who="300:88.118.9/ADMIN", operations=operations, under=PREFIX)
    tenant = Tenant(title="Region 9", suspended=suspended)
    for paper, ident in ((right, "r1"), (tenant, "region-9")):
        world.group.content.records[key_of(paper, ident)] = value_of(paper)
    assert (await world.ask(OpCode.CREATE_HANDLE, CREATE))[0] == code
    assert (world.values(NAME) is not None) is (code == 1)


async def test_two_that_race_lose_nothing() -> None:
    world = World()
    world.put(NAME, admin())
    asked = [world.ask(OpCode.ADD_VALUE, ValuesRequest(b"88.118.9/NEW", (url(index),))) for index in range(1, 5)]
    assert [code for code, _ in await asyncio.gather(*asked)] == [1, 1, 1, 1]
    assert [value.index for value in world.values(NAME) or ()] == [1, 2, 3, 4, 100]


async def test_an_error_says_why_and_whether_it_was_done() -> None:
    world = World()
    _, said = await world.ask(OpCode.CREATE_HANDLE, CREATE, key=OTHER)
    error = decode_response(said)
    assert isinstance(error, ErrorResponse) and b"300:88.118.9/OTHER may not" in (error.message or b"")


@given(st.binary(max_size=120), st.sampled_from(sorted(REGISTERS - {OpCode.VERIFY_CHALLENGE})))
def test_any_octets_are_answered_or_left_alone(body: bytes, op: int) -> None:
    async def run() -> None:
        world = World()
        octets = encode_message(Message(Envelope(7, 0), Header(op), body))
        for message in (octets, body, octets[: len(body)]):
            for answer in await world.registrar.answer(message, "192.0.2.1"):
                assert decode_message(answer).header.response_code > 1
        assert world.group.content.position.seq == 0

    asyncio.run(run())


async def test_who_guesses_a_key_is_not_heard_for_a_while() -> None:
    world = World()
    for _ in range(WRONG_PER_MINUTE):
        said, octets = await world.challenged(OpCode.CREATE_HANDLE, CREATE)
        found = await world.send(answer_of(said, octets, secret=b"guess"))
        assert found.header.response_code == ResponseCode.AUTHENTICATION_FAILED
    said, octets = await world.challenged(OpCode.CREATE_HANDLE, CREATE)
    found = await world.send(answer_of(said, octets))
    assert found.header.response_code == ResponseCode.SERVER_TOO_BUSY and world.values("88.118.9/New") is None
    assert world.registrar.judge.guesses.wrong_count == WRONG_PER_MINUTE
    octets = request(OpCode.CREATE_HANDLE, CREATE)
    said = await world.send(octets, "198.51.100.1")
    assert (await world.send(answer_of(said, octets), "198.51.100.1")).header.response_code == ResponseCode.SUCCESS
    world.now_ms += 60_000
    assert (await world.ask(OpCode.DELETE_HANDLE, HandleRequest(b"88.118.9/New")))[0] == ResponseCode.SUCCESS, "a minute later"


async def test_a_tenant_over_its_rate_is_asked_for_no_proof_and_strangers_take_nothing_from_it() -> None:
    world = World()
    for ident, paper in (
        ("region-9", Tenant(title="Region 9")),
        ("r", Right(who="300:88.118.9/ADMIN", operations=("create",), under=PREFIX)),
        ("tenant", Quota(registrations_per_s=1.0, burst_s=1.0)),
    ):
        world.group.content.records[key_of(paper, ident)] = value_of(paper)
    for _ in range(3):
        await world.challenged(
            OpCode.CREATE_HANDLE, ValuesRequest(b"88.118.9/a", (admin(),))
        )  # a stranger names it: no token goes
    assert (await world.ask(OpCode.CREATE_HANDLE, ValuesRequest(b"88.118.9/a", (admin(),))))[0] == ResponseCode.SUCCESS
    said = await world.send(request(OpCode.CREATE_HANDLE, ValuesRequest(b"88.118.9/b", (admin(),))))
    assert said.header.response_code == ResponseCode.SERVER_TOO_BUSY
    world.now_ms += 1_000
    assert (await world.ask(OpCode.CREATE_HANDLE, ValuesRequest(b"88.118.9/b", (admin(),))))[0] == ResponseCode.SUCCESS


async def test_a_tenant_whose_octets_are_used_up_may_still_change_what_takes_no_more() -> None:
    measured, world = World(), World()
    assert (await measured.ask(OpCode.CREATE_HANDLE, CREATE))[0] == ResponseCode.SUCCESS
    quota = Quota(octets=measured.group.octets())
    world.group.content.records[key_of(quota, "tenant")] = value_of(quota)
    assert (await world.ask(OpCode.CREATE_HANDLE, CREATE))[0] == ResponseCode.SUCCESS
    long = HandleValue(1, b"URL", url().data + b"x")

    async def tried(op: OpCode, *values: HandleValue) -> int:
        return (await world.ask(op, ValuesRequest(b"88.118.9/New", values)))[0]

    more = HandleValue(2, b"URL", b"more")
    assert await tried(OpCode.ADD_VALUE, more) == ResponseCode.REGISTER_COUNT_LIMIT
    assert await tried(OpCode.MODIFY_VALUE, long) == ResponseCode.REGISTER_COUNT_LIMIT
    assert await tried(OpCode.MODIFY_VALUE, HandleValue(1, b"URL", url().data[:-4])) == ResponseCode.SUCCESS
    assert await tried(OpCode.MODIFY_VALUE, url()) == ResponseCode.SUCCESS
    assert (await world.ask(OpCode.DELETE_HANDLE, HandleRequest(b"88.118.9/New")))[0] == ResponseCode.SUCCESS
    assert (await world.ask(OpCode.CREATE_HANDLE, CREATE))[0] == ResponseCode.SUCCESS
