"""Limits of a group's log, and how it runs what blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")


class RunBlocking(Protocol):
    """Runs blocking work away from the event loop."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """Limits of one group.

    Args:
        in_flight_octets_max, in_flight_entries_max: proposed and not yet applied; beyond it proposals end BUSY.
        pressure_on_share, pressure_off_share: shares of these at which `pressure` rises and falls.
        backlog_octets_max: committed entries in memory that wait for the machine; the rest is read from the journal again.
        replay_octets_max: read at once when entries are applied again.
        read_retry_s: wait when the journal cannot be read at the moment.
        flush_octets: applied octets after which the machine is asked to flush and the journal is truncated.
        flush_interval_s: the same after this time when anything was applied.
        keep_octets_max: octets the journal may hold of this group before intake is throttled (`journal_keep_bytes`).
        read_again_s: a read barrier asks again after this time; leader_look_s: while no leader is known.
        keep_commit_s: what is known to be committed is on record after this time, also where nothing else is written.
        stop_drain_s_max: how long `stop` waits for what is in flight.
    """

    in_flight_octets_max: int = 16 * 1024 * 1024
    in_flight_entries_max: int = 4_096
    pressure_on_share: float = 0.5
    pressure_off_share: float = 0.25
    backlog_octets_max: int = 32 * 1024 * 1024
    replay_octets_max: int = 4 * 1024 * 1024
    read_retry_s: float = 0.5
    flush_octets: int = 32 * 1024 * 1024
    flush_interval_s: float = 15.0
    keep_octets_max: int = 2 * 1024 * 1024 * 1024
    read_again_s: float = 0.3
    leader_look_s: float = 0.02
    keep_commit_s: float = 0.2
    stop_drain_s_max: float = 5.0


async def in_a_thread(work: Callable[[], T], /) -> T:
    """Default RunBlocking."""
    return await asyncio.to_thread(work)
