"""Moving a store out of service aside: kept under a name of its own until a person deletes it."""

from __future__ import annotations

from pathlib import Path

from replica.store.edge_disk import disk_error, move_durable, sync_folder

ASIDE_FOLDER = "aside"


def next_aside(data: Path, source: str) -> Path:
    """A free name in the data folder."""
    return next(path for number in range(1, 1_000_000) if not (path := data / ASIDE_FOLDER / f"{source}-{number}").exists())


def put_aside(store: Path, aside: Path) -> None:
    """Durable when it returns; nothing happens when there is no store. Raises ZaibeiError."""
    try:
        aside.parent.mkdir(exist_ok=True)
        sync_folder(aside.parent.parent)
        if store.exists():
            move_durable(store, aside)
            sync_folder(store.parent)
    except OSError as exc:
        raise disk_error(exc, f"moving {store} aside") from exc
