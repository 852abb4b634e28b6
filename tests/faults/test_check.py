"""The history checker against brute force on small histories, and against planted violations on larger ones."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.check import final, linear, resolution
from chaos.check.history import Op, Operation, Value, by_key, format_line, parse, parse_line
from chaos.check.judge import judge, summary
from chaos.check.lists import is_grown_list
from chaos.check.verdict import Verdict
from replica.model.errors import ZaibeiError

ROOT = Path(__file__).resolve().parents[2]
NEVER = 1 << 62


def done(op: str, t0: int, t1: int, *, client: str = "c", key: str = "k", ok: bool | None = True, **fields: object) -> Operation:
    """An operation in the words of a history line."""
    return parse_line(json.dumps({"c": client, "k": key, "op": op, "ok": ok, "t0": t0, "t1": t1, **fields}))


# ------------------------------------------------------------------------------------------------------------- brute force


def brute(operations: Sequence[Operation]) -> bool:
    """Every subset of what may be left out, in every order: the definition itself, with nothing clever in it."""
    sure = [one for one in operations if one.ok is True or (one.ok is False and one.op is Op.CAS and one.saw)]
    maybe = [one for one in operations if one.ok is None and one.op is not Op.GET]
    for size in range(len(maybe) + 1):
        for chosen in itertools.combinations(maybe, size):
            if any(legal(order) for order in itertools.permutations([*sure, *chosen])):
                return True
    return False


def legal(order: Sequence[Operation]) -> bool:
    ends = [one.t1_ns if one.ok is not None else NEVER for one in order]
    if any(ends[later] < order[early].t0_ns for early in range(len(order)) for later in range(early + 1, len(order))):
        return False
    value: Value = None
    for one in order:
        fits, value = step(value, one)
        if not fits:
            return False
    return True


def step(value: Value, one: Operation) -> tuple[bool, Value]:
    match one.op:
        case Op.GET:
            return value == one.out, value
        case Op.PUT:
            return True, one.value
        case Op.APPEND:
            return (True, (*(value or ()), one.value)) if value is None or isinstance(value, tuple) else (False, value)
        case _:
            if one.ok is False:
                return value == one.out != one.wanted, value
            return value == one.wanted, one.value


times = st.tuples(st.integers(0, 12), st.integers(0, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))
outcomes = st.sampled_from([True, True, True, False, None])
letters = st.sampled_from(["a", "b", "c"])


@st.composite
def registers(draw: st.DrawFn) -> list[Operation]:
    operations = []
    for _ in range(draw(st.integers(1, 5))):
        t0, t1 = draw(times)
        kind, ok = draw(st.sampled_from(["get", "put", "cas"])), draw(outcomes)
        fields: dict[str, object] = {}
        if kind == "get":
            fields["out"] = draw(st.sampled_from([None, "a", "b", "c"]))
        else:
            fields["v"] = draw(letters)
        if kind == "cas":
            fields["from"] = draw(st.sampled_from([None, "a", "b"]))
            if ok is False and draw(st.booleans()):
                fields["out"] = draw(st.sampled_from([None, "a", "b", "c"]))
        operations.append(done(kind, t0, t1, ok=ok, **fields))
    return operations


@st.composite
def lists(draw: st.DrawFn, *, unique: bool = True, puts: bool = False) -> list[Operation]:
    operations = []
    for number in range(draw(st.integers(1, 6))):
        t0, t1 = draw(times)
        kind = draw(st.sampled_from(["get", "append", "append", *(["put"] if puts else [])]))
        if kind == "append":
            value = number if unique else draw(st.integers(0, 2))
            operations.append(done("append", t0, t1, ok=draw(outcomes), v=value))
        elif kind == "put":
            operations.append(done("put", t0, t1, ok=draw(outcomes), v=draw(st.sampled_from([None, [0], [1, 2]]))))
        else:
            out = draw(st.one_of(st.none(), st.lists(st.integers(0, 5), max_size=4, unique=unique)))
            operations.append(done("get", t0, t1, out=out))
    return operations


@given(registers())
@settings(max_examples=400)
def test_a_register_is_judged_as_by_the_definition(operations: list[Operation]) -> None:
    assert (linear.judge("k", operations).verdict is Verdict.PASS) == brute(operations)


def test_an_empty_list_and_no_key_are_told_apart_only_by_the_search() -> None:
    """A growing list has no empty state of its own: a read of [] and of nothing mean the same before the first append."""
    assert linear.judge("k", [done("append", 0, 1, v=1), done("get", 0, 0, out=[])]).verdict is Verdict.PASS


@given(st.one_of(lists(), lists(unique=False), lists(puts=True)))
@settings(max_examples=800)
def test_lists_are_judged_as_by_the_definition(operations: list[Operation]) -> None:
    if is_grown_list(operations):  # judged without a search
        told = [replace(one, out=None) if one.op is Op.GET and one.out == () else one for one in operations]
    else:
        told = operations
    assert (linear.judge("k", operations).verdict is Verdict.PASS) == brute(told)


# -------------------------------------------------------------------------------------------------- long, right, then spoiled


def right_history(seed: int, *, kind: str, operations: int, clients: int = 8) -> list[Operation]:
    """What a perfect register or list would give: each operation takes effect at a moment of its own, seen from outside as a
    span."""
    chance = random.Random(seed)
    found: list[Operation] = []
    value: Value = None
    at = 1_000
    for number in range(operations):
        at += chance.randrange(1, 100)
        span = (at - chance.randrange(200), at + chance.randrange(200))
        client = f"c{chance.randrange(clients)}"
        if chance.random() < 0.4:
            found.append(done("get", *span, client=client, out=list(value) if isinstance(value, tuple) else value))
            continue
        op = "append" if kind == "list" else "put"
        outcome = chance.choices([True, None, False], [20, 1, 1])[0]
        happened = outcome is True or (outcome is None and chance.random() < 0.5)
        found.append(done(op, *span, client=client, ok=outcome, v=number))
        if happened:
            value = (*(value if isinstance(value, tuple) else ()), number) if kind == "list" else number
    end = at + 10_000
    found.append(done("get", end, end + 1, client="final", out=list(value) if isinstance(value, tuple) else value))
    return found


@pytest.mark.parametrize("kind", ["list", "register"])
@pytest.mark.parametrize("seed", range(5))
def test_long_right_histories_pass_quickly(kind: str, seed: int) -> None:
    history = right_history(seed, kind=kind, operations=2_000)
    began = time.monotonic()
    assert linear.judge("k", history).verdict is Verdict.PASS
    assert final.judge(history).verdict is Verdict.PASS
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("kind", ["list", "register"])
@pytest.mark.parametrize("seed", range(5))
def test_a_stale_read_in_a_long_history_is_found(kind: str, seed: int) -> None:
    history = right_history(seed, kind=kind, operations=1_500)
    reads = [one for one in history if one.op is Op.GET]
    early, late = reads[len(reads) // 4], reads[-len(reads) // 4]
    spoiled = [replace(one, out=early.out) if one is late else one for one in history]
    assert linear.judge("k", spoiled).verdict is Verdict.FAIL


@pytest.mark.parametrize("seed", range(5))
def test_a_lost_acknowledged_element_is_found_and_counted(seed: int) -> None:
    history = right_history(seed, kind="list", operations=800)
    acked = [one.value for one in history if one.op is Op.APPEND and one.ok]
    gone = random.Random(seed).choice(acked)
    spoiled = [
        replace(one, out=tuple(value for value in one.out if value != gone)) if isinstance(one.out, tuple) else one
        for one in history
    ]
    assert linear.judge("k", spoiled).verdict is Verdict.FAIL
    assert [loss.operation.value for loss in final.losses(spoiled)[0]] == [gone]
    assert final.judge(spoiled).verdict is Verdict.FAIL


def test_a_lost_update_of_two_who_swapped_from_the_same_value() -> None:
    history = [done("put", 0, 1, v="a"), done("cas", 2, 5, **{"from": "a"}, v="b"), done("cas", 2, 5, **{"from": "a"}, v="c")]
    assert linear.judge("k", history).verdict is Verdict.FAIL
    assert linear.judge("k", history[:2]).verdict is Verdict.PASS


def test_a_write_of_unknown_outcome_may_happen_late_or_never_but_not_before_its_call() -> None:
    late = [done("put", 0, 1, v="a"), done("put", 2, 3, ok=None, v="b"), done("get", 4, 5, out="a"), done("get", 6, 7, out="b")]
    never = late[:3]
    back = [*late, done("get", 8, 9, out="a")]
    early = [done("put", 0, 1, v="a"), done("get", 2, 3, out="b"), done("put", 4, 5, ok=None, v="b")]
    assert [linear.judge("k", one).verdict for one in (late, never, back, early)] == ["pass", "pass", "fail", "fail"]


def test_a_bound_that_is_reached_is_unknown_and_never_a_pass() -> None:
    crowd = [done("put", 0, 100, v=number) for number in range(14)] + [done("get", 200, 201, out=99)]
    assert linear.judge("k", crowd, steps_max=1_000).verdict is Verdict.UNKNOWN


def test_the_final_state_of_a_register() -> None:
    kept = [done("put", 0, 1, v="a"), done("put", 0, 2, v="b"), done("get", 9, 9, out="a")]
    lost = [done("put", 0, 1, v="a"), done("put", 3, 4, v="b"), done("get", 9, 9, out="a")]
    unknown = [done("put", 0, 1, ok=None, v="a"), done("put", 3, 4, v="b"), done("get", 9, 9, out="a")]
    unread = kept[:2]
    assert [final.judge(one).verdict for one in (kept, lost, unknown, unread)] == ["pass", "fail", "pass", "unknown"]


# -------------------------------------------------------------------------------------------------------------- resolution

MS = 1_000_000
WRITTEN = [done("put", 0, 10 * MS, v=1), done("put", 100 * MS, 110 * MS, v=2)]


def resolved(out: int | None, t0_ms: int, *, at: str = "m1", fresh: bool = True, client: str = "r") -> Operation:
    return done("resolve", t0_ms * MS, t0_ms * MS + 1, client=client, out=out, at=at, fresh=fresh)


@pytest.mark.parametrize(
    ("reads", "verdict"),
    [
        ([resolved(1, 50), resolved(2, 120)], "pass"),
        ([resolved(1, 50), resolved(None, 60), resolved(2, 120)], "pass"),
        ([resolved(2, 120), resolved(1, 130)], "fail"),  # backwards at one member
        ([resolved(2, 120), resolved(1, 130, at="m2")], "pass"),  # another member may be behind
        ([resolved(2, 120), resolved(1, 130, client="s")], "pass"),
        ([resolved(1, 3_000)], "fail"),  # called fresh, 2 s late
        ([resolved(1, 3_000, fresh=False)], "pass"),
        ([resolved(3, 50)], "fail"),  # invented
        ([resolved(2, 50)], "fail"),  # before it was registered
        ([resolved(None, 50)], "unknown"),
        ([], "unknown"),
    ],
)
def test_answers(reads: list[Operation], verdict: str) -> None:
    assert resolution.judge("k", [*WRITTEN, *reads]).verdict == verdict


# ----------------------------------------------------------------------------------------------------------------- command


@given(registers())
def test_a_line_is_read_back_as_it_was_written(operations: list[Operation]) -> None:
    assert [parse_line(format_line(one)) for one in operations] == operations


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"c":"a","k":"k","op":"sing","ok":true,"t0":1,"t1":2}', '{"c":"a","k":"k","op":"get","ok":1,"t0":1,"t1":2}',
     '{"c":"a","k":"k","op":"get","ok":true,"t0":3,"t1":2}', '{"c":"a","k":"k","op":"get","out":{},"ok":true,"t0":1,"t1":2}'],
)  # fmt: skip
def test_what_is_no_line_is_named(line: str) -> None:
    with pytest.raises(ZaibeiError, match="line 2"):
        list(parse([format_line(WRITTEN[0]), line]))


def run(*paths: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "chaos.check", *map(str, paths)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_command(tmp_path: Path) -> None:
    good, bad, none = tmp_path / "good", tmp_path / "bad", tmp_path / "none"
    history = right_history(1, kind="list", operations=100)
    good.write_text("".join(format_line(one) + "\n" for one in history))
    bad.write_text(
        "".join(format_line(replace(one, out=())) + "\n" if one.op is Op.GET else format_line(one) + "\n" for one in history)
    )
    passed, failed, unknown = run(good), run(bad), run(good, none)
    assert (passed.returncode, passed.stdout.splitlines()[-1]) == (0, "2 passed, 0 failed, 0 unknown"), passed.stderr
    assert (failed.returncode, failed.stdout.splitlines()[-1]) == (1, "0 passed, 2 failed, 0 unknown")
    assert (unknown.returncode, unknown.stdout.splitlines()[-1]) == (11, "2 passed, 0 failed, 1 unknown")


def test_an_empty_history_proves_nothing() -> None:
    assert summary(judge([])) == "0 passed, 0 failed, 1 unknown"
    assert by_key([]) == {}
