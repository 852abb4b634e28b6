"""History of a run: what clients asked and saw, as values and as JSON lines.

One line an operation:
`{"c":client,"k":key,"op":"get|put|append|cas","v":…,"from":…,"out":…,"ok":true|false|null,"t0":ns,"t1":ns}`.

| ok | meaning |
| --- | --- |
| true | done; a get's `out` is what it saw (null: no such key), a list where the key holds a list |
| false | certainly without effect; a cas that carries `out` saw that value in place of `from` |
| null | unknown: it may have happened at any time after t0, also long after t1, or never |

`op` "resolve" stands beside them for answers of the resolution path: `out` is the number of the version that was answered
(null: no final answer), `at` the member that answered, `fresh` whether the answer said so. Times are CLOCK_MONOTONIC
nanoseconds of one machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from replica.model.errors import Code, ZaibeiError

LINE_OCTETS_MAX = 1 << 24  # a list of a long run in one read
Value = None | str | int | tuple["Value", ...]  # what a key may hold; lists are tuples so that they can be compared and hashed


class Op(StrEnum):
    """What was asked."""

    GET = "get"
    PUT = "put"
    APPEND = "append"
    CAS = "cas"
    RESOLVE = "resolve"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one client.

    Args:
        value: what was put or appended, or what a cas wanted to write; None for reads.
        wanted: what a cas wanted to find; None: no such key.
        out: what was seen.
        saw: True when `out` was given at all (a failed cas may have seen something or not).
        ok: True done, False certainly without effect, None unknown.
        t0_ns, t1_ns: call and return; t1_ns of an unknown outcome says only when the client gave up.
        at, fresh: only for resolve.
    """

    client: str
    key: str
    op: Op
    value: Value
    wanted: Value
    out: Value
    saw: bool
    ok: bool | None
    t0_ns: int
    t1_ns: int
    at: str = ""
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.t1_ns < self.t0_ns:
            raise ZaibeiError(Code.MALFORMED, f"operation of {self.client} on {self.key}: it returned before it was called")


def frozen(value: Any) -> Value:
    """JSON to a value that can be compared and hashed.

    Raises:
        ZaibeiError(MALFORMED): a kind of value that no key holds.
    """
    if isinstance(value, list):
        return tuple(frozen(one) for one in value)
    if value is None or isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ZaibeiError(
        Code.MALFORMED, f"a value of kind {type(value).__name__} in a history: null, text, whole number or list only"
    )


def plain(value: Value) -> Any:
    """The other way round, for JSON."""
    return [plain(one) for one in value] if isinstance(value, tuple) else value


def parse_line(line: str) -> Operation:
    """One line of a history.

    Raises:
        ZaibeiError(MALFORMED): it is none; the message says what is wrong with it.
    """
    try:
        row = json.loads(line)
        ok = row["ok"]
        if ok not in (True, False, None) or (isinstance(ok, int) and not isinstance(ok, bool)):
            raise ValueError(f"ok is {ok!r}")
        return Operation(
            client=str(row["c"]),
            key=str(row["k"]),
            op=Op(row["op"]),
            value=frozen(row.get("v")),
            wanted=frozen(row.get("from")),
            out=frozen(row.get("out")),
            saw="out" in row,
            ok=ok,
            t0_ns=int(row["t0"]),
            t1_ns=int(row["t1"]) if row.get("t1") is not None else int(row["t0"]),
            at=str(row.get("at", "")),
            fresh=bool(row.get("fresh", False)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ZaibeiError(Code.MALFORMED, f"not a line of a history ({type(exc).__name__}: {exc}): {line[:120]!r}") from exc


def format_line(operation: Operation) -> str:
    """One line of a history, without the end of line."""
    row: dict[str, Any] = {"c": operation.client, "k": operation.key, "op": str(operation.op)}
    if operation.op in (Op.PUT, Op.APPEND, Op.CAS):
        row["v"] = plain(operation.value)
    if operation.op is Op.CAS:
        row["from"] = plain(operation.wanted)
    if operation.saw:
        row["out"] = plain(operation.out)
    row.update(ok=operation.ok, t0=operation.t0_ns, t1=operation.t1_ns)
    if operation.op is Op.RESOLVE:
        row.update(at=operation.at, fresh=operation.fresh)
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def parse(lines: Iterable[str]) -> Iterator[Operation]:
    """All operations; empty lines are skipped.

    Raises:
        ZaibeiError(MALFORMED): a line that is none, with its number.
    """
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_OCTETS_MAX:
            raise ZaibeiError(Code.MALFORMED, f"line {number} is longer than {LINE_OCTETS_MAX} octets")
        if line.strip():
            try:
                yield parse_line(line)
            except ZaibeiError as exc:
                raise ZaibeiError(Code.MALFORMED, f"line {number}: {exc.trouble.message}") from exc


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """Operations of each key, by the time they were called."""
    found: dict[str, list[Operation]] = {}
    for operation in operations:
        found.setdefault(operation.key, []).append(operation)
    return {key: sorted(of_key, key=lambda one: (one.t0_ns, one.t1_ns)) for key, of_key in found.items()}
