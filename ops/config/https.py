"""Files of the HTTPS port in a configuration: whole paths, a certificate with its key, nothing that others may read. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ops.config.faults import Reading
from ops.config.read import WrongError

FILES = (("https_certificate", False), ("https_key", True), ("https_clients", False))  # (key, is it secret?)


def https_files(
    reading: Reading, table: Mapping[str, Any], folder: Path, read_file: Callable[[Path, bool], bytes]
) -> dict[str, Any]:
    """The table [listen] with whole paths.

    Args:
        read_file: (path, secret) -> octets; raises WrongError.
    """
    found = dict(table)
    for key, secret in FILES:
        if not (text := table.get(key)):
            continue
        path = folder / text
        found[key] = str(path)
        try:
            if not read_file(path, secret).strip():
                reading.fault(f"listen.{key}", f"{path} is empty", "a file in PEM")
        except WrongError as wrong:
            reading.fault(f"listen.{key}", wrong.what, wrong.instead)
    if bool(table.get("https_certificate")) is not bool(table.get("https_key")):
        reading.fault("listen.https_certificate", "a certificate and its key go together", "https_certificate and https_key")
    return found
