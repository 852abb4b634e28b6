"""acked ⊆ final: what was acknowledged and is not in the state that everybody ends with, counted.

The final state is what the last reads saw, after all faults were healed and all clients had stopped: a read that began after
every write of its key had returned. Linearizability implies this check; it stands alone because it is the promise in one
number, and because it is never undecided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chaos.check.history import Op, Operation, Value, by_key
from chaos.check.verdict import Finding, Verdict

CHECK = "acked in final"
NEVER_NS = 1 << 62


@dataclass(frozen=True, slots=True)
class Loss:
    """An acknowledged write that the final state does not honour."""

    key: str
    operation: Operation
    final: Value


def losses(operations: Iterable[Operation]) -> tuple[list[Loss], list[str]]:
    """Acknowledged writes that are lost.

    Returns:
        The lost ones, and the keys with acknowledged writes that have no final read (nothing is known of them).
    """
    lost: list[Loss] = []
    unread: list[str] = []
    for key, of_key in by_key(operations).items():
        writes = [one for one in of_key if one.op in (Op.PUT, Op.APPEND, Op.CAS) and one.ok is not False]
        if not any(write.ok for write in writes):
            continue
        final = _final_read(of_key, writes)
        if final is None:
            unread.append(key)
        elif isinstance(final.out, tuple) or all(write.op is Op.APPEND for write in writes):
            held = set(final.out if isinstance(final.out, tuple) else ())
            lost.extend(Loss(key, one, final.out) for one in writes if one.op is Op.APPEND and one.ok and one.value not in held)
        else:
            lost.extend(Loss(key, write, final.out) for write in _overtaken(writes, final.out))
    return lost, unread


def judge(operations: Iterable[Operation]) -> Finding:
    """One finding over the whole history."""
    lost, unread = losses(operations)
    if lost:
        first = lost[0]
        what = f"{first.operation.op} of {first.operation.value!r} on {first.key} at {first.operation.t0_ns}"
        return Finding(
            CHECK,
            "",
            Verdict.FAIL,
            f"{len(lost)} acknowledged writes are lost, first {what}; it ends with {str(first.final)[:120]!r}",
        )
    if unread:
        return Finding(CHECK, "", Verdict.UNKNOWN, f"no final read of {len(unread)} keys, first {unread[0]}")
    return Finding(CHECK, "", Verdict.PASS)


def _final_read(operations: Sequence[Operation], writes: Sequence[Operation]) -> Operation | None:
    """The last read that began after every write had returned; a client that gave up has returned too."""
    after_ns = max(write.t1_ns for write in writes)
    reads = [one for one in operations if one.op is Op.GET and one.ok is True and one.t0_ns >= after_ns]
    return max(reads, key=lambda one: one.t0_ns, default=None)


def _overtaken(writes: Sequence[Operation], final: Value) -> list[Operation]:
    """Acknowledged writes that began after every writer of the final value had returned: nothing explains that they are gone."""
    ends = [write.t1_ns if write.ok else NEVER_NS for write in writes if write.value == final]
    until_ns = max(ends, default=-1)
    return [write for write in writes if write.ok and write.value != final and write.t0_ns > until_ns]
