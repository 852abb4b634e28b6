"""The flag CT over sockets: whatever is asked, its answer is signed with the key our site shows, or refused with a code."""

from __future__ import annotations

import asyncio
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from hosting.front import edge_certify
from hosting.front import service as service_module
from hosting.front.edge_certify import NO_KEY, OLD, TOO_LONG, TOO_MANY, Begun, CertifyLimits
from hosting.front.edge_front import FrontConfig
from hosting.front.edge_site_key import SITE_KEY_FILE, SiteKey, ensure_site_key, load_site_key
from hosting.front.service import FrontService
from hosting.guard.guard import Guard
from hosting.guard.limits import GuardLimits
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.admin_bodies import SetupMode, decode_session_setup_answer
from replica.model.handle.bodies import decode_response
from replica.model.handle.codes import FLAGS_DEFAULT, HTTP_TUNNEL_TYPE, OpCode, OpFlag, ResponseCode
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.fragments import Reassembler
from replica.model.handle.macs import judge_mac, key_on_wire, sealed
from replica.model.handle.message import Envelope, Header, Message, Version, decode_message, encode_message
from replica.model.handle.proofs import public_key_of
from replica.model.handle.signatures import judge_signature
from replica.model.handle.types import decode_site, encode_site, site_of
from tests.unit.front.world import (
    CATALOG,
    NAME,
    Datagrams,
    ask_http,
    ask_tcp,
    ask_udp,
    code_of,
    operation,
    resolution,
    serving,
    world,
)
from tests.unit.handle.test_registrar import CREATE, World, answer_of, request
from tests.unit.handle.test_server_key import exchange
from tests.unit.handle.test_sessions import Client, setup

CT = int(FLAGS_DEFAULT | OpFlag.CERTIFY)
UNTRUSTED = GuardLimits(trusted=())


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SiteKey:
    return ensure_site_key(tmp_path_factory.mktemp("identity") / SITE_KEY_FILE)


def is_signed(octets: bytes, key: SiteKey) -> bool:
    try:
        judge_signature(decode_message(octets), octets, key.public)
    except ProtocolFault:
        return False
    return True


def service_of(key: SiteKey | None, place: World | None = None, guard: Guard | None = None) -> FrontService:
    port = world() if place is None else place.port
    return FrontService(port, registrar=lambda: place and place.registrar, guard=guard, site_key=key)


def with_ct(octets: bytes, version: Version = (2, 11)) -> bytes:
    message = decode_message(octets)
    header = replace(message.header, flags=message.header.flags | OpFlag.CERTIFY)
    return encode_message(replace(message, header=header, envelope=replace(message.envelope, version=version, suggested=version)))


ASKED = {
    "found": (resolution(NAME), 1),
    "missing": (resolution(b"88.118.8/none"), 100),
    "heartbeat": (resolution(b"0"), 1),
    "elsewhere": (resolution(b"10.1/x"), 301),
    "referral": (resolution(b"88.119.8/x"), 302),
    "site": (operation(OpCode.GET_SITE_INFO), 1),
    "not offered": (operation(OpCode.LIST_NA), 5),
    "long": (resolution(b"88.118.8/big"), 1),
}


async def whole_udp(address: tuple[str, int], octets: bytes) -> bytes:
    """Ask over UDP and join the answer's datagrams."""
    joiner = Reassembler(4, 65_536, 1_000)
    transport, client = await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, remote_addr=address)
    try:
        transport.sendto(octets)
        while True:
            part = await asyncio.wait_for(client.inbox.get(), 10)
            whole = joiner.feed(b"", part, 0) if part[2] & 0x20 else part
            if whole is not None:
                return bytes(whole)
    finally:
        transport.close()


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("way", ["tcp", "udp", "http"])
async def test_whatever_is_asked_its_answer_is_signed(way: str, what: str, key: SiteKey) -> None:
    octets, code = ASKED[what]
    asked = with_ct(octets)
    service = service_of(key)
    async with serving(service=service, config=FrontConfig(http=(("127.0.0.1", 0),))) as (front, bound):
        if way == "tcp":
            [plain], [said] = await ask_tcp(bound.tcp[0], octets), await ask_tcp(bound.tcp[0], asked)
        elif way == "http":
            _, _, plain = await ask_http(bound.http[0], "/x", "POST", octets, HTTP_TUNNEL_TYPE)
            _, _, said = await ask_http(bound.http[0], "/x", "POST", asked, HTTP_TUNNEL_TYPE)
        else:
            plain, said = await whole_udp(bound.udp[0], octets), await whole_udp(bound.udp[0], asked)
        assert code_of(plain) == code_of(said) == code and is_signed(said, key) and not is_signed(plain, key)
        assert decode_response(decode_message(said)) == decode_response(decode_message(plain)) or what == "site"
        assert decode_message(said).header.flags & OpFlag.CERTIFY
        assert not decode_message(plain).header.flags & OpFlag.CERTIFY and not decode_message(plain).credential
        assert service.certifier.counters.signed >= 1
    assert front.service is service


