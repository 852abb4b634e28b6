"""Who registers in the region that lives at the cluster: `python -m ops.demo.registering CONFIG.json`.

Two clients that know all members append to growing lists (read, then a put if nobody changed it) and register new identifiers if
nobody has them yet. Every operation becomes one line of history in the format of chaos/check; what was asked and never told is
unknown there, never "not done". Told to end, they read everything once more and end with 0.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import IO, Any

from chaos.check.history import Op, Operation, Value, format_line
from hosting.tenant.edge_client import Done, Found, RegistrationClient
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue
from replica.model.precondition import ABSENT

LISTS = 6
READS, NEW = 0.2, 0.4  # shares of what is asked; the rest are appends
PATIENCE_S = 3.0
CONFLICTS_MAX = 8  # somebody else changed it between read and put; then the append is given up, without effect
KEYS_A_READ = 100
FINAL_S_MAX = 10.0
LIST, TEXT = b"LIST", b"TEXT"


@dataclass(slots=True)
class Book:
    """What was asked, and what came of it; a line is written when an operation has ended."""

    file: IO[str]
    number: int = 0
    keys: set[str] = field(default_factory=lambda: {f"LIST-{place}" for place in range(LISTS)})

    def next(self) -> int:
        """A number that no write has had."""
        self.number += 1
        return self.number

    def add(
        self, client: str, key: str, op: Op, ok: bool | None, began_ns: int, *, value: Value = None, out: Value = None
    ) -> None:
        saw = op is Op.GET and ok is True
        one = Operation(client, key, op, value, None, out, saw, ok, began_ns, time.monotonic_ns())
        self.file.write(format_line(one) + "\n")
        self.file.flush()


class Registrar:
    """One client. `pause`: while this file is there nothing is changed."""

    def __init__(self, name: str, prefix: str, client: RegistrationClient, book: Book, pause: Path, every_s: float) -> None:
        self._name, self._prefix, self._client, self._book = name, prefix, client, book
        self._pause, self._every_s, self._chance = pause, every_s, Random(name)

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if not self._pause.exists():
                await self._one()
            await asyncio.sleep(self._every_s * self._chance.uniform(0.5, 1.5))

    async def _one(self) -> None:
        chance, book, began_ns = self._chance.random(), self._book, time.monotonic_ns()
        place = f"LIST-{self._chance.randrange(LISTS)}"
        if chance < READS:
            try:
                [found] = await self._client.get([self._of(place)])
            except ZaibeiError:
                book.add(self._name, place, Op.GET, None, began_ns)
            else:
                book.add(self._name, place, Op.GET, True, began_ns, out=_value(found))
            return
        number = book.next()
        if chance < READS + NEW:
            key = f"TOWN-{number}"
            book.keys.add(key)
            done = await self._client.put(self._of(key), [HandleValue(1, TEXT, str(number).encode())], ABSENT)
            book.add(self._name, key, Op.CAS, done.ok, began_ns, value=number)
        else:
            book.add(self._name, place, Op.APPEND, await self._append(place, number), began_ns, value=number)

    async def _append(self, key: str, number: int) -> bool | None:
        for _ in range(CONFLICTS_MAX):
            done: Done = await self._client.append(self._of(key), str(number), kind=LIST)
            if done.ok is not False or done.trouble is None or done.trouble.code is not Code.CONFLICT:
                return done.ok
        return False

    async def read_all(self) -> None:
        """What everybody ends with. Raises ZaibeiError: it cannot be read."""
        keys = sorted(self._book.keys)
        for first in range(0, len(keys), KEYS_A_READ):
            some, began_ns = keys[first : first + KEYS_A_READ], time.monotonic_ns()
            found = await self._client.get([self._of(key) for key in some])
            for key, one in zip(some, found, strict=True):
                self._book.add("final", key, Op.GET, True, began_ns, out=_value(one))

    def _of(self, key: str) -> str:
        return f"{self._prefix}/{key}"


def _value(found: Found) -> Value:
    if not found.found:
        return None
    [value] = found.values
    text = value.data.decode()
    return tuple(int(word) for word in text.split(",") if word) if value.type == LIST else int(text)


async def run(config: dict[str, Any], file: IO[str]) -> None:
    """Until SIGTERM, then once more over everything; history goes into `file`."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    identity = ensure_identity(Path(config["identity"]), config["name"])
    roots, addresses, book = [config["roots"].encode()], list(config["addresses"]), Book(file)
    clients = []
    for place in range(2):  # each begins at another member
        turned = addresses[place:] + addresses[:place]
        client = RegistrationClient(turned, identity, roots, patience_s=PATIENCE_S)
        registrar = Registrar(f"c{place}", config["prefix"], client, book, Path(config["pause"]), config["every_ms"] / 1_000)
        clients.append((client, registrar))
    print(json.dumps({"ready": True}), flush=True)
    await asyncio.gather(*(registrar.run(stop) for _, registrar in clients))
    await _finally(clients[0][1])
    for client, _ in clients:
        await client.close()


async def _finally(registrar: Registrar) -> None:
    """Raises ZaibeiError: nothing is known of the end."""
    until = time.monotonic() + FINAL_S_MAX
    while True:
        try:
            return await registrar.read_all()
        except ZaibeiError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with Path(settings["history"]).open("a", encoding="utf-8") as history:
        asyncio.run(run(settings, history))
