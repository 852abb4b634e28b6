"""The outside clients: `python -m ops.demo.prober CONFIG.json`. They know recursive nodes only (one lane knows our addresses).

Every lookup becomes one line of history: lane, protocol, source, name, begin, end, right. What is right is known beforehand from
the registries; new names join once a quorum receipt covers them. A clock watch notes how late this very process was, so that a
busy machine is never mistaken for a slow system.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hosting.client.edge_national import NationalClient
from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import Lookup as Answer
from hosting.client.lookup import Server
from ops.demo.judge import Lane
from replica.model.edge_collector import settle
from replica.model.errors import ZaibeiError

WATCH_S = 0.01
NEW_NAMES_EVERY_S = 0.1
RECENT_NAMES_MAX = 500
ABSENT = 100  # no such name
FINAL = (1, ABSENT, 200)  # a record, no such name, no such value: a client goes nowhere else after these


@dataclass(slots=True)
class Names:
    """What may be asked for: name -> the URL its record must hold, by source; new ones once they are receipted."""

    by_source: dict[str, list[tuple[str, str]]]
    fresh: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)

    def draw(self, source: str, dice: random.Random) -> tuple[str, str]:
        if source == "manufacturers" and self.fresh and dice.random() < 0.5:
            return dice.choice(self.fresh[-RECENT_NAMES_MAX:])
        return dice.choice(self.by_source[source])


class History:
    """Appends lookups to a file, in lines."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("a", encoding="utf-8")
        self.late_ms = 0.0

    def add(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")

    async def flush_and_watch(self) -> None:
        """Flush now and then; note how late the loop is."""
        ticks = 0
        while True:
            before = time.monotonic()
            await asyncio.sleep(WATCH_S)
            late_ms = (time.monotonic() - before - WATCH_S) * 1_000
            if late_ms > self.late_ms:
                self.late_ms = late_ms
                self.add({"late_ms": late_ms, "at_ns": time.monotonic_ns()})
            ticks += 1
            if ticks % 10 == 0:
                self._file.flush()


Ask = Callable[[str], Awaitable[Answer]]


async def lane(
    history: History, names: Names, kind: Lane, protocol: str, source: str, ask: Ask, every_s: float, dice: random.Random
) -> None:
    """One client that asks for ever."""
    while True:
        name, url = names.draw(source, dice)
        began = time.monotonic_ns()
        right, lied, absent, note = False, False, False, ""
        try:
            answer = await ask(name)
            found = [value.data.decode("utf-8", "replace") for value in answer.reply.values if bytes(value.type) == b"URL"]
            right = answer.reply.code == 1 and found == [url]
            lied = not right and answer.reply.code in FINAL
            absent = answer.reply.code == ABSENT
            note = f"{answer.reply.code} of {answer.server}" + ("" if right else f" {found[:2]} {answer.reply.message[:80]}")
        except ZaibeiError as exc:
            note = str(exc)[:160]
        ended = time.monotonic_ns()
        history.add(
            {"lane": kind, "protocol": protocol, "source": source, "name": name, "began_ns": began, "ended_ns": ended,
             "right": right, "lied": lied, "absent": absent, "note": note}
        )  # fmt: skip
        await asyncio.sleep(max(0.0, every_s - (ended - began) / 1e9))


async def follow_receipts(names: Names, folder: Path) -> None:
    """Take up registrations that a quorum receipt covers."""
    acks, receipts = (_Tail(folder / file) for file in ("acks.jsonl", "receipts.jsonl"))
    while True:
        for line in acks.read():
            names.values[line["name"]] = line["value"]
        for line in receipts.read():
            if line["name"] in names.values:
                names.fresh.append((line["name"], names.values[line["name"]]))
        await asyncio.sleep(NEW_NAMES_EVERY_S)


class _Tail:
    """New whole lines of a growing file."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def read(self) -> list[dict[str, Any]]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                octets = file.read()
        except FileNotFoundError:
            return []
        whole = octets[: octets.rfind(b"\n") + 1]
        self._at += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


async def run(config: dict[str, Any]) -> None:
    """Until the process is ended."""
    names = Names({source: [(name, url) for name, url in items] for source, items in config["names"].items()})
    history = History(Path(config["history"]))
    dice = random.Random(config["seed"])
    host, ports = config["host"], config["ports"]
    recursive = Server("tcp", host, ports["recursive"])
    works: list[Awaitable[None]] = [history.flush_and_watch(), follow_receipts(names, Path(config["acks"]))]
    through = HandleClient(ClientConfig((recursive,)))
    national = NationalClient(Server("tcp", host, ports["national"]))
    for source in names.by_source:
        works.append(lane(history, names, Lane.RECURSIVE, "tcp", source, through.resolve, 0.02, dice))
        if source in config["national"]:  # it follows no referrals
            works.append(lane(history, names, Lane.NATIONAL, "tcp", source, national.resolve, 0.1, dice))
        for protocol in ("udp", "tcp", "http"):
            if protocol == "http" and source != "manufacturers":
                continue
            order = (protocol, *(other for other in ("udp", "tcp") if other != protocol))
            hedging = HandleClient(ClientConfig((recursive,), walk=True, protocols=order, hedge=True))
            works.append(lane(history, names, Lane.HEDGED, protocol, source, hedging.resolve, 0.05, dice))
        direct = tuple(Server("tcp", member, ports["handle"]) for member in config["members"])
        port = HandleClient(ClientConfig(direct, hedge=True))
        works.append(lane(history, names, Lane.PORT, "tcp", source, port.resolve, 0.05, dice))
    print(json.dumps({"ready": True}), flush=True)
    await asyncio.gather(*works)


if __name__ == "__main__":
    settle()
    asyncio.run(run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
