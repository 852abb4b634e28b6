"""Stand-in secondary nodes, many in one process: `python -m chaos.standin.registries --config FILE`.

Each node is a registry with a prefix and a Publisher of its own; all answer Handle and JSON at the same ports, and are steered by
lines of JSON on standard input, each answered by one line:

    {"do": "put", "node": N, "first": 0, "count": 10, "text": "v1"}   register PREFIX/N-0 ... in commits; {"position": ...}
    {"do": "delete", "node": N, "first": 0, "count": 10}
    {"do": "put", ..., "pad": 200000}                                 each record longer by so many octets, at the copy alone
    {"do": "register", "node": N, "number": 7, "text": "v1"}          {"acknowledged"}: false where its guard holds no lease
    {"do": "look", "node": N}                                         {"position", "records", "sum", "receipted"}
    {"do": "pause", "on": true}                                       registering of new names stops
    {"do": "mute", "on": true}                                        datagram beats are lost
    {"do": "spoil", "node": N, "first": 0, "text": "v2", "wrong": "x"}  the copy is sent another record than is held here
    {"do": "gate", "node": N, "at": 3}                                snapshots wait before their piece 3; null: no longer
    {"do": "gated", "node": N}                                        {"begun", "held", "passed", "whole", "at"}
    {"do": "follow", "node": N}                                       after a takeover: copies what was registered elsewhere
    {"do": "stale", "on": true}                                       what is answered stays what it is, whatever is registered

While not paused, each registers a new name every `every_ms`: first in its own file, fsynced (that is when its own client is told
so: acks.jsonl), then through its Publisher; receipts.jsonl says when a quorum receipt covered it. Config (JSON): folder, told,
nodes = [{name, prefix, publisher, routes: [{prefix, values}]}], hosts, udp, tcp, records, every_ms, tally, second_site (hex),
guarded (true: it holds a write lease, and takes nothing without one), gate_at (where snapshots wait from the start; left out:
nowhere). A node's own state lies in folder/NAME, so that an old disk can be put back; what its clients were told lies in `told`,
which no fault touches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from chaos.standin.edge_serve import Ports, Standin, bind, serve
from chaos.standin.gate import Gate
from chaos.standin.pushing import Journal
from chaos.standin.registry import Registry
from chaos.standin.secondary import own_site
from chaos.standin.sharing import publisher_for
from chaos.standin.tally import Tally
from replica.agent.cutter import Piece
from replica.agent.edge_content import Step
from replica.agent.records import record_of, value_from_json
from replica.agent.write_lease import LeaseTimes
from replica.client import Publisher
from replica.client.publisher import Receipt
from replica.feed import edge_beats
from replica.model.batch import OP_DELETE, Batch, Change
from replica.model.edge_collector import settle
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue, decode_record, encode_record
from replica.model.identifier import DOCUMENT, Identifier, key_text
from replica.v1 import source_pb2

COMMIT_NAMES_MAX = 500
RECEIPT_LOOK_S = 0.01
LEASE = LeaseTimes(duration_ms=5_000, renew_ms=1_000, warn_ms=2_500)
WAITING_MAX = 20_000  # registrations without a receipt that are still watched
NEW_FIRST = 1_000_000  # numbers of names that are registered while it runs
OWN_FILE = "registered.jsonl"
_muted = False


URL = "https://example.cn/"


def url_of(name: str, text: str) -> str:
    """What a name resolves to: known to whoever judges."""
    return f"{URL}{name}/{text}"


def told_by(change: Change) -> tuple[str, str | None]:
    """Name and text of a change that somebody else made; None: it removes the name."""
    if change.op == OP_DELETE:
        return key_text(change.key), None
    urls = [value.data.decode() for value in decode_record(change.value).values if value.type == b"URL"]
    name, _, text = urls[0].removeprefix(URL).rpartition("/")
    return name, text


def _values(name: str, text: str, pad: int = 0) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = [{"index": 1, "type": "URL", "data": url_of(name, text), "ttl": 60}]
    return values + ([{"index": 2, "type": "PAD", "data": "x" * pad, "ttl": 60}] if pad else [])


class RegistryNode:
    """One of them."""

    def __init__(self, config: dict[str, Any], folder: Path, told: Path, live: dict[bytes, bytes], kind: type[Publisher]) -> None:
        self.name, self.prefix = str(config["name"]), str(config["prefix"])
        self._live = live
        self.folder = folder / self.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._own = self.folder / OWN_FILE
        fresh = not self._own.exists()
        self._store = Journal(self._own, durable=True)
        self._acks = Journal(told / f"{self.name}-acks.jsonl", durable=False)
        self._receipts = Journal(told / f"{self.name}-receipts.jsonl", durable=False)
        self._waiting: deque[tuple[str, str | None, Receipt]] = deque(maxlen=WAITING_MAX)
        self.next = NEW_FIRST
        self.fresh = fresh
        items = [json.loads(line) for line in self._own.read_bytes().splitlines()]
        for item in items:
            self._keep(item["name"], item["text"])
            self.next = max(self.next, int(item["name"].rpartition("-")[2]) + 1)
        self.publisher = kind(str(config["publisher"]))
        self.gate, snapshots = Gate(config.get("gate_at")), self.publisher._source.agent._snapshots
        snapshots.parts = self.gate.over(snapshots.parts)  # type: ignore[method-assign, assignment]
        self._guard = self.publisher.guard(LEASE) if config.get("guarded") else None
        self._following: threading.Thread | None = None
        self._route(config.get("routes", ()))
        newest = {item["name"]: item for item in items[-COMMIT_NAMES_MAX:]}
        for item in newest.values():  # the newest may not have reached the log; what is there already changes nothing
            self._publish(item["name"], item["text"], item.get("pad", 0))
        if items:
            self.publisher.commit()

    def _route(self, routes: Sequence[dict[str, Any]]) -> None:
        """Where prefixes below are served: of its file, the same at every start."""
        for route in routes:
            key = self.publisher._config.naming.route_key(route["prefix"])
            self._live[key] = record_of([value_from_json(one) for one in route["values"]])
            self.publisher.put_route(route["prefix"], values=route["values"])
        if routes:
            self.publisher.commit()

    def _publish(self, name: str, text: str | None, pad: int = 0) -> None:
        if text is None:
            self.publisher.delete(name)
            return
        self.publisher.put(name, _values(name, text, pad))

    def _keep(self, name: str, text: str | None) -> None:
        key = Identifier.parse(name).key()
        if text is None:
            self._live.pop(key, None)
        else:
            self._live[key] = encode_record([HandleValue(1, b"URL", url_of(name, text).encode(), ttl=60)])

    def change(self, numbers: Iterable[int], text: str | None, pad: int = 0) -> Receipt | None:
        """Register, rewrite (text) or remove (None) names: own file first, then the answers, then the copy."""
        chosen, receipt = [f"{self.prefix}/N-{number}" for number in numbers], None
        for first in range(0, len(chosen), COMMIT_NAMES_MAX):
            names = chosen[first : first + COMMIT_NAMES_MAX]
            padded = {"pad": pad} if pad else {}
            self._store.add([{"name": name, "text": text, **padded} for name in names])
            if text is None:
                self._tell(names, text)  # before it answers so: whoever compares never knows less than our clients
            for name in names:
                self._keep(name, text)
                self._publish(name, text, pad)
            if text is not None:
                self._tell(names, text)
            receipt = self.publisher.commit()
            self._waiting.extend((name, text, receipt) for name in names)
        return receipt

    def _tell(self, names: list[str], text: str | None) -> None:
        at_ns = time.monotonic_ns()
        self._acks.add([{"name": name, "text": text, "at_ns": at_ns} for name in names])

    def spoil(self, number: int, text: str, wrong: str) -> Receipt:
        """The agent's batch carries another record than its content: position and chain are equal, what is held is not."""
        name, agent = f"{self.prefix}/N-{number}", self.publisher._source.agent
        key, spelling = self.publisher._config.naming.key(name)
        true, step = record_of([value_from_json(one) for one in _values(name, text)], spelling), agent._step

        def spoilt(piece: Piece, batch: Batch) -> Step:
            found = step(piece, batch)
            values = [true if one == key else value for one, value in zip(found.keys, found.values, strict=True)]
            return replace(found, values=values)

        self._store.add([{"name": name, "text": text}])
        self._keep(name, text)
        self._tell([name], text)
        self._publish(name, wrong)
        agent._step = spoilt  # type: ignore[method-assign]
        try:
            return self.publisher.commit()
        finally:
            agent._step = step  # type: ignore[method-assign]

    def follow(self) -> None:
        """Taken over: end our own writing, copy what was registered elsewhere, until it is given back; on a thread."""
        if self._following is None or not self._following.is_alive():
            self._following = threading.Thread(target=lambda: self.publisher.follow(self._take), daemon=True)
            self._following.start()

    def _take(self, changes: Sequence[Change]) -> None:
        told = [told_by(change) for change in changes if change.key[:1] != DOCUMENT]  # those lie in the agent's copy alone
        self._store.add([{"name": name, "text": text} for name, text in told])
        for name, text in told:
            self._keep(name, text)

    def register_one(self) -> None:
        self.next += 1
        if self._guard is None:
            self.change([self.next - 1], "v1")
        else:
            self.register(self.next - 1, "v1")

    def register(self, number: int, text: str) -> bool:
        """As a guarded write path does it: history first, then its own file, acknowledged under the lease alone.

        False: not acknowledged; it may have come to be all the same.
        """
        assert self._guard is not None, "this node has no guard"
        name = f"{self.prefix}/N-{number}"
        try:
            self._guard.check()
            self._publish(name, text)
            receipt = self.publisher.commit()
            self._store.add([{"name": name, "text": text}])
            self._keep(name, text)
            with self._guard.acknowledging():
                self._tell([name], text)
        except ZaibeiError:  # switched over, or without a lease
            return False
        self._waiting.append((name, text, receipt))
        return True

    def tell_receipts(self) -> None:
        covered = []
        while self._waiting and self._waiting[0][2].done:
            name, text, _ = self._waiting.popleft()
            covered.append({"name": name, "text": text, "at_ns": time.monotonic_ns()})
        if covered:
            self._receipts.add(covered)

    def look(self) -> dict[str, Any]:
        agent = self.publisher._source.agent
        head = self.publisher.head
        known = next((one for one in agent.content.boundaries_at(head.epoch, head.seq) if one.position == head), None)
        found = {"position": str(head), "receipted": not self._waiting}
        return {**found, "records": known.records if known else None, "sum": f"{known.total:032x}" if known else None}


