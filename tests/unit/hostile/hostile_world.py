"""Three tenants that do not trust each other, on one member, in memory: what the tests of this folder attack.

A owns 88.118.9, B owns 88.118.90 beside it, C owns 88.118.9.1 below it. B and C are tenants of their own.
"""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any
from urllib.parse import quote

import grpc

from hosting.answer.port import MemoryAnswerPort
from hosting.handle.edge_look import Looks
from hosting.handle.edge_registrar import Registrar, Sources
from hosting.handle.json_asks import JsonAsked
from hosting.tenant.edge_service import RegistrationService
from hosting.tenant.memory import MemoryGroup
from hosting.tenant.offices import Offices, OfficeSettings
from hosting.tenant.papers import AnyPaper, key_of, value_of
from replica.model.catalog import Catalog, Owner
from replica.model.handle import admin_bodies, proofs
from replica.model.handle.bodies import HandleRequest, IndexesRequest, Request, ResolutionRequest, ValuesRequest
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, ResponseCode
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_message
from replica.model.handle.proofs import MacCode
from replica.model.handle.types import ADMIN_ALL, HsAdmin, encode_admin
from replica.model.handle.values import HandleValue, Reference, encode_record
from replica.model.identifier import Identifier, PrefixTree, prefix_key
from replica.model.identity import Peer, Pins
from replica.model.states import Freshness, Mode
from replica.model.view import SourceView
from tests.unit.handle.test_sessions import Client

A, B, C = "88.118.9", "88.118.90", "88.118.9.1"
NAMES = {A: "region-a", B: "region-b", C: "region-c"}
KEYS = {prefix: Reference(f"{prefix}/ADMIN".encode(), 300) for prefix in NAMES}
SECRETS = {prefix: f"secret of {prefix}".encode() for prefix in NAMES}
NOW_MS = 1_700_000_000_000
DENIED, HIDDEN = ResponseCode.INSUFFICIENT_PERMISSIONS, 0x0C  # HIDDEN: permission bits of administrators alone
SEEN = "192.0.2.1"


def admin(key: Reference, index: int = 100) -> HandleValue:
    return HandleValue(index, b"HS_ADMIN", encode_admin(HsAdmin(ADMIN_ALL, key)))


def url(data: bytes = b"x", index: int = 1, permissions: int = 0x0E) -> HandleValue:
    return HandleValue(index, b"URL", data, permissions=permissions)


