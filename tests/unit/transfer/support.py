"""Files to be transferred, and places for them."""

from __future__ import annotations

import random
from pathlib import Path

from replica.model.transfer import KEPT_MANIFEST, TransferKind
from replica.transfer.edge_fetch import FetchLimits
from replica.transfer.ports import Wanted

SOURCE, GROUP = "88.118.8", 7
WANTED = Wanted(GROUP, SOURCE, TransferKind.CHECKPOINT)
QUICK = FetchLimits(credit_chunks=4, files_ahead=2, idle_s_max=5.0, rounds_max=3, pause_s=0.0, pause_s_max=0.0)


def some_files(seed: int = 1, count: int = 6, octets_max: int = 60) -> dict[str, bytes]:
    """A few files as a checkpoint has them; one is empty, two are alike."""
    chance = random.Random(seed)
    files = {f"{number:06}.sst": chance.randbytes(chance.randint(1, octets_max)) for number in range(count)}
    files["MANIFEST-000005"] = chance.randbytes(octets_max)
    files["CURRENT"] = b"MANIFEST-000005\n"
    files["000004.log"] = b""
    files["same-1.sst"] = files["same-2.sst"] = chance.randbytes(octets_max)
    return files


def found_in(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, but the manifest."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != KEPT_MANIFEST}


def ample(_: int) -> None:
    """There is room."""