class Registries:
    """All nodes of the process."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.live: dict[bytes, bytes] = {}
        folder, told = Path(config["folder"]), Path(config["told"])
        told.mkdir(parents=True, exist_ok=True)
        guarded = bool(config.get("guarded", False))
        kind, common = publisher_for(len(config["nodes"])), {"guarded": guarded, "gate_at": config.get("gate_at")}
        self.nodes = {str(one["name"]): RegistryNode({**one, **common}, folder, told, self.live, kind) for one in config["nodes"]}
        self.paused = True
        self.answers: Callable[[dict[bytes, bytes]], None] = lambda held: None  # what is answered from, from now on
        self._every_s = float(config["every_ms"]) / 1_000

    def first_content(self, records: int) -> None:
        for node in self.nodes.values():
            if node.fresh:
                node.change(range(records), "v1")

    async def register_for_ever(self, node: RegistryNode, offset_s: float) -> None:
        await asyncio.sleep(offset_s)
        while True:
            if not self.paused:
                await asyncio.to_thread(node.register_one)
            await asyncio.sleep(self._every_s)

    async def watch_receipts(self) -> None:
        while True:
            for node in self.nodes.values():
                node.tell_receipts()
            await asyncio.sleep(RECEIPT_LOOK_S)

    def do(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One command; in a thread."""
        global _muted
        match asked["do"]:
            case "pause":
                self.paused = bool(asked["on"])
                return {}
            case "mute":
                _muted = bool(asked["on"])
                return {}
            case "stale":
                self.answers(dict(self.live) if asked["on"] else self.live)
                return {}
            case "look":
                return self.nodes[asked["node"]].look()
            case "spoil":
                return {"position": str(self.nodes[asked["node"]].spoil(asked["first"], asked["text"], asked["wrong"]).position)}
            case "register":
                return {"acknowledged": self.nodes[asked["node"]].register(asked["number"], asked["text"])}
            case "gate":
                self.nodes[asked["node"]].gate.at = asked["at"]
                return {}
            case "gated":
                return self.nodes[asked["node"]].gate.look()
            case "follow":
                self.nodes[asked["node"]].follow()
                return {}
            case "put" | "delete":
                numbers = range(asked["first"], asked["first"] + asked["count"])
                text = asked["text"] if asked["do"] == "put" else None
                receipt = self.nodes[asked["node"]].change(numbers, text, int(asked.get("pad", 0)))
                return {"position": str(receipt.position) if receipt is not None else None}
        raise ZaibeiError(Code.MALFORMED, f"no such command: {asked['do']!r}")

    async def obey(self, lines: asyncio.StreamReader) -> None:
        """Until standard input ends: whoever steers us is gone, and so are we."""
        while line := await lines.readline():
            try:
                answer = await asyncio.to_thread(self.do, json.loads(line))
            except (ZaibeiError, KeyError, ValueError) as exc:
                answer = {"error": str(exc)}
            print(json.dumps(answer), flush=True)


