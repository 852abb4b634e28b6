"""What is done to the stage: each act is a fault with its heal, and says as facts what only it can look up while it lasts."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

from chaos.drills.outside import Lost, Outside
from chaos.faults import edge_image
from chaos.faults.edge_process import frozen
from chaos.faults.fault import Fault, FaultLog, nothing
from chaos.scenarios.scenario import Act, Step
from chaos.standin.registries import url_of
from chaos.standin.tally import last_answer_ns
from hosting.client.edge_resolver import ClientConfig, HandleClient
from hosting.client.lookup import Question, Reply, Server
from ops.admin.values import SourceStatus
from ops.drills import (
    crowding,
    deceiving,
    flooding,
    forging,
    incident,
    loading,
    returning,
    switching,
    top_level,
    twin,
    withdrawing,
)
from ops.drills.cluster_stage import ClusterStage
from ops.drills.edge_stage_files import HOST
from ops.drills.stage import Stage
from replica.model.errors import ZaibeiError
from replica.model.position import Position

SNAPSHOT_S_MAX = 30.0
STATE_S_MAX = 20.0  # until the member has said what must be said
LOOK_S = 0.05
LOSE_S = 1.0  # of registrations that an old disk does not know
STALL_MS, BREATH_MS = (100, 240), (100, 200)
SHARE = 0.9  # of a prefix, removed
ASKED_AT_ONCE = 32
ABSENT, TRY_ANOTHER = 100, 2
OTHER_FIRST = 500_000  # numbers of names in another history
UNRECEIPTED_MAX = 2_000
PAD_OCTETS, PADDED, PADDED_TIMES = 200_000, 30, 4  # 24 MB; a segment has 16


class Acts:
    """See the module. `outside`: where facts go."""

    def __init__(self, stage: Stage, outside: Outside, log: FaultLog, chance: Random) -> None:
        self.stage, self.outside, self.log, self.chance = stage, outside, log, chance
        self._acts: dict[Act, Callable[[Step], AbstractAsyncContextManager[None]]] = {
            Act.NODES_DIE: self.nodes_die,
            Act.NODES_HANG: self._nodes_hang,
            Act.NODES_FLAP: self._nodes_flap,
            Act.CUT_FROM_US: self._cut,
            Act.OLD_DISK: self._old_disk,
            Act.OTHER_HISTORY: self._other_history,
            Act.OUR_OLD_DISK: self._our_old_disk,
            Act.MASS_DELETE: self._mass_delete,
            Act.MAJORITY_AND_NODES_DIE: self._majority_and_nodes_die,
            **crowding.acts_of(self),
            **deceiving.acts_of(self),
            **forging.acts_of(self),
            **incident.acts_of(self),
            **flooding.acts_of(self),
            **loading.acts_of(self),
            **returning.acts_of(self),
            **switching.acts_of(self),
            **top_level.acts_of(self),
            **twin.acts_of(self),
            **withdrawing.acts_of(self),
        }

    def on(self, step: Step) -> AbstractAsyncContextManager[None]:
        """The fault of a step: broken inside, healed after."""
        return self._acts[step.act](step)

    def fact(self, name: str, held: bool | None, note: str) -> None:
        """The worst of several says of one name counts: no before unknown before yes."""
        known = self.outside.facts.get(name, True)
        if name not in self.outside.facts or (known is True and held is not True) or (known is None and held is False):
            self.outside.facts[name], self.outside.notes[name] = held, note

    # ------------------------------------------------------------------------------------------------- nodes die, hang, stall

    @asynccontextmanager
    async def nodes_die(self, step: Step) -> AsyncIterator[None]:
        stage = self.stage

        async def begin() -> None:
            os.kill(stage.pid("nodes"), signal.SIGKILL)
            at_ns = time.monotonic_ns()
            self.outside.lost.append(Lost(at_ns, tuple(stage.sources), last_answer_ns(stage.tally)))
            await stage.gone("nodes")

        async def heal() -> None:
            await self.count_source_lost()
            await stage.start("nodes")

        async with Fault("nodes SIGKILLed", begin, heal, self.log):
            yield

    @asynccontextmanager
    async def _nodes_hang(self, step: Step) -> AsyncIterator[None]:
        async with frozen(self.stage.pid("nodes"), self.log):
            yield

    @asynccontextmanager
    async def _nodes_flap(self, step: Step) -> AsyncIterator[None]:
        pid = self.stage.pid("nodes")

        async def heal() -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        async with Fault(f"nodes stall {step.times} times for {STALL_MS[0]} to {STALL_MS[1]} ms", nothing, heal, self.log):
            for _ in range(step.times):
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(self.chance.uniform(*STALL_MS) / 1_000)
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(self.chance.uniform(*BREATH_MS) / 1_000)
            yield

    async def count_source_lost(self) -> None:
        """What dead nodes had told their clients, no receipt covers, and we do not answer right: RPO_source."""
        now_ns, lost, oldest = self.outside.lost[-1].at_ns, 0, 0
        for source in (source for one in self.outside.lost for source in one.sources):
            acks, covered = self.told(source)
            unsure = {name: line for name, line in acks.items() if name not in covered}
            answers = await self.ask_us(list(unsure)[:UNRECEIPTED_MAX])
            for name, reply in answers.items():
                if reply is None or not _right(name, unsure[name]["text"], reply):
                    lost, oldest = lost + 1, max(oldest, now_ns - unsure[name]["at_ns"])
        self.outside.source_lost = (self.outside.source_lost or 0) + lost
        self.outside.source_lost_ms = max(self.outside.source_lost_ms or 0, oldest // 1_000_000)

    # ------------------------------------------------------------------------------------------------- the majority too

    @asynccontextmanager
    async def _majority_and_nodes_die(self, step: Step) -> AsyncIterator[None]:
        """Nobody can decide anything any more; whoever is left answers what it holds, and says what it is worth."""
        stage = self.stage
        assert isinstance(stage, ClusterStage), "this act needs three members"
        gone = stage.up[:2]

        async def begin() -> None:
            for name in gone:
                os.kill(stage.pid(name), signal.SIGKILL)
            stage.up = [name for name in stage.up if name not in gone]
            os.kill(stage.pid("nodes"), signal.SIGKILL)
            for name in (*gone, "nodes"):
                await stage.gone(name)

        async def heal() -> None:
            await asyncio.gather(*(stage.start(name) for name in (*gone, "nodes")))
            stage.up = [*gone, *stage.up]

        async with Fault(f"{' and '.join(gone)} and the nodes SIGKILLed", begin, heal, self.log):
            rows = await self.until(lambda row: row.freshness == "degraded")
            marks = {source: f"{row.freshness}, {row.authority}" for source, row in rows.items()}
            held = all(row.freshness == "degraded" for row in rows.values()) if rows else None
            self.fact("marked degraded", held, f"who is left says {marks}")
            yield
            names = [f"{prefix}/N-{number}" for prefix in stage.prefix_of.values() for number in range(900_000, 900_020)]
            answers = await self.ask_us(names, stage.ours[2][0])
            called = [name for name, reply in answers.items() if reply is None or reply.code != TRY_ANOTHER]
            self.fact("what we cannot know is not called missing", not called, f"{len(called)} of {len(names)}: {called[:3]}")
            rows = await stage.rows()
            taken = {source: row.authority for source, row in rows.items()}
            self.fact("nobody decides alone", all(one == "SOURCE" for one in taken.values()) if taken else None, f"{taken}")

    # ------------------------------------------------------------------------------------------------- cut off from us

    @asynccontextmanager
    async def _cut(self, step: Step) -> AsyncIterator[None]:
        """Feed, probes and beats are gone; the nodes register on and their own clients reach them."""
        stage, since_ns = self.stage, time.monotonic_ns()

        async def begin() -> None:
            stage.cut(True)
            await stage.ask(do="mute", on=True)

        async def heal() -> None:
            stage.cut(False)
            await stage.ask(do="mute", on=False)

        async with Fault("feed, beats and probes cut", begin, heal, self.log):
            yield
            await self._nothing_new_is_missing(since_ns)

    async def _nothing_new_is_missing(self, since_ns: int) -> None:
        """The node is alive: what it registered meanwhile exists, and whoever says "no such name" of it lies."""
        called_missing, asked = [], 0
        for source in self.stage.sources:
            acks, _ = self.told(source)
            names = [name for name, line in acks.items() if line["at_ns"] > since_ns][:200]
            answers = await self.ask_us(names)
            asked += len(names)
            called_missing += [name for name, reply in answers.items() if reply is not None and reply.code == ABSENT]
        held = None if not asked else not called_missing
        self.fact(
            "what we cannot know is not called missing", held, f"{len(called_missing)} of {asked} new names: {called_missing[:3]}"
        )

    # ------------------------------------------------------------------------------------------------- old disks

    @asynccontextmanager
    async def _old_disk(self, step: Step) -> AsyncIterator[None]:
        async with self._image_of_nodes(other=False):
            yield

    @asynccontextmanager
    async def _other_history(self, step: Step) -> AsyncIterator[None]:
        async with self._image_of_nodes(other=True):
            yield

    @asynccontextmanager
    async def _image_of_nodes(self, *, other: bool) -> AsyncIterator[None]:
        """Images first, then registrations that they lack and that we gave receipts for; then the old ones come back."""
        stage = self.stage
        images, newest = stage.folder / "images", stage.folder / "newest"
        await asyncio.to_thread(self._take, images, stage.pid("nodes"))
        await asyncio.sleep(LOSE_S)
        await self.settled()
        before = await stage.rows()

        async def begin() -> None:
            await self.kill_nodes()
            await asyncio.to_thread(self._take, newest, None)
            await asyncio.to_thread(self._put_back, images)
            if other:
                stage.cut(True)  # it writes another history before we hear of it
            await stage.start("nodes")
            if other:
                for source in stage.sources:
                    await stage.ask(do="put", node=source, first=OTHER_FIRST, count=500, text="other")
                    for number in range(30):
                        await stage.ask(do="put", node=source, first=OTHER_FIRST + 1_000 + number, count=1, text="other")
                stage.cut(False)

        async def heal() -> None:
            stage.cut(False)
            await self.kill_nodes()
            await asyncio.to_thread(self._put_back, newest)
            await stage.start("nodes")

        what = "an older disk of the nodes" + (", with another history" if other else "")
        async with Fault(what, begin, heal, self.log):
            refused = ("FORKED", "HELD") if other else ("FORKED",)  # its content may have come to lie beside, for two people
            after = await self.until(lambda row: row.feed in refused)
            self._say_state("refused by name", after, refused)
            yield
            after = await stage.rows()
            self._say_state("refused by name", after, refused)
            same = {source: content_of(before[source]) == content_of(row) for source, row in after.items()}
            self.fact("nothing is overwritten", all(same.values()), f"content before and after: {same}")

    async def kill_nodes(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.stage.pid("nodes"), signal.SIGKILL)
        await self.stage.gone("nodes")

    def _take(self, into: Path, pid: int | None) -> None:
        into.mkdir()
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)  # all of one moment
        try:
            for source in self.stage.sources:
                edge_image.take(self.stage.nodes / source, into / source)
        finally:
            if pid is not None:
                os.kill(pid, signal.SIGCONT)

    def _put_back(self, images: Path) -> None:
        for source in self.stage.sources:
            edge_image.put_back(images / source, self.stage.nodes / source)

    @asynccontextmanager
    async def _our_old_disk(self, step: Step) -> AsyncIterator[None]:
        """Our disk is of earlier; what came since was receipted, so its source keeps it no longer: a gap nobody can refill."""
        stage, image = self.stage, self.stage.folder / "our-image"
        folder = stage.folder / "member"
        await asyncio.to_thread(edge_image.take, folder, image, stage.pid("member"))
        taken = {source: Position.parse(row.position).place for source, row in (await stage.rows()).items()}
        for turn in range(PADDED_TIMES + 1):  # more than a segment of the source's log: receipted, it is let go of
            pad = PAD_OCTETS if turn < PADDED_TIMES else 0
            for source in stage.sources:  # another text each time: what changes nothing is no change
                await stage.ask(do="put", node=source, first=0, count=PADDED, text=f"v{turn + 2}", pad=pad)
        await self.settled()
        rows = await stage.rows()
        ends = {source: Position.parse(row.position).place for source, row in rows.items()}
        await self.receipted(ends)

        generations = {source: row.detail.get("generation", 0) for source, row in rows.items()}

        async def begin() -> None:
            os.kill(stage.pid("member"), signal.SIGKILL)
            await stage.gone("member")
            await self.kill_nodes()  # the copy's lease on their logs, of its first load, ends with them
            await stage.start("nodes")
            await self.said(lambda status: Position.parse(status["floor"]).place > taken[status["source"]])
            await asyncio.to_thread(edge_image.put_back, image, folder)
            await stage.start("member")
            rows = await self.until(lambda row: row.detail.get("generation", 0) > generations[row.source], SNAPSHOT_S_MAX)
            now = {source: row.detail.get("generation") for source, row in rows.items()}
            loaded = all(now[source] != generations[source] for source in now) if now else None
            self.fact("loaded by snapshot", loaded, f"generations before {generations}, after {now}")

        async def heal() -> None:
            await asyncio.to_thread(shutil.rmtree, image, True)

        async with Fault("an older disk of the member", begin, heal, self.log):
            yield

    def _status(self, source: str) -> dict[str, Any]:
        """What the agent of a node says of itself, about every second."""
        found: dict[str, Any] = json.loads((self.stage.nodes / source / "agent" / "status.json").read_text("utf-8"))
        return found

    async def said(self, reached: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until it holds of what every agent says. Raises TimeoutError."""
        async with asyncio.timeout(STATE_S_MAX):
            while not all(reached(self._status(source)) for source in self.stage.sources):  # noqa: ASYNC110 - of another process
                await asyncio.sleep(LOOK_S)

    async def receipted(self, ends: Mapping[str, tuple[int, int]]) -> None:
        """Wait until every agent knows of a receipt so far, and knows of it again when it is killed. Raises TimeoutError.

        Args:
            ends: places; what an agent said a second ago may be of before its last changes, and then all of it was receipted too.
        """
        await self.said(lambda status: Position.parse(status["receipted"]).place >= ends[status["source"]])
        said_s = {source: self._status(source)["stated_s"] for source in self.stage.sources}
        # The newest receipt is noted before each statement: that one was, when the next one is there.
        await self.said(lambda status: status["stated_s"] > said_s[status["source"]])

    # ------------------------------------------------------------------------------------------------- a mass delete

    @asynccontextmanager
    async def _mass_delete(self, step: Step) -> AsyncIterator[None]:
        stage, records = self.stage, self.stage.scenario.load.records
        count = int(records * SHARE)
        await stage.ask(do="pause", on=True)
        await self.settled()
        before = await stage.rows()

        async def begin() -> None:
            for source in stage.sources:
                await stage.ask(do="delete", node=source, first=0, count=count)

        async def heal() -> None:
            for source in stage.sources:
                await stage.ask(do="put", node=source, first=0, count=count, text="v1")

        async with Fault(f"{count} of {records} names of each prefix removed at the node", begin, heal, self.log):
            after = await self.until(lambda row: row.feed == "HELD")
            self._say_state("it is held", after, ("HELD",))
            yield
            after = await stage.rows()
            same = {source: content_of(before[source]) == content_of(row) for source, row in after.items()}
            self.fact("nothing is applied", all(same.values()), f"content before and after: {same}")
            wrong, asked = list[str](), 0
            for source in stage.sources:
                names = [f"{stage.prefix_of[source]}/N-{number}" for number in range(count)]
                answers = await self.ask_us(names)
                asked += len(names)
                wrong += [name for name, reply in answers.items() if reply is None or not _right(name, "v1", reply)]
            self.fact("answers go on", not wrong, f"{len(wrong)} of {asked} removed names are no longer answered, {wrong[:3]}")

    # ------------------------------------------------------------------------------------------------- looks

    def _say_state(self, name: str, rows: dict[str, SourceStatus], feeds: Sequence[str]) -> None:
        states = {source: f"{row.feed}: {row.feed_reason}" for source, row in rows.items()}
        self.fact(name, all(row.feed in feeds for row in rows.values()) if rows else None, f"{states}")

    async def until(self, reached: Callable[[SourceStatus], bool], seconds: float = STATE_S_MAX) -> dict[str, SourceStatus]:
        """Look until it holds of every source, or the time is over; what was seen last."""
        until, rows = time.monotonic() + seconds, dict[str, SourceStatus]()
        while time.monotonic() < until:
            with suppress(ZaibeiError):
                rows = await self.stage.rows()
                if rows and all(map(reached, rows.values())):
                    return rows
            await asyncio.sleep(max(LOOK_S, self.stage.look_s / 2))
        return rows

    async def settled(self) -> None:
        """Registrations stop, and all that was registered is receipted. Raises TimeoutError."""
        await self.stage.ask(do="pause", on=True)
        async with asyncio.timeout(STATE_S_MAX):
            for source in self.stage.sources:
                while not (await self.stage.ask(do="look", node=source))["receipted"]:  # noqa: ASYNC110 - of another process
                    await asyncio.sleep(LOOK_S)

    def told(self, source: str) -> tuple[dict[str, dict[str, Any]], dict[str, str | None]]:
        """What its clients were told, newest line by name; and by name the newest text that a receipt covers."""
        acks = {line["name"]: line for line in _lines(self.stage.told / f"{source}-acks.jsonl")}
        return acks, {line["name"]: line["text"] for line in _lines(self.stage.told / f"{source}-receipts.jsonl")}

    async def not_honoured(self, most: int) -> tuple[int, list[str]]:
        """(receipted names that were looked up, those whose answer is neither what a receipt covers nor something newer)."""
        count, wrong = 0, list[str]()
        for source in self.stage.sources:
            acks, covered = self.told(source)
            answers = await self.ask_us(list(covered)[:most])
            if silent := [name for name, reply in answers.items() if reply is None]:
                answers |= await self.ask_us(silent)  # a lost datagram or a busy moment breaks no receipt; twice nothing does
            count += len(answers)
            wrong += [
                name
                for name, reply in answers.items()
                if reply is None or not any(_right(name, text, reply) for text in (covered[name], acks[name]["text"]))
            ]
        return count, wrong

    async def wrong_of(self, texts: Mapping[str, str], port: int | None = None) -> list[str]:
        """Names that are not answered with these texts: at our own address, or at another port of this machine."""
        answers = await self.ask_us(list(texts), port=port)
        return [name for name, reply in answers.items() if reply is None or not _right(name, texts[name], reply)]

    async def ask_us(self, names: Sequence[str], host: str = HOST, port: int | None = None) -> dict[str, Reply | None]:
        """Answers at our own address, whatever they say; None: none came."""
        server, turns = Server("tcp", host, port or self.stage.ports["handle"]), asyncio.Semaphore(ASKED_AT_ONCE)
        async with HandleClient(ClientConfig((server,))) as client:

            async def one(name: str) -> Reply | None:
                async with turns:
                    with suppress(ZaibeiError):
                        return await client.ask(server, Question(name))
                return None

            return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))


def _right(name: str, text: str | None, reply: Reply) -> bool:
    if text is None:
        return reply.code == ABSENT
    return reply.code == 1 and [value.data for value in reply.values] == [url_of(name, text).encode()]


def content_of(row: SourceStatus) -> tuple[Any, ...]:
    digest = row.detail.get("digest") or {}
    return digest.get("position"), digest.get("records"), digest.get("sum")


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    octets = path.read_bytes()
    return [json.loads(line) for line in octets[: octets.rfind(b"\n") + 1].splitlines()]
