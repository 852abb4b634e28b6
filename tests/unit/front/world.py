"""A small world for the fronts: four sources in a memory port, and messages as clients send them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from hosting.answer.port import AnswerPort, MemoryAnswerPort
from hosting.front.edge_front import Bound, Front, FrontConfig
from hosting.front.service import FrontService
from replica.model.catalog import Catalog, Owner
from replica.model.handle.bodies import HandleRequest, ResolutionRequest
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_message
from replica.model.handle.types import Interface, Protocol, encode_site, site_of
from replica.model.handle.values import HandleValue, encode_record
from replica.model.identifier import Identifier, PrefixTree, prefix_key
from replica.model.position import Position
from replica.model.states import Freshness, Mode
from replica.model.view import SourceView
from tests.unit.handle.golden import OCTETS, STAMP

NAME = b"88.118.8/XYZ-001"
REQUEST_ID = 0x01020304
POSITION = Position(bytes(16), 1, 9, b"\x01" * 32)
OWN_SITE = encode_site(site_of(["127.0.0.1", "::1"], [Interface(3, Protocol.TCP, 2699)], serial=3))
CATALOG = Catalog(
    1,
    PrefixTree(
        {
            prefix_key("88.118"): Owner("gd", Mode.RECORDS),
            prefix_key("88.119"): Owner("gx", Mode.ROUTES),
            prefix_key("88.121"): Owner("old", Mode.RECORDS),
        }
    ),
    own_site=OWN_SITE,
)
GOLDEN_URL = HandleValue(1, b"URL", b"http://example.cn/a", timestamp=STAMP)
BIG = HandleValue(1, b"BLOB", b"z" * 1_500)
HUGE = HandleValue(1, b"BLOB", b"z" * 200_000)


def key(name: str) -> bytes:
    return Identifier.parse(name).key()


def fresh(source: str) -> SourceView:
    return SourceView(source, position=POSITION, age_ms=120, freshness=Freshness.FRESH, ready=True)


def world() -> MemoryAnswerPort:
    """gd: fresh records; gx: fresh routes; old: expired records."""
    return MemoryAnswerPort(
        CATALOG,
        {"gd": fresh("gd"), "gx": fresh("gx"), "old": replace(fresh("old"), freshness=Freshness.EXPIRED, age_ms=400_000)},
        {
            "gd": {
                key(NAME.decode()): encode_record([GOLDEN_URL]),
                key("88.118.8/big"): encode_record([BIG]),
                key("88.118.8/huge"): encode_record([HUGE]),
                key("88.118.8/设备"): encode_record([GOLDEN_URL]),
                key("88.118.8/bad"): b"",
            },
            "gx": {
                key("0.NA/88.119.8"): encode_record(
                    [
                        HandleValue(3, b"HS_SITE", OCTETS["hs_site"], timestamp=STAMP),
                        HandleValue(4, b"HS_SERV", b"0.SERV/88.118"),
                    ]
                )
            },
            "old": {key("88.121/a"): encode_record([GOLDEN_URL])},
        },
    )


def resolution(
    name: bytes,
    *,
    request_id: int = REQUEST_ID,
    flags: int = FLAGS_DEFAULT,
    indexes: tuple[int, ...] = (),
    types: tuple[bytes, ...] = (),
    credential: bytes = b"",
    recursion: int = 0,
) -> bytes:
    """Octets of a resolution request at 2.3 that suggests 2.11."""
    return encode_message(
        Message(
            Envelope(request_id, 0, (2, 3), (2, 11)),
            Header(OpCode.RESOLUTION, flags=flags, recursion=recursion),
            ResolutionRequest(name, indexes, types).encode(),
            credential,
        )
    )


def operation(op: int, name: bytes = b"/", request_id: int = REQUEST_ID) -> bytes:
    return encode_message(Message(Envelope(request_id, 0), Header(op), HandleRequest(name).encode()))


def code_of(answer: bytes) -> int:
    return decode_message(answer).header.response_code


def request_id_of(answer: bytes) -> int:
    return decode_message(answer).envelope.request_id


def without_expiration(answer: bytes) -> bytes:
    """An answer with expiration 0, as the golden vectors have it."""
    return answer[:36] + bytes(4) + answer[40:]


@asynccontextmanager
async def serving(
    port: AnswerPort | None = None,
    host: str = "127.0.0.1",
    config: FrontConfig | None = None,
    service: FrontService | None = None,
) -> AsyncIterator[tuple[Front, Bound]]:
    """A front on free ports of one host."""
    wanted = config or FrontConfig()
    here = ((host, 0),)
    front = Front(port or world(), replace(wanted, udp=here, tcp=here, http=here), service)
    bound = await front.start()
    try:
        yield front, bound
    finally:
        await front.stop()


class Datagrams(asyncio.DatagramProtocol):
    """A UDP client: what arrives goes to `inbox`."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.inbox.put_nowait(data)


async def ask_udp(address: tuple[str, int], *sent: bytes, answers: int = 1) -> list[bytes]:
    """Send datagrams, wait for so many back."""
    transport, client = await asyncio.get_running_loop().create_datagram_endpoint(Datagrams, remote_addr=address)
    try:
        for data in sent:
            transport.sendto(data)
        return [await asyncio.wait_for(client.inbox.get(), 10) for _ in range(answers)]
    finally:
        transport.close()


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """One Handle message off a TCP stream."""
    head = await asyncio.wait_for(reader.readexactly(20), 10)
    return head + await asyncio.wait_for(reader.readexactly(int.from_bytes(head[16:], "big")), 10)


async def ask_tcp(address: tuple[str, int], *sent: bytes) -> list[bytes]:
    """Send messages on one connection, read as many answers."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(b"".join(sent))
        return [await read_message(reader) for _ in sent]
    finally:
        writer.close()


async def read_http(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body of one response."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
    body = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), 10)
    return int(first.split()[1]), headers, body


async def ask_http(
    address: tuple[str, int], target: str, method: str = "GET", body: bytes = b"", kind: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        typed = f"Content-Type: {kind}\r\n" if kind else ""
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\n{typed}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return await read_http(reader)
    finally:
        writer.close()
