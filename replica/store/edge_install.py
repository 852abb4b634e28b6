"""Installing what was fetched from another member: verified, opened beside, checked against itself, then named; never in place.

fetch/           a checkpoint that comes, or has come (TRANSFER in it: its manifest); resumable
fetch-N-I/       likewise generation N of the load begun by entry I
gen-N.C/         an installed copy of generation N; while it still has TRANSFER in it and CURRENT does not name it: interrupted,
                 deleted at the next start

A crash at any point leaves the old copy live and the download as it was, or the new one.
"""

from __future__ import annotations

import os
from pathlib import Path

from replica.model.errors import Code, ZaibeiError
from replica.model.transfer import KEPT_MANIFEST, Manifest, TransferKind, open_manifest
from replica.store.edge_checkpoint import NEVER_REWRITTEN, Throttle, hash_file, link_files, no_throttle
from replica.store.edge_disk import disk_error, move_durable, read_current, remove_tree, sync_folder, write_current
from replica.store.edge_folder import copies_of, discard, fetch_folder, fetch_side_folder
from replica.store.edge_generation import Generation, generation_folder
from replica.store.edge_loader import Staged
from replica.store.edge_manifest import read_load
from replica.store.edge_rocks import StoreBudget
from replica.store.edge_side import OPENED


def read_fetched(fetched: Path, kind: TransferKind, source: str) -> Manifest:
    """What a folder says it holds. Raises ZaibeiError: NOT_FOUND (nothing was fetched), CONFLICT (something else), MALFORMED."""
    try:
        octets = (fetched / KEPT_MANIFEST).read_bytes()
    except FileNotFoundError:
        raise ZaibeiError(Code.NOT_FOUND, f"{fetched} holds nothing that was fetched from a member") from None
    except OSError as exc:
        raise disk_error(exc, f"reading {fetched}") from exc
    manifest = open_manifest(octets)
    if (manifest.kind, manifest.source) != (kind, source):
        raise ZaibeiError(Code.CONFLICT, f"{fetched} holds a {manifest.kind} of {manifest.source!r}, not a {kind} of {source!r}")
    return manifest


def verify(fetched: Path, manifest: Manifest, throttle: Throttle = no_throttle) -> None:
    """Is every file there, and none more, with the length and SHA-256 promised? Reads all of them: blocks long.

    Raises:
        ZaibeiError(VERIFICATION_FAILED): names the first that is not; nothing was installed, fetching again heals it.
    """
    try:
        present = {path.name for path in fetched.iterdir()} - {KEPT_MANIFEST}
        promised = {line.name for line in manifest.files}
        if present != promised:
            odd = sorted(present ^ promised)
            raise _unsound(f"{fetched}: {odd[0]} is {'too much' if odd[0] in present else 'missing'}")
        for line in manifest.files:
            path = fetched / line.name
            if path.is_symlink() or path.stat().st_size != line.octets or hash_file(path, throttle) != line.sha256:
                raise _unsound(f"{path} is not what was promised")
    except OSError as exc:
        raise disk_error(exc, f"verifying {fetched}") from exc


def open_beside(folder: Path, source: str, budget: StoreBudget, throttle: Throttle = no_throttle) -> tuple[Generation, int]:
    """Verify and open the checkpoint fetched into a store's folder; CURRENT is not touched.

    Returns:
        The generation, open, and the number of its copy; `undo_beside` takes it back.
    Raises:
        ZaibeiError: NOT_FOUND, CONFLICT, MALFORMED, VERIFICATION_FAILED (all: nothing was changed), DISK_FULL, DISK_FAILED.
    """
    fetched = fetch_folder(folder)
    manifest = read_fetched(fetched, TransferKind.CHECKPOINT, source)
    verify(fetched, manifest, throttle)
    copy = 1 + max(copies_of(folder, manifest.generation), default=0)
    home = generation_folder(folder, manifest.generation, copy)
    link_files(fetched, home)  # RocksDB writes into what it opens: what was fetched stays as it is until all is done
    try:
        made = Generation.open(home, source, manifest.generation, budget)
    except ZaibeiError as exc:
        remove_tree(home)
        raise (_unsound(exc.trouble.message) if exc.code is Code.DAMAGED else exc) from exc
    found = (made.row.index, made.row.term, made.digest)
    if found != (manifest.index, manifest.term, manifest.digest):
        undo_beside(folder, source, made, copy)
        raise _unsound(f"it stands at entry {found[0]} of term {found[1]}, {found[2].position.short()}")
    return made, copy