class _Beats(socket.socket):
    """The way of datagram beats out of here; muted, they are lost as on a cut link."""

    def send(self, data: Any, flags: int = 0) -> int:
        return len(data) if _muted else super().send(data, flags)


def _gated(receiver: source_pb2.Endpoint) -> socket.socket | None:
    out = _connected(receiver)
    if out is None:
        return None
    gated = _Beats(out.family, out.type, out.proto, fileno=out.detach())
    gated.setblocking(False)
    return gated


_connected = edge_beats._connected


async def run(config: dict[str, Any]) -> None:
    """Serve until standard input ends."""
    edge_beats._connected = _gated
    hosts = tuple(config.get("hosts", ("127.0.0.1",)))
    ports, sockets = bind(hosts, Ports(int(config["udp"]), int(config["tcp"])))
    site = own_site(hosts, ports, 1, primary=True, description="nodes")
    registries = await asyncio.to_thread(Registries, config)
    await asyncio.to_thread(registries.first_content, int(config["records"]))
    registry = Registry.of([node.prefix for node in registries.nodes.values()], site, int(config.get("site_ttl_s", 300)), 1)
    registry.files[0], registry.second = registries.live, bytes.fromhex(str(config.get("second_site", "")))
    registries.answers = lambda held: registry.files.__setitem__(0, held)
    tally = Tally(Path(config["tally"]), registry.answer)
    await serve(Standin(tally.answer, site), sockets)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print(json.dumps({"ready": True, "ports": ports.view(), "site": site.hex()}), flush=True)
    every_s = float(config["every_ms"]) / 1_000
    works = [
        registries.register_for_ever(node, every_s * place / len(registries.nodes))
        for place, node in enumerate(registries.nodes.values())
    ]
    tasks = [asyncio.create_task(work) for work in (*works, registries.watch_receipts(), tally.write_for_ever())]
    await registries.obey(lines)
    for task in tasks:
        task.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description="Stand-in secondary nodes, many in one process.")
    parser.add_argument("--config", type=Path, required=True)
    path: Path = parser.parse_args().config
    try:
        settle()
        asyncio.run(run(json.loads(path.read_text(encoding="utf-8"))))
    except ZaibeiError as exc:
        sys.exit(f"nodes: {exc.trouble.message}")
    except KeyboardInterrupt:
        pass
    os._exit(0)  # publishers' threads have nothing to save: what was told is on disk


if __name__ == "__main__":
    main()
