"""A node is cut off, its registrations are taken over by two people, it comes back and is given them back: again and again.

The node lives on and its clients go on asking it, so that only its lease keeps it from writing beside us. Two registrars ask all
the time, one the node, one us. Operators' own commands are run as processes (ops/drills/registering_stage.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from chaos.scenarios.scenario import Fence, Load, Plant, Scenario
from chaos.standin.registries import url_of
from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import Question, Server
from hosting.tenant.edge_client import Put, RegistrationClient
from ops.bench.bench import Bench
from ops.bench.registrations import Turn, rows
from ops.bench.table import Row
from ops.drills.edge_stage_files import HOST
from ops.drills.registering_stage import REGISTRAR, RegisteringStage
from replica.model.edge_identity import ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue
from replica.model.ladder import Stage as Rung
from replica.model.precondition import ABSENT

HERE_PER_S, HERE_EVERY_S = 1_000, 0.02  # changes here, and between two transactions of them
NODE_EVERY_S = 0.02
OURS_S = 3.0  # we register for so long before the return
CALM_S = 1.0
REACHED_S_MAX, COMMAND_TRIES_S = 60.0, 60.0
LOOK_S = 0.02
ASKED_AT_ONCE = 32
PATIENCE_S = 1.0
NODE_FIRST, HERE_FIRST = 2_000_000, 5_000_000  # numbers of their names
SCENE = Scenario(
    "registrations", 35, "", (), (), Plant.NEVER_TAKES_OVER, "", 60, fence=Fence.WRITE_PATH, load=Load(records=100, lanes=())
)
SERVED = tuple(one.name for one in (Rung.FENCED, Rung.PROMOTED, Rung.PUBLISHED, Rung.SERVING))


class Registrars:
    """Both of them. node, here: moments of acknowledgements; names: all that were acknowledged, with their text."""

    def __init__(self, stage: RegisteringStage) -> None:
        self.stage, self.source = stage, stage.sources[0]
        self.prefix = stage.prefix_of[self.source]
        self.node, self.here = list[int](), list[tuple[int, int]]()
        self.names: dict[str, str] = {}
        self.late_ms = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Registrars:
        self._tasks = [asyncio.create_task(one()) for one in (self._at_node, self._here, self._watch)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _at_node(self) -> None:
        number = NODE_FIRST
        while True:
            number += 1
            told = await self.stage.ask(do="register", node=self.source, number=number, text="node")
            if told["acknowledged"]:
                self.node.append(time.monotonic_ns())
                self.names[f"{self.prefix}/N-{number}"] = "node"
            await asyncio.sleep(NODE_EVERY_S)

    async def _here(self) -> None:
        identity = ensure_identity(self.stage.folder / REGISTRAR, REGISTRAR)
        member = (self.stage.folder / "member" / "identity" / "certificate.pem").read_bytes()
        address, number = f"{HOST}:{self.stage.ports['registration']}", HERE_FIRST
        async with RegistrationClient([address], identity, [member], patience_s=PATIENCE_S) as here:
            under_way, due = set[asyncio.Task[None]](), time.monotonic()
            while True:
                many = int(HERE_PER_S * HERE_EVERY_S)
                under_way.add(task := asyncio.create_task(self._put(here, range(number, number + many))))
                task.add_done_callback(under_way.discard)
                number, due = number + many, max(due + HERE_EVERY_S, time.monotonic())
                await asyncio.sleep(due - time.monotonic())

    async def _put(self, here: RegistrationClient, numbers: range) -> None:
        named = {f"{self.prefix}/N-{number}": number for number in numbers}
        asked = [Put(name, [HandleValue(1, b"URL", url_of(name, "here").encode(), ttl=60)], ABSENT) for name in named]
        done = [name for name, one in zip(named, await here.put_many(asked), strict=True) if one.ok]
        if done:
            self.here.append((time.monotonic_ns(), len(done)))
            self.names |= dict.fromkeys(done, "here")

    async def _watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(LOOK_S)
            self.late_ms = max(self.late_ms, (time.monotonic() - before - LOOK_S) * 1_000)


class Turns(RegisteringStage):
    """One source whose registrations come and go."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, SCENE, 1, None)
        self.source = self.sources[0]

    async def __aenter__(self) -> Turns:
        await super().__aenter__()
        return self

    async def play(self, many: int, tell: Callable[[str], None]) -> list[Turn]:
        """Raises TimeoutError, ZaibeiError: a turn did not come to its end."""
        turns = list[Turn]()
        await self.start_all()
        await self._until(lambda row: row["stage"] == Rung.NORMAL.name and row["lease_ms"] > 0)
        async with Registrars(self) as registrars:
            for number in range(many):
                turns.append(await self._turn(registrars))
                one = turns[-1]
                tell(f"turn {number + 1} of {many}: taken over {one.taken_ms:.0f} ms, nobody registers {one.freeze_ms:.0f} ms")
        return turns

    async def _turn(self, registrars: Registrars) -> Turn:
        await asyncio.sleep(CALM_S)
        registrars.late_ms, registrars.here, registrars.names = 0.0, [], {}
        self.cut(True)
        await self.ask(do="mute", on=True)
        may_ns = await self._take_over()
        await _reached(lambda: bool(registrars.here), "nothing was acknowledged here")
        await asyncio.sleep(OURS_S)
        rate = sum(many for _, many in registrars.here[1:]) / ((registrars.here[-1][0] - registrars.here[0][0]) / 1e9)
        last_ns, healed_ns = registrars.node[-1], time.monotonic_ns()
        self.cut(False)
        await self.ask(do="mute", on=False)
        await self.ask(do="follow", node=self.source)
        await self._give_back()
        await _reached(lambda: registrars.node[-1] > healed_ns, "the node acknowledged nothing after its return")
        back_ns = next(at_ns for at_ns in registrars.node if at_ns > healed_ns)
        late_ms, names = registrars.late_ms, dict(registrars.names)
        lacking = await self.lacking(names)
        return Turn(may_ns, registrars.here[0][0], registrars.here[-1][0], back_ns, last_ns, rate, lacking, late_ms)

    async def _take_over(self) -> int:
        """As two people do it; returns the moment from which nothing but us is waited for, ns."""
        token = await self.signed(self.source, "--registration", patience_s=COMMAND_TRIES_S)
        begun = asyncio.create_task(self.run_signed(self.source, token, "bench"))
        before_ns = time.monotonic_ns()
        row = await self.ladder(self.source)
        while row["stage"] not in SERVED and not (row["stage"] == Rung.APPROVED.name and row["lease_left_ms"] == 0):
            before_ns = time.monotonic_ns()  # it came to be so after this look
            await asyncio.sleep(LOOK_S)
            row = await self.ladder(self.source)
        code, told = await begun
        if code:
            raise ZaibeiError(Code.REFUSED, f"the takeover was not run: {told}")
        return before_ns

    async def _give_back(self) -> None:
        until = time.monotonic() + COMMAND_TRIES_S
        while (await self.failback(self.source))["stage"] != Rung.NORMAL.name:
            if time.monotonic() > until:
                raise TimeoutError(f"not given back within {COMMAND_TRIES_S:.0f} s")
            code, told = await self.zaibei("failback", "plan", self.source, *self.member_words())
            if not code:
                await self.zaibei("failback", "run", self.source, "--plan", str(told["token"]), *self.member_words())

    async def _until(self, reached: Callable[[dict[str, Any]], bool]) -> None:
        async with asyncio.timeout(REACHED_S_MAX):
            while True:
                with suppress(ZaibeiError):
                    if reached(await self.ladder(self.source)):
                        return
                await asyncio.sleep(LOOK_S)

    async def lacking(self, names: dict[str, str]) -> int:
        """How many are not answered with their text at our address, however long the copy is given to be level."""
        until = time.monotonic() + REACHED_S_MAX
        while (wrong := await self._wrong(names)) and time.monotonic() < until:
            names = {name: names[name] for name in wrong}
            await asyncio.sleep(LOOK_S)
        return len(wrong)

    async def _wrong(self, names: dict[str, str]) -> list[str]:
        server, turns, wrong = Server("tcp", HOST, self.ports["handle"]), asyncio.Semaphore(ASKED_AT_ONCE), list[str]()
        async with HandleClient(ClientConfig((server,))) as client:

            async def one(name: str, text: str) -> None:
                async with turns:
                    with suppress(ZaibeiError):
                        reply = await client.ask(server, Question(name))
                        if [value.data for value in reply.values] == [url_of(name, text).encode()]:
                            return
                wrong.append(name)

            await asyncio.gather(*(one(name, text) for name, text in names.items()))
        return wrong


async def _reached(reached: Callable[[], bool], lacking: str) -> None:
    until = time.monotonic() + REACHED_S_MAX
    while not reached():
        if time.monotonic() > until:
            raise TimeoutError(f"{lacking} within {REACHED_S_MAX:.0f} s")
        await asyncio.sleep(LOOK_S)


def registrations(bench: Bench) -> list[Row]:
    """See the module: one stage, turn after turn."""

    async def play(folder: Path) -> list[Turn]:
        async with Turns(folder) as stage:
            return await stage.play(bench.scale.turns, bench.tell)

    with bench.room() as folder:
        return rows(asyncio.run(play(folder)), HERE_PER_S)