async def test_the_key_that_our_site_shows_is_the_one_that_signs(key: SiteKey) -> None:
    site = encode_site(
        replace(
            decode_site(CATALOG.own_site), servers=(replace(decode_site(CATALOG.own_site).servers[0], public_key=key.public),)
        )
    )
    port = world()
    port.held = replace(CATALOG, own_site=site)
    service = FrontService(port, site_key=key)
    async with serving(port, service=service) as (_, bound):
        [said] = await ask_tcp(bound.tcp[0], operation(OpCode.GET_SITE_INFO))
        shown = decode_site(decode_message(said).body).servers[0].public_key
        [said] = await ask_tcp(bound.tcp[0], resolution(NAME, flags=CT))
        judge_signature(decode_message(said), said, shown)


async def test_a_registration_is_signed_from_its_challenge_to_its_answer(key: SiteKey) -> None:
    place = World()
    async with serving(place.port, service=service_of(key, place)) as (_, bound):
        asked = request(OpCode.CREATE_HANDLE, CREATE, OpFlag.CERTIFY)
        [challenge] = await ask_tcp(bound.tcp[0], asked)
        assert code_of(challenge) == 402 and is_signed(challenge, key)
        [done] = await ask_tcp(bound.tcp[0], with_ct(answer_of(decode_message(challenge), asked)))
        assert code_of(done) == 1 and is_signed(done, key)


async def test_an_exchange_of_keys_is_signed_for_there_was_no_key_of_a_session_yet(key: SiteKey) -> None:
    place = World(server_key=key.private)
    service = service_of(key, place)
    place.now_ms = service.now_ms()
    async with serving(place.port, service=service) as (_, bound):
        [said] = await ask_tcp(bound.tcp[0], with_ct(setup(SetupMode.SERVER_KEY)))
        assert code_of(said) == 1 and is_signed(said, key)
        number, session_key = decode_message(said).envelope.session_id, bytes(range(16))
        public = public_key_of(decode_session_setup_answer(decode_message(said).body).data)
        assert isinstance(public, rsa.RSAPublicKey)
        data = public.encrypt(key_on_wire(session_key), padding.PKCS1v15())
        [said] = await ask_tcp(bound.tcp[0], with_ct(exchange(number, data)))
        assert code_of(said) == 1 and is_signed(said, key)
        client = Client(place, number, session_key)
        [said] = await ask_tcp(bound.tcp[0], client.message(OpCode.CREATE_HANDLE, CREATE.encode()))
        assert code_of(said) == 402 and judge_mac(decode_message(said), said, session_key) > 0


async def test_in_a_session_its_mac_vouches_and_no_signature_is_made(key: SiteKey) -> None:
    place = World()
    service = service_of(key, place)
    place.now_ms = service.now_ms()
    client = await Client.opened(place, client="127.0.0.1")
    async with serving(place.port, service=service) as (_, bound):
        asked = client.message(OpCode.RESOLUTION, decode_message(resolution(b"88.118.9/x")).body, flags=CT)
        [said] = await ask_tcp(bound.tcp[0], asked)
        assert judge_mac(decode_message(said), said, client.key) > 0
        [again] = await ask_tcp(bound.tcp[0], asked)
        assert code_of(again) == ResponseCode.SESSION_MESSAGE_REJECTED and not decode_message(again).credential
        plain = encode_message(replace(decode_message(asked), credential=b""))
        [forged] = await ask_tcp(bound.tcp[0], sealed(plain, bytes(16), 99))
        assert code_of(forged) == ResponseCode.INVALID_SESSION_KEY and not decode_message(forged).credential
        hidden = client.message(OpCode.RESOLUTION, decode_message(resolution(b"88.118.9/x")).body, flags=int(OpFlag.CERTIFY))
        [said] = await ask_tcp(bound.tcp[0], hidden)
        assert code_of(said) == 402 and judge_mac(decode_message(said), said, client.key) > 0
        assert service.certifier.counters.signed == 0


