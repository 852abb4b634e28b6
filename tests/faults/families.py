"""One IP family is dead between everybody: what goes on over the other, and what a takeover then publishes."""

from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from chaos.rigs.frames import FrameRule
from hosting.tenant.edge_client import RegistrationClient
from replica.model.handle.values import HandleValue
from tests.faults.acts import Stage
from tests.faults.clients import PREFIX, TEXT
from tests.faults.cluster import Cluster
from tests.faults.feeding import FED_PREFIX
from tests.faults.wires import between_members, equal_everywhere, parts, with_home

TOLD_S_MAX = 40.0  # until every member says which family is dead, or that none is any more
PAUSE_S_MAX = 30.0  # of a client of registrations that knows addresses of both families, and tries the dead ones too
PATIENCE_S = 5.0
GOES_ON_S_MAX = 30.0  # until as many registrations as prove something
AGAIN_S_MAX = 45.0  # until the source has it back
ANSWER_S_MAX = 3.0
EVERY_S, LOOK_EVERY_S = 0.2, 0.5
ACKED_MIN = 10
STATE = re.compile(r'zaibei_takeover_address_state\{.*family="(?P<family>.+?)",state="(?P<state>.+?)"\} 1\.0$')


@dataclass(slots=True)
class Registrar:
    """Registers one name after the other, at addresses of both families; when each was acknowledged, by one clock."""

    acked_s: list[float] = field(default_factory=list)

    async def registers(self, cluster: Cluster, tag: str) -> None:
        """Until cancelled."""
        texts = [
            f"[{host}]:{seat.ports['registration']}" if ":" in host else f"{host}:{seat.ports['registration']}"
            for number, seat in cluster.seats.items()
            for host in cluster.hosts(number)
        ]
        async with RegistrationClient(texts, cluster.registrar, [cluster.roots().read_bytes()], patience_s=PATIENCE_S) as client:
            number = 0
            while True:
                number += 1
                done = await client.put(f"{PREFIX}/{tag}-{number}", [HandleValue(1, TEXT, str(number).encode())])
                if done.ok:
                    self.acked_s.append(time.monotonic())
                await asyncio.sleep(EVERY_S)

    def since(self, began_s: float) -> int:
        return sum(at_s > began_s for at_s in self.acked_s)

    async def enough(self, began_s: float) -> None:
        """Until as many were acknowledged since then as prove something, or long enough."""
        end_s = time.monotonic() + GOES_ON_S_MAX
        while self.since(began_s) < ACKED_MIN and time.monotonic() < end_s:  # noqa: ASYNC110 - two writers of one list
            await asyncio.sleep(LOOK_EVERY_S)

    def pause_s(self, since_s: float, until_s: float) -> float:
        """The longest time without an acknowledgement."""
        times = [since_s, *(at_s for at_s in self.acked_s if since_s < at_s < until_s), until_s]
        return max(later - earlier for earlier, later in pairwise(times))


