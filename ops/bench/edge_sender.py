"""The load sender, a process of its own: prebuilt requests for random names, answers counted and checked.

`python -m ops.bench.edge_sender CONFIG.json` prints one line: answers, seconds, CPU seconds of the server's processes meanwhile.
A closed loop: so many requests are under way at any time, the next leave when answers come. An answer that is not the record
counts as wrong and fails the run.
"""

from __future__ import annotations

import json
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from hosting.client.lookup import Question
from hosting.client.wire import encode_question
from hosting.v1 import resolve_pb2
from ops.bench import registry
from ops.bench.edge_process import cpu_s
from ops.bench.material import open_material
from replica import native
from replica.model.identifier import key_text

NAMES = 200_000  # different names asked for, drawn from all
LOST_S = 0.5  # a datagram without an answer for so long is lost; so many new ones leave
CODE_AT = 27  # last octet of the response code in a Handle answer
IDS = 100  # identifiers in one gRPC call
BATCH_METHOD = "/hosting.v1.Resolver/BatchResolve"


class SenderConfig(msgspec.Struct, forbid_unknown_fields=True):
    """One run.

    Args:
        kind: udp, tcp, http, grpc, paced. depth: requests under way on each of `connections`.
        records: names are drawn from the first so many of the material; pids: of the server.
        rate: requests a second of `paced`.
    """

    kind: str
    port: int
    material: str
    records: int
    seconds: float
    pids: list[int]
    depth: int = 64
    connections: int = 4
    warm_up_s: float = 1.0
    rate: float = 200.0
    seed: int = 1


class Tally:
    """What was answered within the measured time. CPU is that of the server's processes."""

    def __init__(self, config: SenderConfig) -> None:
        self._config = config
        self._until = time.monotonic() + config.warm_up_s
        self._measuring = False
        self._cpu = self._began = 0.0
        self.answered = self.wrong = self.lost = 0
        self.result: dict[str, float] | None = None

    def add(self, answered: int) -> bool:
        """Note answers; False: the time is over."""
        now = time.monotonic()
        self.answered += answered
        if now < self._until:
            return True
        if not self._measuring:
            self._measuring, self.answered, self.lost, self.wrong = True, 0, 0, 0
            self._began, self._cpu = now, cpu_s(self._config.pids)
            self._until = now + self._config.seconds
            return True
        self.result = {
            "answered": self.answered,
            "seconds": now - self._began,
            "cpu_s": cpu_s(self._config.pids) - self._cpu,
            "wrong": self.wrong,
            "lost": self.lost,
        }
        return False


def names_of(config: SenderConfig) -> list[bytes]:
    """Random names that exist, as clients spell them."""
    if config.material == registry.NAME:
        return [key_text(key).encode() for key in registry.some_keys(config.records, NAMES, config.seed)]
    keys = open_material(Path(config.material)).keys(config.records)
    draw = random.Random(config.seed)
    return [key_text(key).encode() for key in draw.sample(keys, min(NAMES, len(keys)))]


def handle_request(name: bytes, number: int) -> bytes:
    """A resolution request as clients send it: all values, public ones."""
    return encode_question(Question(name.decode()), number)


# ------------------------------------------------------------------------------------------------------------- UDP
def run_udp(config: SenderConfig, names: Sequence[bytes], tally: Tally) -> None:
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    endpoint.bind(("127.0.0.1", 0))
    endpoint.setblocking(False)
    wire = native.Datagrams(endpoint.fileno(), 128, 2_048)
    peer = native.pack_address("127.0.0.1", config.port)
    requests = [(handle_request(name, number), peer) for number, name in enumerate(names)]
    at, window = 0, config.depth * config.connections
    poll = select.poll()
    poll.register(endpoint, select.POLLIN)
    free = window
    going = True
    while going:
        if free:
            at = at if at + free <= len(requests) else 0
            sent = wire.send(requests[at : at + free])
            at, free = at + sent, free - sent
        if not poll.poll(LOST_S * 1_000):
            tally.lost += window - free
            free = window
        received = wire.receive()
        tally.wrong += sum(octets[CODE_AT] != 1 for octets, _ in received)
        free += len(received)
        going = tally.add(len(received))
    endpoint.close()


# ------------------------------------------------------------------------------------------------------------- TCP, HTTP
Inspect = Callable[[bytes, int], int | None]
"""(octets, answers expected) -> right answers among them; None while they are not complete."""