async def test_in_a_session_nothing_forged_makes_us_sign_or_takes_a_place(key: SiteKey, monkeypatch: pytest.MonkeyPatch) -> None:
    place = World()
    service = service_of(key, place)
    place.now_ms = service.now_ms()
    client = await Client.opened(place, client="127.0.0.1")
    async with serving(place.port, service=service) as (_, bound):
        forged = client.message(OpCode.CREATE_HANDLE, CREATE.encode(), key=bytes(16), flags=CT)
        said = await ask_tcp(bound.tcp[0], *[forged] * 40)
        assert {code_of(one) for one in said} == {ResponseCode.INVALID_SESSION_KEY}
        assert not any(decode_message(one).credential for one in said) and service.certifier.counters.signed == 0
        asked = client.message(OpCode.RESOLUTION, decode_message(resolution(b"88.118.9/x")).body, flags=CT)
        begun = service.certifier.begin(asked, "127.0.0.1", False, place.registrar, place.now_ms)
        assert isinstance(begun, Begun) and not begun.signs and service.certifier._waiting == 0
        monkeypatch.setattr(service_module, "REGISTRATIONS_MAX", 0)
        asked = client.message(OpCode.CREATE_HANDLE, CREATE.encode(), flags=CT)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask_tcp(bound.tcp[0], asked), 0.2)


# -------------------------------------------------------------------------------------------- what is not signed is refused
def refused(octets: bytes, code: int, text: str) -> bool:
    message = decode_message(octets)
    bare = not message.credential and not message.header.flags & OpFlag.CERTIFY
    return bare and message.header.response_code == code and text.encode() in message.body


async def test_without_a_key_it_is_2_and_never_an_unsigned_answer() -> None:
    async with serving(service=service_of(None)) as (_, bound):
        [said] = await ask_tcp(bound.tcp[0], resolution(NAME, flags=CT))
        assert refused(said, 2, NO_KEY)
        assert code_of((await ask_tcp(bound.tcp[0], resolution(NAME)))[0]) == 1


@pytest.mark.parametrize("version", [(2, 6), (2, 5), (2, 3)])
async def test_2_5_and_2_6_cannot_sign(version: Version, key: SiteKey) -> None:
    async with serving(service=service_of(key)) as (_, bound):
        [said] = await ask_tcp(bound.tcp[0], with_ct(resolution(NAME), version))
        assert refused(said, ResponseCode.OPERATION_NOT_SUPPORTED, OLD)


