"""When probes reach the threshold, and which words of a top-level node are believed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import GroupState
from replica.model.ladder import Function, Ladder, OrderKind
from replica.model.ladder_values import Moved
from replica.model.ladder_words import take_order
from replica.model.signing import Signer
from replica.takeover.lease import LeaseCount
from replica.takeover.orders import judge, parse, sign
from replica.takeover.threshold import MS, REPORTER, Level, Meter, ThresholdLimits, reached
from replica.v1 import entry_pb2

LIMITS = ThresholdLimits(time_ms=10_000, windows=10)
TOP = Signer(Ed25519PrivateKey.from_private_bytes(b"t" * 32))
OTHER = Signer(Ed25519PrivateKey.from_private_bytes(b"o" * 32))
ISSUERS = {"beijing": TOP.public}
NOW_MS = 1_700_000_000_000
Change = Callable[[entry_pb2.Order], None]


def meter(readings: list[tuple[str, bool]], seconds: int, per_second: int = 1) -> tuple[Meter, int]:
    """A meter that got the same readings each second."""
    found, now = Meter(Function.REGISTRATION, LIMITS, 0), 0
    for _ in range(seconds * per_second):
        now += 1_000 * MS // per_second
        for machine, failing in readings:
            found.read(machine, failing, now - 1)
    found.look(now)
    return found, now


@pytest.mark.parametrize(
    ("readings", "failing", "expected"),
    [(5, 3, True), (4, 4, False), (100, 50, False), (100, 51, True), (99, 50, False), (0, 0, False), (51, 26, False)],
)
def test_at_least_51_percent_of_at_least_5(readings: int, failing: int, expected: bool) -> None:
    assert reached(readings, failing) is expected


def test_the_threshold_needs_the_whole_time() -> None:
    bad = [("a", True), ("b", True)]
    found, now = meter(bad, 9)
    assert found.evidence(now).level is Level.SUSPECT
    found, now = meter(bad, 10)
    evidence = found.evidence(now)
    assert (evidence.level, evidence.readings, evidence.failing, evidence.lasting_ms) == (Level.THRESHOLD, 20, 20, 10_000)
    assert evidence.several and evidence.failing_at == {"a", "b"}


def test_one_good_window_begins_anew() -> None:
    found, now = meter([("a", True)], 9)
    found.read("a", False, now + 1)
    found.look(now + 1_000 * MS)
    assert found.evidence(now + 1_000 * MS).level is Level.WELL
    for second in range(2, 11):
        found.read("a", True, now + second * 1_000 * MS - 1)
    assert found.evidence(now + 10_000 * MS).level is Level.SUSPECT


def test_a_window_without_a_reading_says_nothing() -> None:
    found, now = meter([("a", True)], 9)
    found.look(now + 1_000 * MS)
    assert found.evidence(now + 1_000 * MS).level is Level.UNKNOWN
    found.read("a", True, now + 1_500 * MS)
    assert found.evidence(now + 2_000 * MS).level is Level.SUSPECT


def test_half_of_the_readings_is_not_most_of_them() -> None:
    found, now = meter([("a", True), ("b", False)], 12)
    assert found.evidence(now).level is Level.WELL


def test_a_meter_that_was_late_begins_anew() -> None:
    found, now = meter([("a", True), ("b", True)], 10)
    late = now + 1_101 * MS
    assert found.evidence(late).level is Level.UNKNOWN
    assert found.discarded == 1


def test_the_top_level_nodes_report_is_the_threshold_while_it_holds() -> None:
    found, now = meter([("a", False)], 3)
    found.report(entry_pb2.Findings(probes=9, failing=5, lasting_ms=10_000), now + 500 * MS)
    evidence = found.evidence(now)
    assert evidence.level is Level.THRESHOLD and evidence.several and REPORTER in evidence.failing_at
    assert found.evidence(now + 501 * MS).level is Level.WELL
    found.report(entry_pb2.Findings(probes=9, failing=5, lasting_ms=9_999), now + 9_000 * MS)
    assert found.evidence(now + 501 * MS).level is Level.WELL, "not for the given time"
    found.report(entry_pb2.Findings(probes=4, failing=4, lasting_ms=10_000), now + 9_000 * MS)
    assert found.evidence(now + 501 * MS).level is Level.WELL, "too few probes"


# -- leases, counted


def test_a_lease_is_counted_from_the_renewal_or_the_election() -> None:
    count = LeaseCount(100 * MS)
    count.look(7, True, 0)
    count.look(7, True, 100 * MS)
    assert count.waited_ms(7) == 100
    count.look(8, True, 200 * MS)
    assert (count.waited_ms(8), count.waited_ms(7)) == (0, 0)
    count.look(8, True, 300 * MS)
    count.look(8, False, 400 * MS)
    assert count.waited_ms(8) == 0, "it does not lead: it counts nothing"
    count.look(8, True, 500 * MS)
    assert count.waited_ms(8) == 0, "elected again: as if renewed now"


def test_a_clock_that_jumps_or_goes_back_earns_nothing() -> None:
    count = LeaseCount(100 * MS)
    count.look(0, True, 0)
    count.look(0, True, 3_600_000 * MS)
    assert count.waited_ms(0) == 200, "its interval and what a look may be late"
    count.look(0, True, 0)
    assert count.waited_ms(0) == 200


# -- orders


def order(kind: OrderKind = OrderKind.TAKEOVER, number: int = 5, **fields: object) -> entry_pb2.Order:
    made = entry_pb2.Order(
        kind=entry_pb2.Order.Kind.ValueType(int(kind)),
        number=number,
        source="node-a",
        function=entry_pb2.FUNCTION_REGISTRATION,
        issued_ms=NOW_MS - 1_000,
        until_ms=NOW_MS + 500_000,
        reason="unavailable since 12:00",
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("kind", list(OrderKind))
def test_an_order_of_the_top_level_node_is_believed(kind: OrderKind) -> None:
    signed = parse(sign(order(kind), TOP).SerializeToString())
    assert judge(signed, "node-a", ISSUERS, Ladder(), NOW_MS) is kind


@pytest.mark.parametrize(
    ("made", "at_ms", "code", "why"),
    [
        (sign(order(), OTHER), NOW_MS, Code.NOT_AUTHORISED, "no valid signature"),
        (sign(order(source="node-b"), TOP), NOW_MS, Code.WRONG_SOURCE, "is about 'node-b'"),
        (sign(order(), TOP), NOW_MS + 503_000, Code.REFUSED, "is void since 3 s"),
        (sign(order(issued_ms=NOW_MS + 301_000), TOP), NOW_MS, Code.REFUSED, "compare the clocks"),
        (sign(order(number=3), TOP), NOW_MS, Code.CONFLICT, "is a replay: number 3 was seen"),
        (sign(order(function=3), TOP), NOW_MS, Code.MALFORMED, "function 3"),
        (sign(order(kind=9), TOP), NOW_MS, Code.MALFORMED, "kind 9"),
        (sign(order(until_ms=NOW_MS - 1_000), TOP), NOW_MS - 2_000, Code.MALFORMED, "holds for 1 ms"),
        (sign(order(until_ms=NOW_MS + 8 * 86_400_000), TOP), NOW_MS, Code.MALFORMED, "holds for 1 ms to 604800 s"),
        (sign(order(number=0), TOP), NOW_MS, Code.MALFORMED, "a number above 0"),
    ],
)
def test_other_orders_are_refused_with_the_reason(made: entry_pb2.Order, at_ms: int, code: Code, why: str) -> None:
    seen = Ladder(numbers=((sign(order(), TOP).signature.key_id.hex(), 3),))
    with pytest.raises(ZaibeiError, match=why) as refused:
        judge(made, "node-a", ISSUERS, seen, at_ms)
    assert refused.value.code is code


CHANGES: list[Change] = [
    lambda one: setattr(one, "number", 6),
    lambda one: setattr(one, "source", "node-b"),
    lambda one: setattr(one, "function", 2),
    lambda one: setattr(one, "kind", 3),
    lambda one: setattr(one, "issued_ms", one.issued_ms - 1),
    lambda one: setattr(one, "until_ms", one.until_ms + 1),
    lambda one: setattr(one, "reason", "x"),
    lambda one: setattr(one.findings, "failing", 9),
    lambda one: setattr(one.findings, "probes", 9),
    lambda one: setattr(one.findings, "lasting_ms", 9),
    lambda one: setattr(one.signature, "suite", "sm"),
]


@pytest.mark.parametrize("change", range(len(CHANGES)))
def test_every_field_is_signed(change: int) -> None:
    signed = sign(order(OrderKind.END), TOP)
    CHANGES[change](signed)
    with pytest.raises(ZaibeiError) as refused:
        judge(signed, signed.source, ISSUERS, Ladder(), NOW_MS)
    assert refused.value.code is Code.NOT_AUTHORISED


def test_octets_that_are_no_order() -> None:
    for octets in (b"\xff\xff", bytes(20_000)):
        with pytest.raises(ZaibeiError) as refused:
            parse(octets)
        assert refused.value.code is Code.MALFORMED


def test_a_committed_order_counts_once_and_an_end_takes_the_others_away() -> None:
    group = GroupState("node-a")
    for kind, number in ((OrderKind.STANDING, 1), (OrderKind.TAKEOVER, 2)):
        taken = take_order(group, sign(order(kind, number), TOP))
        assert isinstance(taken, Moved)
        group = taken.group
    assert group.ladder.order(OrderKind.TAKEOVER, Function.REGISTRATION, NOW_MS) is not None
    again = take_order(group, sign(order(OrderKind.TAKEOVER, 2), TOP))
    assert not isinstance(again, Moved) and "replay" in again.why
    ended = take_order(group, sign(order(OrderKind.END, 3), TOP))
    assert isinstance(ended, Moved)
    assert [one.kind for one in ended.group.ladder.known] == [OrderKind.END]
    report = take_order(group, sign(order(OrderKind.PROBE_REPORT, 9), TOP))
    assert not isinstance(report, Moved)
