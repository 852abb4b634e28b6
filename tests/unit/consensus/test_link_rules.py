"""Pure rules of links: frames, what waits, silence and round trips, when to call again, and whose Hello is believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replica.consensus.link_checks import ADDRESSES_MAX, PLACES_MAX, check_again, check_hello, check_table
from replica.consensus.link_frames import TURN_OCTETS, Outbox, Slot, batch, varint
from replica.consensus.link_pace import (
    AHEAD_MS,
    AHEAD_OCTETS_MIN,
    AHEAD_OCTETS_START,
    RATES_KEPT,
    ROUND_TRIP_MS_MAX,
    Pace,
)
from replica.consensus.link_port import BATCH_OCTETS_MAX, LinkKeys, LinkLimits, Reason, Refused
from replica.consensus.link_watch import BEATS_MAX, BULK_OCTETS, BeatWatch, Punctuality, backoff_ms, hello_ms
from replica.model.errors import InvariantBroken
from replica.v1 import peer_pb2

LIMITS = LinkLimits()
Hello = peer_pb2.Hello

# ---------------------------------------------------------------------------------------------------------------- frames


@given(st.lists(st.builds(peer_pb2.GroupMessage, group=st.integers(0, 2**64 - 1), context=st.binary(max_size=300)), max_size=9))
def test_a_batch_is_what_protobuf_would_have_written(messages: list[peer_pb2.GroupMessage]) -> None:
    octets = batch([message.SerializeToString() for message in messages])
    assert octets == peer_pb2.LinkMessage(messages=peer_pb2.GroupMessages(messages=messages)).SerializeToString()


def test_varints_at_their_edges() -> None:
    assert [varint(n) for n in (0, 127, 128, 16_384)] == [b"\x00", b"\x7f", b"\x80\x01", b"\x80\x80\x01"]


def test_what_waits_once_leaves_first_and_newest() -> None:
    outbox = Outbox(LIMITS)
    outbox.put(b"")
    for serial in (1, 2):
        outbox.put_newest(Slot.BEAT, peer_pb2.LinkMessage(beat=peer_pb2.LinkBeat(serial=serial)))
    outbox.put_newest(Slot.HELLO, peer_pb2.LinkMessage(hello=Hello(member=1)))
    taken = [peer_pb2.LinkMessage.FromString(outbox.take() or b"") for _ in range(3)]
    assert [message.WhichOneof("body") for message in taken] == ["hello", "beat", "messages"]
    assert taken[1].beat.serial == 2 and outbox.take() is None


@given(st.lists(st.integers(0, 2 * BATCH_OCTETS_MAX), max_size=8))
def test_batches_keep_order_and_size(sizes: list[int]) -> None:
    outbox = Outbox(LIMITS)
    for group, size in enumerate(sizes, 1):
        assert outbox.put(peer_pb2.GroupMessage(group=group, context=bytes(size)).SerializeToString())
    arrived: list[int] = []
    while (octets := outbox.take()) is not None:
        groups = [message.group for message in peer_pb2.LinkMessage.FromString(octets).messages.messages]
        assert groups and (len(groups) == 1 or len(octets) <= BATCH_OCTETS_MAX + 16 * len(groups))
        arrived += groups
    assert arrived == list(range(1, len(sizes) + 1))


def test_a_full_outbox_takes_nothing_and_an_empty_one_anything() -> None:
    outbox = Outbox(replace(LIMITS, queue_octets_max=10, queue_messages_max=2))
    assert outbox.put(bytes(50)) and not outbox.put(b"")
    outbox.take()
    assert outbox.put(b"a") and outbox.put(b"b") and not outbox.put(b"c")
    assert outbox.put(b"d", group=7) and not outbox.put(b"e", group=7)  # whose queue is full is another group's fault once only
    outbox.take()
    assert outbox.put(b"c")


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, BATCH_OCTETS_MAX)), max_size=20), st.data())
def test_a_group_with_little_to_say_waits_for_one_turn_of_each_other_group(
    sent: list[tuple[int, int]], data: st.DataObject
) -> None:
    outbox, before = Outbox(LIMITS), {group: list[int]() for group in range(1, 5)}
    for serial, (group, size) in enumerate(sent):
        message = peer_pb2.GroupMessage(group=group, index=serial, context=bytes(size))
        assert outbox.put(message.SerializeToString(), group)
    for _ in range(data.draw(st.integers(0, 3))):
        outbox.take()
    outbox.put(peer_pb2.GroupMessage(group=4, index=99).SerializeToString(), 4)
    last = dict.fromkeys(range(1, 5), -1)
    while (octets := outbox.take()) is not None:
        for message in peer_pb2.LinkMessage.FromString(octets).messages.messages:
            assert message.index > last[message.group]  # in order within a group
            last[message.group] = message.index
            if last[4] < 0:
                before[message.group].append(message.ByteSize())
    assert last[4] == 99
    assert all(len(before[group]) <= 1 or sum(before[group]) <= TURN_OCTETS for group in (1, 2, 3))


def test_many_small_messages_of_a_group_leave_in_one_turn_beside_large_ones_of_another() -> None:
    outbox = Outbox(LIMITS)
    for _ in range(3):
        outbox.put(bytes(BATCH_OCTETS_MAX), 1)
    assert outbox.take()  # a large one is on its way
    for _ in range(50):
        outbox.put(bytes(100), 2)
    octets = outbox.take()
    assert octets is not None and 5_000 < len(octets) < BATCH_OCTETS_MAX, "all that waited of it leave before the next large one"
    octets = outbox.take(1)
    assert octets is not None and len(octets) > BATCH_OCTETS_MAX, "of what does not fit one goes all the same"


def test_messages_wait_where_none_may_leave_and_what_waits_once_does_not() -> None:
    outbox = Outbox(LIMITS)
    outbox.put(b"", 1)
    outbox.put_newest(Slot.BEAT, peer_pb2.LinkMessage(beat=peer_pb2.LinkBeat(serial=1)))
    beat = outbox.take(0)
    assert beat is not None and peer_pb2.LinkMessage.FromString(beat).HasField("beat")
    assert outbox.take(0) is None and outbox.waiting and outbox.take() is not None and not outbox.waiting


# ----------------------------------------------------------------------------------------------------------------- time


def test_silence_is_counted_from_the_last_answer() -> None:
    watch = BeatWatch(LIMITS, 0)
    serial = watch.beat(100)
    assert watch.answered(serial, 103) and list(watch.round_trips_ms) == [3]
    assert watch.silent(1_103, None) == "" and "1001 ms" in watch.silent(1_104, None)
    watch.excuse(4_000)
    assert watch.silent(5_103, None) == "" and watch.silent(5_104, None)


def test_a_slow_line_is_no_dead_one() -> None:
    watch = BeatWatch(LIMITS, 0)
    watch.beat(0)
    watch.wrote(BULK_OCTETS + 1)
    watch.beat(100)
    assert watch.silent(2_000, None) and watch.silent(2_000, 900) and watch.silent(10_001, 10_000)
    assert watch.silent(2_000, 1_900) == ""
    watch.answered(2, 2_000)  # what was written before that beat has arrived
    assert watch.silent(3_001, 3_000)


def test_answers_count_once_and_only_to_beats_of_ours() -> None:
    watch = BeatWatch(LIMITS, 0)
    first, second = watch.beat(0), watch.beat(100)
    assert watch.answered(second, 150) and watch.answered(first, 160) and watch.answered(second, 170)
    assert list(watch.round_trips_ms) == [50]
    assert not watch.answered(0, 200) and not watch.answered(3, 200)
    for at_ms in range(BEATS_MAX + 10):
        watch.beat(at_ms)
    assert watch.answered(3, 300) and list(watch.round_trips_ms) == [50]


def line(octets_per_ms: float, ends_ms: int, *, trip_ms: int = 0, paced: bool = True) -> tuple[float, float]:
    """Always as much as may be over a line with a buffer without end: (longest time on its way in ms, share of the line used)."""
    watch, written, carried, longest = BeatWatch(LIMITS, 0), 0, 0.0, 0.0
    beats: list[tuple[int, int]] = []  # serial, octets before it
    due: list[tuple[int, int]] = []  # when its answer is here, serial
    asked = False
    for now_ms in range(ends_ms):
        carried = min(written, carried + octets_per_ms)
        while beats and beats[0][1] <= carried:
            due.append((now_ms + trip_ms, beats.pop(0)[0]))
        while due and due[0][0] <= now_ms:
            watch.answered(due.pop(0)[1], now_ms)
            asked = False
        for _ in range(256):
            if paced and not watch.room():
                break
            written += BATCH_OCTETS_MAX
            watch.wrote(BATCH_OCTETS_MAX)
            longest = max(longest, (written - carried) / octets_per_ms)
        if not asked or now_ms % LIMITS.beat_ms == 0:
            beats.append((watch.beat(now_ms), written))
            asked = True
    return longest, carried / (octets_per_ms * ends_ms)


@pytest.mark.parametrize(("octets_per_ms", "trip_ms"), [(125, 0), (125, 40), (125, 250), (1_000, 40), (20_000, 1)])
def test_little_is_on_its_way_and_the_line_does_not_stand_idle(octets_per_ms: int, trip_ms: int) -> None:
    a_batch_ms = BATCH_OCTETS_MAX / octets_per_ms
    at_first_ms = AHEAD_OCTETS_START / octets_per_ms
    longest, used = line(octets_per_ms, 10_000, trip_ms=trip_ms)
    assert longest <= max(at_first_ms, AHEAD_MS + ROUND_TRIP_MS_MAX) + a_batch_ms + 1
    assert used >= (0.6 if trip_ms > 200 else 0.8)
    assert line(octets_per_ms, 2_000, trip_ms=trip_ms, paced=False)[0] > 2 * longest, "else it is as much as buffers hold"


def held(pace: Pace, octets_per_ms: int, times: int) -> None:
    """Messages wait, and so much comes."""
    for _ in range(times):
        assert not pace.room(pace.octets_max)
        pace.answered(10, pace.octets_max, pace.octets_max / octets_per_ms)


def test_a_line_that_becomes_narrow_is_measured_anew_at_once() -> None:
    pace = Pace()
    held(pace, 20_000, 10)
    assert pace.octets_max == 20_000 * (AHEAD_MS + 10)
    held(pace, 125, RATES_KEPT)
    assert pace.octets_max == AHEAD_OCTETS_MIN


def test_a_quiet_line_is_not_taken_for_a_narrow_one() -> None:
    pace = Pace()
    held(pace, 20_000, 10)
    before = pace.octets_max
    for _ in range(1_000):
        pace.answered(1, 100, 100)
    assert pace.octets_max == before > AHEAD_OCTETS_START


def test_what_a_narrow_line_lets_pass_at_once_is_not_its_rate() -> None:
    pace = Pace()
    pace.answered(1, AHEAD_OCTETS_MIN - 1, 1)
    assert pace.octets_max == AHEAD_OCTETS_START
    pace.answered(1, AHEAD_OCTETS_MIN, 1)
    assert pace.octets_max == 2 * AHEAD_OCTETS_START, "nor is it believed at once"


def test_of_a_late_look_the_delay_is_our_own() -> None:
    punctuality = Punctuality(LIMITS, 0)
    assert [punctuality.late_ms(at_ms) for at_ms in (100, 290, 500, 600)] == [0, 0, 110, 0]


@given(st.integers(0, 100), st.integers())
def test_the_back_off_rises_within_bounds(attempt: int, seed: int) -> None:
    pause_ms = backoff_ms(attempt, Random(seed), LIMITS)
    top = min(500, 20 * 2 ** max(attempt - 1, 0))
    assert top / 2 <= pause_ms <= top


def test_a_hello_that_had_too_little_time_gets_more() -> None:
    assert [hello_ms(slow, LIMITS) for slow in (0, 1, 2, 3, 99)] == [1_000, 2_000, 4_000, 4_000, 4_000]


def test_limits_that_make_no_sense_are_refused() -> None:
    for wrong in (
        {"beat_ms": 0},
        {"hello_ms_slow": 999},
        {"silent_ms_max": 50},
        {"backoff_ms_min": 900},
        {"queue_octets_max": 0},
    ):
        with pytest.raises(InvariantBroken):
            LinkLimits(**wrong)
    assert "secret" not in repr(LinkKeys(b"", b"secret", b""))


# ---------------------------------------------------------------------------------------------------------------- hello

OWN = Hello(format=1, cluster=b"c" * 16, lineage=b"l" * 16, member=1, name="a", journal=b"1" * 16, boot=3)
OTHER = Hello(format=1, cluster=b"c" * 16, lineage=b"l" * 16, member=2, name="b", journal=b"2" * 16, boot=1)
KNOWN = {1: b"1" * 16, 2: b"2" * 16, 3: b"3" * 16}


def hello(change: Callable[[Hello], object] = lambda _: None) -> Hello:
    other = Hello()
    other.CopyFrom(OTHER)
    change(other)
    return other


def place(one: Hello, **lists: list[str]) -> None:
    one.places.add(member=3, name="c", **lists)


def test_a_member_of_ours_is_believed() -> None:
    check_hello(hello(), OWN, (2, "b"), KNOWN)
    check_hello(hello(), OWN, (2, "b"), {})


@pytest.mark.parametrize(
    ("reason", "text", "change"),
    [
        (Reason.FORMAT, "one release", lambda one: setattr(one, "format", 2)),
        (Reason.CLUSTER, "of cluster 6464", lambda one: setattr(one, "cluster", b"d" * 16)),
        (Reason.CLUSTER, "(none)", lambda one: setattr(one, "cluster", b"")),
        (Reason.LINEAGE, "of lineage 6464", lambda one: setattr(one, "lineage", b"d" * 16)),
        (Reason.OURSELVES, "one number", lambda one: setattr(one, "member", 1)),
        (Reason.OURSELVES, "itself", lambda one: one.MergeFrom(Hello(member=1, journal=b"1" * 16))),
        (Reason.MEMBER, "calls itself 3 (b)", lambda one: setattr(one, "member", 3)),
        (Reason.MEMBER, "calls itself 2 (x)", lambda one: setattr(one, "name", "x")),
        (Reason.MALFORMED, "without a journal", lambda one: setattr(one, "journal", b"")),
        (Reason.MALFORMED, "without a journal", lambda one: setattr(one, "boot", 0)),
        (Reason.JOURNAL, "cluster replace b", lambda one: setattr(one, "journal", b"9" * 16)),
        (Reason.OVERSIZED, "too long", lambda one: setattr(one, "zone", "z" * 257)),
        (Reason.OVERSIZED, "too long", lambda one: place(one, links=["x" * 257])),
        (Reason.OVERSIZED, "addresses", lambda one: place(one, feeds=["x"] * (ADDRESSES_MAX + 1))),
        (Reason.OVERSIZED, "members", lambda one: one.places.extend([peer_pb2.MemberPlace()] * (PLACES_MAX + 1))),
        (Reason.MALFORMED, "twice", lambda one: [one.groups.add(group=7) for _ in range(2)]),
        (Reason.MALFORMED, "none", lambda one: one.groups.add()),
    ],
)
def test_who_is_not_believed_and_why(reason: Reason, text: str, change: Callable[[Hello], object]) -> None:
    with pytest.raises(Refused, match=text.replace("(", r"\(").replace(")", r"\)")) as caught:
        check_hello(hello(change), OWN, (2, "b"), KNOWN)
    assert caught.value.reason is reason


def test_a_copied_folder_is_found_by_its_journal() -> None:
    with pytest.raises(Refused, match="member 3's"):
        check_hello(hello(lambda one: setattr(one, "journal", b"3" * 16)), OWN, (2, "b"), {3: b"3" * 16})
    with pytest.raises(Refused, match="member 1's"):
        check_hello(hello(lambda one: setattr(one, "journal", b"1" * 16)), OWN, (2, "b"), {1: b"1" * 16})


def test_a_certificate_of_our_own_number_is_refused_whatever_the_hello_says() -> None:
    with pytest.raises(Refused) as caught:
        check_hello(hello(), OWN, (1, "a"), KNOWN)
    assert caught.value.reason is Reason.OURSELVES


def test_within_a_call_a_member_stays_itself() -> None:
    check_again(hello(lambda one: setattr(one, "zone", "west")), OTHER)
    for change in ({"boot": 2}, {"journal": b"9" * 16}, {"member": 3}):
        with pytest.raises(Refused):
            check_again(hello(lambda one, change=change: one.MergeFrom(Hello(**change))), OTHER)  # type: ignore[misc]


def test_a_table_has_an_end() -> None:
    with pytest.raises(Refused):
        check_table([None] * 100_001)