def undo_beside(folder: Path, source: str, made: Generation, copy: int) -> None:
    """It did not become the live one. Raises ZaibeiError.

    Where naming it failed so late that CURRENT does name it, it stays in its place: the next start takes it.
    """
    made.rocks.close()
    if read_current(folder, source) != (made.number, copy):
        remove_tree(made.rocks.folder)


def name_live(folder: Path, source: str, made: Generation, copy: int) -> None:
    """From now on, also after a crash, this one is live. Raises ZaibeiError: it is not; the old one still is."""
    home = made.rocks.folder
    try:
        for path in home.iterdir():
            if path.suffix not in NEVER_REWRITTEN:  # those were made durable when they came
                _sync_file(path)
        sync_folder(home)
        sync_folder(folder)
    except OSError as exc:
        raise disk_error(exc, f"writing {home}") from exc
    write_current(folder, source, made.number, copy)
    (home / KEPT_MANIFEST).unlink(missing_ok=True)
    remove_tree(fetch_folder(folder))


def _sync_file(path: Path) -> None:
    try:
        with path.open("rb") as content:
            os.fsync(content.fileno())
    except FileNotFoundError:
        return  # RocksDB has no use for it any more


def install(folder: Path, source: str, budget: StoreBudget, throttle: Throttle = no_throttle) -> Manifest:
    """Install the fetched checkpoint where no store is open: there is none yet, or it is damaged. Blocks long, any thread.

    What was there before is deleted by the next `SourceStore.open`, not here.

    Raises:
        ZaibeiError: as `open_beside`; what was there is untouched then.
    """
    manifest = read_fetched(fetch_folder(folder), TransferKind.CHECKPOINT, source)
    made, copy = open_beside(folder, source, budget, throttle)
    try:
        name_live(folder, source, made, copy)
    except ZaibeiError:
        undo_beside(folder, source, made, copy)
        raise
    made.rocks.close()
    return manifest


def adopt(folder: Path, source: str, number: int, begun: int, throttle: Throttle = no_throttle) -> Staged:
    """Give the generation fetched into a store's folder its name; STAGED may be said after it. Blocks long. Idempotent.

    Args:
        throttle: asked once more before anything is changed.
    Raises:
        ZaibeiError: as `open_beside`, or what `throttle` raises; nothing was changed then.
    """
    home, fetched = generation_folder(folder, number), fetch_side_folder(folder, number, begun)
    load = read_load(home)
    if load is None or load.begun != begun:
        manifest = read_fetched(fetched, TransferKind.GENERATION, source)
        verify(fetched, manifest, throttle)
        load = read_load(fetched)
        if (manifest.generation, manifest.begun) != (number, begun) or load is None:
            raise ZaibeiError(Code.CONFLICT, f"{fetched} holds generation {manifest.generation} begun by {manifest.begun}")
        if (load.source, load.generation, load.begun) != (source, number, begun):
            raise _unsound(f"{fetched} holds the load of {load.source!r}, generation {load.generation}, begun by {load.begun}")
        if not (fetched / OPENED).exists():
            _same_files(manifest, load.files)
        throttle(0)
        discard(home)  # of a load that was given up
        (fetched / KEPT_MANIFEST).unlink(missing_ok=True)
        move_durable(fetched, home)
    return Staged(load.digest, load.sha256)


def _same_files(manifest: Manifest, files: dict[str, tuple[int, str]]) -> None:
    """What is fetched as it was loaded is, file by file, what the load was verified as."""
    came = {line.name: (line.octets, line.sha256) for line in manifest.files}
    for name, known in files.items():
        if came.get(name) != known:
            raise _unsound(f"{name} is not the file that was verified when it was loaded")


def _unsound(why: str) -> ZaibeiError:
    text = f"{why}: nothing was installed, what is live stays; fetch again, from another member if it comes back"
    return ZaibeiError(Code.VERIFICATION_FAILED, text)
