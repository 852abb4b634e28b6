"""Coverage-guided fuzzing of everything a front reads off a socket: `python tests/fuzz/front_fuzz.py -runs=200000`.

The first octet chooses the reader. Whatever comes, a reader answers, stays silent or closes; any other exception is a finding.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import atheris
from cryptography.hazmat.primitives.asymmetric import rsa

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["hosting", "replica.model.handle"]):
    from hosting.answer.port import MemoryAnswerPort
    from hosting.answer.question import Question
    from hosting.front.connections import Connections, StreamLimits
    from hosting.front.edge_http import HttpConnection
    from hosting.front.edge_site_key import SiteKey
    from hosting.front.edge_tcp import TcpConnection
    from hosting.front.http_pages import HttpRequest, read_request
    from hosting.front.port_wire import (
        Deframer,
        Kind,
        PortFault,
        decode_catalog,
        decode_failed,
        decode_found,
        decode_wants,
        encode_catalog,
        encode_found,
        encode_wants,
        frame,
    )
    from hosting.front.service import FrontService
    from tests.unit.front.world import CATALOG, fresh, world
    from tests.unit.handle.golden import OCTETS

OCTETS_MAX = 2_048


class Wire(asyncio.Transport):
    """A transport that remembers how much was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += len(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


LOOP = asyncio.new_event_loop()
PORT: MemoryAnswerPort = world()
SERVICE = FrontService(PORT, site_key=SiteKey(rsa.generate_private_key(65_537, 2_048)))
FAULTS: list[object] = []
LOOP.set_exception_handler(lambda loop, context: FAULTS.append(context))


async def converse(connection: HttpConnection | TcpConnection, octets: bytes) -> None:
    """Feed octets in three cuts, let every answer come, and close."""
    wire = Wire()
    connection.connection_made(wire)
    third = len(octets) // 3 + 1
    for at in range(0, len(octets), third):
        if not wire.closed:
            connection.data_received(octets[at : at + third])
    for _ in range(8):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    if wire.written > 64 * len(octets) + 64_000:
        raise AssertionError(f"{wire.written} octets for {len(octets)}")


def one(data: bytes) -> None:
    """One input."""
    if not data:
        return
    which, octets = data[0] % 6, data[1:]
    connections = Connections(StreamLimits())
    if which == 0:
        SERVICE.exchange.take(octets)
    elif which == 1:
        LOOP.run_until_complete(converse(HttpConnection(SERVICE, connections), octets))
    elif which == 2:
        LOOP.run_until_complete(converse(TcpConnection(SERVICE, connections), octets))
    elif which == 3:
        method, _, rest = octets.partition(b"\0")
        url, _, body = rest.partition(b"\0")
        read_request(HttpRequest(method, b"/api/handles/" + url, b"application/json", body))
    elif which == 4:
        for reader in (Deframer().feed, decode_wants, decode_found, decode_catalog):
            try:
                reader(octets)
            except PortFault:
                pass
        decode_failed(octets)
    else:
        LOOP.run_until_complete(ask(octets))
    if FAULTS:
        raise AssertionError(FAULTS)
    if connections.open:
        raise AssertionError("a connection leaked")


class Sink:
    """Counts answers."""

    def __init__(self) -> None:
        self.answers = 0

    def answered(self, context: object, question: object, answer: object) -> None:
        self.answers += 1

    def finish(self) -> None: ...


async def ask(name: bytes) -> None:
    """Every question gets one answer, whatever the name."""
    sink = Sink()
    taken = SERVICE.batcher.ask(sink, None, Question(name))
    for _ in range(8):
        await asyncio.sleep(0)
    PORT.calls.clear()
    if taken and sink.answers != 1:
        raise AssertionError(f"{sink.answers} answers to {name!r}")


def seeds() -> list[bytes]:
    """Whole conversations of each reader: without them a fuzzer takes hours to guess an envelope."""
    found = {"gd": ([b"v", None, b""], fresh("gd"))}
    frames = [frame(Kind.WANTS, 1, encode_wants({"gd": [b"k"]})), encode_found(found, 7), encode_catalog(CATALOG)]
    http = [
        b"GET /api/handles/88.118.8/XYZ-001?type=URL&index=1&pretty HTTP/1.1\r\nHost: x\r\n\r\n" * 2,
        b"POST /x HTTP/1.1\r\nContent-Type: application/x-hdl-message\r\nContent-Length: 76\r\n\r\n"
        + OCTETS["resolve_req_compat"],
        b"POST /api/handles/a/b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    ]
    names = [b"88.118.8/XYZ-001", b"0.NA/88.119.8", b"88.119.8/x", b"oid:1.2.156", b"gs1:01/09506000134352", b"did:bid:ef"]
    return [
        *(b"\0" + octets for octets in OCTETS.values()),
        *(b"\1" + octets for octets in http),
        *(b"\2" + octets * 2 for octets in OCTETS.values()),
        *(b"\2" + octets[:28] + b"\x59" + octets[29:] for octets in OCTETS.values() if len(octets) > 44),
        b'\3POST\x0088.118.8/XYZ-001?type=a&callback=b\x00{"index":[1],"auth":true}',
        *(b"\4" + octets for octets in frames),
        *(b"\5" + name for name in names),
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        for number, octets in enumerate(seeds()):
            (Path(corpus) / str(number)).write_bytes(octets)
        atheris.Setup([sys.argv[0], f"-max_len={OCTETS_MAX}", *sys.argv[1:], corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
