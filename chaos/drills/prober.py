"""The outside clients of a drill: `python -m chaos.drills.prober CONFIG.json`. One line of history for each lookup.

They know the recursive node; one lane knows our addresses. What is right is known beforehand: names and the URL of each come from
what the nodes told their own clients, new ones once a quorum receipt covers them. How late this very process was is written down
too, so that a busy machine is never taken for a slow system.

A lane has several clients, each with sockets and published sites of its own, at times that interleave evenly. A client asks when
it is time, whatever became of its earlier questions: else one that hangs would hide the moment at which others are answered.

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

CLIENTS = 4  # of each lane; together they ask each source at the lane's rate
WATCH_S = 0.01
FOLLOW_S = 0.1
RECENT_MAX = 400  # newest names, drawn as often as all others together
FINAL = (1, 100, 200)  # a record, no such name, no such value: a client goes nowhere else after these
ABSENT = 100


class Tail:
    """New whole lines of a growing file."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def read(self) -> list[Any]:
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

    def flush(self) -> None:
        self._file.flush()

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
                self.flush()


Ask = Callable[[str], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Client:
    """One of a lane's clients, as it asks for one source. place: of CLIENTS; rate: of the whole lane, lookups a second."""

    history: History
    lane: Lane
    source: str
    names: Names
    ask: Ask
    place: int
    rate: float
    seed: str

    async def ask_for_ever(self) -> None:
        """A question each CLIENTS / rate seconds; a moment that this process missed is left out, and is told as its lateness."""
        dice, every_s = random.Random(f"{self.seed} {self.place}"), CLIENTS / self.rate
        lane_s = random.Random(self.seed).random() / self.rate  # sources are not asked in one moment
        due_s = time.monotonic() + lane_s + self.place / self.rate
        async with asyncio.TaskGroup() as lookups:
            while True:
                await asyncio.sleep(due_s - time.monotonic())
                if (name := self.names.draw(dice)) is not None:
                    lookups.create_task(self.look_up(name))
                due_s += every_s * (1 + max(0.0, time.monotonic() - due_s) // every_s)

    async def look_up(self, name: str) -> None:
        """Ask once, and write down what came of it."""
        texts, began = {self.names.text[name]}, time.monotonic_ns()
        right, lied, note = False, False, ""
        try:
            reply = (await self.ask(name)).reply
            self.names.follow()  # it may have been removed or rewritten while it was asked
            found = [value.data.decode("utf-8", "replace") for value in reply.values if bytes(value.type) == b"URL"]
            texts.add(self.names.text[name])  # rewritten while it was asked: either is right
            right = reply.code == 1 and any(text is not None and found == [url_of(name, text)] for text in texts)
            right = right or (reply.code == ABSENT and None in texts)
            lied = not right and reply.code in FINAL
            note = "" if right else f"{reply.code} {found[:1]} {reply.message[:80]}"
        except ZaibeiError as exc:
            note = str(exc)[:120]
        self.history.add([self.lane, self.source, name, began, time.monotonic_ns(), right, lied, note])


def client_of(lane: Lane, config: dict[str, Any]) -> HandleClient:
    """A new client that knows what clients of this lane know."""
    recursive = Server(*config["recursive"])
    match lane:
        case Lane.RECURSIVE:
            return HandleClient(ClientConfig((recursive,)))
        case Lane.HEDGED:
            return HandleClient(ClientConfig((recursive,), walk=True, hedge=True))
        case Lane.PORT:
            return HandleClient(ClientConfig(tuple(Server("tcp", host, port) for host, port in config["ours"]), hedge=True))


async def run(config: dict[str, Any]) -> None:
    """Until the process is ended."""
    told, history = Path(config["told"]), History(Path(config["history"]))
    names = {
        source: Names(Tail(told / f"{source}-acks.jsonl"), Tail(told / f"{source}-receipts.jsonl"))
        for source in config["sources"]
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
        for place in range(CLIENTS):
            ask = client_of(Lane(lane), config).resolve
            works += [
                Client(history, Lane(lane), source, one, ask, place, rate, f"{config['seed']} {lane} {source}").ask_for_ever()
                for source, one in names.items()
            ]
    print(json.dumps({"ready": True}), flush=True)
    await asyncio.gather(*works)


if __name__ == "__main__":
    settle()
    asyncio.run(run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
