"""The generation beside: what a finished load left, and bringing it up to date from the entries kept for it.

While a snapshot loads, entries for it are kept in the live generation's database (SIDE_LOG), in the same writes as the applied
index; so they survive whatever the live one survives, and the journal need not be kept for them. Rows carry the index of their
LoadBegin, because a number is used again after a load was given up.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from replica.model.batch import open_batch
from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import SideGeneration
from replica.model.outcome import LogEntry
from replica.model.position import Position
from replica.store.edge_disk import disk_error
from replica.store.edge_generation import Change, Generation, generation_folder
from replica.store.edge_manifest import Load, check_files, read_load, write_load
from replica.store.edge_rocks import StoreBudget, new_batch
from replica.store.rows import Kind, after_kind, history_of, history_row
from replica.v1 import entry_pb2

SWEEP_ROWS = 64
SIDE_ENTRIES_A_STEP = 4  # a side generation catches up by so many entries each time one more arrives for it
ENTRIES_A_TURN = 64  # likewise, while a thread does nothing else
STALL_WAIT_S = 0.01
_LOG = struct.Struct(">QQ")
_HISTORY = struct.Struct(">QQQ")
OPENED = "OPENED"  # from then on the files change, and the manifest's list no longer describes them


class Side:
    """A staged generation, open. On the apply thread, but for reading `generation` and `catch_up`."""

    def __init__(self, load: Load, generation: Generation) -> None:
        self.load, self.generation = load, generation
        self._turn = threading.Lock()  # one thread at a time brings it up to date

    @staticmethod
    def open(folder: Path, source: str, budget: StoreBudget, side: SideGeneration) -> Side:
        """Open what the load left.

        Raises:
            ZaibeiError(DAMAGED): it is missing, another load's, or not what was verified.
        """
        home = generation_folder(folder, side.number)
        load = read_load(home)
        if load is None or load.begun != side.first_index or load.source != source:
            raise ZaibeiError(
                Code.DAMAGED, f"{home} does not hold the load begun by entry {side.first_index}: re-seed this source"
            )
        marker = home / OPENED
        if not marker.exists():
            check_files(home, load)
            marker.touch()
        generation = Generation.open(home, source, side.number, budget)
        return Side(load, generation)

    def drain(self, live: Generation, entries_max: int | None) -> bool:
        """Apply the next entries kept for it; None: all. Raises ZaibeiError; BUSY: what was done stays done.

        Returns:
            True when some are left.
        """
        with self._turn:
            return self._drain(live, entries_max)

    def step(self, live: Generation) -> None:
        """A few entries more, unless another thread is at it. Raises as `drain`."""
        if self._turn.acquire(blocking=False):
            try:
                self._drain(live, SIDE_ENTRIES_A_STEP)
            finally:
                self._turn.release()

    def catch_up(self, live: Generation) -> None:
        """All there is, in portions, so that the apply thread never waits long; any thread, with both generations pinned."""
        more = True
        while more:
            try:
                more = self.drain(live, ENTRIES_A_TURN)
            except ZaibeiError as exc:
                if exc.code is not Code.BUSY:
                    raise
                time.sleep(STALL_WAIT_S)

    def _drain(self, live: Generation, entries_max: int | None) -> bool:
        own = self.generation
        start = Kind.SIDE_LOG + _LOG.pack(self.load.begun, own.row.index + 1)
        stop = Kind.SIDE_LOG + _LOG.pack(self.load.begun + 1, 0)
        for done, (key, data) in enumerate(live.rocks.rows(start, stop)):
            if done == entries_max:
                return True
            _, index = _LOG.unpack(key[-_LOG.size :])
            entry = entry_pb2.Entry.FromString(data)
            if entry.WhichOneof("body") == "grant":
                change = own.begin()
                own.boundary(change, Position.from_wire(entry.grant.start))
            else:
                batch = open_batch(entry.append.batch, verify=False)
                if batch.before != own.row.position:
                    raise ZaibeiError(
                        Code.DAMAGED,
                        f"the entries kept for generation {own.number} go on at {batch.before.short()}, it stands at "
                        f"{own.row.position.short()}: abort this load",
                    )
                change = own.begin_batch(batch, [(line.ordinal, line.reason) for line in entry.append.quarantined])
            own.commit(change, index, 0)
            own.fold()
        return False

    def copy_to(self, target: Path) -> tuple[int, ContentDigest]:
        """A checkpoint of it as it stands; returns the last entry taken in, and its digest. Any thread. Raises ZaibeiError."""
        own = self.generation
        with self._turn:
            own.rocks.flush()
            own.rocks.checkpoint(target)
            write_load(target, self.load)
            try:
                (target / OPENED).touch()
            except OSError as exc:
                raise disk_error(exc, f"writing {target}") from exc
            return own.row.index, own.digest

    @staticmethod
    def keep(change: Change, begun: int, entry: LogEntry, after: Position) -> None:
        """Keep an entry for the side generation, with the boundary it leads to."""
        change.wb.put(Kind.SIDE_LOG + _LOG.pack(begun, entry.index), entry.data)
        change.wb.put(Kind.SIDE_HISTORY + _HISTORY.pack(begun, after.epoch, after.seq), history_row(after, 0))

    @staticmethod
    def history(live: Generation, begun: int) -> Callable[[int, int], Position | None]:
        """Boundaries of the side generation: its own, and before its snapshot those of the live one."""

        def known(epoch: int, seq: int) -> Position | None:
            value = live.rocks.get(Kind.SIDE_HISTORY + _HISTORY.pack(begun, epoch, seq))
            if value is None:
                return live.chain_at(epoch, seq)
            return history_of(Kind.HISTORY + _LOG.pack(epoch, seq), value)[0]

        return known


def sweep(live: Generation, begun: int | None) -> bool:
    """Delete some of what was kept for loads that were given up.

    Args:
        begun: of the load that still needs its rows; None: none does.
    Returns:
        False when nothing is left. Raises ZaibeiError; BUSY: some other time.
    """
    wb, found = new_batch(), False
    for kind in (Kind.SIDE_LOG, Kind.SIDE_HISTORY):
        stop = after_kind(kind) if begun is None else kind + _LOG.pack(begun, 0)[:8]
        for key in live.rocks.first_keys(kind, stop, SWEEP_ROWS):
            wb.delete(key)
            found = True
    if found:
        live.rocks.write(wb)
    return found


def load_mismatch(load: Load, stated: ContentDigest | None) -> str:
    """Empty, or how the content we built differs from what the group switches to."""
    if stated is None or (stated.position == load.digest.position and stated.same_content(load.digest)):
        return ""
    ours = load.digest
    return (
        f"built {ours.records} records at {ours.position.short()}, "
        f"the group switches to {stated.records} at {stated.position.short()}"
    )