def inspect_handle(octets: bytes, depth: int) -> int | None:
    """Handle answers to records of one size all have the same length, which the first one states."""
    size = 20 + int.from_bytes(octets[16:20], "big")
    return None if len(octets) < size * depth else octets[CODE_AT::size].count(1)


def inspect_http(octets: bytes, depth: int) -> int | None:
    if not octets.endswith(b"]}") or octets.count(b"HTTP/1.1 ") < depth:
        return None
    return octets.count(b'{"responseCode":1,"handle":"')


class Stream:
    """One connection with a chunk of pipelined requests under way; the next chunk leaves when all were answered."""

    def __init__(self, port: int, chunks: Sequence[bytes], depth: int, inspect: Inspect) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._chunks, self._depth, self._inspect = chunks, depth, inspect
        self._next = 0
        self._got = b""

    def send(self) -> None:
        self.socket.sendall(self._chunks[self._next])
        self._next = (self._next + 1) % len(self._chunks)

    def receive(self) -> tuple[int, int]:
        """(answers, wrong ones) once the whole chunk was answered; (0, 0) before."""
        octets = self.socket.recv(1 << 20)
        if not octets:
            raise RuntimeError("the server closed a connection")
        self._got += octets
        right = self._inspect(self._got, self._depth)
        if right is None:
            return 0, 0
        self._got = b""
        self.send()
        return self._depth, self._depth - right


def run_streams(config: SenderConfig, requests: Sequence[bytes], tally: Tally, inspect: Inspect) -> None:
    depth = config.depth
    chunks = [b"".join(requests[at : at + depth]) for at in range(0, len(requests) - depth, depth)]
    share = len(chunks) // config.connections
    streams = {}
    poll = select.poll()
    for number in range(config.connections):
        stream = Stream(config.port, chunks[number * share : (number + 1) * share], depth, inspect)
        streams[stream.socket.fileno()] = stream
        poll.register(stream.socket, select.POLLIN)
        stream.send()
    going = True
    while going:
        answered = 0
        for descriptor, _ in poll.poll(5_000):
            count, wrong = streams[descriptor].receive()
            answered += count
            tally.wrong += wrong
        going = tally.add(answered)
    for stream in streams.values():
        stream.socket.close()


