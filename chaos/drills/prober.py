"""The outside clients of a drill: `python -m chaos.drills.prober CONFIG.json`. One line of history for each lookup.

They know the recursive node; one lane knows our addresses. What is right is known beforehand: names and the URL of each come from
what the nodes told their own clients, new ones once a quorum receipt covers them. How late this very process was is written down
too, so that a busy machine is never taken for a slow system.

Config (JSON): history, told (folder of acks and receipts), seed, recursive = [protocol, host, port], ours = [[host, port], ...],
lanes = {lane: lookups a second of each source}, sources = {name: prefix}.
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

from chaos.drills.outside import LATE_MS, Lane
from chaos.standin.registries import url_of
from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import Lookup as Answer
from hosting.client.lookup import Server
from replica.model.edge_collector import settle
from replica.model.errors import ZaibeiError

WATCH_S = 0.01
FOLLOW_S = 0.1
RECENT_MAX = 400  # newest names, drawn as often as all others together
FINAL = (1, 100, 200)  # a record, no such name, no such value: a client goes nowhere else after these
ABSENT = 100


class Tail:
    """New whole lines of a growing file."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def read(self) -> list[dict[str, Any]]:
        try:
            if self._path.stat().st_size == self._at:
                return []
            with self._path.open("rb") as file:
                file.seek(self._at)
                octets = file.read()
        except FileNotFoundError:
            return []
        whole = octets[: octets.rfind(b"\n") + 1]
        self._at += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


@dataclass(slots=True)
class Names:
    """Names of one source that a receipt covers, and the text each must resolve to; None: it was removed."""

    acks: Tail
    receipts: Tail
    text: dict[str, str | None] = field(default_factory=dict)
    covered: list[str] = field(default_factory=list)

    def follow(self) -> None:
        for line in self.acks.read():
            self.text[line["name"]] = line["text"]
        self.covered += [line["name"] for line in self.receipts.read()]

    def draw(self, dice: random.Random) -> str | None:
        for _ in range(20):
            if not self.covered:
                return None
            name = dice.choice(self.covered[-RECENT_MAX:] if dice.random() < 0.5 else self.covered)
            if self.text.get(name) is not None:
                return name
        return None


class History:
    """Appends lookups to a file, in lines."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def add(self, line: list[Any]) -> None:
        self._file.write(json.dumps(line) + "\n")

    async def flush_and_watch(self) -> None:
        """Flush now and then; note how late the loop is."""
        ticks, worst_ms = 0, 0.0
        while True:
            before = time.monotonic()
            await asyncio.sleep(WATCH_S)
            late_ms = (time.monotonic() - before - WATCH_S) * 1_000
            if late_ms > min(worst_ms, LATE_MS):
                worst_ms = max(worst_ms, late_ms)
                self.add(["late", late_ms, time.monotonic_ns()])
            ticks += 1
            if ticks % 10 == 0:
                self._file.flush()


Ask = Callable[[str], Awaitable[Answer]]


async def ask_for_ever(history: History, lane: Lane, source: str, names: Names, ask: Ask, every_s: float, seed: str) -> None:
    """One client."""
    dice = random.Random(seed)
    await asyncio.sleep(dice.random() * every_s)
    while True:
        name = names.draw(dice)
        if name is None:
            await asyncio.sleep(every_s)
            continue
        texts, began = {names.text[name]}, time.monotonic_ns()
        right, lied, note = False, False, ""
        try:
            reply = (await ask(name)).reply
            names.follow()  # it may have been removed or rewritten while it was asked
            found = [value.data.decode("utf-8", "replace") for value in reply.values if bytes(value.type) == b"URL"]
            texts.add(names.text[name])  # rewritten while it was asked: either is right
            right = reply.code == 1 and any(text is not None and found == [url_of(name, text)] for text in texts)
            right = right or (reply.code == ABSENT and None in texts)
            lied = not right and reply.code in FINAL
            note = "" if right else f"{reply.code} {found[:1]} {reply.message[:80]}"
        except ZaibeiError as exc:
            note = str(exc)[:120]
        ended = time.monotonic_ns()
        history.add([lane, source, name, began, ended, right, lied, note])
        await asyncio.sleep(max(0.0, every_s - (ended - began) / 1e9))


async def run(config: dict[str, Any]) -> None:
    """Until the process is ended."""
    told, history = Path(config["told"]), History(Path(config["history"]))
    names = {
        source: Names(Tail(told / f"{source}-acks.jsonl"), Tail(told / f"{source}-receipts.jsonl"))
        for source in config["sources"]
    }
    recursive = Server(*config["recursive"])
    ours = tuple(Server("tcp", host, port) for host, port in config["ours"])
    clients = {
        Lane.RECURSIVE: HandleClient(ClientConfig((recursive,))),
        Lane.HEDGED: HandleClient(ClientConfig((recursive,), walk=True, hedge=True)),
        Lane.PORT: HandleClient(ClientConfig(ours, hedge=True)),
    }

    async def follow() -> None:
        while True:
            for one in names.values():
                one.follow()
            await asyncio.sleep(FOLLOW_S)

    for one in names.values():
        one.follow()
    works: list[Awaitable[None]] = [history.flush_and_watch(), follow()]
    for lane, rate in config["lanes"].items():
        ask = clients[Lane(lane)].resolve
        works += [
            ask_for_ever(history, Lane(lane), source, names[source], ask, 1 / rate, f"{config['seed']} {lane} {source}")
            for source in names
        ]
    print(json.dumps({"ready": True}), flush=True)
    await asyncio.gather(*works)


if __name__ == "__main__":
    settle()
    asyncio.run(run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
