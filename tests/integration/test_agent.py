"""The source agent joined with the feed, also as a process: keeps its own kit's rules, survives SIGKILL at any moment."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from replica.agent import edge_snapshot
from replica.agent.config import read_config
from replica.agent.edge_content import connect
from replica.client.edge_agent import SERVICE, Source, load_source_config
from replica.kit.edge_inspect import Inspection
from replica.kit.settings import Settings
from replica.model.batch import open_batch
from replica.model.edge_identity import Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer
from replica.model.position import ORIGIN, Position
from replica.model.states import Result
from replica.v1 import source_pb2, source_pb2_grpc
from tests.unit.agent.helpers import commit, put

ROOT = Path(__file__).resolve().parents[2]
QUICK = Settings(watch_s=11.0, quiet_s=0.5, refusal_s=1.5)


class Node:
    """A folder with a registry file and a source's TOML file."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.folder, self.registry, self.config = folder, folder / "registry.jsonl", folder / "source.toml"
        self.member = ensure_identity(folder / "member", "member-1")
        self.write({f"A{number}": "x" for number in range(20)})
        self.config.write_text(
            f"""
[source]
name = "node-a"
prefixes = ["88.118"]
beat_ms = 100
[serve]
listen = ["127.0.0.1:0", "[::1]:0"]
[files]
rest_ms = 50
[[input]]
path = "registry.jsonl"
[[member]]
name = "member-1"
certificate = '''{self.member.certificate_pem.decode()}'''
{extra}
"""
        )

    def write(self, records: dict[str, str]) -> None:
        beside = self.registry.with_suffix(".new")
        beside.write_text(
            "".join(
                json.dumps({"handle": f"88.118.8/{name}", "values": [{"index": 1, "type": "URL", "data": text}]}) + "\n"
                for name, text in records.items()
            )
        )
        beside.replace(self.registry)

    @contextmanager
    def process(self) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
        """`zaibei source serve` as a process, with its ready line."""
        command = [sys.executable, "-m", "ops.cli.source", "serve", "--config", str(self.config), "--json"]
        with (self.folder / "log").open("a") as log:
            child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            assert line, (self.folder / "log").read_text()
            yield child, json.loads(line)
        finally:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()

    @property
    def peer(self) -> Peer:
        certificate = (self.folder / "zaibei-source" / "identity" / "certificate.pem").read_bytes()
        return Peer("node-a", certificate)


def channel(address: str, mine: Identity, peer: Peer) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(peer.certificate_pem, mine.tls_key_pem, mine.certificate_pem)
    return grpc.aio.secure_channel(address, credentials, options=[("grpc.ssl_target_name_override", "zaibei.internal")])


async def offered(address: str, node: Node) -> None:
    """Wait until the source has read its files as a whole for the first time."""
    async with channel(address, node.member, node.peer) as open_channel:
        stub: source_pb2_grpc.RegistrySourceAsyncStub = source_pb2_grpc.RegistrySourceStub(open_channel)
        while True:
            try:
                await stub.Describe(source_pb2.DescribeRequest())
                return
            except grpc.aio.AioRpcError as exc:
                assert exc.code() is grpc.StatusCode.UNAVAILABLE, exc
                await asyncio.sleep(0.05)


async def published(address: str, node: Node, records: int) -> source_pb2.Description:
    """Wait until the source's snapshot holds a number of records."""
    await offered(address, node)
    async with channel(address, node.member, node.peer) as open_channel:
        stub: source_pb2_grpc.RegistrySourceAsyncStub = source_pb2_grpc.RegistrySourceStub(open_channel)
        while True:
            header = None
            async for part in stub.Snapshot(source_pb2.SnapshotRequest()):
                header = part.header if part.HasField("header") else header
            if header is not None and header.records_estimate == records:
                return await stub.Describe(source_pb2.DescribeRequest())
            await asyncio.sleep(0.1)


async def test_the_agent_keeps_every_rule_of_the_kit(tmp_path: Path) -> None:
    node = Node(tmp_path)
    source = Source.open(load_source_config(node.config))
    async with source.running():
        four, six = (str(address) for address in source.addresses)
        await published(four, node, 20)
        node.write({f"A{number}": "x" for number in range(15)})
        await published(six, node, 15)
        for text in "yzw":  # once more where a busy machine was late with beats or certificates by itself
            inspection = Inspection(four, node.member, node.peer, QUICK, (six,))
            looking = asyncio.create_task(inspection.run())
            await asyncio.sleep(3)
            node.write({f"A{number}": text for number in range(10)})
            findings = await looking
            late = {finding.rule.ident for finding in findings if finding.result is not Result.PASS}
            if not late or late - {"beats.interval", "certificate.interval"}:
                break
    assert {finding.rule.ident: finding.detail for finding in findings if finding.result is not Result.PASS} == {}


