"""Coverage-guided fuzzing of what registers over the JSON API and in sessions: `python tests/fuzz/json_fuzz.py -runs=200000`.

The first octet chooses the reader. Allowed: a result, or ProtocolFault; a whole request is answered, and changes nothing.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["hosting.handle", "replica.model.handle"]):
    from hosting.handle.certified import read_certificate
    from hosting.handle.json_asks import JsonAsked, read_change, read_page, read_verification
    from hosting.handle.json_auth import read_authorization
    from replica.model.handle.admin_bodies import SetupMode
    from replica.model.handle.ciphers import decrypted, encrypted, is_encrypted
    from replica.model.handle.codes import OpCode
    from replica.model.handle.faults import ProtocolFault
    from replica.model.handle.macs import sealed
    from replica.model.handle.message import decode_message
    from tests.unit.front.test_https import RSA, made
    from tests.unit.handle.test_json_writes import BOMBS, NEW, VALUES, basic, proof
    from tests.unit.handle.test_login import login
    from tests.unit.handle.test_registrar import CREATE, NOW_MS, World, request
    from tests.unit.handle.test_server_key import SERVER, exchange
    from tests.unit.handle.test_sessions import setup

OCTETS_MAX = 4_096
KEY = b"k" * 16
SESSION = 5 << 125
LOOP = asyncio.new_event_loop()


def parts(octets: bytes) -> JsonAsked:
    """Method, address, credential and body, with octets 0 between."""
    method, _, rest = octets.partition(b"\0")
    url, _, rest = rest.partition(b"\0")
    credential, _, body = rest.partition(b"\0")
    return JsonAsked(method, b"/api/handles" + url, body, credential, "192.0.2.1", private=False)


def one(data: bytes) -> None:
    """One input."""
    if not data:
        return
    which, octets = data[0] % 6, data[1:]
    try:
        if which == 0:
            read_authorization(octets)
        elif which == 4:
            read_certificate(octets, NOW_MS)
        elif which == 1:
            asked = parts(octets)
            for read in (read_change, read_page, read_verification):
                try:
                    read(asked)
                except ProtocolFault:
                    continue
    except ProtocolFault:
        return
    if which == 2:
        LOOP.run_until_complete(ask(parts(octets)))
    elif which == 3:
        LOOP.run_until_complete(send(octets))
    elif which == 5:
        LOOP.run_until_complete(in_session(parts(octets)))


async def in_session(asked: JsonAsked) -> None:
    """In a session in which nothing was proved, nothing is changed and nobody becomes anybody."""
    world = World()
    sessions = world.registrar.json.sessions
    sessions.table.open(SESSION, "192.0.2.1", KEY, None, 60, world.now_ms)
    for url in (b"/api/sessions" + asked.url[len(b"/api/handles") :], b"/api/sessions/this", asked.url):
        said = await world.registrar.json.answer(replace(asked, url=url, tls=True))
        left = sessions.table.of_client(SESSION, "192.0.2.1", world.now_ms)
        if world.group.content.position.seq or (left is not None and left.identity is not None):
            raise AssertionError(f"{said.status} to {asked}")


async def ask(asked: JsonAsked) -> None:
    """Who has proved nothing is answered, and changes nothing."""
    world = World()
    said = await world.registrar.json.answer(asked)
    if said.status not in (400, 401, 403, 404, 500, 503) or world.group.content.position.seq:
        raise AssertionError(f"{said.status} to {asked}")


async def send(octets: bytes) -> None:
    """The same of a Handle message: set-ups of sessions, messages in one, proofs, verifications."""
    world = World(server_key=SERVER)
    world.registrar.desk.sessions.open(1, "192.0.2.1", KEY, None, 60, world.now_ms)
    world.registrar.desk.sessions.open(2, "192.0.2.1", b"", None, 60, world.now_ms)
    for answer in await world.registrar.answer(octets, "192.0.2.1"):
        decode_message(decrypted(answer, KEY) if is_encrypted(answer) else answer)
    if world.group.content.position.seq:
        raise AssertionError(f"{octets.hex()} changed something")


def seeds() -> list[bytes]:
    create = bytearray(request(OpCode.CREATE_HANDLE, CREATE))
    create[7] = 1  # in the session
    put = b"\0".join((b"PUT", NEW.removeprefix("/api/handles").encode() + b"?index=1", basic(), str(VALUES).encode()))
    return [
        b"\0" + basic(),
        b"\0" + proof("0000002a", b"n" * 16, alg="PBKDF2-HMAC-SHA1"),
        b"\1" + put,
        b"\1GET\0?prefix=88.118.9&page=1&pageSize=10\0\0",
        b"\2" + put,
        b"\3" + setup(),
        b"\3" + setup(SetupMode.SERVER_KEY),
        b"\3" + login(),
        b"\3" + exchange(2, bytes(256)),
        b"\3" + request(OpCode.CREATE_HANDLE, CREATE),
        b"\3" + sealed(bytes(create), KEY, 7),
        b"\3" + encrypted(sealed(bytes(create), KEY, 8), KEY, bytes(16)),
        b"\5" + b"\0".join((b"GET", b"", b'Handle sessionId="%032x"' % SESSION, b"")),
        b"\5" + b"\0".join((b"PUT", b"", proof(f"{SESSION:032x}", KEY, secret=b"guess"), b"")),
        b"\4" + made("300:88.118.9/A", RSA).der,
        *(b"\1PUT\0/88.118.9/a\0\0" + bomb[:OCTETS_MAX] for bomb in BOMBS.values()),
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        for number, octets in enumerate(seeds()):
            (Path(corpus) / str(number)).write_bytes(octets)
        atheris.Setup([sys.argv[0], f"-max_len={OCTETS_MAX}", *sys.argv[1:], corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
