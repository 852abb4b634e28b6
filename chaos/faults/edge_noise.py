"""A noisy tenant, as a process: `python -m chaos.faults.edge_noise CONFIG.json`. It registers over many streams.

Config (JSON): prefix, identity (folder of its registrar), per_s (changes a second), at = {place: {server, member_file}}.

| command, a JSON line | what it does |
| --- | --- |
| {"do": "turn", "at": "sink"} | from now on there; an empty place: nowhere. Says what was sent and taken since the last turn |

It waits for nobody's outcome: each stream writes when it is time, as far as it is read at the other end.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import grpc

from hosting.tenant.edge_client import OPTIONS
from hosting.v1 import registration_pb2, registration_pb2_grpc
from replica.model.edge_identity import ensure_identity
from replica.model.handle.values import HandleValue, encode_values

CONNECTIONS: Final = 8
STREAMS: Final = 5  # of each connection
MESSAGE: Final = 100  # changes
VALUES: Final = encode_values([HandleValue(1, b"URL", b"https://example.org/noise", ttl=60)])
LOOK_S: Final = 0.01
AGAIN_S: Final = 0.2


@dataclass(slots=True)
class Count:
    """Changes: sent; registered; refused."""

    sent: int = 0
    registered: int = 0
    refused: int = 0


class Noise:
    """See the module."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._prefix = config["prefix"]
        self._every_s = CONNECTIONS * STREAMS * MESSAGE / config["per_s"]
        self._counts = {place: Count() for place in config["at"]}
        self._at = ""
        self._numbers = count()
        identity = ensure_identity(folder := Path(config["identity"]), folder.name)
        self._works, self._channels = list[asyncio.Task[None]](), list[grpc.aio.Channel]()
        for place, one in config["at"].items():
            member = Path(one["member_file"]).read_bytes()
            credentials = grpc.ssl_channel_credentials(member, identity.tls_key_pem, identity.certificate_pem)
            for connection in range(CONNECTIONS):
                channel = grpc.aio.secure_channel(one["server"], credentials, options=OPTIONS)
                self._channels.append(channel)
                for stream in range(STREAMS):
                    offset_s = (connection * STREAMS + stream) / (CONNECTIONS * STREAMS) * self._every_s
                    self._works.append(asyncio.create_task(self._again(place, channel, offset_s)))

    def turn(self, at: str) -> dict[str, Any]:
        said = {place: asdict(one) for place, one in self._counts.items()}
        self._at = at
        self._counts = {place: Count() for place in self._counts}
        return said

    async def close(self) -> None:
        for work in self._works:
            work.cancel()
        await asyncio.gather(*self._works, return_exceptions=True)
        for channel in self._channels:
            await channel.close()

    async def _again(self, place: str, channel: grpc.aio.Channel, offset_s: float) -> None:
        while True:
            try:
                async for said in registration_pb2_grpc.RegistrationStub(channel).PutMany(self._messages(place, offset_s)):
                    for result in said.results:
                        self._took(place, result)
            except grpc.aio.AioRpcError as exc:
                print(f"{place}: {exc.code()} {exc.details()}", file=sys.stderr, flush=True)
            await asyncio.sleep(AGAIN_S)

    async def _messages(self, place: str, offset_s: float) -> AsyncIterator[registration_pb2.PutManyRequest]:
        due_s, last = time.monotonic() + offset_s, 0
        while True:
            await asyncio.sleep(max(LOOK_S, due_s - time.monotonic()))
            if last:  # the transport came back for more: it has taken what was sent before
                self._counts[place].sent += last
                last = 0
            if self._at != place:
                due_s = time.monotonic() + offset_s % LOOK_S
                continue
            due_s = max(due_s + self._every_s, time.monotonic())
            last = MESSAGE
            yield registration_pb2.PutManyRequest(changes=[self._change() for _ in range(MESSAGE)])

    def _change(self) -> registration_pb2.Change:
        number = next(self._numbers)
        return registration_pb2.Change(number=number % MESSAGE, identifier=f"{self._prefix}/X-{number}", values=VALUES)

    def _took(self, place: str, result: registration_pb2.Result) -> None:
        one = self._counts[place]
        if result.HasField("position"):
            one.registered += 1
        else:
            one.refused += 1


async def main(config: dict[str, Any]) -> None:
    """Commands until the input ends."""
    noise = Noise(config)
    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(noise.turn(json.loads(line)["at"])), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
