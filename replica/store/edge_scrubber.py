"""The helper process that reads a copy through: `python -m replica.store.edge_scrubber`.

Started afresh, with low priority, on files that are held still for it (hard links of the live ones): every block of every file
is read and its checksum tried, every record is hashed again and summed, and the sums are compared with the stored digest.
Reads a ScrubJob from standard input; says one ScrubReply on standard output. It ends when its input does.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from replica import native
from replica.model.batch import OP_PUT
from replica.model.digest import BUCKETS, SUM_OCTETS
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import key_text
from replica.store.edge_generation import Generation, about_tenants, count_parts
from replica.store.edge_readout import records
from replica.store.edge_rocks import BudgetLimits, StoreBudget
from replica.store.rows import ESCAPED_RECORDS, PLAIN_RECORDS, POSITION_KEY, OctetsRow
from replica.store.scrub import ScrubJob, ScrubReply

NICE = 15
STEP_RECORDS = 4_096
JOB_OCTETS_MAX = 65_536
MEMORY_OCTETS = 16 * 1024 * 1024
PARTS_SHOWN_MAX = 16

_decode_job = msgspec.json.Decoder(ScrubJob).decode  # made once: see state_row.py


class Pace:
    """So many octets a second; ends the process when nobody waits for it any more."""

    def __init__(self, octets_s: int) -> None:
        self._octets_s, self._begun, self.octets = octets_s, time.monotonic(), 0

    def take(self, octets: int) -> None:
        self.octets += octets
        ahead_s = self.octets / self._octets_s - (time.monotonic() - self._begun)
        if select.select([sys.stdin], [], [], max(0.0, ahead_s))[0]:  # its end: the member died, or gave this up
            sys.exit(1)


def scrub(job: ScrubJob, pace: Pace) -> ScrubReply:
    """Read everything once. Raises ZaibeiError: a file is damaged, or could not be opened."""
    folder = Path(job.folder)
    limits = BudgetLimits(cache_octets=MEMORY_OCTETS, write_buffer_octets=MEMORY_OCTETS, stores_max=1, compacts=False)
    budget = StoreBudget(folder, limits)
    generation = Generation.open(folder, job.source, job.generation, budget)
    sums, counts, count = bytearray(BUCKETS * SUM_OCTETS), Counter[bytes](), 0
    octets = about = 0
    content = records(generation)
    while step := [*islice(content, STEP_RECORDS)]:
        keys, values = [key for key, _ in step], [value for _, value in step]
        blob, _, _, more = native.delta(keys, bytes((OP_PUT,)) * len(keys), values, [None] * len(keys))
        native.apply_delta(sums, blob)
        octets, about = octets + more, about + about_tenants(keys, values)
        counts.update(count_parts(keys))
        count += len(keys)
        pace.take(more)
    for key, value in _ours(generation):
        pace.take(len(key) + len(value))
    wrong = differing(bytes(sums), bytes(generation.sums))
    stated = generation.counts.exact()
    parts = sorted(part for part in {*counts, *stated} if counts[part] != stated.get(part, 0))
    shown = tuple(key_text(part) for part in parts[:PARTS_SHOWN_MAX])
    summed: tuple[int, ...] = ()
    held = generation.octets  # None: of a store that was written without
    if held is not None and held != OctetsRow(octets, about):
        summed = (octets, about, held.octets, held.about)
    return ScrubReply(
        records=count, octets=pace.octets, stated=generation.row.records, buckets=tuple(wrong), parts=shown, summed=summed
    )  # fmt: skip


def _ours(generation: Generation) -> Iterator[tuple[bytes, bytes]]:
    """Rows that are no records: the log's raw batches, boundaries, ledgers, audit. Read for their checksums alone."""
    yield from generation.rocks.rows(POSITION_KEY, ESCAPED_RECORDS[0])
    yield from generation.rocks.rows(ESCAPED_RECORDS[1], PLAIN_RECORDS[0])


def differing(made: bytes, stored: bytes) -> list[int]:
    """Buckets whose sums differ."""
    if made == stored:
        return []
    size = SUM_OCTETS
    return [at for at in range(BUCKETS) if made[at * size : (at + 1) * size] != stored[at * size : (at + 1) * size]]


def main() -> int:
    os.nice(NICE)
    line = sys.stdin.buffer.readline(JOB_OCTETS_MAX)
    try:
        job = _decode_job(line)
        reply = scrub(job, Pace(job.octets_s))
    except ZaibeiError as exc:
        reply = ScrubReply(code=exc.code.value, message=exc.trouble.message)
    except msgspec.MsgspecError as exc:
        reply = ScrubReply(code=Code.MALFORMED.value, message=f"the job does not parse: {exc}")
    sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
    sys.stdout.buffer.flush()
    os._exit(0)  # nothing here is to be kept: no wait for RocksDB's threads


if __name__ == "__main__":
    sys.exit(main())
