"""What the shell of `zaibei up` gives the composition of a member (ops/up.py), and gets back from it.

The shell reads the configuration, holds the data folder's lock, has the identity, owns event loop and signals. The
composition builds the rooms and serves, calls `ready` once everything is bound, returns when `stop` is set, and raises
ZaibeiError for what it cannot do:

    async def run(config: MemberConfig, identity: Identity, seat: Seat) -> None
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from ops.config import Address, MemberConfig
from replica.model.edge_identity import Identity

Bound = Mapping[str, Sequence[Address]]
"""Server name (as in [listen]) -> addresses really bound."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Args:
    ready: call once with what is bound; prints the ready block.
    stop: set by a signal or by the composition itself (admin call `stop`).
    registry: every room's metrics go here; the process's own are in it.
    started_ms: Unix milliseconds.
    origin: where the configuration comes from.
    """

    ready: Callable[[Bound], None]
    stop: asyncio.Event
    registry: CollectorRegistry
    started_ms: int
    origin: str = ""
    notes: tuple[str, ...] = field(default=())


Run = Callable[[MemberConfig, Identity, Seat], Awaitable[None]]
