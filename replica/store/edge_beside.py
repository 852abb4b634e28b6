"""What lies beside the live generation: a loaded one, files held for other members, what was replaced and is on its way out."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import SideGeneration
from replica.model.position import Position
from replica.store.edge_checkpoint import (
    Checkpoint,
    FileHashes,
    Throttle,
    link_files,
    manifest_of,
    manifest_of_load,
    next_folder,
    no_throttle,
)
from replica.store.edge_compare import Difference, difference
from replica.store.edge_disk import remove_tree
from replica.store.edge_folder import discard, fetch_folder, fetch_side_folder
from replica.store.edge_generation import Generation, generation_folder
from replica.store.edge_install import adopt
from replica.store.edge_loader import GenerationLoader, Staged
from replica.store.edge_manifest import read_load
from replica.store.edge_octets import Counting
from replica.store.edge_reads import StoreReads
from replica.store.edge_rocks import StoreBudget
from replica.store.edge_side import OPENED, Side
from replica.store.state_row import Stored


@dataclass(frozen=True, slots=True)
class HeldFiles:
    """Files of the live generation, held still in a folder until somebody removes it. `mark`: as `StoreBeside.mark`."""

    folder: Path
    generation: int
    mark: str


class StoreBeside(StoreReads):
    """The part of a store that knows its folder."""

    def __init__(self, folder: Path, source: str, budget: StoreBudget, live: Generation, stored: Stored) -> None:
        super().__init__(source, live, stored)
        self._folder, self._budget = folder, budget
        self._reapers: dict[Path, threading.Thread] = {}
        self._side: Side | None = None
        self._side_lock = threading.Lock()
        self._turn = threading.Lock()  # of the apply thread at a commit, or of whoever needs the content to stand still
        self._naming = threading.Lock()
        self._hashes = FileHashes()
        self._counting = Counting(source, self._reading, self._turn)

    def loader(self, side: int, position: Position, records_estimate: int = 0) -> GenerationLoader:
        """Build the generation that a committed LoadBegin named, in a process of its own.

        Args:
            side, position: as in the entry.
            records_estimate: from the snapshot's header; 0 where unknown.
        Raises:
            ZaibeiError: CONFLICT (no such load), DISK_FULL (no room: nothing was started).
        """
        begun = self._stored.group.side
        if begun is None or begun.number != side:
            raise ZaibeiError(Code.CONFLICT, f"generation {side} is not being loaded")
        earlier = self._reapers.get(generation_folder(self._folder, side))
        if earlier is not None:  # a load of the same number that was given up
            earlier.join()
        return GenerationLoader.start(
            self._folder, self.source, side, position, begun.first_index, self._budget, records_estimate
        )

    @property
    def octets(self) -> int | None:
        """Octets of keys and values of all records but the documents about a tenant, never behind what is applied. Any thread.

        None: not known yet, of a store that was written without; asking begins to count them, once.
        """
        held = self._live.octets
        if held is None:
            self._counting.begin()
            return None
        return held.octets - held.about

    # ------------------------------------------------------------------------------------------------- members
    @property
    def staged_by(self) -> tuple[str, ...]:
        """Names of the members that have the side generation's files on their disks."""
        return self._stored.staged_by

    def has_side(self, side: SideGeneration) -> bool:
        """True when the files of a loaded generation lie here, verified. Raises ZaibeiError(DAMAGED)."""
        load = read_load(generation_folder(self._folder, side.number))
        return load is not None and load.begun == side.first_index and load.source == self.source

    def room(self, octets: int) -> None:
        """Raises ZaibeiError(DISK_FULL): there is no room for so many more."""
        self._budget.disk.require_for(octets)

    @property
    def fetching(self) -> Path:
        """Folder into which a checkpoint of another member is fetched."""
        return fetch_folder(self._folder)

    def fetching_side(self, number: int, begun: int) -> Path:
        """Folder into which a loaded generation of another member is fetched."""
        return fetch_side_folder(self._folder, number, begun)

    def adopt_side(self, number: int, begun: int, throttle: Throttle = no_throttle) -> Staged:
        """Give a fetched generation its name; STAGED may be said after it. Blocks long, any thread.

        Raises:
            ZaibeiError: as `adopt`; CONFLICT (it is not loaded any more, or the store was closed: nothing was named). Whoever
                asked may be gone long ago, and the folder another load's.
        """

        def goes_on(octets: int) -> None:
            side = self._stored.group.side
            if self._closed or side is None or (side.number, side.first_index) != (number, begun):
                raise ZaibeiError(Code.CONFLICT, f"generation {number} begun by entry {begun} is not being loaded here any more")
            throttle(octets)

        return adopt(self._folder, self.source, number, begun, goes_on)

    def checkpoint(self, throttle: Throttle = no_throttle) -> Checkpoint:
        """Hold the live generation's files still, at exactly one applied entry. Blocks long (hashing), any thread.

        Applying stands still while the last few changes are flushed and links are made (some ms); answers do not. A generation
        that is being loaded beside is not in it: whoever installs this fetches that one too (`hold_side`).

        Raises:
            ZaibeiError: DISK_FULL, DISK_FAILED, DAMAGED, BUSY (again later).
        """
        target, live, entry, digest, _ = self._hold_live()
        try:
            return Checkpoint(target, manifest_of(live, self.source, self._hashes.describe(target, throttle), entry, digest))
        except ZaibeiError:
            remove_tree(target)
            raise

    def hold_still(self) -> HeldFiles:
        """As `checkpoint`, without hashing: the files in a folder of the caller's own, who removes it. Raises as it."""
        target, live, _, _, mark = self._hold_live()
        return HeldFiles(target, live.number, mark)

    @property
    def mark(self) -> str:
        """Which files the live generation is, so that what was found of earlier ones is not taken for these."""
        return _mark(self._live)

    def _hold_live(self) -> tuple[Path, Generation, tuple[int, int], ContentDigest, str]:
        self._budget.disk.require_room()
        with self._reading() as live:
            live.rocks.flush()  # nearly everything, while applying goes on
            with self._turn, self._naming:
                live.rocks.flush()
                target = next_folder(self._folder)
                live.rocks.checkpoint(target)
                return target, live, (live.row.index, live.row.term), live.digest, _mark(live)  # while it is pinned

    def hold_side(self, number: int, begun: int, throttle: Throttle = no_throttle) -> Checkpoint:
        """Hold a loaded generation's files still, with the manifest of its load. Blocks long (hashing), any thread.

        Raises:
            ZaibeiError: NOT_FOUND (it is not here, or not yet, or no more), DISK_FULL, DISK_FAILED, DAMAGED.
        """
        self._budget.disk.require_room()
        home = generation_folder(self._folder, number)
        with self._side_lock, self._naming:
            load = read_load(home)
            if load is None or load.begun != begun or load.source != self.source:
                raise ZaibeiError(Code.NOT_FOUND, f"generation {number} begun by entry {begun} is not loaded here")
            side = self._stored.group.side
            if side is None or (side.number, side.first_index) != (number, begun):
                raise ZaibeiError(Code.NOT_FOUND, f"generation {number} is live by now, or was given up: ask for a checkpoint")
            target = next_folder(self._folder)
            if self._side is None and not (home / OPENED).exists():
                link_files(home, target)
                entry, digest = 0, load.digest
            else:
                entry, digest = self._side_of(side).copy_to(target)
        try:
            return Checkpoint(target, manifest_of_load(load, self._hashes.describe(target, throttle), entry, digest))
        except ZaibeiError:
            remove_tree(target)
            raise

    # ------------------------------------------------------------------------------------------------- side generation
    def _open_side(self) -> Side:
        """The staged side generation, opened once. Raises ZaibeiError."""
        with self._side_lock:
            side = self._stored.group.side
            if side is None or not side.staged:
                raise ZaibeiError(Code.NOT_FOUND, "no side generation is staged")
            return self._side_of(side)

    def difference(self, side: int) -> list[Difference]:
        """What a switch would remove, rewrite and add, per prefix part; blocks long, any thread. Raises ZaibeiError.

        Everything kept for the side generation so far is in the comparison: a disaster that came behind the snapshot too.
        """
        opened = self._open_side()
        if opened.generation.number != side:
            raise ZaibeiError(Code.NOT_FOUND, f"generation {side} is not staged")
        with self._reading() as live, self._reading(opened.generation) as beside:
            opened.catch_up(live)
            return difference(live, beside)

    def _side_of(self, side: SideGeneration) -> Side:
        """Under the side's lock. Raises ZaibeiError."""
        if self._side is None:
            self._side = Side.open(self._folder, self.source, self._budget, side)
        elif (self._side.load.generation, self._side.load.begun) != (side.number, side.first_index):
            raise ZaibeiError(Code.DAMAGED, f"another load than that of entry {side.first_index} is open")
        return self._side

    def _drop_side(self, *, delete: bool, begun: int = 0, number: int = 0) -> None:
        """Close the side generation; delete what the given load left (another load of the same number is not touched)."""
        with self._side_lock:
            side, self._side = self._side, None
        if side is not None:
            self._retire(side.generation, delete=delete)
        elif delete:
            load = read_load(generation_folder(self._folder, number))
            if load is not None and load.begun == begun:
                self._reap(None, generation_folder(self._folder, number), delete=True)

    def _let_go(self, wait_s: float) -> None:
        """End all that reads the live generation for the store itself: it is about to be closed."""
        self._counting.end()
        self._pinned = None
        self._drop_side(delete=False)
        for reaper in self._reapers.values():
            reaper.join(wait_s)

    def _retire(self, generation: Generation, *, delete: bool) -> None:
        """Close a generation when its last reader left, and delete it; in a thread, since both take long."""
        self._reap(generation, generation.rocks.folder, delete=delete)

    def _reap(self, generation: Generation | None, folder: Path, *, delete: bool) -> None:
        def reap() -> None:
            if generation is not None:
                with self._pins:
                    self._pins.wait_for(lambda: generation.readers == 0)
                if delete and generation.rocks.failed is not None:  # replaced because its disk or its files failed
                    generation.rocks.abandon()
                else:
                    try:
                        generation.rocks.flush()  # without the GIL; closing would do it with
                    finally:
                        generation.rocks.close()
            if delete:
                discard(folder)

        self._reapers = {path: one for path, one in self._reapers.items() if one.is_alive()}
        reaper = threading.Thread(target=reap, name="zaibei-store-reaper", daemon=True)
        self._reapers[folder] = reaper
        reaper.start()


def _mark(live: Generation) -> str:
    home = live.rocks.folder
    return f"{home.name}/{home.stat().st_ino}"