@pytest.mark.parametrize("what", ["client", "all", "datagrams", "waiting", "crowded"])
async def test_beyond_its_limits_it_is_2(what: str, key: SiteKey, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(key, guard=Guard(UNTRUSTED))
    limits = {
        "client": CertifyLimits(client_per_s=1),
        "all": CertifyLimits(per_s=1),
        "datagrams": CertifyLimits(datagrams_per_s=1),
        "waiting": CertifyLimits(waiting_max=0),
        "crowded": CertifyLimits(),
    }[what]
    certifier = service.certifier = edge_certify.Certifier(
        key, service.expires, service.guard, lambda: what == "crowded", limits, lambda: 7.0
    )
    async with serving(service=service) as (_, bound):
        ask = ask_udp if what == "datagrams" else ask_tcp
        if what in ("client", "all", "datagrams"):
            assert code_of((await ask_tcp(bound.tcp[0], resolution(NAME, flags=CT)))[0]) == 1
        if what == "datagrams":
            service.certifier.limits = limits
            assert (await ask_udp(bound.udp[0], resolution(NAME, flags=CT)))[0]
        [said] = await ask(bound.tcp[0] if ask is ask_tcp else bound.udp[0], resolution(NAME, flags=CT))
        assert refused(said, 2, TOO_MANY), what
        assert certifier.counters.refused == 1
        assert code_of((await ask_tcp(bound.tcp[0], resolution(NAME)))[0]) == 1, "what needs no signature goes on"


async def test_who_is_trusted_has_no_limit_of_his_own(key: SiteKey) -> None:
    service = service_of(key)
    service.certifier = edge_certify.Certifier(
        key, service.expires, service.guard, limits=CertifyLimits(client_per_s=1), clock=lambda: 7.0
    )
    async with serving(service=service) as (_, bound):
        said = await ask_tcp(bound.tcp[0], *[resolution(NAME, flags=CT, request_id=number) for number in range(1, 6)])
        assert all(is_signed(one, key) for one in said)


async def test_a_place_is_given_back_whatever_happens(key: SiteKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_certify, "WORK_S_MAX", 0.01)
    service = service_of(key)

    async def never(octets: bytes, client: str, datagram: bool) -> list[bytes]:
        await asyncio.Event().wait()
        return []

    service._unsigned = never  # type: ignore[method-assign]
    async with serving(service=service) as (_, bound):
        for number in range(1, CertifyLimits().waiting_max + 2):
            [said] = await ask_tcp(bound.tcp[0], resolution(NAME, flags=CT, request_id=number))
            assert refused(said, 2, TOO_MANY)
        assert (service.certifier._waiting, service.certifier._datagrams) == (0, 0)


async def test_signatures_are_made_off_the_event_loop(key: SiteKey, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = edge_certify.signed
    monkeypatch.setattr(edge_certify, "signed", lambda *given: (seen.append(threading.get_ident()), real(*given))[1])
    async with serving(service=service_of(key)) as (_, bound):
        [said] = await ask_tcp(bound.tcp[0], resolution(NAME, flags=CT))
    assert is_signed(said, key) and len(seen) == 1 and seen[0] != threading.get_ident()


# ----------------------------------------------------------------------------------------------------- UDP, and strangers
async def test_over_udp_a_signed_answer_is_no_longer_than_any_other_may_be(key: SiteKey) -> None:
    guard = Guard(replace(UNTRUSTED, udp_long_octets_per_s=1))
    async with serving(service=service_of(key, guard=guard)) as (front, bound):
        asked = resolution(b"88.118.8/big", flags=CT)
        [said] = await ask_udp(bound.udp[0], asked)
        assert refused(said, 2, TOO_LONG) and len(said) <= 3 * len(asked)
        assert front.service.guard.counters.udp_long_shortened == 1
    async with serving(service=service_of(key)) as (front, bound):
        [said] = await ask_udp(bound.udp[0], resolution(b"88.118.8/huge", flags=CT))
        assert refused(said, 2, TOO_LONG) and front.udp[0].counters.too_long == 1


async def test_a_forged_senders_flood_leaves_streams_their_room(key: SiteKey) -> None:
    service = service_of(key)
    certifier = service.certifier
    asked = resolution(NAME, flags=CT)
    begun = [certifier.begin(asked, f"198.51.{number}.1", True, None, 0) for number in range(64)]
    assert sum(isinstance(one, Begun) for one in begun) == certifier.limits.datagrams_waiting_max
    assert isinstance(certifier.begin(asked, "192.0.2.1", False, None, 0), Begun)
    certifier.close()


async def test_malformed_and_answers_are_not_signed(key: SiteKey) -> None:
    service = service_of(key)
    async with serving(service=service) as (_, bound):
        good = resolution(NAME, flags=CT)
        [said] = await ask_tcp(bound.tcp[0], good[:40] + b"\0\0\xff\xff" + good[44:])
        assert code_of(said) == ResponseCode.PROTOCOL_ERROR and not decode_message(said).credential
        response = encode_message(Message(Envelope(5, 0), Header(OpCode.RESOLUTION, 1, CT), b""))
        [after] = await asyncio.wait_for(_both(bound.tcp[0], response, good), 10)
        assert is_signed(after, key), "two servers are never set to answer each other"
        assert service.certifier.counters.signed == 1


async def _both(address: tuple[str, int], silent: bytes, asked: bytes) -> list[bytes]:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(silent + asked)
        head = await reader.readexactly(20)
        return [head + await reader.readexactly(int.from_bytes(head[16:], "big"))]
    finally:
        writer.close()


# -------------------------------------------------------------------------------------------------------------- the key
def test_a_key_is_made_once_and_its_file_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "identity" / SITE_KEY_FILE
    made = ensure_site_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and made.private.key_size == 2_048
    assert ensure_site_key(path).public == made.public and ensure_site_key(path).mark == made.mark
    assert "PRIVATE" not in repr(made) and str(made.private.private_numbers().d) not in repr(made)
    path.unlink()
    assert ensure_site_key(path).mark != made.mark, "moved away: a new one"


def test_a_key_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    path = tmp_path / SITE_KEY_FILE
    ensure_site_key(path)
    path.chmod(0o640)
    for octets, mode, code in ((None, 0o640, Code.NOT_AUTHORISED), (b"no key", 0o600, Code.DAMAGED), (b"", 0o600, Code.DAMAGED)):
        if octets is not None:
            path.write_bytes(octets)
        path.chmod(mode)
        with pytest.raises(ZaibeiError) as told:
            load_site_key(path)
        assert told.value.code is code and str(path) in str(told.value)
    with pytest.raises(ZaibeiError, match="cannot be read"):
        load_site_key(tmp_path / "none")


def test_a_site_of_one_server_takes_the_key() -> None:
    site = site_of(["192.0.2.1"], [], serial=1, public_key=b"k")
    assert decode_site(encode_site(site)).servers[0].public_key == b"k"
