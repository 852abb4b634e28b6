"""What every stage gets: a folder, how long to run, how to tell progress, and the material that all share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.bench.material import Material, make_material
from ops.bench.table import Row

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Args:
        runs: of each figure, the median counts. seconds: of each run.
        records: in the store that answers; cold_records: in the store whose records are updated.
        ingest, updates: batches of 1,000 in one run.
        kills: of a leader. behind: batches a member misses; behind_far: so many that it gets files.
        transfer_mb: of a state that is sent to a member; groups: of each member; flood_s: full-speed intake with a dead follower.
        seeds: of the simulator. deaths: of nodes, of each kind.
        turns: registrations are taken over and given back.
    """

    runs: int
    seconds: float
    records: int
    cold_records: int
    ingest: int
    updates: int
    kills: int
    behind: int
    behind_far: int
    transfer_mb: int
    groups: int
    flood_s: float
    seeds: int
    deaths: int
    turns: int


FULL = Scale(
    runs=3, seconds=3.0, records=1_000_000, cold_records=2_000_000, ingest=600, updates=260, kills=20, behind=600,
    behind_far=1_200, transfer_mb=1_000, groups=1_000, flood_s=60.0, seeds=100, deaths=200, turns=50,
)  # fmt: skip
QUICK = Scale(
    runs=1, seconds=1.0, records=100_000, cold_records=200_000, ingest=60, updates=30, kills=2, behind=60,
    behind_far=500, transfer_mb=100, groups=100, flood_s=10.0, seeds=10, deaths=6, turns=2,
)  # fmt: skip
LONG_KILLS, LONG_FLOOD_S = 100, 600.0


class Bench:
    """One run of the benchmark."""

    def __init__(self, folder: Path, scale: Scale, tell: Tell, keep: Path | None = None, say: Tell | None = None) -> None:
        """`keep`: where a stage that is run in pieces leaves its runs and finds those before; None: nowhere.

        `tell`: how far the work is; `say`: what should stand there when it is done.
        """
        self.folder, self.scale, self.tell, self.keep, self.say = folder, scale, tell, keep, say or tell
        self._material: Material | None = None

    @property
    def material(self) -> Material:
        """Made when the first stage needs it."""
        if self._material is None:
            total = self.scale.cold_records
            self._material = make_material(
                self.folder / "material", total, lambda done, _: self.tell(f"making {total:,} records: {done / total:.0%}")
            )
        return self._material

    @contextmanager
    def room(self) -> Iterator[Path]:
        """A folder of a stage's own, deleted afterwards."""
        path = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


Stage = Callable[[Bench], list[Row]]
