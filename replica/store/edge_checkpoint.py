"""Files of a generation, held still for other members: a checkpoint of the live one, or one loaded beside as it stands.

Large files are hard links, so that holding costs no room until compaction replaces them; what RocksDB writes again is copied. All
lie in `ckpt-…` folders of the store, deleted after use, and at start what a crash left.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from replica.model.digest import ContentDigest
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position
from replica.model.transfer import FileLine, Manifest, TransferKind, make_manifest
from replica.store.edge_disk import disk_error, remove_tree
from replica.store.edge_generation import Generation
from replica.store.edge_manifest import Load

HASH_OCTETS = 1024 * 1024  # hashed at once, without the GIL
NEVER_REWRITTEN = (".sst", ".blob")
HASHES_MAX = 65_536

Throttle = Callable[[int], None]
"""Called in the hashing thread with octets about to be read; waits as long as it likes."""


def no_throttle(_: int) -> None:
    """Hashes as fast as the disk gives."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Files that stay as they are until `release`.

    Args:
        manifest: every file with its length and SHA-256, and the entry and content they stand at.
    """

    folder: Path
    manifest: Manifest

    @property
    def index(self) -> int:
        return self.manifest.index

    @property
    def term(self) -> int:
        return self.manifest.term

    @property
    def generation(self) -> int:
        return self.manifest.generation

    @property
    def digest(self) -> ContentDigest:
        return self.manifest.digest

    @property
    def position(self) -> Position:
        return self.digest.position

    def release(self) -> None:
        """Delete them; blocks, any thread. Idempotent."""
        remove_tree(self.folder)


class FileHashes:
    """SHA-256 of files, remembered for those that are never written again: two checkpoints share most of them."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], str] = {}

    def describe(self, folder: Path, throttle: Throttle) -> list[FileLine]:
        """All files of a folder; blocks long, any thread. Raises ZaibeiError."""
        try:
            return [self._line(path, throttle) for path in sorted(folder.iterdir())]
        except OSError as exc:
            raise disk_error(exc, f"reading {folder}") from exc

    def _line(self, path: Path, throttle: Throttle) -> FileLine:
        about = path.stat()
        same = (about.st_ino, about.st_size, about.st_mtime_ns)
        lasting = path.suffix in NEVER_REWRITTEN
        known = self._known.get(same) if lasting else None
        if known is None:
            known = hash_file(path, throttle)
            if lasting and len(self._known) < HASHES_MAX:
                self._known[same] = known
        return FileLine(path.name, about.st_size, known)

    def forget(self) -> None:
        """A generation was replaced: the numbers of its files may come again."""
        self._known = {}


def hash_file(path: Path, throttle: Throttle) -> str:
    """SHA-256 in hex; blocks. Raises OSError."""
    found = sha256()
    with path.open("rb", buffering=0) as content:
        while True:
            throttle(HASH_OCTETS)
            octets = content.read(HASH_OCTETS)
            if not octets:
                return found.hexdigest()
            found.update(octets)


def manifest_of(live: Generation, source: str, files: list[FileLine], entry: tuple[int, int], digest: ContentDigest) -> Manifest:
    return make_manifest(TransferKind.CHECKPOINT, source, live.number, 0, entry, digest, files)


def manifest_of_load(load: Load, files: list[FileLine], entry: int, digest: ContentDigest) -> Manifest:
    """Of a generation beside: `entry` is the last one it has taken in, 0 as it was loaded."""
    return make_manifest(TransferKind.GENERATION, load.source, load.generation, load.begun, (entry, 0), digest, files)


def link_files(home: Path, target: Path) -> None:
    """The files of a folder nobody has open, in a new one. Raises ZaibeiError."""
    try:
        target.mkdir()
        for path in home.iterdir():
            if path.suffix in NEVER_REWRITTEN:
                os.link(path, target / path.name)
            elif path.is_file() and path.name not in ("LOCK", "LOG"):
                shutil.copyfile(path, target / path.name)
    except OSError as exc:
        remove_tree(target)
        raise disk_error(exc, f"linking the files of {home}") from exc


def next_folder(folder: Path) -> Path:
    """A free name for files to be held."""
    for number in range(1, 1_000_000):
        found = folder / f"ckpt-{number}"
        if not found.exists():
            return found
    raise ZaibeiError(Code.BUSY, f"{folder} holds too many checkpoints", retry=True)
