"""Open files: how many connections a front may take without starving whoever shares its process."""

from __future__ import annotations

import resource
from dataclasses import replace
from typing import Final

from hosting.front.connections import StreamLimits

KEPT: Final = 256  # for listeners, logs, Python itself
WANTED_MAX: Final = 1 << 20
SHARES: Final = 3  # TCP, HTTP, and gRPC, which counts nothing itself
CONNECTIONS_MIN: Final = 16


def raise_open_files() -> int:
    """Raise this process's soft limit of open files as far as the system allows; returns the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return WANTED_MAX
    wanted = WANTED_MAX if hard == resource.RLIM_INFINITY else min(hard, WANTED_MAX)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)


def fitted(limits: StreamLimits, open_files: int, kept: int = KEPT) -> StreamLimits:
    """The same limits with no more connections than the limit of open files has room for.

    Args:
        open_files: limit of this process; kept: of them for stores and everything else.
    """
    room = max(CONNECTIONS_MIN, (open_files - kept) // SHARES)
    return replace(limits, connections_max=min(limits.connections_max, room))