# ------------------------------------------------------------------------------------------------------------- gRPC
class Http2:
    """One gRPC connection that sends prebuilt calls: a client library would take more CPU than the server that is measured.

    Flow control is opened wide once; every response is checked: all its codes, and that it is as long as its records are.
    """

    _FRAME = struct.Struct(">BHBBI")
    _WINDOW = 2**31 - 65_536

    def __init__(self, port: int, calls: Sequence[bytes], right: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._calls, self._right = calls, right
        self._next = 0
        self._stream = 1
        self._got = b""
        self._bodies: dict[int, bytes] = {}
        self._unacknowledged = 0
        settings = struct.pack(">HIHI", 4, 2**31 - 1, 5, 2**24 - 1)  # initial window, longest frame
        window = self._frame(8, 0, 0, self._WINDOW.to_bytes(4, "big"))
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self._frame(4, 0, 0, settings) + window)
        self._head = b"\x83\x86" + b"".join(
            b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value
            for name, value in (
                (b":path", BATCH_METHOD.encode()), (b":authority", b"bench"), (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            )
        )  # fmt: skip

    def _frame(self, kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return self._FRAME.pack(len(body) >> 16, len(body) & 0xFFFF, kind, flags, stream) + body

    def send(self) -> None:
        """The next call, on a stream of its own."""
        call = self._calls[self._next]
        self._next = (self._next + 1) % len(self._calls)
        body = b"\0" + len(call).to_bytes(4, "big") + call
        self.socket.sendall(self._frame(1, 4, self._stream, self._head) + self._frame(0, 1, self._stream, body))
        self._stream += 2

    def receive(self) -> tuple[int, int]:
        """(calls answered, wrong ones); as many new calls leave."""
        octets = self.socket.recv(1 << 20)
        if not octets:
            raise RuntimeError("the server closed a connection")
        octets = self._got + octets
        at = done = wrong = 0
        while len(octets) - at >= 9:
            high, low, kind, flags, stream = self._FRAME.unpack_from(octets, at)
            end = at + 9 + (high << 16 | low)
            if end > len(octets):
                break
            if kind == 0:
                self._bodies[stream] = self._bodies.get(stream, b"") + octets[at + 9 : end]
                self._unacknowledged += end - at - 9
            elif kind == 1 and flags & 1:
                done += 1
                wrong += not self._is_right(self._bodies.pop(stream, b""))
            elif kind in (4, 6) and not flags & 1:  # settings and pings want an acknowledgement
                self.socket.sendall(self._frame(kind, 1, 0, b"" if kind == 4 else octets[at + 9 : end]))
            elif kind == 7:
                raise RuntimeError("the server goes away")
            at = end
        self._got = octets[at:]
        if self._unacknowledged > 2**28:
            self.socket.sendall(self._frame(8, 0, 0, self._unacknowledged.to_bytes(4, "big")))
            self._unacknowledged = 0
        for _ in range(done):
            self.send()
        return done, wrong

    def _is_right(self, body: bytes) -> bool:
        # field 1 (the codes) comes first; 6 octets of it and its length follow the 5 of the message's
        return len(body) > IDS * 200 and body[5:7] == b"\x0a\xc8" and body[8 : 8 + 2 * IDS] == self._right


def run_grpc(config: SenderConfig, names: Sequence[bytes], tally: Tally) -> None:
    calls = [
        resolve_pb2.BatchResolveRequest(identifiers=names[at : at + IDS]).SerializeToString()
        for at in range(0, len(names) - IDS, IDS)
    ]
    share = len(calls) // config.connections
    poll = select.poll()
    links = {}
    for number in range(config.connections):
        link = Http2(config.port, calls[number * share : (number + 1) * share], b"\0\x01" * IDS)
        links[link.socket.fileno()] = link
        poll.register(link.socket, select.POLLIN)
        for _ in range(config.depth):
            link.send()
    going = True
    while going:
        answered = 0
        for descriptor, _ in poll.poll(5_000):
            done, wrong = links[descriptor].receive()
            answered += done
            tally.wrong += wrong
        going = tally.add(answered * IDS)
    for link in links.values():
        link.socket.close()


# ------------------------------------------------------------------------------------------------------------- paced
def run_paced(config: SenderConfig, names: Sequence[bytes]) -> dict[str, float]:
    """Open loop over UDP: requests leave on time whatever became of the earlier ones; latency counts from the due time."""
    endpoint = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    endpoint.connect(("127.0.0.1", config.port))
    count = int(config.rate * config.seconds)
    requests = [handle_request(names[number % len(names)], number) for number in range(count)]
    due = [number / config.rate for number in range(count)]
    taken: list[float | None] = [None] * count
    began, sent, wrong = time.perf_counter() + 0.05, 0, 0
    while True:
        now = time.perf_counter() - began
        while sent < count and due[sent] <= now:
            endpoint.send(requests[sent])
            sent += 1
        if sent == count and (now > due[-1] + 1.0 or None not in taken):
            break
        wait = due[sent] - now if sent < count else 0.05
        if select.select([endpoint], [], [], max(0.0, wait))[0]:
            octets = endpoint.recv(2_048)
            number = int.from_bytes(octets[8:12], "big")
            taken[number] = time.perf_counter() - began - due[number]
            wrong += octets[CODE_AT] != 1
    times = sorted(one for one in taken if one is not None)
    lost = count - len(times)
    times += [1.0] * lost  # a lost one counts as a second
    return {
        "answered": count - lost, "wrong": wrong, "lost": lost, "seconds": config.seconds,
        "p50_ms": times[count // 2] * 1e3, "p99_ms": times[count * 99 // 100] * 1e3, "max_ms": times[-1] * 1e3,
    }  # fmt: skip


def main() -> None:
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=SenderConfig)
    names = names_of(config)
    tally = Tally(config)
    match config.kind:
        case "paced":
            print(json.dumps(run_paced(config, names)), flush=True)
            return
        case "udp":
            run_udp(config, names, tally)
        case "tcp":
            requests = [handle_request(name, number) for number, name in enumerate(names)]
            run_streams(config, requests, tally, inspect_handle)
        case "http":
            requests = [b"GET /api/handles/%s HTTP/1.1\r\nHost: bench\r\n\r\n" % name for name in names]
            run_streams(config, requests, tally, inspect_http)
        case "grpc":
            run_grpc(config, names, tally)
    print(json.dumps(tally.result), flush=True)


if __name__ == "__main__":
    main()
