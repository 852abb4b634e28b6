"""A registrar of the hosted source, a process of its own: `python -m ops.bench.edge_bulk CONFIG.json` takes orders, one a line.

`stream COUNT STREAMS`  registers COUNT new identifiers over STREAMS streams of PutMany at once
`visible COUNT`         registers COUNT new ones, one each PACE_S, and asks every member over UDP until it answers each of them
`stop`                  ends
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from hosting.tenant.edge_client import Put, RegistrationClient
from ops.bench.edge_cluster import HOSTED_PREFIX
from ops.bench.edge_process import cpu_s
from replica.model.edge_identity import ensure_identity
from replica.model.handle.bodies import ResolutionRequest
from replica.model.handle.codes import FLAGS_DEFAULT, OpCode, ResponseCode
from replica.model.handle.message import Envelope, Header, Message, decode_message, encode_message
from replica.model.handle.values import HandleValue

PART = 5_000  # changes of one call, as an import sends them
PACE_S = 0.02
ANSWER_S_MAX = 0.05  # then it is asked again
VISIBLE_S_MAX = 10.0


class BulkConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Where to register, and where to ask.

    Args:
        servers: registration services, the leader's first; roots: CA of the members.
        resolvers: Handle ports of every member. pids: whose CPU time is counted.
    """

    servers: list[str]
    identity: str
    name: str
    roots: str
    resolvers: list[int]
    pids: list[int]


def values_of(number: int) -> list[HandleValue]:
    """What a product registry keeps of one item; about 200 octets."""
    return [
        HandleValue(1, b"URL", b"https://id.enterprise.example.cn/p/%012d" % number),
        HandleValue(2, b"DESCRIPTION", b"industrial controller, model 412-007, revision %06d" % (number % 999_983)),
    ]


class Registrar:
    """See the module."""

    def __init__(self, config: BulkConfig) -> None:
        self._config, self._serial = config, 0

    def _client(self) -> RegistrationClient:
        one = self._config
        identity = ensure_identity(Path(one.identity), one.name)
        return RegistrationClient(one.servers, identity, [Path(one.roots).read_bytes()])

    def _next(self, count: int) -> range:
        self._serial += count
        return range(self._serial - count, self._serial)

    async def stream(self, count: int, streams: int) -> dict[str, Any]:
        """How long they took, from the first message to the last result."""
        parts = [
            [Put(f"{HOSTED_PREFIX}/S{number:010d}", values_of(number)) for number in self._next(PART)]
            for _ in range(count // PART)
        ]
        failed = list[str]()
        cpu, began = cpu_s(self._config.pids), time.perf_counter()

        async def worker() -> None:
            async with self._client() as client:
                while parts:
                    done = await client.put_many(parts.pop())
                    failed.extend(str(one.trouble) for one in done if not one.ok)

        await asyncio.gather(*(worker() for _ in range(streams)))
        took = time.perf_counter() - began
        return {
            "count": count,
            "seconds": took,
            "cpu_s": cpu_s(self._config.pids) - cpu,
            "failed": failed[:3],
            "bad": len(failed),
        }

    async def visible(self, count: int) -> dict[str, Any]:
        """Milliseconds from the acknowledgement of each until the slowest member answered it, ascending."""
        took = list[float]()
        sockets = [self._socket(port) for port in self._config.resolvers]
        async with self._client() as client:
            for number in self._next(count):
                name = f"{HOSTED_PREFIX}/V{number:010d}"
                done = await client.put(name, values_of(number))
                if not done.ok:
                    raise RuntimeError(f"{name} was not registered: {done.trouble}")
                began = time.perf_counter()
                await asyncio.gather(*(self._answered(one, name.encode()) for one in sockets))
                took.append((time.perf_counter() - began) * 1e3)
                await asyncio.sleep(PACE_S)
        for one in sockets:
            one.close()
        return {"ms": sorted(took)}

    @staticmethod
    def _socket(port: int) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.connect(("127.0.0.1", port))
        return made

    async def _answered(self, at: socket.socket, name: bytes) -> None:
        loop, end = asyncio.get_running_loop(), time.monotonic() + VISIBLE_S_MAX
        number = 0
        while time.monotonic() < end:
            number += 1
            body = ResolutionRequest(name, (), ()).encode()
            header = Header(OpCode.RESOLUTION, flags=FLAGS_DEFAULT)
            await loop.sock_sendall(at, encode_message(Message(Envelope(number, 0, (2, 3), (2, 11)), header, body)))
            try:
                async with asyncio.timeout(ANSWER_S_MAX):
                    answer = decode_message(await loop.sock_recv(at, 65_536))
            except TimeoutError:
                continue
            if answer.envelope.request_id == number and answer.header.response_code == ResponseCode.SUCCESS:
                return
        raise RuntimeError(f"{name.decode()} was not answered within {VISIBLE_S_MAX:.0f} s")


async def _serve(config: BulkConfig) -> None:
    registrar, loop = Registrar(config), asyncio.get_running_loop()
    while True:
        match (await loop.run_in_executor(None, sys.stdin.readline)).split():
            case ["stream", count, streams]:
                _say(await registrar.stream(int(count), int(streams)))
            case ["visible", count]:
                _say(await registrar.visible(int(count)))
            case _:
                return


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    uvloop.run(_serve(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=BulkConfig)))


if __name__ == "__main__":
    main()
