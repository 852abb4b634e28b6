"""Files of orders: written once, whole and on the disk; read within their limit."""

from __future__ import annotations

import os
from pathlib import Path

from ops.operators.orders import FILE_OCTETS_MAX, read, to_text
from replica.model.errors import Code, ZaibeiError
from replica.v1 import entry_pb2


def write_new(path: Path, order: entry_pb2.Order) -> None:
    """Raises ZaibeiError: CONFLICT (the file is there already), NOT_AUTHORISED (it cannot be written here)."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)  # signed, and no secret
    except FileExistsError:
        raise ZaibeiError(Code.CONFLICT, f"{path} exists and stays as it is. Next: --out another file") from None
    except OSError as exc:
        raise ZaibeiError(Code.NOT_AUTHORISED, f"cannot write {path}: {exc.strerror}. Next: --out a file you may write") from exc
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(to_text(order))
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def read_file(path: Path) -> entry_pb2.Order:
    """Raises ZaibeiError(MALFORMED): no order, or one that was changed or cut on its way; OSError."""
    with path.open("rb") as file:
        octets = file.read(FILE_OCTETS_MAX + 1)
    try:
        return read(octets)
    except ZaibeiError as exc:
        raise ZaibeiError(exc.code, f"{path}: {exc.trouble.message}") from exc
