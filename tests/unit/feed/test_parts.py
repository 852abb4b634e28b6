"""Small pure parts of the feed: placing, freshness, datagram beats, hold decisions, admission."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from replica.feed.admission import NOT_OWNER, Rights, brake_verdict, judge, judge_part, put_keys
from replica.feed.decision import HoldPlan, approval_octets, decision_entry
from replica.feed.freshness import CopyAge, Vouching, freshness_of
from replica.feed.limits import FeedLimits
from replica.feed.placing import Place, place_batch, place_head
from replica.model.batch import Change, columns_of, cut_batch
from replica.model.beat import BEAT_OCTETS_MAX, HeadBeat, decode_beat, encode_beat, peek_stream
from replica.model.brake import BrakeWindows, LiveCounts
from replica.model.errors import Code, ZaibeiError
from replica.model.group_state import Hold
from replica.model.identifier import document_key, prefix_key
from replica.model.position import ORIGIN, Position, epoch_start
from replica.model.signing import Signer
from replica.model.states import Authority, Freshness
from replica.v1 import entry_pb2
from tests.simulation.feed_world import LINEAGE, SOURCE, delete, key, put, record

START = epoch_start(ORIGIN, LINEAGE, 3)
MS = 1_000_000
SECOND_NS = 1_000 * MS


def at(seq: int, epoch: int = 3, mark: int = 0, lineage: bytes = LINEAGE) -> Position:
    return Position(lineage, epoch, seq, bytes([mark]) * 31 + bytes([seq % 256]))


OURS = {seq: at(seq) for seq in (0, 2, 5, 9)}


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        (at(9), at(12), Place.FOLLOWS),
        (at(5), at(9), Place.DUPLICATE),
        (at(2), at(5), Place.DUPLICATE),
        (at(12), at(13), Place.GAP),
        (at(9, mark=7), at(12, mark=7), Place.FORKED),
        (at(5), at(9, mark=7), Place.FORKED),
        (at(5, mark=7), at(8, mark=7), Place.FORKED),
        (at(5), at(12), Place.FORKED),
        (at(9, epoch=4), at(12, epoch=4), Place.FORKED),
        (at(9, epoch=2), at(12, epoch=2), Place.FENCED),
        (at(9, lineage=b"\x22" * 16), at(12, lineage=b"\x22" * 16), Place.FENCED),
        (at(3), at(4), Place.DUPLICATE),
    ],
)
def test_place_of_a_batch(before: Position, after: Position, place: Place) -> None:
    placed = place_batch(before, after, [OURS[9]], START, lambda epoch, seq: OURS.get(seq) if epoch == 3 else None)
    assert placed.place is place, placed
    if place in (Place.GAP, Place.FORKED, Place.FENCED):
        assert placed.reason


def test_a_batch_may_follow_either_generation() -> None:
    for tail in (OURS[5], OURS[9]):
        assert place_batch(tail, at(20), [OURS[5], OURS[9]], START, lambda *_: None).place is Place.FOLLOWS


@pytest.mark.parametrize(
    ("head", "place"),
    [
        (at(9), Place.FOLLOWS),
        (at(99), Place.FOLLOWS),
        (at(8), Place.FORKED),
        (at(9, mark=1), Place.FORKED),
        (ORIGIN, Place.FENCED),
    ],
)
def test_place_of_a_head(head: Position, place: Place) -> None:
    assert place_head(head, OURS[9], START).place is place


# -- freshness (SEMANTICS 4)


def test_age_counts_from_when_we_sent_the_nonce() -> None:
    age = CopyAge()
    age.nonce_sent(b"n1", 10 * SECOND_NS)
    age.applied(at(5))
    assert age.age_ms(11 * SECOND_NS) is None
    assert age.beat(at(5), b"n1")
    assert age.age_ms(11 * SECOND_NS) == 1_000


def test_a_head_not_reached_says_nothing_until_it_is() -> None:
    age = CopyAge()
    age.nonce_sent(b"n1", 0)
    age.applied(at(5))
    age.beat(at(9), b"n1")
    assert age.age_ms(SECOND_NS) is None
    assert age.lag(SECOND_NS).changes == 4
    age.applied(at(9))
    assert age.age_ms(SECOND_NS) == 1_000


def test_nonces_of_another_stream_say_nothing() -> None:
    age = CopyAge()
    age.applied(at(5))
    age.nonce_sent(b"old", 0)
    age.stream_opened()
    assert not age.beat(at(5), b"old")
    assert not age.beat(at(5), b"never sent")
    assert age.age_ms(SECOND_NS) is None


def test_lag_is_unknown_within_two_seconds() -> None:
    age = CopyAge()
    age.nonce_sent(b"n1", 0)
    age.applied(at(5))
    age.beat(at(5), b"n1")
    assert age.lag(2 * SECOND_NS).changes == 0
    assert age.lag(2 * SECOND_NS + 1).changes is None


@pytest.mark.parametrize(
    ("age_ms", "how", "named"),
    [
        (2_000, Vouching(), Freshness.FRESH),
        (2_001, Vouching(), Freshness.STALE_BOUNDED),
        (300_000, Vouching(), Freshness.STALE_BOUNDED),
        (300_001, Vouching(), Freshness.EXPIRED),
        (None, Vouching(), Freshness.EXPIRED),
        (None, Vouching(Authority.RESOLUTION), Freshness.DEGRADED),
        (10**9, Vouching(Authority.RESOLUTION), Freshness.DEGRADED),
        (None, Vouching(Authority.REGISTRATION), Freshness.FRESH),
        (400_000, Vouching(leader_silent_ms=3_000, probes_alive=False), Freshness.DEGRADED),
        (400_000, Vouching(leader_silent_ms=3_000, probes_alive=True), Freshness.EXPIRED),
        (400_000, Vouching(leader_silent_ms=3_000, probes_alive=None), Freshness.EXPIRED),
        (10**9, Vouching(leader_silent_ms=24 * 3_600_000 + 1, probes_alive=False), Freshness.EXPIRED),
    ],
)
def test_named_freshness(age_ms: int | None, how: Vouching, named: Freshness) -> None:
    assert freshness_of(age_ms, how) is named


# -- datagram beats

KEY = bytes(range(32))


def beat(name: str = SOURCE) -> HeadBeat:
    return HeadBeat(name, at(7), bytes(16))


def test_beat_round_trip_and_size() -> None:
    heads = [beat("s" * 63)] * 8
    datagram = encode_beat(KEY, 2**63, heads)
    assert len(datagram) <= BEAT_OCTETS_MAX
    decoded = decode_beat(KEY, datagram)
    assert (decoded.counter, decoded.heads, decoded.stream) == (2**63, tuple(heads), peek_stream(datagram))


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_beat_is_refused(place: int, flip: int) -> None:
    datagram = bytearray(encode_beat(KEY, 5, [beat()]))
    datagram[place % len(datagram)] ^= flip
    with pytest.raises(ZaibeiError):
        decode_beat(KEY, bytes(datagram))


@given(st.binary(max_size=1_300))
def test_hostile_beats(octets: bytes) -> None:
    with pytest.raises(ZaibeiError):
        decode_beat(KEY, octets)


def test_authentic_octets_that_break_the_format() -> None:
    import hmac

    good = encode_beat(KEY, 5, [beat()])
    for body in (good[:-20], good[:17] + b"\x02" + good[18:-16], good[:-16] + b"x"):
        with pytest.raises(ZaibeiError) as caught:
            decode_beat(KEY, body + hmac.digest(KEY, body, "sha256")[:16])
        assert caught.value.code is Code.MALFORMED


# -- release and discard of what is held (SEMANTICS 2.3)

PEOPLE = {name: Signer(Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"."))) for name in ("an", "bo", "chen")}
PUBLICS = {name: signer.public for name, signer in PEOPLE.items()}
PLAN = HoldPlan(SOURCE, Hold("1-190", at(9), "40 %", b"batch", 0, 5), True, 160, 0)


def signed(plan: HoldPlan, *names: str) -> list[entry_pb2.Approval]:
    return [entry_pb2.Approval(operator=name, signature=PEOPLE[name].sign(approval_octets(plan.text()))) for name in names]


def test_two_people_decide() -> None:
    entry = decision_entry(PLAN, signed(PLAN, "an", "bo"), PUBLICS, 7)
    assert (entry.decision.hold, entry.decision.release, entry.decision.plan) == ("1-190", True, PLAN.text())
    assert len(PLAN.token()) == 16


@pytest.mark.parametrize(
    "approvals",
    [
        signed(PLAN, "an"),
        signed(PLAN, "an", "an"),
        signed(PLAN, "an") + signed(HoldPlan(SOURCE, PLAN.hold, False, 160, 0), "bo"),
        [*signed(PLAN, "an"), entry_pb2.Approval(operator="bo", signature=PEOPLE["an"].sign(approval_octets(PLAN.text())))],
        [*signed(PLAN, "an"), entry_pb2.Approval(operator="nobody", signature=PEOPLE["bo"].sign(approval_octets(PLAN.text())))],
    ],
    ids=["one", "one twice", "another plan", "signed for another", "no operator"],
)
def test_less_than_two_people_do_not(approvals: list[entry_pb2.Approval]) -> None:
    with pytest.raises(ZaibeiError) as caught:
        decision_entry(PLAN, approvals, PUBLICS, 7)
    assert caught.value.code is Code.NOT_AUTHORISED


def test_one_key_under_two_names_is_one_person() -> None:
    approvals = signed(PLAN, "an")
    approvals.append(entry_pb2.Approval(operator="bo", signature=approvals[0].signature))
    with pytest.raises(ZaibeiError):
        decision_entry(PLAN, approvals, {"an": PUBLICS["an"], "bo": PUBLICS["an"]}, 7)


# -- admission

PINNED = frozenset({prefix_key("88.118")})


def rights(owned: frozenset[bytes] | None = None, delegated: dict[bytes, str] | None = None) -> Rights:
    return Rights(SOURCE, PINNED, owned, lambda prefix: (delegated or {}).get(prefix))


def judged(*changes: Change):  # type: ignore[no-untyped-def]
    return judge(cut_batch(SOURCE, START, columns_of(changes), len(changes), 0).raw, rights())


@pytest.mark.parametrize(
    ("part", "allowed"),
    [
        (prefix_key("88.118"), True),
        (prefix_key("88.118.9"), True),
        (prefix_key("88"), False),
        (prefix_key("88.1180"), False),
        (b"p" + prefix_key("88.118.9"), True),
        (b"p" + prefix_key("88.118"), False),
        (document_key("operator", "1").partition(b"\0")[0], True),
    ],
)
def test_rights(part: bytes, allowed: bool) -> None:
    assert rights().allows(part) is allowed
    if part != document_key("operator", "1").partition(b"\0")[0]:
        assert not rights(owned=frozenset()).allows(part)


def test_a_delegated_prefix_belongs_to_its_owner_alone() -> None:
    inner = prefix_key("88.118.9")
    assert not rights(delegated={inner: "another"}).allows(inner)
    assert rights(delegated={inner: SOURCE}).allows(inner)


def test_one_bad_record_does_not_stop_the_others() -> None:
    found = judged(put("A"), Change(1, key("B"), b"\x01\0"), put("C", prefix="88.999"), delete("D"))
    assert found.quarantined == [(1, "value_truncated"), (2, NOT_OWNER)]


def test_a_snapshot_is_judged_like_its_batches() -> None:
    changes = [put("A"), Change(1, key("B"), b"\x01\0"), put("C", prefix="88.999")]
    assert judge_part(columns_of(changes), rights()) == [(2, NOT_OWNER)], "what the octets show, the loader finds"
    with pytest.raises(ZaibeiError) as caught:
        judge_part(columns_of(changes)[:-1], rights())
    assert caught.value.code is Code.MALFORMED


def test_look_ups_only_when_it_could_trip() -> None:
    batch = judged(*[put(f"N{place}") for place in range(200)])
    keys = put_keys(batch)
    many = LiveCounts({prefix_key("88.118"): 10_000})
    few = LiveCounts({prefix_key("88.118"): 50})
    verdict = brake_verdict(batch, BrakeWindows(), [], 10**12, many, None)
    assert verdict is not None and not verdict.trips and not verdict.exact
    assert brake_verdict(batch, BrakeWindows(), [], 10**12, few, None) is None, "somebody must look"
    new = brake_verdict(batch, BrakeWindows(), [], 10**12, few, frozenset())
    assert new is not None and new.exact and not new.trips, "new records are no rewriting"
    rewritten = brake_verdict(batch, BrakeWindows(), [], 10**12, few, frozenset(keys))
    assert rewritten is not None and rewritten.trips, "held ones are"


def test_nothing_in_the_product_switches_the_brake_off() -> None:
    root = Path(__file__).resolve().parents[3]
    product = [path for room in ("replica", "hosting", "chaos", "ops") for path in (root / room).rglob("*.py")]
    assert len(product) > 100 and FeedLimits().brake
    assert [path.name for path in product if re.search(r"\bbrake\s*=\s*(False|0)\b", path.read_text())] == []


def test_limits_are_checked() -> None:
    for wrong in ({"credit_batches": 0}, {"credit_octets": 10}, {"beat_interval_ms": 1}, {"nonce_interval_ns": 1}):
        with pytest.raises(ZaibeiError):
            FeedLimits(**wrong)


def test_records_of_the_tests_are_sound() -> None:
    assert judged(put("A"), Change(1, key("B"), record("x"))).quarantined == []
