"""The verdict: reads only the history that outside clients wrote, never asks the system under test.

| figure | meaning |
| --- | --- |
| rto_first_ms | fault -> first right answer through the caching recursive node with TTL 0 |
| rto_steady_ms | fault -> start of the first 5 s in which at least 99.9 % of its answers were right |
| rto_port_ms | fault -> end of the first right answer of a client that knows our address |
| rto_hedged_ms | longest lookup of the hedging client that began in the 5 s after the fault |
| rto_national_ms | as rto_first_ms, through the recursive node that keeps sites for national_ttl_s, its cache never flushed |
| hung_hedged_ms | longest lookup of the hedging client that began while a node hung: connections open, no answers |

A lookup has *failed* when its identifier was covered by a quorum receipt before the lookup began and no right answer came within
3 s; over 1 s it is *slow*. An answer *lies* when it is final and not what was registered under a covered name. Every member
answers, from a copy of at most 2 s (SEMANTICS 4): of a name whose receipt is younger than that a final "not found" of a member is
*stale*, and counted apart; for the hedging client it counts as failed all the same. A prober that was
itself more than 100 ms late, or a client that stopped asking, makes the run inconclusive, never a pass. What happened to the
cluster's members is judged in cluster_judge.py; lookups that failed while all of them were down are counted apart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from ops.demo import cluster_judge, hosting_judge
from ops.demo.cluster_judge import ClusterTold
from ops.demo.hosting_judge import HostingTold

FAILED_MS = 3_000  # 500 + 1000 + 1500: the schedule of a standard client
SLOW_MS = 1_000
RTO_FIRST_MS_MAX = 1_000
STEADY_WINDOW_MS = 5_000
STEADY_SHARE_MIN = 0.999
STEADY_LOOKUPS_MIN = 20  # fewer in a window prove nothing
PROBER_LATE_MS_MAX = 100
ANSWERED_BEFORE_MS_MAX = 1_000
SILENT_CLIENT_MS_MAX = 5_000  # every client ends a lookup within 3 s and begins the next
HUNG_HEDGED_MS_MAX = 1_000
STALE_MS_MAX = 2_000  # a copy of this age still counts as fresh (SEMANTICS 4)
LOOKUPS_TELL_MIN = 20  # so many in vain are a finding; fewer are too few to say
NS_PER_MS = 1_000_000


MEANING: dict[str, str] = {
    "records": "real registrations, routes and documents copied",
    "changes": "registrations made while clients asked",
    "rto_first_ms": "fault to first right answer, recursive node with TTL 0; below 1,000",
    "rto_steady_ms": "fault to the first 5 s in which 99.9 % of its answers were right",
    "rto_port_ms": "fault to first right answer at our own address",
    "rto_hedged_ms": "longest lookup of the hedging client in the 5 s after a fault",
    "rto_national_ms": "fault to first right answer, recursive node that keeps sites and is never flushed",
    "national_ttl_s": "for how long that one keeps them",
    "hung_hedged_ms": "longest lookup of the hedging client while a node hung; below 1,000",
    "acked_lost": "receipted registrations that are lost; 0",
    "source_lost": "registrations that died with their node before they reached us",
    "failed_resolutions": "lookups of the hedging client without a right answer within 3 s; 0",
    "slow_resolutions": "those over 1 s",
    "wrong_answers": "final answers that were not what was registered; 0",
    "stale_answers": '"not found" of a member whose copy was less than 2 s behind the receipt; allowed',
    "lookups": "of all clients",
    "digest_equal": "contents of nodes and copy, both computed anew at the end",
    **cluster_judge.MEANING,
    **hosting_judge.MEANING,
    "prober_late_ms": "how late this machine let the clients be; over 100 says nothing",
}


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Lane(StrEnum):
    """How a client asks."""

    RECURSIVE = "recursive"  # through the recursive node, TTL 0
    NATIONAL = "national"  # through the recursive node, TTL as stated
    HEDGED = "hedged"
    PORT = "port"


@dataclass(frozen=True, slots=True)
class Lookup:
    """One lookup of one client. Times are CLOCK_MONOTONIC nanoseconds of this machine.

    Args:
        protocol: "udp", "tcp" or "http"; `source`: who owns the name.
        right: the answer was the one registered; `covered`: a quorum receipt covered the name before the lookup began.
        lied: a final answer (a record, "not found") that was not the right one. note: response code or error, for people.
        receipt_ms: how old the name's receipt was when the lookup began; None: it was there from the first copy on.
        absent: the final answer was "not found".
    """

    lane: Lane
    protocol: str
    source: str
    name: str
    began_ns: int
    ended_ns: int
    right: bool
    covered: bool = True
    note: str = ""
    lied: bool = False
    receipt_ms: float | None = None
    absent: bool = False

    @property
    def took_ms(self) -> float:
        return (self.ended_ns - self.began_ns) / NS_PER_MS

    @property
    def stale(self) -> bool:
        """What a member may still say (SEMANTICS 4): it had not heard of the name, for less than the age of a fresh copy."""
        return self.lied and self.covered and self.absent and self.receipt_ms is not None and self.receipt_ms < STALE_MS_MAX

    @property
    def wrong(self) -> bool:
        return self.lied and self.covered and not self.stale


@dataclass(frozen=True, slots=True)
class Kill:
    """A SIGKILL of a source's processes, at the moment after the signal was sent."""

    source: str
    at_ns: int
    answered_by_source_ns: int | None  # newest right answer that the source itself gave before the fault