async def test_a_killed_agent_goes_on_where_its_log_ends(tmp_path: Path) -> None:
    """SIGKILL while it publishes; what was readable before is there after, octet for octet, and all of the file arrives."""
    node = Node(tmp_path)
    seen: dict[Position, bytes] = {}
    for round_number in range(3):
        with node.process() as (child, ready):
            await offered(ready["listen"][0], node)
            node.write({f"A{number}": f"r{round_number}" for number in range(3_000)})
            address = ready["listen"][round_number % 2]
            async with channel(address, node.member, node.peer) as open_channel:
                stub: source_pb2_grpc.RegistrySourceAsyncStub = source_pb2_grpc.RegistrySourceStub(open_channel)
                call = stub.Watch()
                credit = source_pb2.Credit(batches_total=10**6, octets_total=10**12)
                resume = source_pb2.Resume(position=ORIGIN.to_wire(), member="t", credit=credit)
                await call.write(source_pb2.ReplicaMessage(resume=resume))
                fresh = 0
                while fresh < 2:
                    message = await call.read()
                    assert isinstance(message, source_pb2.SourceMessage)
                    if message.WhichOneof("body") == "batch":
                        batch = open_batch(message.batch)
                        fresh += batch.before not in seen
                        assert seen.setdefault(batch.before, message.batch) == message.batch
                child.send_signal(signal.SIGKILL)
                child.wait()
    with node.process() as (_, ready):
        await published(ready["listen"][0], node, 3_000)


async def test_nothing_is_offered_before_the_files_were_read_as_a_whole(tmp_path: Path) -> None:
    """A copy of a registry that was not read yet would call every name unknown, and be believed."""
    node = Node(tmp_path)
    held = node.registry.read_text()
    node.registry.unlink()
    async with Source.open(load_source_config(node.config)).running() as source:
        assert not source.offered and source.status()["offered"] is False
        async with channel(str(source.addresses[0]), node.member, node.peer) as to:
            stub = source_pb2_grpc.RegistrySourceStub(to)
            with pytest.raises(grpc.aio.AioRpcError, match="has not read its registry as a whole") as caught:
                await stub.Describe(source_pb2.DescribeRequest())
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            node.registry.write_text(held)
            await offered(str(source.addresses[1]), node)
            described = await stub.Describe(source_pb2.DescribeRequest())
            assert Position.from_wire(described.head).seq == 20
    node.registry.unlink()
    async with Source.open(load_source_config(node.config)).running() as source:
        assert source.offered, "what was published in an earlier life stays offered"


async def test_a_snapshots_view_is_closed_by_the_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was read to its end, one that was broken off; nobody asks for another, and the WAL is free to begin again."""
    monkeypatch.setattr(edge_snapshot, "FINISHED_S_MAX", 0.1)
    monkeypatch.setattr(edge_snapshot, "RESUME_S_MAX", 0.3)
    node = Node(tmp_path)
    async with Source.open(load_source_config(node.config)).running() as source:
        await published(str(source.addresses[0]), node, 20)
        async with channel(str(source.addresses[0]), node.member, node.peer) as to:
            stub: source_pb2_grpc.RegistrySourceAsyncStub = source_pb2_grpc.RegistrySourceStub(to)
            async for part in stub.Snapshot(source_pb2.SnapshotRequest()):
                if part.HasField("header"):
                    broken = stub.Snapshot(source_pb2.SnapshotRequest())
                    assert (await broken.read()).HasField("header")  # type: ignore[union-attr]
                    broken.cancel()
        await asyncio.to_thread(commit, source.agent, put("BEHIND"))
        free = False
        for _ in range(100):
            with closing(connect(source.agent.content.path)) as db:
                _, in_wal, moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if free := moved == in_wal:
                break
            await asyncio.sleep(0.1)
        assert free


async def test_stopping_is_orderly(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with node.process() as (child, ready):
        assert ready["ready"] and len(ready["listen"]) == 2
        await published(ready["listen"][0], node, 20)
        async with channel(ready["listen"][1], node.member, node.peer) as open_channel:
            stub: health_pb2_grpc.HealthAsyncStub = health_pb2_grpc.HealthStub(open_channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        child.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(child.wait) == 0


async def test_metrics_and_status_are_told(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    node = Node(tmp_path)
    node.config.write_text(node.config.read_text().replace("[files]", f'metrics = ["127.0.0.1:{port}"]\n[files]'))
    source = Source.open(load_source_config(node.config))
    async with source.running():
        await published(str(source.addresses[0]), node, 20)
        text = await asyncio.to_thread(lambda: urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
        status = source.status()
    assert 'zaibei_agent_records{source="node-a"} 20.0' in text
    assert 'zaibei_agent_input_state{source="node-a",state="current"}' in text
    assert status["records"] == 20 and status["head"] == str(source.agent.head())


def test_one_process_per_folder(tmp_path: Path) -> None:
    config = load_source_config(Node(tmp_path).config)
    source = Source.open(config)
    with pytest.raises(ZaibeiError, match="another process publishes"):
        Source.open(config)
    source.close()
    Source.open(config).close()


async def test_whoever_is_told_to_end_twice_leaves_nobody_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who closes it a second time meanwhile would close files by numbers that are other files' by then."""
    source = Source.open(load_source_config(Node(tmp_path).config))
    began, goes_on, close = threading.Event(), threading.Event(), source.close

    def slowly() -> None:
        began.set()
        assert goes_on.wait(30)
        close()

    monkeypatch.setattr(source, "close", slowly)

    async def run() -> None:
        async with source.running():
            await asyncio.Event().wait()

    serving = asyncio.ensure_future(run())
    while not source.addresses:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    serving.cancel()
    assert await asyncio.to_thread(began.wait, 30)
    serving.cancel()
    done, _ = await asyncio.wait({serving}, timeout=0.2)
    goes_on.set()
    await asyncio.wait({serving})
    assert not done and serving.cancelled()