@dataclass(frozen=True, slots=True)
class FamilyDead:
    """Family 4 or 6 passes nothing, between members and to the source's place, where clients are too."""

    family: int

    @property
    def word(self) -> str:
        return f"IPv{self.family}"

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        cluster, lab = parts(stage)
        pairs = [*between_members(cluster), *with_home(cluster)]
        registrar = Registrar()
        registers = asyncio.create_task(registrar.registers(cluster, f"FAMILY{self.family}"))
        try:
            await self._told(stage, cluster, dead=False)
            began_s, lost = time.monotonic(), lab.counts()["lost"]
            async with lab.ruled(pairs, FrameRule(lost=1, family=self.family), f"{self.word} is dead"):
                await self._told(stage, cluster, dead=True)
                await self._goes_on(stage, cluster)
                await registrar.enough(began_s)
                self._judge(stage, registrar, began_s)
                await cluster.feeding.die()
                await self._published(stage, cluster, whole=False)
                stage.facts[f"{self.word} packets lost"] = lab.counts()["lost"] - lost
                yield
            await self._published(stage, cluster, whole=True)
            await cluster.feeding.come_back()
            await self._again(stage, cluster)
        finally:
            registers.cancel()
            await asyncio.gather(registers, return_exceptions=True)

    def _lives(self, cluster: Cluster, number: int) -> str:
        """A member's address of the other family."""
        return next(one for one in cluster.hosts(number) if (":" in one) is (self.family == 4))

    async def _told(self, stage: Stage, cluster: Cluster, *, dead: bool) -> None:
        """Every member says of its own address of this family that it answers, or does not; nothing else of the other one."""
        began_s, seen = time.monotonic(), dict[int, dict[str, str]]()

        async def told() -> bool:
            for number in cluster.seats:
                port, host = cluster.seats[number].ports["metrics"], self._lives(cluster, number)
                seen[number] = await asyncio.to_thread(
                    _addresses, f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
                )
            wanted = {"IPv4": "answers", "IPv6": "answers"} | ({self.word: "dead"} if dead else {})
            return all(one == wanted for one in seen.values())

        try:
            await cluster.until(f"{self.word} dead is {dead}", told, TOLD_S_MAX)
            if dead:
                stage.facts[f"{self.word} told after s"] = round(time.monotonic() - began_s, 1)
        except TimeoutError:
            stage.unmet.append(f"{self.word} dead is {dead}, and after {TOLD_S_MAX:.0f} s members say {seen}")

    async def _goes_on(self, stage: Stage, cluster: Cluster) -> None:
        """Feed: all are equal to the source. Answers: every member, at its other address. Nobody takes over."""
        await equal_everywhere(stage, cluster)
        for number in cluster.seats:
            host = self._lives(cluster, number)
            document = await asyncio.to_thread(_answer, cluster.feeding.url(number, host, f"{FED_PREFIX}/BASE-{number}"))
            if not document.get("values"):
                stage.unmet.append(f"member {number} does not answer at {host} while {self.word} is dead: {document}"[:300])
            seen = await cluster.source_at(number)
            if seen is None or seen.authority != "SOURCE":
                owner = None if seen is None else f"{seen.authority}, {seen.takeover}"
                stage.unmet.append(f"the source lives, and member {number} says {owner}")

    def _judge(self, stage: Stage, registrar: Registrar, began_s: float) -> None:
        now_s = time.monotonic()
        pause_s, count = registrar.pause_s(began_s, now_s), registrar.since(began_s)
        stage.facts[f"{self.word} registrations"] = f"{count}, longest pause {pause_s:.1f} s"
        if pause_s > PAUSE_S_MAX:
            stage.unmet.append(f"nothing was registered for {pause_s:.1f} s while {self.word} was dead, allowed {PAUSE_S_MAX} s")
        if count < ACKED_MIN:
            stage.unmet.append(f"only {count} registrations while {self.word} was dead")

    async def _published(self, stage: Stage, cluster: Cluster, *, whole: bool) -> None:
        """What members answer for the source's prefix: sites of ours without the dead family; `whole`: with it again."""
        began_s, found = time.monotonic(), set[str]()
        ours = {host for number in cluster.seats for host in cluster.hosts(number)}
        dead = {host for host in ours if (":" in host) is (self.family == 6)}

        async def as_it_should() -> bool:
            found.clear()
            for number in cluster.seats:
                host = self._lives(cluster, number)
                found.update(await asyncio.to_thread(_sites, cluster.feeding.url(number, host, f"0.NA/{FED_PREFIX}")))
            mine = found & ours
            return bool(mine - dead) and (not whole or bool(mine & dead))

        try:
            await cluster.until("our site is answered", as_it_should, TOLD_S_MAX)
        except TimeoutError:
            stage.unmet.append(f"taken over, and what is published names {sorted(found)}, {self.word} again: {whole}")
        if not whole and found & dead:
            stage.unmet.append(f"{self.word} is dead and published: {sorted(found & dead)}")
        if whole:
            stage.facts[f"{self.word} published again after s"] = round(time.monotonic() - began_s, 1)

    async def _again(self, stage: Stage, cluster: Cluster) -> None:
        async def as_before() -> bool:
            found = await asyncio.gather(*map(cluster.source_at, cluster.seats))
            return all(seen is not None and seen.authority == "SOURCE" for seen in found)

        try:
            await cluster.until("the source has it back", as_before, AGAIN_S_MAX)
        except TimeoutError as exc:
            stage.unmet.append(str(exc)[:500])
        await equal_everywhere(stage, cluster)


def _addresses(url: str) -> dict[str, str]:
    """What a member's metrics say of its own published addresses: family, state."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S_MAX) as answer:
            lines = answer.read().decode().splitlines()
    except (urllib.error.URLError, OSError):
        return {}
    found = [STATE.match(line) for line in lines]
    return {one["family"]: one["state"] for one in found if one is not None}


def _answer(url: str) -> dict[str, object]:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S_MAX) as answer:
            document: dict[str, object] = json.loads(answer.read())
            return document
    except (urllib.error.URLError, OSError, ValueError) as exc:
        return {"why": str(exc)}


def _sites(url: str) -> set[str]:
    """Every address in the sites of an answer."""
    found = set[str]()
    values = _answer(url).get("values", ())
    for value in values if isinstance(values, list) else ():
        if value.get("type") == "HS_SITE":
            found |= _hosts(value["data"]["value"])
    return found


def _hosts(site: dict[str, object]) -> set[str]:
    servers, attributes = site.get("servers", ()), site.get("attributes", ())
    named = [one["address"] for one in servers if isinstance(one, dict)] if isinstance(servers, list) else []
    named += [one["value"] for one in attributes if one["name"].startswith("alt_addr")] if isinstance(attributes, list) else []
    return {str(host) for host in named}
