"""Limits of a host of groups."""

from __future__ import annotations

from dataclasses import dataclass

from replica.consensus.seat import ELECTION_TICKS, HEARTBEAT_TICKS


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Limits of one member's groups.

    Args:
        tick_s: one tick of every group that is awake.
        election_ticks, heartbeat_ticks: of the core; 10 and 2 make elections after 200 to 400 ms of silence, heartbeats every 40.
        seeking_max: groups without a leader that count a tick at once; more take turns.
        notice_ms: a message that only tells what is committed waits so long for entries to go with.
        tell_ms: how often members are told what sources say (SEMANTICS 6).
        asleep_turns: of sleeping groups only every so many times; told_ms_max: what was said longer ago is not known any more.
        late_ms_max: a host whose ticks did not come for so long was stopped: what it hears then may be old. It doubts it for as
            long as the stop took, at most doubt_ms_max.
        keep_ms: how often memory of promises is kept and idle groups are looked at.
        sleep_after_ms: without work a group sleeps.
        recall_ms_max: a member that was restarted does not answer for so long without a leader while it may have answered from
            later entries before; then it does, marked degraded.
        promises_share: share of heartbeats that carry the leader's match table.
        journal_keep_octets, behind_ms_max: beyond either a member that is behind gets files, not entries (SEMANTICS 11.4).
        follower_keep_octets: a follower keeps so much of its journal for members that are behind when it comes to lead; what fits
            the journal's write buffer is never written twice.
    """

    tick_s: float = 0.02
    election_ticks: int = ELECTION_TICKS
    heartbeat_ticks: int = HEARTBEAT_TICKS
    seeking_max: int = 100
    notice_ms: float = 10.0
    tell_ms: int = 200
    asleep_turns: int = 5
    told_ms_max: int = 3_000
    late_ms_max: int = 250
    doubt_ms_max: int = 1_000
    keep_ms: int = 500
    sleep_after_ms: int = 3_000
    recall_ms_max: int = 10_000
    promises_share: float = 0.05
    journal_keep_octets: int = 2 * 1024 * 1024 * 1024
    behind_ms_max: int = 600_000
    follower_keep_octets: int = 16 * 1024 * 1024
