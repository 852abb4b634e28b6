"""A stand-in secondary node that publishes from its own code: `python -m chaos.standin.pushing --config FILE`.

It answers Handle and JSON itself and registers new identifiers all the time. Each registration goes to its own file first
(fsynced: that is when its own client is acknowledged), then to its Publisher. Both facts are written down for the judge:

    acks.jsonl   {"name", "value", "at_ns"}            the node's own client was told "registered"
    receipts.jsonl {"name", "at_ns"}                   covered by a quorum receipt of the copy

Config (TOML): name, base (JSONL of what it holds to begin with), work (folder of its own files), publisher (source TOML),
prefixes, ports as of `secondary`, every_ms (between registrations), prefix (of the new names). While a file `pause` lies in the
work folder nothing is registered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
import tomllib
from collections import deque
from pathlib import Path
from typing import Any

from chaos.standin.edge_serve import Ports, Standin, bind, serve
from chaos.standin.registry import Registry, read_file
from chaos.standin.secondary import own_site
from chaos.standin.tally import Tally
from replica.agent.mapping import Naming
from replica.client import Publisher
from replica.client.publisher import Receipt
from replica.model.edge_collector import settle
from replica.model.errors import ZaibeiError
from replica.model.handle.values import HandleValue, encode_record
from replica.model.identifier import Identifier

COMMIT_NAMES_MAX = 1_000
RECEIPT_LOOK_S = 0.005
WAITING_MAX = 10_000  # registrations without a receipt that are still watched


class Journal:
    """An append-only file of JSON lines."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        self._file, self._durable = path.open("ab"), durable

    def add(self, lines: list[dict[str, Any]]) -> None:
        self._file.write(b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines))
        self._file.flush()
        if self._durable:
            os.fsync(self._file.fileno())


class PushingNode:
    """See the module."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        self.work = work = folder / str(config["work"])
        work.mkdir(parents=True, exist_ok=True)
        self.naming = Naming.of(config["prefixes"])
        self.registered = work / "registered.jsonl"
        self.registered.touch()
        self.base = folder / str(config["base"])
        self.every_s = float(config.get("every_ms", 100)) / 1_000
        self.prefix = str(config["prefix"])
        self.publisher_config = folder / str(config["publisher"])
        self._store = Journal(self.registered, durable=True)
        self._acks = Journal(work / "acks.jsonl", durable=False)
        self._receipts = Journal(work / "receipts.jsonl", durable=False)
        self._waiting: deque[tuple[str, Receipt]] = deque(maxlen=WAITING_MAX)
        self.number = sum(1 for _ in self.registered.open("rb"))
        self.live: dict[bytes, bytes] = {}

    async def begin(self, publisher: Publisher) -> None:
        """Publish what it holds: everything the first time, later what it registered (it may not have reached the log)."""
        if publisher.head.seq == 0:
            await asyncio.to_thread(self._publish_file, publisher, self.base)
        await asyncio.to_thread(self._publish_file, publisher, self.registered)

    def _publish_file(self, publisher: Publisher, path: Path) -> None:
        waiting = 0
        with path.open("rb") as lines:
            for line in lines:
                item = json.loads(line)
                publisher.put(item["handle"], item["values"])
                waiting += 1
                if waiting == COMMIT_NAMES_MAX:
                    publisher.commit()
                    waiting = 0
        if waiting:
            publisher.commit()

    async def register_for_ever(self, publisher: Publisher) -> None:
        """One new identifier every `every_s`."""
        while True:
            if (self.work / "pause").exists():  # whoever compares wants it to stand still
                await asyncio.sleep(self.every_s)
                continue
            self.number += 1
            name, value = f"{self.prefix}/NEW-{self.number:06d}", f"https://example.cn/new/{self.number}"
            values = [{"index": 1, "type": "URL", "data": value, "ttl": 60}]
            await asyncio.to_thread(self._store.add, [{"handle": name, "values": values}])
            self.live[Identifier.parse(name).key()] = encode_record([HandleValue(1, b"URL", value.encode(), ttl=60)])
            self._acks.add([{"name": name, "value": value, "at_ns": time.monotonic_ns()}])
            publisher.put(name, values)
            receipt = await asyncio.to_thread(publisher.commit)
            self._waiting.append((name, receipt))
            await asyncio.sleep(self.every_s)

    async def watch_receipts(self) -> None:
        """Write down each registration that a quorum receipt covers."""
        while True:
            covered = []
            while self._waiting and self._waiting[0][1].done:
                covered.append({"name": self._waiting.popleft()[0], "at_ns": time.monotonic_ns()})
            if covered:
                self._receipts.add(covered)
            await asyncio.sleep(RECEIPT_LOOK_S)


async def run(config: dict[str, Any], folder: Path) -> None:
    """Serve until the process is ended."""
    node = PushingNode(config, folder)
    hosts = tuple(config.get("hosts", ("127.0.0.1", "::1")))
    ports, sockets = bind(hosts, Ports(*(int(config.get(name, 0)) for name in ("udp", "tcp", "http"))))
    site = own_site(hosts, ports, int(config.get("serial", 1)), primary=True, description=str(config["name"]))
    registry = Registry.of(config["prefixes"], site, int(config.get("site_ttl_s", 300)), 2)
    registry.files[0] = await asyncio.to_thread(read_file, node.base, node.naming)
    registry.files[1] = node.live
    node.live.update(await asyncio.to_thread(read_file, node.registered, node.naming))
    with Publisher(node.publisher_config) as publisher:
        tally = Tally(node.work / "answered", registry.answer)
        await serve(Standin(tally.answer, site), sockets)
        await node.begin(publisher)
        print(json.dumps({"ready": True, "ports": ports.view(), "site": site.hex()}), flush=True)
        await asyncio.gather(node.register_for_ever(publisher), node.watch_receipts(), tally.write_for_ever())


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in secondary node that publishes from its own code.")
    parser.add_argument("--config", type=Path, required=True)
    path: Path = parser.parse_args().config
    try:
        settle()
        asyncio.run(run(tomllib.loads(path.read_text(encoding="utf-8")), path.parent))
    except ZaibeiError as exc:
        sys.exit(f"node: {exc.trouble.message}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
