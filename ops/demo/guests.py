"""The clients of the region that lives here and leaves: `python -m ops.demo.guests CONFIG.json`.

One registers new identifiers, one after the other, as long as we register for the region; one resolves at the three members what
was acknowledged. Every deed becomes a line of history. Told to end, each member is asked once more, by itself, and the end is 0.
"""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import IO, Any

from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import Server
from hosting.tenant.edge_client import RegistrationClient
from ops.demo.hosting_judge import Deed, Did
from replica.model.edge_identity import ensure_identity
from replica.model.errors import ZaibeiError
from replica.model.handle.values import HandleValue
from replica.model.precondition import ABSENT

SETTLED_NS = 2_000_000_000  # a member's copy may be so old and counts as fresh (SEMANTICS 4)
LOOKUP_EVERY_S = 0.01
PATIENCE_S = 3.0
LAST_EVERY = 20  # of those that the import brought, every so many is asked for at the end
URL = b"URL"


class Guests:
    """Both clients; they share what is known to be registered.

    Args:
        known: name -> URL, and from when on every member must answer it, CLOCK_MONOTONIC ns.
    """

    def __init__(self, config: dict[str, Any], file: IO[str]) -> None:
        self._config, self._file, self._dice = config, file, Random(1)
        with Path(config["filled"]).open(encoding="utf-8", newline="") as rows:
            filled = [(row["identifier"], row["URL"]) for row in csv.DictReader(rows)]
        self.known: list[tuple[str, str, int]] = [(name, url, 0) for name, url in filled]
        self.filled = len(filled)

    def _write(self, deed: Deed) -> None:
        self._file.write(json.dumps(asdict(deed)) + "\n")
        self._file.flush()

    async def register(self, client: RegistrationClient, stop: asyncio.Event) -> None:
        """Until the node registers by itself: a refusal is written down and nothing more is asked."""
        number, ok = 0, True
        while ok and not stop.is_set():
            number += 1
            name, url, began_ns = (
                f"{self._config['prefix']}/NEW-{number}",
                f"https://example.cn/new/{number}",
                time.monotonic_ns(),
            )
            done = await client.put(name, [HandleValue(1, URL, url.encode())], ABSENT)
            ended_ns = time.monotonic_ns()
            if done.ok:
                self.known.append((name, url, ended_ns + SETTLED_NS))
            self._write(Deed(Did.REGISTER, name, began_ns, ended_ns, done.ok, str(done.trouble or "")))
            ok = bool(done.ok) or (done.trouble is not None and done.trouble.retry)
            await asyncio.sleep(self._config["every_ms"] / 1_000)

    async def resolve(self, stop: asyncio.Event) -> None:
        async with HandleClient(ClientConfig(self._servers(self._config["hosts"]), hedge=True)) as client:
            while not stop.is_set():
                now_ns, newest = time.monotonic_ns(), len(self.known) - 1
                while self.known[newest][2] > now_ns:
                    newest -= 1
                one = self._dice.choice([self._dice.randrange(newest + 1), newest])
                await self._look(client, Did.LOOKUP, self.known[one])
                await asyncio.sleep(LOOKUP_EVERY_S)

    async def last(self) -> None:
        """Each member by itself."""
        for host in self._config["hosts"]:
            async with HandleClient(ClientConfig(self._servers([host]))) as client:
                for one in [*self.known[: self.filled : LAST_EVERY], *self.known[self.filled :]]:
                    await self._look(client, Did.LAST, one)

    def _servers(self, hosts: list[str]) -> tuple[Server, ...]:
        return tuple(Server("tcp", host, self._config["port"]) for host in hosts)

    async def _look(self, client: HandleClient, did: Did, one: tuple[str, str, int]) -> None:
        name, url, _ = one
        began_ns, ok, note = time.monotonic_ns(), False, ""
        try:
            answer = await client.resolve(name)
            found = [value.data.decode("utf-8", "replace") for value in answer.reply.values]
            ok = answer.reply.code == 1 and found == [url]
            note = "" if ok else f"{answer.reply.code} of {answer.server} {found[:2]} {answer.reply.message[:80]}"
        except ZaibeiError as exc:
            note = str(exc)[:160]
        self._write(Deed(did, name, began_ns, time.monotonic_ns(), ok, note))


async def run(config: dict[str, Any], file: IO[str]) -> None:
    """Until SIGTERM, then a last look; history goes into `file`."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    identity = ensure_identity(Path(config["identity"]), config["name"])
    guests = Guests(config, file)
    async with RegistrationClient(config["addresses"], identity, [config["roots"].encode()], patience_s=PATIENCE_S) as client:
        print(json.dumps({"ready": True}), flush=True)
        await asyncio.gather(guests.register(client, stop), guests.resolve(stop))
    await guests.last()


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with Path(settings["history"]).open("a", encoding="utf-8") as history:
        asyncio.run(run(settings, history))