async def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        node = Node(tmp_path)
        node.config.write_text(node.config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{taken.getsockname()[1]}"))
        source = Source.open(load_source_config(node.config))
        with pytest.raises(ZaibeiError, match="cannot listen on"):
            async with source.running():
                pass
    Source.open(load_source_config(node.config)).close()


def test_every_fault_of_a_configuration_is_told_at_once(tmp_path: Path) -> None:
    text = """
[source]
name = "Node A"
prefixes = ["88..1", "88.118"]
mode = "some"
beat_ms = true
unknown = 1
[serve]
listen = ["localhost", "::1:5"]
[[input]]
path = 3
[[input.record]]
identifier = "88.118/{a}"
values = [{ index = 1, type = "URL", data = "{a}", permissions = "abc" }, { index = 1, type = "URL", data = "{a}" }]
[[input.route]]
prefix = "{p}"
[[member]]
name = "m"
certificate = "nothing"
push = "there"
[[resolution]]
address = "example.org"
port = 0
[extra]
"""
    with pytest.raises(ZaibeiError) as caught:
        read_config(tomllib.loads(text), "source.toml", tmp_path)
    assert caught.value.code is Code.INVALID_CONFIG
    for part in (
        "source.name", "source.prefixes", "source.mode", "source.beat_ms", "source.unknown", "serve.listen is 'localhost'",
        "serve.listen is '::1:5'", "input[1].path", "permissions are four digits", "same index twice", "route[1].addresses",
        "member[1].certificate", "member[1].push", "resolution[1].address", "resolution[1].port", "extra is not known",
    ):  # fmt: skip
        assert part in str(caught.value), part


def test_a_member_is_pushed_to_at_several_addresses_in_turn(tmp_path: Path) -> None:
    text = """
[source]
name = "a"
prefixes = ["88.118"]
[pki]
roots = ["ca.pem"]
[[member]]
name = "m1"
push = ["192.0.2.1:2643", "[2001:db8::1]:2643"]
[[member]]
name = "m2"
push = "192.0.2.2:2643"
"""
    config = read_config(tomllib.loads(text), "source.toml", tmp_path)
    assert config.push == (("m1", "192.0.2.1:2643"), ("m1", "[2001:db8::1]:2643"), ("m2", "192.0.2.2:2643"))
    with pytest.raises(ZaibeiError, match=r"member\[1\].push"):
        read_config(tomllib.loads(text.replace('"192.0.2.1:2643"', "7")), "source.toml", tmp_path)
    with pytest.raises(ZaibeiError, match=r"member\[1\].push"):
        read_config(tomllib.loads(text.replace("[2001:db8::1]", "2001:db8::1")), "source.toml", tmp_path)


def test_a_configuration_that_nobody_could_copy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZaibeiError, match="nobody could copy"):
        read_config({"source": {"name": "a", "prefixes": ["88.118"]}}, "source.toml", tmp_path)
