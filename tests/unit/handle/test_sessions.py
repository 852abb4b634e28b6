"""Sessions of the Handle protocol against a memory twin of a hosted source: opened, proved, used, ended, and what is refused."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from hosting.handle.sessions import MOVES, Session, SessionLimits, Sessions, SessionState, wants_hidden
from replica.model.handle import admin_bodies, proofs
from replica.model.handle.admin_bodies import SessionSetup, SetupMode, VerifyRequest
from replica.model.handle.bodies import (
    HandleRequest,
    Request,
    ResolutionRequest,
    ResolutionResponse,
    ValuesRequest,
    decode_response,
)
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, ResponseCode
from replica.model.handle.keys import encode_key
from replica.model.handle.macs import judge_mac, key_from_wire, sealed
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_message
from replica.model.handle.proofs import MacCode
from replica.model.handle.values import HandleValue, Reference
from tests.unit.handle.test_registrar import CREATE, KEY, NAME, OTHER, SECRETS, World, admin, url

PRIVATE = rsa.generate_private_key(65_537, 1_024)
CLIENT = "192.0.2.1"


def public_of(private: rsa.RSAPrivateKey) -> bytes:
    numbers = private.public_key().public_numbers()
    return encode_key("RSA", {"n": numbers.n.to_bytes(512, "big").lstrip(b"\0"), "e": numbers.e.to_bytes(9, "big").lstrip(b"\0")})


def setup(
    mode: SetupMode = SetupMode.CLIENT_KEY, key: bytes = b"", *, who: Reference = KEY, at: Reference | None = None
) -> bytes:
    body = SessionSetup(mode, 3_600, who, key or public_of(PRIVATE), at).encode()
    return encode_message(Message(Envelope(1, 0), Header(OpCode.SESSION_SETUP, flags=FLAGS_DEFAULT), body))


class Client:
    """One session of one client."""

    def __init__(self, world: World, session_id: int, key: bytes) -> None:
        self.world, self.session_id, self.key, self.counter = world, session_id, key, 0

    @classmethod
    async def opened(cls, world: World, who: Reference = KEY, client: str = CLIENT) -> Client:
        said = await world.send(setup(who=who), client)
        assert said.header.response_code == 1 and said.envelope.session_id
        found = admin_bodies.decode_session_setup_answer(said.body)
        return cls(world, said.envelope.session_id, key_from_wire(PRIVATE.decrypt(found.data, padding.PKCS1v15()))[0])

    def message(
        self, op: int, body: bytes, *, counter: int | None = None, key: bytes | None = None, flags: int = FLAGS_DEFAULT
    ) -> bytes:
        self.counter = self.counter + 1 if counter is None else counter
        plain = encode_message(Message(Envelope(9, 0, session_id=self.session_id), Header(op, flags=flags), body))
        return sealed(plain, key or self.key, self.counter)

    async def say(self, octets: bytes) -> Message:
        [answer] = await self.world.registrar.answer(octets, CLIENT)
        said = decode_message(answer)
        if said.credential:
            assert judge_mac(said, answer, self.key) > 0
        return said

    async def ask(self, op: int, body: Request) -> int:
        return (await self.say(self.message(op, body.encode()))).header.response_code

    async def prove(self, op: int, body: Request, key: Reference = KEY) -> int:
        """Ask, and answer the challenge."""
        said = await self.say(self.message(op, body.encode()))
        assert said.header.response_code == 402 and said.envelope.session_id == self.session_id and said.credential
        found = admin_bodies.decode_challenge(said)
        made = proofs.prove_secret(SECRETS[key], found.nonce, found.digest, MacCode.HMAC_SHA256)
        answer = admin_bodies.ChallengeAnswer(admin_bodies.HS_SECKEY, key, made).encode()
        return (await self.say(self.message(OpCode.CHALLENGE_RESPONSE, answer))).header.response_code


GONE = HandleRequest(NAME.encode())


async def test_after_one_proof_no_challenge_is_asked() -> None:
    world = World()
    client = await Client.opened(world)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1 and world.values(NAME) is not None
    said = await client.say(client.message(OpCode.ADD_VALUE, ValuesRequest(NAME.encode(), (url(2),)).encode()))
    assert said.header.response_code == 1 and said.credential, "an answer in a session has its MAC"
    assert await client.ask(OpCode.DELETE_HANDLE, GONE) == 1 and world.values(NAME) is None
    assert await client.ask(OpCode.SESSION_TERMINATE, HandleRequest(b"/")) == 1
    assert await client.ask(OpCode.DELETE_HANDLE, GONE) == ResponseCode.SESSION_TIMEOUT
    assert len(world.registrar.desk.sessions) == 0


async def test_a_session_gives_no_rights_but_its_keys() -> None:
    world = World()
    client = await Client.opened(world, OTHER)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE, OTHER) == ResponseCode.INSUFFICIENT_PERMISSIONS
    assert await client.ask(OpCode.CREATE_HANDLE, CREATE) == ResponseCode.INSUFFICIENT_PERMISSIONS
    assert await client.ask(OpCode.LIST_HANDLES, HandleRequest(b"0.NA/88.118.9")) == ResponseCode.INSUFFICIENT_PERMISSIONS
    assert world.values(NAME) is None


async def test_another_identity_than_the_sessions_own_is_asked_each_time() -> None:
    world = World()
    client = await Client.opened(world, OTHER)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE, KEY) == 1
    said = await client.say(client.message(OpCode.DELETE_HANDLE, GONE.encode()))
    assert said.header.response_code == 402


async def test_an_administrator_reads_what_the_public_may_not() -> None:
    world = World()
    hidden, secret = (HandleValue(index, b"NOTE", b"x", permissions=bits) for index, bits in ((2, 0x0C), (3, 0x05)))
    world.put(NAME, url(), hidden, secret, admin(KEY))
    question = ResolutionRequest(NAME.encode())
    client = await Client.opened(world)

    async def read(asked: ResolutionRequest, who: Client) -> Message:
        return await who.say(who.message(OpCode.RESOLUTION, asked.encode(), flags=0))

    said = await read(question, client)
    assert said.header.response_code == 402, "in a session, but nobody yet"
    assert await client.prove(OpCode.ADD_VALUE, ValuesRequest(NAME.encode(), (url(9),))) == 1
    said = await read(question, client)
    found = decode_response(said)
    assert said.header.response_code == 1 and isinstance(found, ResolutionResponse) and found.handle == NAME.encode()
    assert sorted(value.index for value in found.values) == [1, 2, 9, 100], "without either read bit it is nobody's"
    assert (await read(ResolutionRequest(NAME.encode(), (3,)), client)).header.response_code == ResponseCode.VALUES_NOT_FOUND
    assert (await read(ResolutionRequest(b"88.118.9/No"), client)).header.response_code == ResponseCode.HANDLE_NOT_FOUND
    stranger = await Client.opened(world, OTHER)
    await stranger.prove(OpCode.DELETE_HANDLE, GONE, OTHER)
    assert (await read(question, stranger)).header.response_code == ResponseCode.INSUFFICIENT_PERMISSIONS


def test_who_wants_what_is_hidden() -> None:
    def asked(flags: int, session_id: int, mac: bool) -> Message:
        head, body = Envelope(9, 0, session_id=session_id), ResolutionRequest(NAME.encode()).encode()
        plain = encode_message(Message(head, Header(OpCode.RESOLUTION, flags=flags), body))
        return decode_message(sealed(plain, b"k" * 16, 1) if mac else plain)

    assert wants_hidden(asked(0, 5, True))
    assert not any(map(wants_hidden, (asked(0, 5, False), asked(0, 0, False), asked(FLAGS_DEFAULT, 5, True))))


@pytest.mark.parametrize("why", ["no mac", "key", "replay", "old", "altered", "session", "late", "idle"])
async def test_what_is_not_of_the_session_changes_nothing(why: str) -> None:
    world = World()
    client = await Client.opened(world)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1
    octets, wanted = client.message(OpCode.DELETE_HANDLE, GONE.encode()), ResponseCode.SESSION_MESSAGE_REJECTED
    if why == "no mac":
        head = Envelope(9, 0, session_id=client.session_id)
        octets = encode_message(Message(head, Header(OpCode.DELETE_HANDLE), GONE.encode()))
        wanted = ResponseCode.INVALID_CREDENTIAL
    elif why == "key":
        octets = client.message(OpCode.DELETE_HANDLE, GONE.encode(), key=b"k" * 16)
        wanted = ResponseCode.INVALID_SESSION_KEY
    elif why == "replay":
        kept = ValuesRequest(NAME.encode(), (url(2),)).encode()
        octets = client.message(OpCode.ADD_VALUE, kept)
        assert (await client.say(octets)).header.response_code == 1
    elif why == "old":
        assert await client.ask(OpCode.MODIFY_VALUE, ValuesRequest(NAME.encode(), (url(),))) == 1
        await client.say(client.message(OpCode.MODIFY_VALUE, ValuesRequest(NAME.encode(), (url(),)).encode(), counter=1_000))
        octets = client.message(OpCode.DELETE_HANDLE, GONE.encode(), counter=800)
    elif why == "altered":
        octets, wanted = octets.replace(b"88.118.9/New", b"88.118.9/Mew"), ResponseCode.INVALID_SESSION_KEY
    elif why == "session":
        octets, wanted = octets[:4] + b"\x7f\0\0\1" + octets[8:], ResponseCode.SESSION_TIMEOUT
    else:
        world.now_ms += 3_600_000 if why == "idle" else 86_400_000
        wanted = ResponseCode.SESSION_TIMEOUT
    assert (await client.say(octets)).header.response_code == wanted
    assert world.values(NAME) is not None


async def test_a_key_that_was_taken_away_ends_its_sessions() -> None:
    world = World()
    client = await Client.opened(world)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1
    world.put("88.118.9/ADMIN", HandleValue(300, b"HS_SECKEY", b"a new one", permissions=0x0C), admin())
    assert await client.ask(OpCode.DELETE_HANDLE, GONE) == ResponseCode.AUTHENTICATION_FAILED
    assert await client.ask(OpCode.DELETE_HANDLE, GONE) == ResponseCode.SESSION_TIMEOUT
    assert world.values(NAME) is not None


async def test_a_session_with_the_key_of_a_handle() -> None:
    world = World()
    at = Reference(b"88.118.9/KEYS", 7)
    world.put("88.118.9/KEYS", HandleValue(7, b"HS_PUBKEY", public_of(PRIVATE)), admin())
    said = await world.send(setup(SetupMode.KEY_OF_HANDLE, at=at))
    found = admin_bodies.decode_session_setup_answer(said.body)
    assert said.header.response_code == 1 and len(PRIVATE.decrypt(found.data, padding.PKCS1v15())) == 20
    none = await world.send(setup(SetupMode.KEY_OF_HANDLE, at=Reference(b"88.118.9/KEYS", 8)))
    assert none.header.response_code == ResponseCode.SESSION_FAILED


async def test_set_ups_that_are_refused() -> None:
    world = World()
    dsa_key = dsa.generate_parameters(1_024).generate_private_key().public_key().public_numbers()
    parts = dsa_key.parameter_numbers
    numbers = {
        name: number.to_bytes(128, "big") for name, number in zip("pqgy", (parts.p, parts.q, parts.g, dsa_key.y), strict=True)
    }
    modulus = PRIVATE.public_key().public_numbers().n.to_bytes(128, "big")
    slow = encode_key("RSA", {"n": modulus, "e": b"\1" + b"\0" * 60 + b"\1"})
    tried = [
        (setup(SetupMode.SERVER_KEY), ResponseCode.SESSION_FAILED),
        (setup(SetupMode.DIFFIE_HELLMAN), ResponseCode.SESSION_FAILED),
        (setup(key=encode_key("DSA", numbers)), ResponseCode.NEED_RSAKEY),
        (setup(key=b"no key"), ResponseCode.INVALID_SESSIONSETUP),
        (setup(key=slow), ResponseCode.INVALID_SESSIONSETUP),
        (setup().replace(b"\x02\x0b\x02\x0b", b"\x02\x05\x02\x05", 1), ResponseCode.SESSION_FAILED),
    ]
    for octets, code in tried:
        assert (await world.send(octets)).header.response_code == code
    exchange = encode_message(Message(Envelope(1, 0), Header(OpCode.SESSION_EXCHANGEKEY), b"\0\0\0\0"))
    assert (await world.send(exchange)).header.response_code == ResponseCode.SESSION_FAILED
    broken = encode_message(Message(Envelope(1, 0), Header(OpCode.SESSION_SETUP), b"\0\x09\0"))
    assert (await world.send(broken)).header.response_code == ResponseCode.INVALID_SESSIONSETUP


def test_the_addresses_of_one_ipv6_network_have_one_share() -> None:
    table = Sessions()

    def fill(client: str, first: int) -> None:
        for number in range(table.limits.client_opened_max):
            if table.room(client, 0):
                table.open(first + number, client, b"k" * 16, None, 60, 0)

    for host in range(1, 200):
        fill(f"2001:db8:0:{host:x}::{host:x}", 1_000 * host)
    assert len(table) == table.limits.client_opened_max
    assert table.room("2001:db8:1::1", 0) and table.room("192.0.2.1", 0)
    fill("192.0.2.1", 1)
    fill("192.0.2.2", 501)
    fill("::ffff:192.0.2.3", 751)
    assert len(table) == 4 * table.limits.client_opened_max, "many clients stand behind one network of IPv4"


async def test_half_open_sessions_by_the_thousand_cost_their_sender_alone() -> None:
    world = World()
    good = await Client.opened(world)
    assert await good.prove(OpCode.CREATE_HANDLE, CREATE) == 1
    table = world.registrar.desk.sessions
    octets = setup()
    for _ in range(100):
        await world.send(octets, "192.0.2.66")
    assert len(table) == 1 + table.limits.client_opened_max
    assert await good.ask(OpCode.DELETE_HANDLE, GONE) == 1
    world.now_ms += 60_000
    assert table.room("192.0.2.1", world.now_ms) and len(table) == 1


async def test_a_verification_says_yes_or_no() -> None:
    world = World()
    for key, secret, valid in ((KEY, SECRETS[KEY], 1), (KEY, b"guess", 0), (Reference(b"88.118.9/NONE", 1), b"x", 0)):
        made = proofs.prove_secret(secret, b"n" * 16, b"d" * 32, MacCode.HMAC_SHA256)
        body = VerifyRequest(key, b"n" * 16, b"d" * 32, made).encode()
        said = await world.send(encode_message(Message(Envelope(1, 0), Header(OpCode.VERIFY_CHALLENGE, flags=0), body)))
        assert (said.header.response_code, said.body) == (1, bytes((valid,)))


def test_a_session_that_ended_stays_ended() -> None:
    table = Sessions()
    one = table.open(1, "a", b"k" * 16, KEY, 60, 0)
    table.end(one)
    table.end(one)
    table.proved(one, KEY, b"")
    assert one.state is SessionState.ENDED and not MOVES[SessionState.ENDED]
    with pytest.raises(ValueError, match="does not become"):
        one.move(SessionState.PROVED)


@given(st.lists(st.integers(0, 600), max_size=300))
def test_no_counter_is_good_twice(counters: list[int]) -> None:
    one, good = Session(1, "a", b"", None, 0, 0, 0), set()
    for counter in counters:
        if one.fresh(counter, 200):
            assert counter not in good
            good.add(counter)
        assert len(one.seen) <= 200


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(0, 40_000))))
def test_the_table_never_passes_its_limits(steps: list[tuple[str, bool, int]]) -> None:
    limits = SessionLimits(sessions_max=6, client_max=3, opened_max=4, client_opened_max=2)
    table, now_ms = Sessions(limits), 0
    for number, (client, proves, passed) in enumerate(steps, 1):
        now_ms += passed
        if table.room(client, now_ms):
            one = table.open(number, client, b"" if number % 3 else b"k", KEY, 0, now_ms)
            if proves and (one.key or table.keyed(one, b"k", 3) is None):
                table.proved(one, KEY, b"")
        assert len(table) <= 6