class Place:
    """Three tenants on one member."""

    def __init__(self, peers: dict[str, Peer] | None = None) -> None:
        self.groups = {prefix: MemoryGroup(source, [prefix_key(prefix)]) for prefix, source in NAMES.items()}
        settings = [
            OfficeSettings(source, (prefix_key(prefix),), Pins((peers[prefix],) if peers else ()))
            for prefix, source in NAMES.items()
        ]
        by_source = {group.source: group for group in self.groups.values()}
        self.offices = Offices(settings, by_source.get, lambda: NOW_MS)
        self.service = RegistrationService(self.offices)
        self.above = {
            Identifier.parse(f"0.NA/{prefix}").key(): encode_record((admin(KEYS[prefix]),)) for prefix in (A, B)
        }  # of the node above; C's stands at A
        view = SourceView("top", age_ms=10, freshness=Freshness.FRESH, ready=True)
        catalog = Catalog(1, PrefixTree({prefix_key("88.118"): Owner("top", Mode.RECORDS)}))
        self.port = MemoryAnswerPort(catalog, {"top": view}, {"top": self.above})
        chance = itertools.count(1)
        sources = Sources(lambda: NOW_MS, lambda octets: next(chance).to_bytes(octets, "big"))
        self.registrar = Registrar(Looks(self.offices, self.port), sources)
        self.put(A, f"0.NA/{C}", admin(KEYS[C]))
        for prefix, key in KEYS.items():
            secret = HandleValue(300, b"HS_SECKEY", SECRETS[prefix], permissions=HIDDEN)
            self.put(prefix, key.handle.decode(), secret, admin(key))
            self.put(prefix, f"{prefix}/DATA", url(), url(b"hidden", 2, HIDDEN), admin(key))

    def put(self, prefix: str, name: str, *values: HandleValue) -> None:
        self.groups[prefix].content.records[Identifier.parse(name).key()] = encode_record(values)

    def say(self, prefix: str, ident: str, paper: AnyPaper) -> None:
        """A document, put beside the log: so the office is opened anew and reads it."""
        self.groups[prefix].content.records[key_of(paper, ident)] = value_of(paper)
        self.offices._open.pop(NAMES[prefix], None)

    @staticmethod
    def record(*values: HandleValue) -> bytes:
        return encode_record(values)

    def hiding(self, prefix: str) -> list[bytes]:
        """Keys of records with values that the public may not read."""
        return [Identifier.parse(f"{prefix}/{name}").key() for name in ("ADMIN", "DATA")]

    def kept(self, *prefixes: str) -> dict[str, dict[bytes, bytes]]:
        return {prefix: dict(self.groups[prefix].content.records) for prefix in prefixes}

    async def send(self, octets: bytes, client: str = SEEN) -> Message:
        [answer] = await self.registrar.answer(octets, client)
        return decode_message(answer)

    async def ask(self, op: OpCode, body: Request, key: Reference, secret: bytes) -> Message:
        """The answer to a request whose challenge is answered with this secret."""
        request = encode_message(Message(Envelope(7, 0), Header(op, flags=FLAGS_DEFAULT), body.encode()))
        said = await self.send(request)
        assert said.header.response_code == ResponseCode.AUTHENTICATION_NEEDED
        asked = admin_bodies.decode_challenge(said)
        made = proofs.prove_secret(secret, asked.nonce, asked.digest, MacCode.HMAC_SHA256)
        answer = admin_bodies.ChallengeAnswer(admin_bodies.HS_SECKEY, key, made).encode()
        envelope = Envelope(8, 0, session_id=said.envelope.session_id)
        return await self.send(encode_message(Message(envelope, Header(OpCode.CHALLENGE_RESPONSE), answer)))

    async def code(self, op: OpCode, body: Request, who: str = A) -> int:
        return (await self.ask(op, body, KEYS[who], SECRETS[who])).header.response_code

    async def json(self, method: str, address: str, credential: bytes, body: object = None) -> tuple[int, dict[str, Any]]:
        octets = b"" if body is None else json.dumps(body).encode()
        said = await self.registrar.json.answer(JsonAsked(method.encode(), address.encode(), octets, credential, SEEN, True))
        return said.status, json.loads(said.body)


def basic(key: Reference, secret: bytes) -> bytes:
    user = quote(f"{key.index}:{key.handle.decode()}", safe="").encode()
    return b"Basic " + base64.b64encode(user + b":" + secret)


def changes(name: str, key: Reference) -> list[tuple[OpCode, Request]]:
    handle = name.encode()
    return [
        (OpCode.CREATE_HANDLE, ValuesRequest(handle, (url(), admin(key)))),
        (OpCode.ADD_VALUE, ValuesRequest(handle, (url(index=9),))),
        (OpCode.MODIFY_VALUE, ValuesRequest(handle, (url(b"mine"),))),
        (OpCode.DELETE_HANDLE, HandleRequest(handle)),
    ]


def every_change(name: str, key: Reference) -> list[tuple[OpCode, Request]]:
    """With those that `changes` has no need of."""
    handle = name.encode()
    return [
        *changes(name, key),
        (OpCode.REMOVE_VALUE, IndexesRequest(handle, (1,))),
        (OpCode.ADD_VALUE, ValuesRequest(handle, (admin(key, 101),))),
        (OpCode.MODIFY_VALUE, ValuesRequest(handle, (HandleValue(300, b"HS_SECKEY", b"mine", permissions=HIDDEN),))),
    ]


async def in_session(place: Place, who: str) -> Client:
    """A session in which the administrator of a tenant proved his key, by adding a value at home."""
    client = await Client.opened(place, KEYS[who])  # type: ignore[arg-type]
    assert await client.prove(OpCode.ADD_VALUE, ValuesRequest(f"{who}/DATA".encode(), (url(index=7),)), KEYS[who]) == 1
    return client


async def hidden(client: Client, name: str) -> Message:
    return await client.say(client.message(OpCode.RESOLUTION, ResolutionRequest(name.encode()).encode(), flags=0))


class Refused(Exception):
    pass


class Calling:
    """What a servicer is given: who calls."""

    def __init__(self, pem: bytes) -> None:
        self._pem = pem

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_pem_cert": [self._pem]} if self._pem else {}

    async def abort(self, status: grpc.StatusCode, text: str, metadata: object = ()) -> None:
        raise Refused(status.name, text)
