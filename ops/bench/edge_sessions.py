"""Clients of the Handle protocol in one process: `python -m ops.bench.edge_sessions CONFIG.json` takes orders, one a line.

`open COUNT`   writes an administrator's key and a prefix's record, and opens COUNT sessions: a connection each, its key proved
`run SECONDS`  creates handles in all of them for SECONDS, one under way in each
`stop`         ends
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from hosting.tenant.edge_client import RegistrationClient
from ops.bench.edge_cluster import HOSTED_PREFIX
from ops.bench.edge_process import cpu_s
from replica.model.edge_identity import ensure_identity
from replica.model.handle.admin_bodies import (
    HS_SECKEY,
    ChallengeAnswer,
    SessionSetup,
    SetupMode,
    decode_challenge,
    decode_session_setup_answer,
)
from replica.model.handle.bodies import ValuesRequest
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, ResponseCode
from replica.model.handle.macs import judge_mac, key_from_wire, sealed
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_message
from replica.model.handle.proofs import MacCode, prove_secret
from replica.model.handle.signatures import public_data
from replica.model.handle.stream import Deframer
from replica.model.handle.types import ADMIN_ALL, HsAdmin, encode_admin
from replica.model.handle.values import HandleValue, Permission, Reference

KEY = Reference(f"{HOSTED_PREFIX}/ADMIN".encode(), 300)
PREFIX = f"{HOSTED_PREFIX}.1"  # below the tenant's own, so that the tenant itself keeps its record
ADMIN = HandleValue(100, b"HS_ADMIN", encode_admin(HsAdmin(ADMIN_ALL, KEY)))
RSA_BITS, SECRET_OCTETS, IDLE_S = 2_048, 32, 600
ANSWER_S_MAX = 10.0


class SessionsConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Where to register.

    Args:
        handle: TCP port of the leader's Handle service. servers: registration services, the leader's first.
        identity, name, roots: as of BulkConfig. octets: of the value that is registered. pids: whose CPU time is counted.
    """

    handle: int
    servers: list[str]
    identity: str
    name: str
    roots: str
    octets: int
    pids: list[int]


class HandleSession(asyncio.Protocol):
    """One connection with one session, one request under way."""

    def __init__(self) -> None:
        self._deframer = Deframer()
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self.session_id = self._number = 0
        self._key = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none of asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"the server closed the connection: {exc}"))

    def data_received(self, data: bytes) -> None:
        for octets in self._deframer.feed(data):
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(octets)

    async def ask(self, op: OpCode, body: bytes) -> Message:
        """Raises ConnectionError, TimeoutError, ProtocolFault (the answer's MAC)."""
        self._number += 1
        header = Header(op, flags=FLAGS_DEFAULT)
        octets = encode_message(Message(Envelope(self._number, 0, session_id=self.session_id), header, body))
        if self._key:
            octets = sealed(octets, self._key, self._number)
        self._answer = asyncio.get_running_loop().create_future()
        assert self._transport is not None
        self._transport.write(octets)
        async with asyncio.timeout(ANSWER_S_MAX):
            answer = await self._answer
        said = decode_message(answer)
        if self._key:
            judge_mac(said, answer, self._key)
        return said

    async def begin(self, private: rsa.RSAPrivateKey) -> None:
        """Open the session. Raises RuntimeError, ConnectionError, TimeoutError."""
        setup = SessionSetup(SetupMode.CLIENT_KEY, IDLE_S, KEY, public_data(private.public_key()))
        said = good(await self.ask(OpCode.SESSION_SETUP, setup.encode()))
        found = decode_session_setup_answer(said.body)
        self.session_id = said.envelope.session_id
        self._key, _ = key_from_wire(private.decrypt(found.data, padding.PKCS1v15()))

    async def prove(self, op: OpCode, body: bytes, secret: bytes) -> None:
        """Ask, and answer the challenge: no other comes in this session. Raises as `begin`."""
        said = await self.ask(op, body)
        if said.header.response_code != ResponseCode.AUTHENTICATION_NEEDED:
            raise RuntimeError(f"no challenge: code {said.header.response_code} {said.body[:200]!r}")
        asked = decode_challenge(said)
        proof = prove_secret(secret, asked.nonce, asked.digest, MacCode.HMAC_SHA256)
        good(await self.ask(OpCode.CHALLENGE_RESPONSE, ChallengeAnswer(HS_SECKEY, KEY, proof).encode()))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def good(said: Message) -> Message:
    """Raises RuntimeError: it was refused."""
    if said.header.response_code != ResponseCode.SUCCESS:
        raise RuntimeError(f"refused: code {said.header.response_code} {said.body[:200]!r}")
    return said


