"""The stand-in register as a system of the runner: its processes, and clients of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chaos.check.history import Value, frozen, plain
from chaos.rigs.capability import Capability
from tests.faults.standin import Link
from tests.faults.system import PYTHON, Seat, System, Told

READY_S_MAX = 20.0
CLIENT_S_MAX = 3.0
LOST_S = 1.5  # after this without an answer the outcome counts as unknown


class StandinSystem(System):
    """Members of `standin.py`. `broken`: the rule that is turned off in all of them."""

    capabilities = frozenset({Capability.AMNESIA, Capability.LEADER})
    patterns: Mapping[str, str] = {"wal": "register", "table": "register", "manifest": "register"}
    broken = ""

    async def start(self) -> None:
        await self.open_links()
        self._asked: dict[int, Link] = {}
        self.favourite = 1  # all clients go to one member while it answers, so that there is one whose death matters
        for seat in self.seats.values():
            others = {number: self.reach(number)[0] for number in self.seats if number != seat.number}
            config = {
                "number": seat.number,
                "data": str(seat.data),
                "listen": [(host, seat.ports["link"]) for host in self.hosts(seat.number)],
                "others": others,
                "broken": self.broken,
            }
            self._config(seat).write_text(json.dumps(config))
            self.launch(seat.number)
        for number in self.seats:
            await self.up(number, READY_S_MAX)

    def _config(self, seat: Seat) -> Path:
        return self.folder / f"m{seat.number}.json"

    def command(self, seat: Seat) -> list[str]:
        return [PYTHON, "-m", "tests.faults.standin", str(self._config(seat))]

    async def _status(self, number: int) -> dict[str, Any]:
        link = self._asked.setdefault(number, Link((self.hosts(number)[0], self.seats[number].ports["link"])))
        return await link.ask({"op": "status"}) or {}

    async def ready(self, seat: Seat) -> bool:
        return bool((await self._status(seat.number)).get("ready"))

    async def leader(self) -> int:
        return self.favourite

    async def amnesiac(self, member: int) -> bool | None:
        return (await self._status(member)).get("amnesiac")

    def register(self, client: str) -> StandinRegister:
        return StandinRegister(self, client)


class StandinRegister:
    """A client: every second one asks the favourite, the others each their own; who does not answer is left for the next one."""

    def __init__(self, system: StandinSystem, client: str) -> None:
        self._system = system
        place = int(client[1:]) if client[1:].isdigit() else 0
        self._own = place % len(system.seats) + 1 if place % 2 else 0  # 0: the favourite
        self._links = {
            number: Link((system.hosts(number)[0], seat.ports["link"]), LOST_S) for number, seat in system.seats.items()
        }

    async def get(self, key: str) -> Told:
        return await self._ask(op="get", key=key)

    async def append(self, key: str, value: int) -> Told:
        return await self._ask(op="append", key=key, v=value)

    async def put(self, key: str, value: Value) -> Told:
        return await self._ask(op="put", key=key, v=plain(value))

    async def cas(self, key: str, wanted: Value, value: Value) -> Told:
        return await self._ask(op="cas", key=key, v=plain(value), wanted=plain(wanted))

    async def close(self) -> None:
        for link in self._links.values():
            if link._writer is not None:
                link._writer.close()

    def _leave(self, number: int) -> None:
        following = number % len(self._system.seats) + 1
        if self._own:
            self._own = following
        elif self._system.favourite == number:
            self._system.favourite = following

    async def _ask(self, **ask: Any) -> Told:
        """A request without an answer may have happened; one that was refused is tried elsewhere."""
        end = time.monotonic() + CLIENT_S_MAX
        while time.monotonic() < end:
            number = self._own or self._system.favourite
            answer = await self._links[number].ask(ask)
            if answer is None or (answer["ok"] is False and "out" not in answer):
                self._leave(number)
                if answer is None and ask["op"] != "get":
                    return Told(None)
                continue
            return Told(answer["ok"], frozen(answer.get("out")), "out" in answer)
        return Told(False)
