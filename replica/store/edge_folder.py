"""A source's folder: which generation is live, what is left over, and when something may be deleted.

CURRENT          names the live generation (fsynced, replaced by rename)
gen-N/           a complete generation; with N above the live one: built beside, perhaps still to be switched to by the journal
gen-N.C/         generation N as installed from another member, for the C-th time
fetch…/          what comes from another member (edge_install.py)
ckpt-…/          files held for other members; worthless once the process is gone
gen-0.new/       a first generation whose making was interrupted
load-N-I/        begun by entry I, being built by a helper process; worthless once that process is gone
dead-…/          renamed for deletion
"""

from __future__ import annotations

from pathlib import Path

from replica.model.errors import Code, ZaibeiError
from replica.model.position import ORIGIN
from replica.model.transfer import KEPT_MANIFEST
from replica.store.edge_disk import disk_error, move_durable, read_current, remove_tree, write_current
from replica.store.edge_generation import Generation, generation_folder
from replica.store.edge_rocks import StoreBudget


def load_folder(folder: Path, number: int, begun: int) -> Path:
    """Of one load alone: what is left of an earlier one of that number may still be on its way out."""
    return folder / f"load-{number}-{begun}"


def find_live(folder: Path, source: str, budget: StoreBudget) -> Generation:
    """Open the live generation; in an empty folder make generation 0.

    Raises:
        ZaibeiError(DAMAGED): CURRENT or the generation it names is gone, damaged or another source's.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise disk_error(exc, f"making {folder}") from exc
    named = read_current(folder, source)
    _drop_installs(folder, named)
    if named is not None:
        return Generation.open(generation_folder(folder, *named), source, named[0], budget)
    return _first(folder, source, budget)


def fetch_folder(folder: Path) -> Path:
    """Where a checkpoint from another member comes in."""
    return folder / "fetch"


def fetch_side_folder(folder: Path, number: int, begun: int) -> Path:
    """Where a loaded generation from another member comes in."""
    return folder / f"fetch-{number}-{begun}"


def generation_named(name: str) -> tuple[int, int] | None:
    """(number, copy) of a generation's folder; None: it is none."""
    kind, _, rest = name.partition("-")
    number, dot, copy = rest.partition(".")
    if kind != "gen" or not number.isdecimal() or (dot and not copy.isdecimal()):
        return None
    return int(number), int(copy or 0)


def copies_of(folder: Path, number: int) -> list[int]:
    """Copies there are of a generation, live or not."""
    found = [generation_named(path.name) for path in folder.iterdir()]
    return [one[1] for one in found if one is not None and one[0] == number]


def _drop_installs(folder: Path, live: tuple[int, int] | None) -> None:
    """An installation that was interrupted before it was named: what it was made from is still there. Raises ZaibeiError."""
    for path in sorted(folder.iterdir()):
        named = generation_named(path.name)
        if named is not None and named[1] and named != live and (path / KEPT_MANIFEST).exists():
            discard(path)


def _first(folder: Path, source: str, budget: StoreBudget) -> Generation:
    """Make generation 0, or go on making it: without CURRENT only one that holds nothing is taken for ours."""
    home, fresh = generation_folder(folder, 0), folder / "gen-0.new"
    others = sorted(path.name for path in folder.glob("gen-*") if path not in (home, fresh))
    if others:
        raise ZaibeiError(
            Code.DAMAGED,
            f"{folder} holds {', '.join(others)} but CURRENT is missing: "
            "put it back from a backup, or empty the folder and re-seed",
        )
    if not home.exists():
        remove_tree(fresh)
        Generation.create(fresh, source, 0, budget).rocks.close()
        move_durable(fresh, home)
    made = Generation.open(home, source, 0, budget)
    if made.row.index or made.row.records or made.row.position != ORIGIN:
        made.rocks.close()
        raise ZaibeiError(
            Code.DAMAGED,
            f"{home} holds data but CURRENT is missing: put it back from a backup, or empty the folder and re-seed",
        )
    write_current(folder, source, 0)
    return made


def remove_leftovers(folder: Path, live: Generation) -> None:
    """Delete what no replay of the journal can need; when nothing else runs in the folder.

    A generation with a lower number, or another copy, was superseded durably. One with a higher number stays: the journal may
    still switch to it.
    """
    for path in folder.iterdir():
        kind, _, number = path.name.partition("-")
        named = generation_named(path.name)
        if kind in ("load", "dead", "ckpt") or path.name == "gen-0.new" or (kind == "fetch" and _superseded(number, live.number)):
            remove_tree(path)
        elif named is not None and named[0] <= live.number and path != live.rocks.folder:
            discard(path)


def _superseded(load: str, live: int) -> bool:
    """Of a load `number-begun` that was coming."""
    number = load.partition("-")[0]
    return number.isdecimal() and int(number) <= live


def discard(path: Path) -> None:
    """Delete a directory that nobody has open; at a crash in between, the next open goes on. Raises ZaibeiError."""
    if not path.exists():
        return
    attempt = 0
    while (dead := path.with_name(f"dead-{path.name}-{attempt}")).exists():
        attempt += 1
    move_durable(path, dead)
    remove_tree(dead)
