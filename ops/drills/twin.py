"""The act of a registry that two nodes publish: the second began from an image of the first, and both register on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from chaos.faults import edge_image
from chaos.faults.edge_stream_proxy import StreamProxy, Way
from chaos.faults.fault import Fault
from chaos.faults.rules import CUT
from chaos.scenarios.scenario import Act, Step
from ops.admin.edge_client import AdminClient
from ops.drills.edge_stage_files import HOST
from ops.drills.stage import Stage
from replica.model.position import Position

if TYPE_CHECKING:
    from ops.drills.acts import Acts

FIRST, OWN, OTHER = 600_000, 5, 8  # names behind the image: numbers, of the first node, of the second; one commit each
FOUND, SENDERS = 1, 2
TOLD_S_MAX, LOOK_S = 20.0, 0.1
REFUSED = ("FORKED", "HELD")

Acting = Callable[[Step], AbstractAsyncContextManager[None]]


def acts_of(acts: Acts) -> dict[Act, Acting]:
    """The acts of this file."""
    return {Act.TWO_PUBLISH: lambda _: _two_publish(acts)}


@asynccontextmanager
async def _two_publish(acts: Acts) -> AsyncIterator[None]:
    """The same identity, prefix and lineage; from the image on each has its own history of the same epoch."""
    stage, source = acts.stage, acts.stage.sources[0]
    prefix = stage.prefix_of[source]
    await acts.settled()
    await asyncio.to_thread(edge_image.take, stage.nodes / source, stage.folder / "twin" / source, stage.pid("nodes"))
    split = Position.parse((await stage.rows())[source].position)
    for number in range(FIRST, FIRST + OWN):
        await stage.ask(do="put", node=source, first=number, count=1, text="own")
    await acts.settled()
    own = {f"{prefix}/N-{number}": "own" for number in range(FIRST, FIRST + OWN)}
    ours = Position.parse((await stage.rows())[source].position)

    link = StreamProxy([(HOST, 0)], [(HOST, stage.ports["feed"])], stage.seed)

    async def begin() -> None:
        await link.start()
        for way in Way:
            link.set(way, CUT)  # it has written its own history before we hear of it
        _write_twin(stage, source, link.addresses[0][1])
        await stage.start("twin")
        for number in range(FIRST + OWN, FIRST + OWN + OTHER):
            await stage.ask("twin", do="put", node=source, first=number, count=1, text="other")
        link.heal()

    async def heal() -> None:
        if (child := stage.children.get("twin")) is not None and child.process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(child.process.pid, signal.SIGKILL)
            await stage.gone("twin")
        await link.stop()

    async with Fault("a second node publishes the same registry", begin, heal, acts.log):
        rows = await acts.until(lambda row: row.feed in REFUSED)
        told = await _two_told(stage, source)
        yield
        rows = await stage.rows()
        row = rows[source]
        acts.fact("the difference is alarmed", row.feed in REFUSED, f"{row.feed}: {row.feed_reason}")
        where = f"at {ours.seq} " in row.feed_reason or ours.short() in row.feed_reason
        said = f"both part behind {split.seq}, we stand at {ours.short()}; {row.feed_reason}"
        acts.fact("it says where we stand", where, said)
        now, wrong = Position.parse(row.position), await acts.wrong_of(own)
        acts.fact(
            "one history is pinned", now == ours and not wrong, f"before {ours.short()}, after {now.short()}; lost {wrong[:3]}"
        )
        acts.fact("both senders are told", told.count("(process ") == SENDERS, told or "nothing")
        names = [f"{prefix}/N-{number}" for number in range(FIRST + OWN, FIRST + OWN + OTHER)]
        answered = [name for name, reply in (await acts.ask_us(names)).items() if reply is not None and reply.code == FOUND]
        acts.fact("the other's names are not answered", not answered, f"{len(answered)} of {len(names)}: {answered[:3]}")


async def _two_told(stage: Stage, source: str) -> str:
    """What the member's status says of two living processes under one identity; empty: nothing, for as long as it has."""

    def look() -> str:
        with AdminClient(stage.folder / "member" / "admin.sock") as admin:
            return next((one for one in admin.status().warnings if f"two living processes publish as {source}:" in one), "")

    until_s = time.monotonic() + TOLD_S_MAX
    while not (told := await asyncio.to_thread(look)) and time.monotonic() < until_s:  # noqa: ASYNC110 - of another process
        await asyncio.sleep(LOOK_S)
    return told


def _write_twin(stage: Stage, source: str, push: int) -> None:
    """Files of the second node: its own folder, ports, link and clients; the identity is that of the image."""
    first, folder = stage.folder / f"{source}.toml", stage.folder / "twin"
    text = first.read_text("utf-8").replace(str(stage.nodes / source), str(folder / source))
    text = text.replace(f"{HOST}:{stage.ports['push']}", f"{HOST}:{push}")
    (stage.folder / "twin.toml").write_text(text, encoding="utf-8")
    config = json.loads((stage.folder / "nodes.json").read_text("utf-8"))
    config |= {"folder": str(folder), "told": str(stage.folder / "twin-told"), "tally": str(stage.folder / "twin-answered")}
    config |= {"udp": stage.ports["twin"], "tcp": stage.ports["twin"]}
    config["nodes"] = [{**config["nodes"][0], "publisher": str(stage.folder / "twin.toml")}]
    (stage.folder / "twin.json").write_text(json.dumps(config), encoding="utf-8")
