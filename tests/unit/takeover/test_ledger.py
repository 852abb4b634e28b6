"""The ledger of a failback: every diverged write is in it exactly once, with one class, and nothing is lost (promise 8)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.model.errors import Code, ZaibeiError
from replica.model.handle.values import HandleValue, encode_record
from replica.model.identifier import Identifier, PrefixTree, document_key, prefix_key
from replica.model.ledger import Counts, Kind, Line, Verdict, Written, kept
from replica.takeover.ledger import (
    LATER_WRITE,
    ONLY_SOURCE,
    OurSide,
    Policies,
    Policy,
    SourceWrite,
    classify,
    counts_of,
    ledger_hash,
    order,
    our_written,
    stamp,
)


def key_of(name: str) -> bytes:
    return Identifier.parse(name).key()


def record(url: str, at: int = 0) -> bytes:
    return encode_record([HandleValue(1, b"URL", url.encode(), timestamp=at)])


KEYS = [key_of(f"88.118.{number % 3}/N{number}") for number in range(9)]
VALUES = [None, *(record(f"http://{letter}", at) for at, letter in enumerate("abc"))]

values = st.sampled_from(VALUES)
histories = st.lists(st.tuples(st.sampled_from(KEYS), values), max_size=40).map(
    lambda writes: [SourceWrite(key, seq, value) for seq, (key, value) in enumerate(writes, 101)]
)
sides = st.dictionaries(st.sampled_from(KEYS), st.tuples(values, st.sampled_from(Written)), max_size=len(KEYS)).map(
    lambda held: [OurSide(key, value, written) for key, (value, written) in sorted(held.items())]
)
policies = st.builds(
    Policies,
    st.sampled_from(Policy),
    st.dictionaries(st.sampled_from([prefix_key(f"88.118.{number}") for number in range(3)]), st.sampled_from(Policy)).map(
        PrefixTree
    ),
)
proofs = st.frozensets(st.integers(101, 140))


def lines_of(
    history: Sequence[SourceWrite], ours: Sequence[OurSide], rules: Policies, proved: frozenset[int] = frozenset()
) -> list[Line]:
    return list(classify(sorted(history, key=order), ours, rules, proved.__contains__))


@given(histories, sides, policies, proofs)
def test_every_diverged_write_has_exactly_one_line_and_one_class(
    history: list[SourceWrite], ours: list[OurSide], rules: Policies, proved: frozenset[int]
) -> None:
    lines = lines_of(history, ours, rules, proved)
    assert sorted((line.key, line.seq, line.theirs) for line in lines) == sorted(
        ((write.key, write.seq, write.value) for write in history), key=lambda one: (one[0], one[1])
    )
    assert len({line.ident for line in lines}) == len(history)
    counts = counts_of(lines)
    assert counts.lines == len(history) == sum(1 for line in lines if isinstance(line.kind, Kind))


@given(histories, sides, policies, proofs)
def test_nothing_is_lost(history: list[SourceWrite], ours: list[OurSide], rules: Policies, proved: frozenset[int]) -> None:
    """The last acknowledged word on each key is what we hold, enters, or is kept or held in the ledger with its value."""
    lines = {line.seq: line for line in lines_of(history, ours, rules, proved)}
    held = {side.key: side for side in ours}
    for key in {write.key for write in history}:
        acked = [write for write in history if write.key == key and write.seq not in proved]
        if not acked:
            continue
        last = max(acked, key=lambda write: write.seq)
        line, side = lines[last.seq], held.get(key, OurSide(key, None, Written.NO))
        assert line.kind in (Kind.SAME, Kind.CONFLICT) and line.theirs == last.value and line.ours == side.value
        if last.value == side.value:
            assert line.kind is Kind.SAME and line.verdict in (Verdict.NOTHING, kept(side.written))
        elif side.written is Written.NO:
            assert (line.verdict, line.by) == (Verdict.ACCEPT, ONLY_SOURCE), "only the source wrote it: it enters"
        else:
            assert line.verdict in (Verdict.ACCEPT, kept(side.written), Verdict.HOLD) and line.by == rules.of(key)
        for older in acked:
            if older is not last:
                assert (lines[older.seq].kind, lines[older.seq].later) == (Kind.SUPERSEDED, last.seq)


@given(histories, sides, policies, proofs)
def test_a_source_that_copies_our_history_ends_with_our_content(
    history: list[SourceWrite], ours: list[OurSide], rules: Policies, proved: frozenset[int]
) -> None:
    """Its own writes are under ours: whatever it is left with on a key, our history has a change of that key, or it is equal."""
    ours = [side for side in ours if side.written is not Written.UNKNOWN]
    held = {side.key: side.value for side in ours}
    source = {write.key: write.value for write in history}  # what it holds: also what it never acknowledged
    changed = {side.key for side in ours if side.written is Written.YES}  # in our history since the common position
    final = dict(held)
    for line in lines_of(history, ours, rules, proved):
        if line.verdict in (Verdict.ACCEPT, Verdict.HOLD):  # a person says "theirs"
            final[line.key] = line.theirs
            changed.add(line.key)
        elif line.verdict is Verdict.STATE:
            changed.add(line.key)
    for key, value in source.items():
        assert key in changed or value == final.get(key)


@given(histories, sides, policies, proofs, st.randoms(use_true_random=False))
def test_the_order_of_arrival_and_repetition_change_nothing(
    history: list[SourceWrite], ours: list[OurSide], rules: Policies, proved: frozenset[int], chance: random.Random
) -> None:
    first = lines_of(history, ours, rules, proved)
    arrived = history + [write for write in history if chance.random() < 0.3]
    chance.shuffle(arrived)
    again = lines_of(arrived, ours, rules, proved)
    assert again == first and ledger_hash(again) == ledger_hash(first)


@given(histories, sides, policies, proofs)
def test_unacknowledged_needs_a_proof(
    history: list[SourceWrite], ours: list[OurSide], rules: Policies, proved: frozenset[int]
) -> None:
    for line in lines_of(history, ours, rules, proved):
        assert (line.kind is Kind.UNACKNOWLEDGED) == (line.seq in proved)
    assert all(line.kind is not Kind.UNACKNOWLEDGED for line in lines_of(history, ours, rules))


@given(histories, sides, policies, proofs)
def test_octets_of_a_line_are_canonical(
    history: list[SourceWrite], ours: list[OurSide], rules: Policies, proved: frozenset[int]
) -> None:
    for line in lines_of(history, ours, rules, proved):
        octets = line.pack()
        assert Line.unpack(octets) == line
        for damaged in (octets + b"\0", octets[:-1], b"\2" + octets[1:], b""):
            with pytest.raises(ZaibeiError) as refused:
                Line.unpack(damaged)
            assert refused.value.code is Code.MALFORMED


@given(st.binary(max_size=80))
def test_any_octets_are_a_line_or_refused(octets: bytes) -> None:
    try:
        assert Line.unpack(octets).pack() == octets
    except ZaibeiError as exc:
        assert exc.code is Code.MALFORMED


@given(histories, sides, policies)
def test_counts_add_and_take_away(history: list[SourceWrite], ours: list[OurSide], rules: Policies) -> None:
    lines = lines_of(history, ours, rules)
    counts = counts_of(lines)
    for line in lines:
        counts = counts.plus(line, -1)
    assert counts == Counts()


def one(write: SourceWrite, side: OurSide, policy: Policy) -> Line:
    [line] = lines_of([write], [side], Policies(policy))
    return line


A, B = record("http://a", 100), record("http://b", 200)
KEY = KEYS[0]


@pytest.mark.parametrize(
    ("policy", "theirs", "ours", "verdict"),
    [
        (Policy.OURS_WINS, A, B, Verdict.KEEP),
        (Policy.SOURCE_WINS, A, B, Verdict.ACCEPT),
        (Policy.SOURCE_WINS, None, B, Verdict.ACCEPT),
        (Policy.HOLD, A, B, Verdict.HOLD),
        (Policy.NEWEST, A, B, Verdict.KEEP),
        (Policy.NEWEST, B, A, Verdict.ACCEPT),
        (Policy.NEWEST, B, record("http://c", 200), Verdict.HOLD),  # as new as each other
        (Policy.NEWEST, None, A, Verdict.HOLD),  # a delete has no timestamp
        (Policy.NEWEST, b"octets", A, Verdict.HOLD),
    ],
)
def test_what_a_policy_decides_where_both_wrote(policy: Policy, theirs: bytes | None, ours: bytes, verdict: Verdict) -> None:
    line = one(SourceWrite(KEY, 7, theirs), OurSide(KEY, ours, Written.YES), policy)
    assert (line.kind, line.verdict, line.by) == (Kind.CONFLICT, verdict, policy)


@pytest.mark.parametrize(("certain", "written"), [(False, Written.YES), (False, Written.UNKNOWN), (True, Written.UNKNOWN)])
def test_what_may_be_older_than_the_takeover_never_overwrites_ours_unseen(certain: bool, written: Written) -> None:
    line = one(SourceWrite(KEY, 7, A, certain), OurSide(KEY, B, written), Policy.SOURCE_WINS)
    assert line.verdict is Verdict.HOLD
    assert Line.unpack(line.pack()).certain is certain


def test_the_longest_prefix_decides_before_the_source() -> None:
    rules = Policies(
        Policy.OURS_WINS, PrefixTree({prefix_key("88.118"): Policy.SOURCE_WINS, prefix_key("88.118.1"): Policy.HOLD})
    )
    names = ("88.118.1/x", "88.118.2/x", "99.1/x")
    assert [rules.of(key_of(name)) for name in names] == [Policy.HOLD, Policy.SOURCE_WINS, Policy.OURS_WINS]


def test_what_the_ledger_let_in_is_not_our_own_write() -> None:
    assert our_written(A, Written.YES, [B, A]) is Written.NO
    assert our_written(A, Written.YES, [B]) is Written.YES
    assert our_written(None, Written.YES, [None]) is Written.NO
    assert our_written(A, Written.UNKNOWN, [A]) is Written.UNKNOWN


def test_an_open_line_that_the_source_wrote_over_is_superseded_when_judged_again() -> None:
    held = one(SourceWrite(KEY, 7, A), OurSide(KEY, B, Written.YES), Policy.HOLD)
    again = lines_of([SourceWrite(KEY, 7, held.theirs), SourceWrite(KEY, 9, None)], [OurSide(KEY, B, Written.YES)], Policies())
    assert [(line.seq, line.kind, line.by) for line in again] == [
        (9, Kind.CONFLICT, Policy.HOLD),
        (7, Kind.SUPERSEDED, LATER_WRITE),
    ]


def test_one_place_with_two_contents_is_refused() -> None:
    with pytest.raises(ZaibeiError) as refused:
        lines_of([SourceWrite(KEY, 7, A), SourceWrite(KEY, 7, B)], [], Policies())
    assert refused.value.code is Code.FORKED


def test_order_is_demanded_of_both_sides() -> None:
    keys = sorted(KEYS)
    early, late = SourceWrite(keys[0], 1, A), SourceWrite(keys[3], 2, A)
    with pytest.raises(ZaibeiError):
        list(classify([late, early], [], Policies()))
    backwards = [OurSide(keys[1], A, Written.NO), OurSide(keys[0], A, Written.NO), OurSide(keys[4], A, Written.NO)]
    with pytest.raises(ZaibeiError):
        list(classify([late], backwards, Policies()))


def test_the_newest_value_of_a_record_is_its_timestamp() -> None:
    two = encode_record([HandleValue(1, b"URL", b"a", timestamp=5), HandleValue(2, b"URL", b"b", timestamp=9)])
    assert stamp(KEY, two) == 9
    assert stamp(KEY, record("http://a", 0)) is None
    assert stamp(document_key("enterprise", "1"), two) is None


def test_a_ledger_of_any_length_is_read_one_write_at_a_time() -> None:
    taken = 0

    def endless():  # type: ignore[no-untyped-def]
        nonlocal taken
        for number in range(1, 10_000_000):
            taken = number
            yield SourceWrite(b"h88\0" + number.to_bytes(8, "big"), number, A)

    found = classify(endless(), iter([]), Policies())
    for _ in range(1_000):
        assert next(found).verdict is Verdict.ACCEPT
    assert taken <= 1_001


def test_the_hash_sees_every_line() -> None:
    line = one(SourceWrite(KEY, 7, A), OurSide(KEY, B, Written.YES), Policy.HOLD)
    hashes = {ledger_hash(lines) for lines in ([], [line], [line, line], [replace(line, by="x")], [replace(line, seq=8)])}
    assert len(hashes) == 5
