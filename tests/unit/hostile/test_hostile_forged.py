"""Datagrams whose sender's address is forged: what they may use up, and whose."""

from __future__ import annotations

from typing import Any

import pytest

from hosting.front.service import FrontService
from hosting.guard.guesses import WRONG_PER_MINUTE
from hosting.handle import edge_judge
from hosting.handle.edge_judge import FORGEABLE_PER_S
from hosting.handle.edge_registrar import Registrar
from replica.model.handle import proofs
from replica.model.handle.admin_bodies import SetupMode, VerifyRequest
from replica.model.handle.codes import OpCode
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_message
from replica.model.handle.proofs import MacCode
from replica.model.handle.values import Reference
from tests.unit.front.world import ask_tcp, ask_udp, code_of, serving
from tests.unit.handle.test_registrar import CREATE, KEY, SECRETS, World, answer_of, request
from tests.unit.handle.test_sessions import CLIENT, Client, setup

NOBODY = Reference(b"88.118.9/NOBODY", 300)
BUSY = 3
ASKED = {
    "challenge": request(OpCode.CREATE_HANDLE, CREATE),
    "session": setup(),
}


async def forged(world: World, octets: bytes, client: str) -> int:
    [answer] = await world.registrar.answer(octets, client, datagram=True)
    return decode_message(answer).header.response_code


def verification(secret: bytes = b"guess", key: Reference = KEY) -> bytes:
    made = proofs.prove_secret(secret, b"n" * 16, b"d" * 16, MacCode.HMAC_SHA256)
    body = VerifyRequest(key, b"n" * 16, b"d" * 16, made).encode()
    return encode_message(Message(Envelope(7, 0), Header(OpCode.VERIFY_CHALLENGE), body))


@pytest.mark.parametrize("what", ASKED)
async def test_datagrams_from_everywhere_leave_streams_their_room(what: str) -> None:
    """From as many addresses as it takes, none of which was ever there."""
    world = World()
    codes = [await forged(world, ASKED[what], f"198.{at >> 8}.{at & 255}.{n}") for at in range(400) for n in range(16)]
    assert codes[-1] == BUSY, "their part is full"
    assert (await world.send(ASKED[what])).header.response_code in (1, 402)
    client = await Client.opened(world)
    assert await client.prove(OpCode.CREATE_HANDLE, CREATE) == 1


async def test_one_ipv6_network_does_not_take_all_challenges() -> None:
    """Over streams: 64 addresses of it had 64 each, which were all there are."""
    world = World()
    for at in range(80):
        for _ in range(64):
            await world.send(ASKED["challenge"], f"2001:db8:0:{at:x}::{at + 1:x}")
    assert len(world.registrar.challenges) == world.registrar.challenges.limits.client_max
    assert (await world.send(ASKED["challenge"], "2001:db8:1::1")).header.response_code == 402


async def test_datagrams_in_an_owners_name_push_out_nothing_of_its_streams() -> None:
    world = World()
    said, octets = await world.challenged(OpCode.CREATE_HANDLE, CREATE)
    client = await Client.opened(world)
    for _ in range(200):
        await forged(world, ASKED["challenge"], CLIENT)
        await forged(world, ASKED["session"], CLIENT)
    assert (await world.send(answer_of(said, octets))).header.response_code == 1
    assert client.session_id in world.registrar.desk.sessions


@pytest.mark.parametrize("how", ["verification", "session with a key that is not there"])
async def test_wrong_proofs_in_an_owners_name_do_not_shut_it_out(how: str) -> None:
    """20 of them in a minute, and nobody of that network could have registered."""
    world = World()
    octets = verification() if how == "verification" else setup(SetupMode.KEY_OF_HANDLE, at=NOBODY)
    for _ in range(2 * WRONG_PER_MINUTE):
        world.now_ms += 1_000 // FORGEABLE_PER_S
        await forged(world, octets, CLIENT)
    assert await forged(world, octets, CLIENT) == BUSY, "the forger is not heard any more"
    said, octets = await world.challenged(OpCode.CREATE_HANDLE, CREATE)
    assert (await world.send(answer_of(said, octets))).header.response_code == 1


async def test_verifications_from_everywhere_cost_little_and_leave_streams_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """One may take a tenth of a second of a core."""
    judged: list[bytes] = []
    good = edge_judge._good

    def counted(*given: Any) -> bool:
        judged.append(given[2])
        return good(*given)

    monkeypatch.setattr(edge_judge, "_good", counted)
    world = World()
    for at in range(100):
        await forged(world, verification(), f"198.51.{at}.1")
    assert len(judged) == FORGEABLE_PER_S
    assert (await world.send(verification(SECRETS[KEY]))).body == b"\1"


async def test_a_proof_over_a_challenge_is_nobodys_forgery() -> None:
    """Who has read the challenge is where it went to: its guesses count over UDP too, with those of its streams."""
    world = World()
    for _ in range(WRONG_PER_MINUTE):
        octets = request(OpCode.CREATE_HANDLE, CREATE)
        [challenge] = await world.registrar.answer(octets, CLIENT, datagram=True)
        assert await forged(world, answer_of(decode_message(challenge), octets, secret=b"guess"), CLIENT) == 403
    said, octets = await world.challenged(OpCode.CREATE_HANDLE, CREATE)
    assert (await world.send(answer_of(said, octets))).header.response_code == BUSY


async def test_a_challenge_over_udp_is_answered_over_tcp() -> None:
    world = World()
    octets = request(OpCode.CREATE_HANDLE, CREATE)
    [challenge] = await world.registrar.answer(octets, CLIENT, datagram=True)
    assert (await world.send(answer_of(decode_message(challenge), octets))).header.response_code == 1
    assert len(world.registrar.challenges) == world.registrar.challenges._datagrams == 0


async def test_listeners_say_what_came_in_datagrams(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    answer = Registrar.answer

    async def told(self: Registrar, octets: bytes, client: str, *, datagram: bool = False) -> list[bytes]:
        seen.append(datagram)
        return await answer(self, octets, client, datagram=datagram)

    monkeypatch.setattr(Registrar, "answer", told)
    world = World()
    service = FrontService(world.port, registrar=lambda: world.registrar)
    world.now_ms = service.now_ms()
    async with serving(world.port, service=service) as (_, bound):
        assert code_of((await ask_udp(bound.udp[0], ASKED["challenge"]))[0]) == 402
        assert code_of((await ask_tcp(bound.tcp[0], ASKED["challenge"]))[0]) == 402
    assert seen == [True, False]
