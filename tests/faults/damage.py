"""Acts that change octets behind their sender's digest: batches of the source, entries of leaders. Only test processes can."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chaos.faults.fault import Fault
from replica.feed import edge_source_driver
from replica.feed.edge_pusher import PushedLink
from replica.v1 import position_pb2, source_pb2
from tests.faults.acts import Stage
from tests.faults.planted import BENDS_FILE
from tests.faults.wires import equal_everywhere, parts

BENT_BATCH_EVERY = 4
REFUSED_BATCH, REFUSED_ENTRIES = "does not have the hash it states", "fail their checksum"


class Heard(logging.Handler):
    """What members told the source, as its log has it."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words, self.count = words, 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += self._words in record.getMessage()


def refusals(stage: Stage, words: str) -> int:
    """How often all members together said so since each was launched last."""
    return sum(stage.system.said_by(member).count(words) for member in stage.system.seats)


@dataclass(frozen=True, slots=True)
class BentBatches:
    """The source flips a bit in the columns of some batches, behind their hash."""

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        cluster, _ = parts(stage)
        send, sent = PushedLink.send, [0, 0]

        async def bent(link: PushedLink, message: source_pb2.SourceMessage) -> None:
            if message.WhichOneof("body") == "batch":
                sent[0] += 1
                if sent[0] % BENT_BATCH_EVERY == 0:
                    sent[1] += 1
                    batch = position_pb2.Batch.FromString(message.batch)
                    octets = bytearray(batch.columns)
                    octets[len(octets) * 2 // 3] ^= 4
                    batch.columns = bytes(octets)
                    message = source_pb2.SourceMessage(batch=batch.SerializeToString())
            await send(link, message)

        async def begin() -> None:
            PushedLink.send = bent  # type: ignore[method-assign]

        async def heal() -> None:
            PushedLink.send = send  # type: ignore[method-assign]

        heard = Heard(REFUSED_BATCH)
        edge_source_driver.LOGGER.addHandler(heard)
        try:
            async with Fault("source bends batches", begin, heal, stage.system.log):
                yield
        finally:
            edge_source_driver.LOGGER.removeHandler(heard)
        refused = heard.count
        stage.facts["bent batches"] = f"{sent[1]} of {sent[0]} sent, refused {refused} times"
        if not sent[1]:
            stage.unsure.append("no batch was bent")
        elif not refused:
            stage.unmet.append(f"{sent[1]} bent batches were sent, and no member said that it refused one")
        await equal_everywhere(stage, cluster)


@dataclass(frozen=True, slots=True)
class BentEntries:
    """Whoever leads flips a bit in some of the entries it sends, behind their sum (planted.py)."""

    @asynccontextmanager
    async def on(self, stage: Stage) -> AsyncIterator[None]:
        cluster, _ = parts(stage)
        switch = cluster.folder / BENDS_FILE

        async def begin() -> None:
            await asyncio.to_thread(switch.touch)

        async def heal() -> None:
            await asyncio.to_thread(switch.unlink)

        before = refusals(stage, REFUSED_ENTRIES)
        async with Fault("leaders bend entries", begin, heal, stage.system.log):
            yield
        refused = refusals(stage, REFUSED_ENTRIES) - before
        stage.facts["bent entries"] = f"refused {refused} times"
        if not refused:
            stage.unmet.append("leaders bent entries, and no member said that it refused one")
        await equal_everywhere(stage, cluster)
