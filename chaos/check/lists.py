"""Linearizability of a list that only grows, without a search: exact, in the time of sorting.

Each element is appended once, so what the longest read saw is the order of all elements seen. Reads stand behind their last
element, acknowledged appends that nobody saw behind everything, and those of unknown outcome that nobody saw never happened.
Only one total order is left, up to the order of what stands in one place; there the order of calls is as good as any. A total
order is right exactly if nothing returned before something that stands earlier was called.
"""

from __future__ import annotations

from collections.abc import Sequence

from chaos.check.history import Op, Operation, Value
from chaos.check.verdict import Finding, Verdict

CHECK = "linearizable"
NEVER_NS = 1 << 62


def is_grown_list(operations: Sequence[Operation]) -> bool:
    """Only appends of different values and reads of lists: the shape this file judges."""
    values = [one.value for one in operations if one.op is Op.APPEND]
    if not values or len(set(values)) != len(values):
        return False
    return all(
        one.op is Op.APPEND or (one.op is Op.GET and (one.ok is not True or one.out is None or isinstance(one.out, tuple)))
        for one in operations
    )


def judge_list(key: str, operations: Sequence[Operation]) -> Finding:
    """Is the history of one growing list linearizable?

    Args:
        operations: of the shape of `is_grown_list`, any order.
    Returns:
        PASS or FAIL with the two operations that contradict each other; this check has no bound.
    """
    appends = {one.value: one for one in operations if one.op is Op.APPEND}
    reads = [(one, one.out if isinstance(one.out, tuple) else ()) for one in operations if one.op is Op.GET and one.ok is True]
    longest = max((out for _, out in reads), key=len, default=())
    if fault := _fault_of_content(appends, reads, longest):
        return Finding(CHECK, key, Verdict.FAIL, fault)
    order: list[tuple[int, int, int, Operation]] = []  # place, element or read, call
    for place, value in enumerate(longest, 1):
        order.append((place, 0, 0, appends[value]))
    for read, out in reads:
        order.append((len(out), 1, read.t0_ns, read))
    seen = set(longest)
    for value, append in appends.items():
        if append.ok is True and value not in seen:
            order.append((len(longest) + 1, 0, append.t0_ns, append))
    order.sort(key=lambda entry: entry[:3])
    latest: Operation | None = None
    for _, _, _, one in order:
        return_ns = one.t1_ns if one.ok is True else NEVER_NS
        if latest is not None and return_ns < latest.t0_ns:
            return Finding(CHECK, key, Verdict.FAIL, _contradiction(one, latest))
        if latest is None or one.t0_ns > latest.t0_ns:
            latest = one
    return Finding(CHECK, key, Verdict.PASS)


def _fault_of_content(
    appends: dict[Value, Operation], reads: Sequence[tuple[Operation, tuple[Value, ...]]], longest: tuple[Value, ...]
) -> str:
    """What is wrong with what was read, whenever it was read; "" if nothing."""
    if len(set(longest)) != len(longest):
        twice = next(value for place, value in enumerate(longest) if value in longest[:place])
        return f"{twice!r} is in the list twice"
    for value in longest:
        if value not in appends:
            return f"{value!r} was read and never appended"
        if appends[value].ok is False:
            return f"{value!r} was refused and is in the list all the same"
    for read, out in reads:
        if out != longest[: len(out)]:
            place = next(place for place, value in enumerate(out) if value != longest[place])
            which = f"{out[place]!r} (read of {read.client} at {read.t0_ns}) and {longest[place]!r}"
            return f"two reads differ at place {place}: {which}"
    return ""


def _contradiction(early: Operation, late: Operation) -> str:
    """`early` returned before `late` was called, and stands behind it."""
    if early.op is Op.APPEND and late.op is Op.GET:
        return f"{early.value!r} was acknowledged before a read of {late.client} began (at {late.t0_ns}) that did not see it"
    if early.op is Op.APPEND and late.op is Op.APPEND:
        return f"{early.value!r} was acknowledged before {late.value!r} was asked for, and stands behind it or is lost"
    if late.op is Op.APPEND:
        return f"a read of {early.client} (at {early.t0_ns}) saw {late.value!r}, which was asked for later"
    return f"a read of {late.client} (at {late.t0_ns}) saw less than one of {early.client} that had ended before it"
