"""A registrar of a drill: registers one name after the other, at the node or here, until somebody acknowledges each."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from itertools import pairwise

from chaos.standin.registries import url_of
from hosting.tenant.edge_client import RegistrationClient
from ops.drills.edge_stage_files import HOST
from ops.drills.registering_stage import REGISTRAR, RegisteringStage
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue
from replica.model.precondition import ABSENT

FIRST = 800_000  # number of its first name
EVERY_S, AGAIN_S = 0.02, 0.005  # between names; between tries of the same name
PATIENCE_S = 0.3  # for one try at our side; what is not known then is asked again
LATE_MS_MAX = 100  # this process itself: a pause that it made is not the system's
WATCH_S = 0.01
NODE, HERE = "node", "here"  # by whom, and the text of the name


@dataclass(slots=True)
class Registrar:
    """Told: (ns of CLOCK_MONOTONIC, name, by whom) in order. Use as an async context manager; inside it registers."""

    stage: RegisteringStage
    source: str
    told: list[tuple[int, str, str]] = field(default_factory=list)
    lates: list[tuple[int, float]] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Registrar:
        self._tasks = [asyncio.create_task(self._register()), asyncio.create_task(self._watch())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        for one in ended:
            if isinstance(one, Exception):
                raise one

    def count(self, by: str, since_ns: int = 0) -> int:
        return sum(one == by and at_ns >= since_ns for at_ns, _, one in self.told)

    def texts(self) -> dict[str, str]:
        """Every name that was told, and its text."""
        return {name: by for _, name, by in self.told}

    def pause_ms(self, since_ns: int, until_ns: int) -> float | None:
        """The longest time between two acknowledgements; None: this process was itself too late to say, or nothing was told."""
        times = [at_ns for at_ns, _, _ in self.told]
        pauses = [(after - before, before, after) for before, after in pairwise(times)]
        pauses = [one for one in pauses if one[2] >= since_ns and one[1] <= until_ns]
        if not pauses:
            return None
        longest, before, after = max(pauses)
        late = any(before <= at_ns <= after and ms > LATE_MS_MAX for at_ns, ms in self.lates)
        return None if late else longest / 1e6

    def write_down(self) -> None:
        """What was told here is a promise as a receipt is: it joins what is looked up at the end."""
        lines = [{"name": name, "text": by, "at_ns": at_ns} for at_ns, name, by in self.told if by == HERE]
        octets = "".join(json.dumps(one) + "\n" for one in lines)  # one write at the end of a file: the node writes there too
        for kind in ("acks", "receipts"):
            with (self.stage.told / f"{self.source}-{kind}.jsonl").open("a", encoding="utf-8") as file:
                file.write(octets)

    async def _register(self) -> None:
        identity = ensure_identity(self.stage.folder / REGISTRAR, REGISTRAR)
        member = (self.stage.folder / "member" / "identity" / "certificate.pem").read_bytes()
        address = f"{HOST}:{self.stage.ports['registration']}"
        prefix, number, by = self.stage.prefix_of[self.source], FIRST, NODE
        async with RegistrationClient([address], identity, [member], patience_s=PATIENCE_S) as here:
            await self._found(here, f"{prefix}/N-{number}")  # its connection stands before it is needed
            while True:
                name = f"{prefix}/N-{number}"
                if (found := await self._one(here, name, number, by)) is None:
                    await asyncio.sleep(AGAIN_S)
                    continue
                by, number = found, number + 1
                self.told.append((time.monotonic_ns(), name, by))
                await asyncio.sleep(EVERY_S)

    async def _one(self, here: RegistrationClient, name: str, number: int, last: str) -> str | None:
        """One turn of tries, first where the last one was acknowledged; by whom it is now."""
        for by in (last, HERE if last == NODE else NODE):
            if by == NODE:
                if (await self.stage.ask(do="register", node=self.source, number=number, text=NODE))["acknowledged"]:
                    return NODE
                continue
            done = await here.put(name, [HandleValue(1, b"URL", url_of(name, HERE).encode(), ttl=60)], ABSENT)
            if done.ok:
                return HERE
            if done.trouble is not None and done.trouble.code is Code.CONFLICT:  # stored before, by either, and not told then
                return await self._found(here, name)
        return None

    @staticmethod
    async def _found(here: RegistrationClient, name: str) -> str | None:
        try:
            [found] = await here.get([name])
        except ZaibeiError:
            return None
        return found.values[0].data.decode().rpartition("/")[2] if found.found else None

    async def _watch(self) -> None:
        while True:
            before = time.monotonic_ns()
            await asyncio.sleep(WATCH_S)
            late_ms = (time.monotonic_ns() - before) / 1e6 - WATCH_S * 1_000
            if late_ms > LATE_MS_MAX / 2:
                self.lates.append((time.monotonic_ns(), late_ms))