@dataclass(frozen=True, slots=True)
class Hang:
    """A SIGSTOP of a source's processes, until they went on."""

    source: str
    at_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class History:
    """Everything the judge may look at.

    Args:
        broken: what did not happen in its time, so that the story could not go on; empty when it was played to its end.
        ended_ns: when the clients were told to stop; None: their history's end is not checked.
        cluster: what happened to its members. hosting: to the region that lived there and left.
    """

    lookups: Sequence[Lookup]
    kills: Sequence[Kill]
    prober_late_ms: float
    records: int
    changes: int
    receipted_lost: Sequence[str]  # receipted names whose right record our copy or the returned source lacks
    source_lost: int
    digest_equal: bool | None
    national_ttl_s: int
    hangs: Sequence[Hang] = ()
    broken: str = ""
    ended_ns: int | None = None
    cluster: ClusterTold = field(default_factory=lambda: ClusterTold(0))
    hosting: HostingTold = field(default_factory=HostingTold)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Figures and verdict. None: could not be measured."""

    verdict: Verdict
    reasons: tuple[str, ...]
    figures: dict[str, float | int | bool | None]
    slow: tuple[Lookup, ...] = field(default=())


def judge(history: History) -> Judgement:
    """Measure and decide; the worst finding wins, and what could not be measured is inconclusive."""
    failed = [one for one in history.lookups if one.lane == Lane.HEDGED and one.covered and not _answered(one)]
    all_down = [one for one in failed if history.cluster.was_all_down(one.began_ns)]
    failed = [one for one in failed if not history.cluster.was_all_down(one.began_ns)]
    slow = tuple(one for one in history.lookups if one.lane == Lane.HEDGED and one.right and one.took_ms > SLOW_MS)
    first = _worst([_first_right(history, kill, Lane.RECURSIVE) for kill in history.kills])
    figures: dict[str, float | int | bool | None] = {
        "records": history.records,
        "changes": history.changes,
        "rto_first_ms": first,
        "rto_steady_ms": _worst([_steady(history, kill) for kill in history.kills]),
        "rto_port_ms": _worst([_first_right(history, kill, Lane.PORT) for kill in history.kills]),
        "rto_hedged_ms": _worst([_hedged(history, kill) for kill in history.kills]),
        "rto_national_ms": _worst([_first_right(history, kill, Lane.NATIONAL) for kill in history.kills]),
        "national_ttl_s": history.national_ttl_s,
        "hung_hedged_ms": _worst([_hung(history, hang) for hang in history.hangs]),
        "acked_lost": len(history.receipted_lost),
        "source_lost": history.source_lost,
        "failed_resolutions": len(failed),
        "slow_resolutions": len(slow),
        "wrong_answers": sum(one.wrong for one in history.lookups),
        "stale_answers": sum(one.stale for one in history.lookups),
        "lookups": len(history.lookups),
        "digest_equal": history.digest_equal,
        **cluster_judge.figures_of(history.cluster, len(all_down)),
        **hosting_judge.figures_of(history.hosting),
        "prober_late_ms": round(history.prober_late_ms, 1),
    }
    faults, doubts = _findings(history, figures, failed)
    verdict = Verdict.FAIL if faults else Verdict.INCONCLUSIVE if doubts else Verdict.PASS
    if (
        doubts
        and history.prober_late_ms > PROBER_LATE_MS_MAX
        and not history.receipted_lost
        and not figures["wrong_answers"]
        and history.digest_equal is not False
        and not cluster_judge.is_lost(history.cluster)
        and not hosting_judge.is_lost(history.hosting)
    ):
        verdict = Verdict.INCONCLUSIVE  # a late prober sees faults that are its own; loss, lies and a wrong digest stay faults
    return Judgement(verdict, tuple(faults + doubts), figures, slow)


def _findings(
    history: History, figures: dict[str, float | int | bool | None], failed: Sequence[Lookup]
) -> tuple[list[str], list[str]]:
    faults, doubts = [], _silent_clients(history)
    if history.broken:
        faults.append(f"the story could not go on: {history.broken}")
    lie = next((one for one in history.lookups if one.wrong), None)
    if lie is not None:
        faults.append(f"{figures['wrong_answers']} wrong answers, the first for {lie.name} ({lie.lane}): {lie.note}")
    if history.receipted_lost:
        faults.append(f"{len(history.receipted_lost)} receipted changes are lost, the first is {history.receipted_lost[0]}")
    if failed:
        faults.append(f"{len(failed)} lookups of the hedging client failed, the first for {failed[0].name}: {failed[0].note}")
    if history.digest_equal is False:
        faults.append("source and copy differ at the end")
    if history.digest_equal is None:
        doubts.append("the digests could not be compared")
    first = figures["rto_first_ms"]
    if first is not None and first >= RTO_FIRST_MS_MAX:
        faults.append(f"rto_first {first} ms is not below {RTO_FIRST_MS_MAX} ms")
    doubts += [f"{name} could not be measured" for name, value in figures.items() if name.startswith("rto_") and value is None]
    faults += [
        f"nobody was answered through {lane} after {kill.source} was killed, in {len(tried)} lookups"
        for kill in history.kills
        for lane in (Lane.RECURSIVE, Lane.NATIONAL, Lane.PORT)
        if len(tried := _of(history, kill, lane)) >= LOOKUPS_TELL_MIN and not any(one.right for one in tried)
    ]
    hung = figures["hung_hedged_ms"]
    if hung is not None and hung >= HUNG_HEDGED_MS_MAX:
        faults.append(f"while a node hung a lookup of the hedging client took {hung} ms, not below {HUNG_HEDGED_MS_MAX} ms")
    if hung is None and history.hangs:
        doubts.append("hung_hedged_ms could not be measured")
    if history.prober_late_ms > PROBER_LATE_MS_MAX:
        doubts.append(f"the prober itself was {history.prober_late_ms:.0f} ms late: this machine was too busy to judge")
    for kill in history.kills:
        before = kill.answered_by_source_ns
        if before is None or kill.at_ns - before > ANSWERED_BEFORE_MS_MAX * NS_PER_MS:
            doubts.append(f"{kill.source} itself had answered nobody in the second before it was killed: nothing was measured")
    if not history.kills:
        doubts.append("no node was killed")
    for more_faults, more_doubts in (
        cluster_judge.findings_of(history.cluster, figures),
        hosting_judge.findings_of(history.hosting, figures),
    ):
        faults, doubts = [*faults, *more_faults], [*doubts, *more_doubts]
    return faults, doubts


def _answered(lookup: Lookup) -> bool:
    return lookup.right and lookup.took_ms <= FAILED_MS


def _worst(values: Sequence[float | None]) -> float | None:
    """The longest; None as soon as one is unknown, and for none at all."""
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None


def _of(history: History, kill: Kill, lane: Lane) -> list[Lookup]:
    """Lookups of a lane for the killed source that began after the fault, by start."""
    chosen = [one for one in history.lookups if one.lane == lane and one.source == kill.source and one.began_ns >= kill.at_ns]
    return sorted(chosen, key=lambda one: one.began_ns)


def _first_right(history: History, kill: Kill, lane: Lane) -> float | None:
    """ms from the fault to the end of the first right answer to a lookup that began after it."""
    ends = [one.ended_ns for one in _of(history, kill, lane) if one.right]
    return round((min(ends) - kill.at_ns) / NS_PER_MS, 1) if ends else None


def _hedged(history: History, kill: Kill) -> float | None:
    window = [one for one in _of(history, kill, Lane.HEDGED) if one.began_ns - kill.at_ns <= STEADY_WINDOW_MS * NS_PER_MS]
    return round(max(one.took_ms for one in window), 1) if window else None


def _hung(history: History, hang: Hang) -> float | None:
    hedged = [one for one in history.lookups if one.lane == Lane.HEDGED and one.source == hang.source and one.covered]
    window = [one.took_ms for one in hedged if hang.at_ns <= one.began_ns <= hang.until_ns]
    return round(max(window), 1) if window else None


def _silent_clients(history: History) -> list[str]:
    """Clients that did not ask for longer than any lookup takes: what they would have seen is not known."""
    asked: dict[tuple[Lane, str, str], list[int]] = {}
    for one in history.lookups:
        asked.setdefault((one.lane, one.protocol, one.source), []).append(one.ended_ns)
    silent: list[tuple[float, str]] = []
    for (lane, protocol, source), times in asked.items():
        times.sort()
        times += [history.ended_ns] if history.ended_ns is not None else []
        longest_ms = max((later - earlier for earlier, later in pairwise(times)), default=0) / NS_PER_MS
        if longest_ms > SILENT_CLIENT_MS_MAX:
            silent.append((longest_ms, f"the {lane} client of {source} over {protocol}"))
    if not silent:
        return []
    longest_ms, client = max(silent)
    return [f"{len(silent)} of {len(asked)} clients fell silent: {client} ended no lookup for {longest_ms / 1_000:.1f} s"]


def _steady(history: History, kill: Kill) -> float | None:
    """ms from the fault to the start of the first whole window in which nearly all lookups were right."""
    lookups = _of(history, kill, Lane.RECURSIVE)
    starts = [one.began_ns for one in lookups]
    wrong = [0]
    for one in lookups:
        wrong.append(wrong[-1] + (not one.right))
    for place, began in enumerate(starts):
        end = bisect_left(starts, began + STEADY_WINDOW_MS * NS_PER_MS)
        count = end - place
        whole = starts[-1] >= began + STEADY_WINDOW_MS * NS_PER_MS
        if whole and count >= STEADY_LOOKUPS_MIN and (wrong[end] - wrong[place]) <= (1 - STEADY_SHARE_MIN) * count:
            return round((began - kill.at_ns) / NS_PER_MS, 1)
    return None
