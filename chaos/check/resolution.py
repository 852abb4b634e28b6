"""Answers of the resolution path: never invented, monotonic per member and client, and bounded stale when they call themselves
fresh.

One writer a name (its source) gives rising numbers to its versions; a receipt is the acknowledgement. A resolve's `out` is the
number of the version that was answered, null when there was no final answer (code 2: go on elsewhere), which is never wrong here.

| check | rule |
| --- | --- |
| invented | an answer is a version whose writing had begun before the answer came |
| monotonic | one client sees no older version from the same member than before (SEMANTICS 4: promised per member) |
| bounded | an answer called fresh is at least as new as what had been acknowledged `stale_ms_max` before it was asked for |
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from chaos.check.history import Op, Operation, by_key
from chaos.check.verdict import Finding, Verdict

CHECK = "resolution"
STALE_MS_MAX = 2_000  # what an answer called fresh may be behind
NS_PER_MS = 1_000_000


def judge(key: str, operations: Iterable[Operation], *, stale_ms_max: int = STALE_MS_MAX) -> Finding:
    """All answers about one name.

    Args:
        operations: of this key: its source's puts (whole numbers, rising) and the resolves, any order.
    Returns:
        FAIL with the first wrong answer, UNKNOWN when nobody got a final answer, else PASS.
    """
    told = sorted(operations, key=lambda one: one.t0_ns)
    writes = [one for one in told if one.op is Op.PUT and one.ok is not False and isinstance(one.value, int)]
    reads = [one for one in told if one.op is Op.RESOLVE and one.ok is True and one.out is not None]
    if not reads:
        return Finding(CHECK, key, Verdict.UNKNOWN, "no final answer in the history")
    for fault in (_invented(writes, reads), _backwards(reads), _stale(writes, reads, stale_ms_max)):
        if fault:
            return Finding(CHECK, key, Verdict.FAIL, fault)
    return Finding(CHECK, key, Verdict.PASS)


def keys_with_answers(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Keys that were resolved, with all their operations."""
    return {key: of_key for key, of_key in by_key(operations).items() if any(one.op is Op.RESOLVE for one in of_key)}


def _invented(writes: Sequence[Operation], reads: Sequence[Operation]) -> str:
    begun_ns = {write.value: write.t0_ns for write in reversed(writes)}
    for read in reads:
        began_ns = begun_ns.get(read.out)
        if began_ns is None:
            return f"{read.at or 'a member'} answered {read.out!r}, which nobody registered"
        if began_ns > read.t1_ns:
            return f"{read.at or 'a member'} answered {read.out!r} before it was registered"
    return ""


def _backwards(reads: Sequence[Operation]) -> str:
    """Only reads that had ended before the later one began are compared, whatever order they are listed in."""
    seen: dict[tuple[str, str], list[Operation]] = {}
    for read in reads:
        for before in seen.get((read.client, read.at), []):
            if before.t1_ns < read.t0_ns and _number(before) > _number(read):
                return f"{read.client} saw {before.out} and then {read.out} at {read.at or 'the same member'} (at {read.t0_ns})"
        newest = seen.setdefault((read.client, read.at), [])
        newest[:] = [*[one for one in newest if _number(one) > _number(read)][-1:], read]
    return ""


def _stale(writes: Sequence[Operation], reads: Sequence[Operation], stale_ms_max: int) -> str:
    acked = sorted((write.t1_ns, _number_of(write.value)) for write in writes if write.ok)
    newest: list[int] = []
    for _, number in acked:
        newest.append(max(number, newest[-1] if newest else number))
    times = [at_ns for at_ns, _ in acked]
    for read in reads:
        place = bisect_right(times, read.t0_ns - stale_ms_max * NS_PER_MS)
        if read.fresh and place and _number(read) < newest[place - 1]:
            late = f"{newest[place - 1]} had been receipted over {stale_ms_max} ms before"
            return f"{read.at or 'a member'} called {read.out} fresh, {late}"
    return ""


def _number(read: Operation) -> int:
    return _number_of(read.out)


def _number_of(value: object) -> int:
    return value if isinstance(value, int) else -1
