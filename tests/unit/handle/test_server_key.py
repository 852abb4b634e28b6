"""Sessions of mode 2: the client sends the key, encrypted for our site; nothing tells what our key deciphers."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from hosting.handle import edge_sessions
from hosting.handle.edge_sessions import CLIENT_EXCHANGES_PER_S, EXCHANGED_MAX
from replica.model.handle.admin_bodies import SetupMode, decode_session_setup_answer
from replica.model.handle.bodies import ValuesRequest
from replica.model.handle.ciphers import decrypted, encrypted, is_encrypted
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, OpFlag, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.macs import AES_128, SM4, judge_mac, key_on_wire, sealed
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_envelope, encode_message
from replica.model.handle.proofs import public_key_of
from replica.model.handle.wire import U32, string
from tests.unit.handle.test_registrar import CREATE, NAME, World, url
from tests.unit.handle.test_sessions import CLIENT, GONE, Client, setup

SERVER = rsa.generate_private_key(65_537, 2_048)
KEY = bytes(range(16))
IV = bytes(16)


async def begun(world: World, client: str = CLIENT) -> tuple[int, rsa.RSAPublicKey]:
    """A session without a key, and the key our site shows."""
    said = await world.send(setup(SetupMode.SERVER_KEY), client)
    assert said.header.response_code == 1 and said.envelope.session_id
    found = decode_session_setup_answer(said.body)
    public = public_key_of(found.data)
    assert found.mode is SetupMode.SERVER_KEY and isinstance(public, rsa.RSAPublicKey)
    assert public.public_numbers() == SERVER.public_key().public_numbers()
    return said.envelope.session_id, public


def exchange(session_id: int, data: bytes, tail: bytes = b"", version: tuple[int, int] = (2, 11)) -> bytes:
    head = Envelope(4, 0, version, version, session_id=session_id)
    return encode_message(Message(head, Header(OpCode.SESSION_EXCHANGEKEY, flags=FLAGS_DEFAULT), string(data) + tail))


def for_us(plain: bytes) -> bytes:
    return SERVER.public_key().encrypt(plain, padding.PKCS1v15())


class Chosen(Client):
    """A client that chose its own key and algorithm; what it says is encrypted when `hides`."""

    algorithm = AES_128
    hides = False

    @classmethod
    async def keyed(cls, world: World, algorithm: int = AES_128, tail: bytes = b"") -> Chosen:
        session_id, _ = await begun(world)
        made = cls(world, session_id, KEY)
        made.algorithm = algorithm
        said = await made.say(exchange(session_id, for_us(key_on_wire(KEY, algorithm)), tail))
        assert said.header.response_code == 1 and said.credential, "its MAC is the proof that the site's key has read ours"
        return made

    async def say(self, octets: bytes) -> Message:
        if not self.hides:
            return await super().say(octets)
        [answer] = await self.world.registrar.answer(encrypted(octets, self.key, IV, self.algorithm), CLIENT)
        assert is_encrypted(answer) and NAME.encode() not in answer
        plain = decrypted(answer, self.key, self.algorithm)
        assert judge_mac(decode_message(plain), plain, self.key) > 0
        return decode_message(plain)


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("algorithm", [AES_128, SM4])
async def test_a_session_with_the_clients_key(algorithm: int, hides: bool) -> None:
    world = World(server_key=SERVER)
    client = await Chosen.keyed(world, algorithm, b"\0\0")
    client.hides = hides
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1 and world.values(NAME) is not None
    assert await client.ask(OpCode.ADD_VALUE, ValuesRequest(NAME.encode(), (url(2),))) == 1
    assert await client.ask(OpCode.DELETE_HANDLE, GONE) == 1 and world.values(NAME) is None


@pytest.mark.parametrize("octets", [16, 24, 32])
async def test_of_a_longer_key_of_aes_all_makes_macs_and_the_first_16_octets_encrypt(octets: int) -> None:
    world, key = World(server_key=SERVER), bytes(range(1, octets + 1))
    number, _ = await begun(world)
    client = Chosen(world, number, key)
    said = await client.say(exchange(number, for_us(key_on_wire(key))))
    assert said.header.response_code == 1 and said.credential
    client.hides = True
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1 and world.values(NAME) is not None
    octets_ = encode_message(Message(Envelope(9, 0), Header(1), b"x"))
    assert encrypted(octets_, key, IV) == encrypted(octets_, key[:16], IV)


async def test_with_the_flag_enc_the_chosen_algorithm_encrypts_the_answer() -> None:
    world = World(server_key=SERVER)
    client = await Chosen.keyed(world, SM4)
    asked = client.message(OpCode.CREATE_HANDLE, CREATE.encode(), flags=int(FLAGS_DEFAULT | OpFlag.ENCRYPT))
    [answer] = await world.registrar.answer(asked, CLIENT)
    assert decode_message(decrypted(answer, KEY, SM4)).header.response_code == 402
    with pytest.raises(ProtocolFault):
        plain = decrypted(answer, KEY, AES_128)
        judge_mac(decode_message(plain), plain, KEY)


def test_sm4_gives_published_octets() -> None:
    """draft-ribose-cfrg-sm4-10, A.2.2.1 (SM4-CBC), both blocks."""
    key = bytes.fromhex("0123456789abcdeffedcba9876543210")
    plain = b"".join(bytes((one,)) * 4 for one in b"\xaa\xbb\xcc\xdd\xee\xff\xaa\xbb")
    made = encrypted(encode_envelope(Envelope(7, len(plain))) + plain, key, bytes(range(16)), SM4)
    assert made[36:68].hex() == "78ebb11cc40b0a48312aaeb2040244cb4cb7016951909226979b0d15dc6a8f6d"


# -------------------------------------------------------------------------------------------------- what gives nothing
FORGED = {
    "random": lambda: b"\0" + secrets.token_bytes(255),
    "beyond the modulus": lambda: b"\xff" * 256,
    "too short": lambda: b"x",
    "empty": lambda: b"",
    "no algorithm": lambda: for_us(KEY),
    "DES": lambda: for_us(U32.pack(1) + bytes(8)),
    "3DES": lambda: for_us(U32.pack(2) + bytes(24)),
    "a short key": lambda: for_us(U32.pack(AES_128) + bytes(8)),
    "a long key": lambda: for_us(U32.pack(AES_128) + bytes(40)),
    "a long key of SM4": lambda: for_us(U32.pack(SM4) + bytes(32)),
    "an algorithm nobody knows": lambda: for_us(U32.pack(9) + KEY),
}


@pytest.mark.parametrize("what", FORGED)
async def test_what_is_no_key_is_answered_like_one_and_opens_nothing(what: str) -> None:
    world = World(server_key=SERVER)
    good, (number, _) = await Chosen.keyed(world), await begun(world)
    [said] = await world.registrar.answer(exchange(number, FORGED[what]()), CLIENT)
    [like] = await world.registrar.answer(exchange((await begun(world))[0], for_us(key_on_wire(KEY))), CLIENT)
    one, other = decode_message(said), decode_message(like)
    assert (one.header, one.body, len(said)) == (other.header, other.body, len(like)), "nothing tells them apart"
    for key in (KEY, bytes(16), bytes(24), b""):
        with pytest.raises(ProtocolFault):
            judge_mac(one, said, key)
        client = Client(world, number, key)
        assert await client.ask(OpCode.CREATE_HANDLE, CREATE) == ResponseCode.INVALID_SESSION_KEY
    assert await good.prove(OpCode.CREATE_HANDLE, CREATE) == 1


@pytest.mark.parametrize("key", [b"", bytes(16), KEY])
async def test_before_its_key_came_a_session_is_nobodys(key: bytes) -> None:
    world = World(server_key=SERVER)
    number, _ = await begun(world)
    client = Client(world, number, key)
    octets = client.message(OpCode.CREATE_HANDLE, CREATE.encode(), key=key or b"")
    plain = encode_message(Message(Envelope(9, 0, session_id=number), Header(OpCode.CREATE_HANDLE), CREATE.encode()))
    told = [sealed(plain, key, 1), octets, plain, sealed(plain.replace(b"\0\0\0\x64", b"\0\0\1\x91", 1), key, 2)]
    if key:
        told.append(encrypted(octets, key, IV))
    for one in told:
        [said] = await world.registrar.answer(one, CLIENT)
        assert decode_message(said).header.response_code == ResponseCode.INVALID_SESSION_KEY
        assert not decode_message(said).credential
    assert world.values(NAME) is None and len(world.registrar.desk.sessions) == 1


async def test_a_key_is_taken_once_from_its_own_client_and_in_time() -> None:
    world = World(server_key=SERVER)
    data = for_us(key_on_wire(KEY))
    number, _ = await begun(world)
    assert (await world.send(exchange(number, data), "192.0.2.9")).header.response_code == ResponseCode.SESSION_TIMEOUT
    assert (await world.send(exchange(number + 1, data))).header.response_code == ResponseCode.SESSION_TIMEOUT
    assert (await world.send(exchange(number, data, version=(2, 7)))).header.response_code == ResponseCode.SESSION_FAILED
    assert (await world.send(exchange(number, data))).header.response_code == 1
    again = await world.send(exchange(number, for_us(key_on_wire(bytes(16)))))
    assert again.header.response_code == ResponseCode.SESSION_MESSAGE_REJECTED
    assert await Client(world, number, KEY).prove(OpCode.CREATE_HANDLE, CREATE) == 1, "replayed: the first key stays"
    late, _ = await begun(world)
    world.now_ms += 60_000
    assert (await world.send(exchange(late, data))).header.response_code == ResponseCode.SESSION_TIMEOUT


async def test_two_exchanges_at_once_are_one() -> None:
    world = World(server_key=SERVER)
    number, _ = await begun(world)
    said = await asyncio.gather(*(world.send(exchange(number, for_us(key_on_wire(KEY)))) for _ in range(3)))
    codes = sorted(one.header.response_code for one in said)
    assert codes == [1, ResponseCode.SESSION_MESSAGE_REJECTED, ResponseCode.SESSION_MESSAGE_REJECTED]


async def test_without_a_key_of_the_site_there_is_no_mode_2() -> None:
    world = World()
    assert (await world.send(setup(SetupMode.SERVER_KEY))).header.response_code == ResponseCode.SESSION_FAILED
    assert (await world.send(exchange(7, b"x"))).header.response_code == ResponseCode.SESSION_FAILED
    body = encode_message(Message(Envelope(1, 0, session_id=7), Header(OpCode.SESSION_EXCHANGEKEY), b"\0\0\xff\xff"))
    assert (await World(server_key=SERVER).send(body)).header.response_code == ResponseCode.INVALID_SESSION_KEY


async def test_exchanges_cost_a_bounded_part_of_a_core() -> None:
    world = World(server_key=SERVER)
    codes = []
    for _ in range(CLIENT_EXCHANGES_PER_S + 1):
        number, _ = await begun(world)
        codes.append((await world.send(exchange(number, b"x" * 256))).header.response_code)
    assert codes == [1] * CLIENT_EXCHANGES_PER_S + [ResponseCode.SERVER_TOO_BUSY]
    number, _ = await begun(world, "198.51.100.1")
    assert (await world.send(exchange(number, b"x" * 256), "198.51.100.1")).header.response_code == 1, "another client is heard"
    world.now_ms += 1_000
    number, _ = await begun(world)
    assert (await world.send(exchange(number, b"x" * 256))).header.response_code == 1
    assert len(world.registrar.desk.sessions) <= 2 * world.registrar.desk.sessions.limits.client_opened_max


async def test_exchanges_of_many_clients_share_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(server_key=SERVER)
    numbers = [(await begun(world, f"198.51.{one}.1"))[0] for one in range(EXCHANGED_MAX + 4)]
    asked = [world.send(exchange(number, b"x" * 256), f"198.51.{one}.1") for one, number in enumerate(numbers)]
    codes = [one.header.response_code for one in await asyncio.gather(*asked)]
    assert codes.count(1) == EXCHANGED_MAX and codes.count(ResponseCode.SERVER_TOO_BUSY) == 4
    monkeypatch.setattr(edge_sessions, "EXCHANGES_PER_S", 3)
    world = World(server_key=SERVER)
    codes = []
    for one in range(5):
        number, _ = await begun(world, f"198.51.{one}.1")
        codes.append((await world.send(exchange(number, b"x" * 256), f"198.51.{one}.1")).header.response_code)
    assert codes == [1, 1, 1, ResponseCode.SERVER_TOO_BUSY, ResponseCode.SERVER_TOO_BUSY]
