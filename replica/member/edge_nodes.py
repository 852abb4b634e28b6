"""Where each node itself answers, as its source last described it: kept over restarts, so that a member that starts while a
node is down can still probe it. Without an address nothing is probed, and what was not probed is never called dead.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from replica.takeover.ports import Endpoint

FILE_OCTETS_MAX = 65_536
ENDPOINTS_MAX = 64

log = logging.getLogger("zaibei.member")


class NodeFile:
    """The endpoints of one source in one file. A file that is missing or damaged means: none are known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.endpoints: tuple[Endpoint, ...] = _read(path)
        self._writing: asyncio.Future[None] | None = None

    def said(self, endpoints: Sequence[Endpoint]) -> None:
        """The source described itself: keep that when it is news. Written by a thread; call it on the event loop."""
        found = tuple(one for one in endpoints if _usable(one))[:ENDPOINTS_MAX]
        if found == self.endpoints or (self._writing is not None and not self._writing.done()):
            return
        self.endpoints = found
        self._writing = asyncio.get_running_loop().run_in_executor(None, _write, self._path, found)


def _usable(endpoint: Endpoint) -> bool:
    """A numeric address and a real port: a source names them, and must not be able to name what breaks us."""
    try:
        ipaddress.ip_address(endpoint.address)
    except ValueError:
        return False
    return 0 < endpoint.port < 65_536


def _read(path: Path) -> tuple[Endpoint, ...]:
    try:
        with path.open("rb") as file:
            rows: Any = json.loads(file.read(FILE_OCTETS_MAX))
        found = (Endpoint(str(protocol), str(address), int(port)) for protocol, address, port in rows)
        return tuple(one for one in found if _usable(one))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError) as exc:
        log.warning("the node's addresses are not known until it calls", extra={"fields": {"file": str(path), "why": str(exc)}})
        return ()


def _write(path: Path, endpoints: tuple[Endpoint, ...]) -> None:
    fresh = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps([[one.protocol, one.address, one.port] for one in endpoints]), encoding="utf-8")
        fresh.replace(path)
    except OSError as exc:
        log.warning("the node's addresses were not kept", extra={"fields": {"file": str(path), "why": str(exc)}})
