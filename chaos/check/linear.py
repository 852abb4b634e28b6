"""Linearizability of one key by search: Wing and Gong's, with Lowe's memory of what was tried.

An operation takes effect at one moment between call and return; one of unknown outcome at any moment after its call, or never.
The search takes operations in an order in which each is called before any other one left over has returned, and keeps each pair
(operations taken, value) once. Its cost grows with how many overlap, so it is bounded; at the bound the verdict is unknown.

Lists that only grow are judged without a search (lists.py).
Source: Wing and Gong, Testing and verifying concurrent objects (1993); Lowe, Testing for linearizability (2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chaos.check.history import Op, Operation, Value
from chaos.check.lists import is_grown_list, judge_list
from chaos.check.verdict import Finding, Verdict

CHECK = "linearizable"
STEPS_MAX = 500_000  # operations tried for one key; a second or two, and some 100 MB at most
NEVER_NS = 1 << 62  # return of an operation whose outcome is unknown


@dataclass(frozen=True, slots=True)
class _Step:
    """An operation as the search sees it."""

    operation: Operation
    call_ns: int
    return_ns: int
    must: bool  # False: it may be left out


def judge(key: str, operations: Iterable[Operation], *, first: Value = None, steps_max: int = STEPS_MAX) -> Finding:
    """Is the history of one key linearizable?

    Args:
        operations: all of this key, any order; `resolve` is left out.
        first: what the key held before the first one.
        steps_max: bound of the search.
    Returns:
        A finding; FAIL says where the longest attempt ended, UNKNOWN that the bound was reached.
    """
    told = [one for one in operations if one.op is not Op.RESOLVE]
    if first is None and is_grown_list(told):
        return judge_list(key, told)
    steps = _steps(told)
    if not steps:
        return Finding(CHECK, key, Verdict.PASS)
    return _search(key, steps, first, steps_max)


def apply(value: Value, operation: Operation) -> tuple[bool, Value]:
    """What an operation does to a value: whether it could have happened there, and the value after it."""
    if operation.op is Op.GET:
        return value == operation.out, value
    if operation.op is Op.PUT:
        return True, operation.value
    if operation.op is Op.APPEND:
        if value is not None and not isinstance(value, tuple):
            return False, value
        return True, (*(value or ()), operation.value)
    if operation.ok is False:  # a cas that found something else
        return value == operation.out and value != operation.wanted, value
    return value == operation.wanted, operation.value


def _steps(operations: Sequence[Operation]) -> list[_Step]:
    """What the search has to place, by call.

    Left out: what certainly had no effect and saw nothing; reads of unknown outcome; and writes of unknown outcome whose value
    nobody else wrote and nobody saw, for whoever can place the others with it can place them without it. (Where lists grow, a
    list or nothing that was put may be seen as the beginning of a longer one, so those stay.)
    """
    grown = any(one.op is Op.APPEND for one in operations)
    seen: set[Value] = set()
    for one in operations:
        if one.ok is not None and one.saw:
            seen.add(one.out)
            seen.update(one.out if isinstance(one.out, tuple) else ())
        if one.op is Op.CAS and one.ok is not False:
            seen.add(one.wanted)
            seen.update(one.wanted if isinstance(one.wanted, tuple) else ())
    steps = []
    for one in operations:
        if one.ok is True or (one.ok is False and one.op is Op.CAS and one.saw):
            steps.append(_Step(one, one.t0_ns, one.t1_ns, must=True))
        elif one.ok is None and one.op is not Op.GET and (one.value in seen or (grown and not isinstance(one.value, str | int))):
            steps.append(_Step(one, one.t0_ns, NEVER_NS, must=False))
    return sorted(steps, key=lambda step: (step.call_ns, step.return_ns))


def _search(key: str, steps: Sequence[_Step], first: Value, steps_max: int) -> Finding:
    """Depth first over (taken, value); the stack holds what is still to be tried at each depth."""
    count = len(steps)
    goal = sum(1 << place for place, step in enumerate(steps) if step.must)
    tried: set[tuple[int, Value]] = {(0, first)}
    stack: list[tuple[int, Value, int]] = [(0, first, 0)]  # taken, value, all before this place are taken
    longest, longest_value, spent = 0, first, 0
    while stack:
        taken, value, low = stack.pop()
        if taken & goal == goal:
            return Finding(CHECK, key, Verdict.PASS)
        while low < count and taken >> low & 1:
            low += 1
        following = []
        barrier_ns = NEVER_NS  # whoever is called after the earliest return of those left over has to wait
        for place in range(low, count):
            step = steps[place]
            if step.call_ns > barrier_ns:
                break
            if taken >> place & 1:
                continue
            barrier_ns = min(barrier_ns, step.return_ns)
            following.append(place)
        for place in reversed(following):
            step = steps[place]
            if step.call_ns > barrier_ns:
                continue
            spent += 1
            if spent > steps_max:
                return Finding(CHECK, key, Verdict.UNKNOWN, f"not decided within {steps_max} steps over {count} operations")
            fits, after = apply(value, step.operation)
            state = (taken | 1 << place, after)
            if fits and state not in tried:
                tried.add(state)
                stack.append((*state, low))
                if state[0].bit_count() > longest.bit_count():
                    longest, longest_value = state
    return Finding(CHECK, key, Verdict.FAIL, _story(steps, longest, longest_value))


def _story(steps: Sequence[_Step], taken: int, value: Value) -> str:
    """Where the longest attempt ended, in words."""
    left = [step for place, step in enumerate(steps) if not taken >> place & 1 and step.must]
    stuck = min(left, key=lambda step: step.return_ns).operation
    if stuck.op is Op.GET:
        what = f"get of {stuck.client} saw {stuck.out!r}"
    else:
        what = f"{stuck.op} of {stuck.client} with {stuck.value!r}" + (f" from {stuck.wanted!r}" if stuck.op is Op.CAS else "")
    return (
        f"after {taken.bit_count()} of {len(steps)} operations the key holds {str(value)[:200]!r} and nothing fits next; "
        f"the first that has to: {what[:200]}, called at {stuck.t0_ns}"
    )