class Clients:
    """See the module."""

    def __init__(self, config: SessionsConfig) -> None:
        self._config, self._serial = config, 0
        self._identity = ensure_identity(Path(config.identity), config.name)
        self._roots = Path(config.roots).read_bytes()
        self._open = list[HandleSession]()
        self._random = os.urandom(2 * config.octets)

    def _next(self) -> bytes:
        """The next handle: a name that is new, a value that does not compress."""
        self._serial += 1
        octets = self._config.octets
        start = self._serial * 61 % octets
        value = HandleValue(1, b"TEXT", self._random[start : start + octets])
        return ValuesRequest(f"{PREFIX}/{os.getpid()}-{self._serial}".encode(), (value, ADMIN)).encode()

    async def open(self, count: int) -> dict[str, Any]:
        """Seconds it took, the proofs included. Raises RuntimeError: refused."""
        config, secret = self._config, secrets.token_bytes(SECRET_OCTETS)
        hidden = Permission.ADMIN_READ | Permission.ADMIN_WRITE
        async with RegistrationClient(config.servers, self._identity, [self._roots]) as client:
            key = HandleValue(KEY.index, HS_SECKEY, secret, permissions=hidden)
            for name, values in ((KEY.handle.decode(), [ADMIN, key]), (f"0.NA/{PREFIX}", [ADMIN])):
                done = await client.put(name, values)
                if not done.ok:
                    raise RuntimeError(f"{name}: {done.trouble}")
        private, loop = rsa.generate_private_key(65_537, RSA_BITS), asyncio.get_running_loop()
        began = time.perf_counter()
        for _ in range(count):
            _, made = await loop.create_connection(HandleSession, "127.0.0.1", config.handle)
            self._open.append(made)
            await made.begin(private)
            await made.prove(OpCode.CREATE_HANDLE, self._next(), secret)
        return {"open": count, "seconds": time.perf_counter() - began}

    async def run(self, seconds: float) -> dict[str, Any]:
        """Closed loop. Raises RuntimeError: refused; ConnectionError, TimeoutError."""
        latencies = list[float]()
        cpu, began = cpu_s(self._config.pids), time.perf_counter()
        end = began + seconds

        async def worker(session: HandleSession) -> None:
            while (asked := time.perf_counter()) < end:
                good(await session.ask(OpCode.CREATE_HANDLE, self._next()))
                latencies.append(time.perf_counter() - asked)

        await asyncio.gather(*map(worker, self._open))
        took = time.perf_counter() - began
        latencies.sort()
        count = len(latencies)
        return {
            "commits": count, "seconds": took, "cpu_s": cpu_s(self._config.pids) - cpu,
            "p50_ms": latencies[count // 2] * 1e3, "p99_ms": latencies[count * 99 // 100] * 1e3,
        }  # fmt: skip

    def close(self) -> None:
        for one in self._open:
            one.close()


async def _serve(config: SessionsConfig) -> None:
    clients, loop = Clients(config), asyncio.get_running_loop()
    while True:
        match (await loop.run_in_executor(None, sys.stdin.readline)).split():
            case ["open", count]:
                _say(await clients.open(int(count)))
            case ["run", seconds]:
                _say(await clients.run(float(seconds)))
            case _:
                clients.close()
                return


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    uvloop.run(_serve(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=SessionsConfig)))


if __name__ == "__main__":
    main()
