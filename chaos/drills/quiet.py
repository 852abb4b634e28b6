"""The quiet tenants of a drill, as a process: `python -m chaos.drills.quiet CONFIG.json`. They register and are resolved.

Config (JSON): tenants = {name: prefix}, identity (folder of their registrar), server (host:port), member_file, resolve = [host,
port], registrations_per_s and resolutions_per_s (of all together).

| command, a JSON line | what it does |
| --- | --- |
| {"do": "begin"} | asks until the end |
| {"do": "end"} | stops, and says of each kind [[began, ms], ...], how many failed, and when this process was late by how much |

A request is made when it is time, whatever became of those before it; one that failed took as long as its patience.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

from chaos.standin.registries import url_of
from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import Question, Server
from hosting.tenant.edge_client import RegistrationClient
from replica.model.edge_collector import settle
from replica.model.edge_identity import ensure_identity
from replica.model.errors import ZaibeiError
from replica.model.handle.values import HandleValue

NAMES = 200  # of each tenant, registered in turn
PATIENCE_S = 3.0
WATCH_S = 0.01
LATE_MS = 50.0  # later than this is written down
TEXT = "quiet"


class Quiet:
    """See the module."""

    def __init__(self, config: dict[str, Any]) -> None:
        identity = ensure_identity(folder := Path(config["identity"]), folder.name)
        member = Path(config["member_file"]).read_bytes()
        self._config, self._prefixes = config, [*config["tenants"].values()]
        self._here = RegistrationClient([config["server"]], identity, [member], patience_s=PATIENCE_S)
        self._server = Server("tcp", *config["resolve"])
        self._client = HandleClient(ClientConfig((self._server,)))
        self._works: list[asyncio.Task[None]] = []
        self._open: set[asyncio.Task[None]] = set()
        self.taken: dict[str, list[tuple[int, float]]] = {"registrations": [], "resolutions": []}
        self.failed: list[str] = []
        self.lates: list[tuple[int, float]] = []

    def _name(self, number: int) -> str:
        return f"{self._prefixes[number % len(self._prefixes)]}/Q-{number // len(self._prefixes) % NAMES}"

    async def begin(self) -> dict[str, Any]:
        """Every name is there before it is asked for. Raises ZaibeiError: it could not be registered."""
        for number in range(NAMES * len(self._prefixes)):
            await self._register(number)
        kinds: tuple[tuple[str, Callable[[int], Awaitable[None]]], ...] = (
            ("registrations", self._register),
            ("resolutions", self._resolve),
        )
        self._works = [
            asyncio.create_task(self._again(kind, one, self._config[f"{kind}_per_s"])) for kind, one in kinds
        ] + [asyncio.create_task(self._watch())]  # fmt: skip
        return {"begun": True}

    async def end(self) -> dict[str, Any]:
        for work in self._works:
            work.cancel()
        await asyncio.gather(*self._works, return_exceptions=True)
        await asyncio.gather(*self._open)
        await self._here.close()
        return {**self.taken, "failed": len(self.failed), "why": self.failed[:3], "lates": self.lates}

    async def _again(self, kind: str, one: Callable[[int], Awaitable[None]], per_s: float) -> None:
        due_s = time.monotonic()
        for number in count():
            await asyncio.sleep(due_s - time.monotonic())
            task = asyncio.create_task(self._timed(kind, one(number)))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            due_s = max(due_s + 1 / per_s, time.monotonic())

    async def _timed(self, kind: str, work: Awaitable[None]) -> None:
        began_ns = time.monotonic_ns()
        try:
            await work
        except ZaibeiError as exc:
            self.failed.append(f"{kind}: {exc}"[:200])
            self.taken[kind].append((began_ns, PATIENCE_S * 1_000))
        else:
            self.taken[kind].append((began_ns, (time.monotonic_ns() - began_ns) / 1e6))

    async def _register(self, number: int) -> None:
        name = self._name(number)
        done = await self._here.put(name, [HandleValue(1, b"URL", url_of(name, TEXT).encode(), ttl=60)])
        if done.trouble is not None:
            raise ZaibeiError(done.trouble.code, done.trouble.message)

    async def _resolve(self, number: int) -> None:
        name = self._name(number)
        reply = await self._client.ask(self._server, Question(name))
        if [value.data for value in reply.values] != [url_of(name, TEXT).encode()]:
            self.failed.append(f"{name}: {reply.code} {reply.message}"[:200])

    async def _watch(self) -> None:
        while True:
            before = time.monotonic_ns()
            await asyncio.sleep(WATCH_S)
            late_ms = (time.monotonic_ns() - before) / 1e6 - WATCH_S * 1_000
            if late_ms > LATE_MS:
                self.lates.append((time.monotonic_ns(), late_ms))


async def main(config: dict[str, Any]) -> None:
    """Commands until the input ends."""
    quiet = Quiet(config)
    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await (quiet.begin() if json.loads(line)["do"] == "begin" else quiet.end())), flush=True)


if __name__ == "__main__":
    settle()
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
