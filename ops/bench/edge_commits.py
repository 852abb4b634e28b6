"""The committing client, a process of its own: the same unary gRPC calls against a cluster of ours and against etcd.

`python -m ops.bench.edge_commits CONFIG.json` takes orders, one a line, on standard input, and answers each with one line:
`run SECONDS DEPTH`  keeps DEPTH calls under way at the first target for SECONDS
`watch`              from now on a call leaves for every target each PERIOD_MS, whatever became of the earlier ones
`gap T`              seconds from the last commit before T (monotonic clock) to the first that was asked for after T
`stop`               ends
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import msgspec
import uvloop

from hosting.v1 import registration_pb2
from ops.bench.edge_cluster import HOSTED_PREFIX
from ops.bench.edge_process import cpu_s
from ops.bench.synthetic import record
from replica.consensus.link_frames import varint
from replica.model.edge_identity import ensure_identity
from replica.model.handle.values import HandleValue, encode_values
from replica.model.identity import TLS_NAME

PERIOD_MS = 10
CALL_S_MAX = 2.0
GAP_S_MAX = 60.0
KEPT_ACKS = 100_000
PUT = {"zaibei": "/hosting.v1.Registration/Put", "etcd": "/etcdserverpb.KV/Put", "etcd-txn": "/etcdserverpb.KV/Txn"}
OPTIONS = (
    ("grpc.ssl_target_name_override", TLS_NAME),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_send_message_length", 4 * 2**20),
)


class CommitsConfig(msgspec.Struct, forbid_unknown_fields=True):
    """What one client does.

    Args:
        kind: zaibei, etcd or etcd-txn (transactions of `puts` records of 240 octets).
        targets: `host:port`; the first one leads.
        identity, name, roots: our registrar's folder and name, and the CA of the members; for zaibei.
        octets: of a value. pids: whose CPU time is counted. connections: to each target; calls take turns.
    """

    kind: str
    targets: list[str]
    identity: str = ""
    name: str = ""
    roots: str = ""
    octets: int = 1_024
    puts: int = 100
    pids: list[int] = []
    connections: int = 1


class Client:
    """See the module."""

    def __init__(self, config: CommitsConfig) -> None:
        self._config = config
        self._calls = [[self._open(target) for _ in range(config.connections)] for target in config.targets]
        self._serial = self._at = 0
        self._acks: deque[tuple[float, float]] = deque(maxlen=KEPT_ACKS)  # (asked, acknowledged), monotonic
        self._acked = asyncio.Event()
        self.failed: Counter[str] = Counter()
        self._random = os.urandom(2 * max(1, config.octets))

    def _open(self, target: str) -> Callable[..., Any]:
        config = self._config
        if config.kind == "zaibei":
            identity = ensure_identity(Path(config.identity), config.name)
            credentials = grpc.ssl_channel_credentials(
                Path(config.roots).read_bytes(), identity.tls_key_pem, identity.certificate_pem
            )
            channel = grpc.aio.secure_channel(target, credentials, options=OPTIONS)
        else:
            channel = grpc.aio.insecure_channel(target, options=OPTIONS)
        call: Callable[..., Any] = channel.unary_unary(PUT[config.kind])
        return call

    def _request(self) -> bytes:
        """The next change: a key that is new, a value that does not compress."""
        self._serial += 1
        config, serial = self._config, self._serial
        if config.kind == "etcd-txn":
            first = serial * config.puts
            return b"".join(_field(2, _field(2, _put(*record(number)))) for number in range(first, first + config.puts))
        start = serial * 61 % config.octets
        value, key = self._random[start : start + config.octets], f"{os.getpid()}-{serial}"
        if config.kind == "etcd":
            return _put(key.encode(), value)
        values = encode_values([HandleValue(1, b"TEXT", value)])
        return registration_pb2.PutRequest(identifier=f"{HOSTED_PREFIX}/{key}", values=values).SerializeToString()

    async def run(self, seconds: float, depth: int) -> dict[str, Any]:
        """Closed loop at whichever target takes commits: the first, until leadership moves."""
        latencies = list[float]()
        await self._find()
        requests = [self._request() for _ in range(512)] if self._config.kind == "etcd-txn" else []
        cpu, began = cpu_s(self._config.pids), time.perf_counter()
        end = began + seconds

        async def worker(place: int) -> None:
            while (asked := time.perf_counter()) < end:
                request, at = requests.pop() if requests else self._request(), self._at
                try:
                    await self._calls[at][place % self._config.connections](request, timeout=CALL_S_MAX)
                except grpc.aio.AioRpcError as exc:
                    self.failed[f"{exc.code().name}: {exc.details()}"] += 1
                    self._at = (at + 1) % len(self._calls)
                    await asyncio.sleep(PERIOD_MS / 1_000)
                    continue
                latencies.append(time.perf_counter() - asked)

        await asyncio.gather(*(worker(place) for place in range(depth)))
        took = time.perf_counter() - began
        latencies.sort()
        count = len(latencies)
        return {
            "commits": count, "seconds": took, "cpu_s": cpu_s(self._config.pids) - cpu, "failed": dict(self.failed),
            "p50_ms": latencies[count // 2] * 1e3 if count else 0.0,
            "p99_ms": latencies[count * 99 // 100] * 1e3 if count else 0.0,
        }  # fmt: skip

    async def _find(self) -> None:
        until = time.monotonic() + GAP_S_MAX
        while True:
            try:
                for call in self._calls[self._at]:
                    await call(self._request(), timeout=CALL_S_MAX, wait_for_ready=True)
                return
            except grpc.aio.AioRpcError:
                if time.monotonic() > until:
                    raise
                self._at = (self._at + 1) % len(self._calls)
                await asyncio.sleep(PERIOD_MS / 1_000)

    async def watch(self) -> None:
        """Open loop at every target; until cancelled."""
        under_way: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while True:
            for call, *_ in self._calls:
                task = asyncio.create_task(self._ask(call))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            due += PERIOD_MS / 1_000
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _ask(self, call: Callable[..., Any]) -> None:
        asked = time.monotonic()
        try:
            await call(self._request(), timeout=CALL_S_MAX)
        except grpc.aio.AioRpcError as exc:
            self.failed[exc.code().name] += 1
            return
        self._acks.append((asked, time.monotonic()))
        self._acked.set()

    async def gap(self, at: float) -> dict[str, Any]:
        """See the module. `seconds` None: nothing was committed within GAP_S_MAX."""
        until = time.monotonic() + GAP_S_MAX
        while time.monotonic() < until:
            first = min((acked for asked, acked in self._acks if asked > at), default=None)
            if first is not None:
                last = max((acked for asked, acked in self._acks if asked <= at and acked < first), default=at)
                return {"seconds": first - min(last, first), "after_kill": first - at}
            self._acked.clear()
            try:
                async with asyncio.timeout(1.0):
                    await self._acked.wait()
            except TimeoutError:
                continue
        return {"seconds": None, "after_kill": None, "failed": dict(self.failed)}


def _field(number: int, octets: bytes) -> bytes:
    """A Protocol Buffers field with a length."""
    return bytes([number << 3 | 2]) + varint(len(octets)) + octets


def _put(key: bytes, value: bytes) -> bytes:
    """etcdserverpb.PutRequest."""
    return _field(1, key) + _field(2, value)


async def _serve(config: CommitsConfig) -> None:
    client = Client(config)
    watching: asyncio.Task[None] | None = None
    loop = asyncio.get_running_loop()
    while True:
        words = (await loop.run_in_executor(None, sys.stdin.readline)).split()
        match words:
            case ["run", seconds, depth]:
                _say(await client.run(float(seconds), int(depth)))
            case ["watch"]:
                watching = asyncio.create_task(client.watch())
                _say({"watching": True})
            case ["gap", at]:
                _say(await client.gap(float(at)))
            case _:
                break
    if watching is not None:
        watching.cancel()


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    uvloop.run(_serve(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=CommitsConfig)))


if __name__ == "__main__":
    main()
