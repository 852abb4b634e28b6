"""History out of bundles, staleness, freezes, and what stops a drill."""

from __future__ import annotations

import asyncio
import time
from hashlib import sha256

import pytest

from chaos.drills.abort import ABORT_MS_MAX, BLIND_MS_MAX, NS_PER_MS, AbortState, Glimpse, Watch
from chaos.drills.calendar import DAY_MS, MINUTE_MS, Calendar, Freeze, blocking, parse
from chaos.drills.edge_guard import guarded
from chaos.drills.schedule import Standing, standings
from chaos.evidence.bundle import FIRST, Part, Verdict
from chaos.evidence.history import Row, State, Stored, index, newest_red
from chaos.evidence.seal import seal
from chaos.faults.fault import Fault, FaultState
from replica.model.errors import InvariantBroken, ZaibeiError
from tests.unit.chaos.sample import parts, signer

NAME = "s33-secondary-dies"
KEY = signer()


def chain(*drills: list[Part]) -> list[Stored]:
    out, previous = list[Stored](), FIRST
    for number, one in enumerate(drills, 1):
        octets = seal(one, number, previous, KEY)
        out.append(Stored(f"{number:06}-x.jsonl", number, octets))
        previous = sha256(octets).hexdigest()
    return out


# ------------------------------------------------------------------------------------------------------------ history


def test_the_index_is_what_the_bundles_say() -> None:
    rows = index(chain(parts(), parts(Verdict.FAIL, planted="no brake"), parts(Verdict.INCONCLUSIVE, receipts=None)), KEY.public)
    assert [(row.number, row.state, row.verdict, row.planted) for row in rows] == [
        (1, State.SOUND, Verdict.PASS, ""),
        (2, State.SOUND, Verdict.FAIL, "no brake"),
        (3, State.SOUND, Verdict.INCONCLUSIVE, ""),
    ]
    red = newest_red(rows, NAME, "no brake")
    assert red is not None and red.number == 2
    assert newest_red(rows, NAME, "other") is None and newest_red(rows, NAME, "") is None


def test_damage_is_shown_as_damage_and_nothing_else_is_lost() -> None:
    stored = chain(parts(), parts(), parts())
    bad = Stored(stored[1].name, 2, stored[1].octets.replace(b"SIGKILLed", b"SIGkilled"))
    rows = index([stored[0], bad, stored[2]], KEY.public)
    assert [(row.state, row.verdict) for row in rows] == [
        (State.SOUND, Verdict.PASS),
        (State.DAMAGED, None),
        (State.UNCHAINED, Verdict.PASS),
    ]
    assert [row.state for row in index([stored[0], stored[2]], KEY.public)] == [State.SOUND, State.MISSING, State.UNCHAINED]
    swapped = [Stored("000001-x.jsonl", 1, stored[1].octets), Stored("000002-x.jsonl", 2, stored[0].octets)]
    assert {row.state for row in index(swapped, KEY.public)} == {State.DAMAGED}
    assert {row.state for row in index(stored, signer(2).public)} == {State.DAMAGED}
    other = chain(parts(began_ms=5))[0]
    assert [row.state for row in index([other, *stored[1:]], KEY.public)] == [State.SOUND, State.UNCHAINED, State.SOUND]


# ------------------------------------------------------------------------------------------------------------ schedule

NOW = 1_800_000_000_000 + 50 * DAY_MS
EVERY = Calendar(every_ms={NAME: 30 * DAY_MS})


def run(number: int, verdict: Verdict | None, age_days: float, *, planted: str = "", state: State = State.SOUND) -> Row:
    return Row(number, "", state, "", NAME if verdict else "", "", planted, verdict, int(NOW - age_days * DAY_MS))


@pytest.mark.parametrize(
    ("rows", "standing"),
    [
        ([], Standing.NEVER),
        ([run(1, Verdict.PASS, 1)], Standing.FRESH),
        ([run(1, Verdict.PASS, 26.9)], Standing.FRESH),
        ([run(1, Verdict.PASS, 27.1)], Standing.DUE),
        ([run(1, Verdict.PASS, 30)], Standing.STALE),
        ([run(1, Verdict.PASS, 2), run(2, Verdict.FAIL, 1)], Standing.FAILED),
        ([run(1, Verdict.FAIL, 2), run(2, Verdict.PASS, 1)], Standing.FRESH),
        ([run(1, Verdict.PASS, 2), run(2, Verdict.INCONCLUSIVE, 1)], Standing.UNKNOWN),
        ([run(1, Verdict.PASS, 2), run(2, None, 1, state=State.DAMAGED)], Standing.UNKNOWN),
        ([run(1, None, 2, state=State.DAMAGED), run(2, Verdict.PASS, 1)], Standing.FRESH),
        ([run(1, Verdict.PASS, 1, state=State.UNCHAINED)], Standing.NEVER),
        ([run(1, Verdict.PASS, 1, planted="bug")], Standing.NEVER),  # a red run is no rehearsal
        ([run(1, Verdict.PASS, -1)], Standing.UNKNOWN),  # a clock that is wrong makes nothing fresh
    ],
)
def test_what_is_not_known_to_be_rehearsed_is_an_alarm(rows: list[Row], standing: Standing) -> None:
    (due,) = standings({NAME: "bug"}, EVERY, rows, NOW)
    assert due.standing is standing and due.red is (None if not rows or not rows[-1].planted else False)
    assert due.alarm is (standing not in (Standing.FRESH, Standing.DUE))


def test_a_red_run_that_stayed_green_is_an_alarm() -> None:
    rows = [run(1, Verdict.PASS, 1), run(2, Verdict.FAIL, 1, planted="bug")]
    assert [(one.red, one.alarm) for one in standings({NAME: "bug"}, EVERY, rows, NOW)] == [(True, False)]
    rows.append(run(3, Verdict.PASS, 1, planted="bug"))
    assert [(one.red, one.alarm) for one in standings({NAME: "bug"}, EVERY, rows, NOW)] == [(False, True)]


# ------------------------------------------------------------------------------------------------------------ freezes


def test_a_drill_that_could_run_into_a_freeze_does_not_begin() -> None:
    freeze = Freeze(100 * MINUTE_MS, 200 * MINUTE_MS, "audit")
    assert [blocking([freeze], minute * MINUTE_MS, 10) is freeze for minute in (89, 90, 91, 100, 199, 200)] == [
        False, False, True, True, True, False,
    ]  # fmt: skip
    assert blocking([], 0, 10) is None


def test_the_file() -> None:
    octets = b"""
    [[freeze]]
    from = 2026-12-31T00:00:00+08:00
    until = 2026-12-31T00:00:00Z
    reason = "year end"
    [[schedule]]
    scenario = "s33-secondary-dies"
    every_days = 7
    """
    calendar = parse(octets, [NAME, "s26"])
    assert calendar.freezes[0].until_ms - calendar.freezes[0].from_ms == 8 * 3_600_000
    assert (calendar.every(NAME), calendar.every("s26")) == (7 * DAY_MS, 30 * DAY_MS)
    assert parse(b"", []) == Calendar((), {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x =", "no TOML"),
        ("x = 1", "unknown key 'x'"),
        ("freeze = 1", "write [[freeze]]"),
        ('[[freeze]]\nfrom = 2026-01-01T00:00:00\nuntil = 2026-01-02T00:00:00Z\nreason = "r"', "with its zone"),
        ('[[freeze]]\nfrom = 2026-01-02T00:00:00Z\nuntil = 2026-01-01T00:00:00Z\nreason = "r"', "end after it begins"),
        ('[[freeze]]\nfrom = 2026-01-01T00:00:00Z\nuntil = 2028-01-01T00:00:00Z\nreason = "r"', "366 days"),
        ("[[freeze]]\nfrom = 2026-01-01T00:00:00Z\nuntil = 2026-01-02T00:00:00Z", "has a reason"),
        ('[[freeze]]\nfrom = 2026-01-01T00:00:00Z\nuntil = 2026-01-02T00:00:00Z\nreason = "r"\nto = 1', "unknown key 'to'"),
        ('[[schedule]]\nscenario = "s99"\nevery_days = 1', "no such scenario"),
        (f'[[schedule]]\nscenario = "{NAME}"\nevery_days = 0', "whole number"),
        (f'[[schedule]]\nscenario = "{NAME}"\nevery_days = true', "whole number"),
    ],
)
def test_a_calendar_with_a_fault_is_no_calendar(text: str, said: str) -> None:
    with pytest.raises(ZaibeiError) as caught:
        parse(text.encode(), [NAME])
    assert said in caught.value.trouble.message


# ------------------------------------------------------------------------------------------------------------ aborts


def ms(value: float) -> int:
    return int(value * NS_PER_MS)


def test_the_error_budget() -> None:
    for mirrored, differing, stops in ((10, 1, False), (10, 2, True), (5_000, 5, False), (5_000, 6, True), (0, 0, False)):
        watch = Watch(0, 1)
        watch.saw(Glimpse((), mirrored, differing), ms(1))
        assert bool(watch.tick(ms(2))) is stops, (mirrored, differing)


def test_incident_blindness_and_time() -> None:
    watch = Watch(0, 1)
    watch.saw(Glimpse(("node-b is SUSPECT",)), ms(10))
    assert "node-b" in watch.tick(ms(11)) and watch.state is AbortState.ABORTED
    watch.saw(Glimpse(), ms(20))
    assert watch.tick(ms(21)), "aborted is final"
    watch = Watch(0, 1)
    assert not any(watch.tick(ms(at)) for at in range(0, BLIND_MS_MAX + 1, 100))
    assert "nothing was seen" in watch.tick(ms(BLIND_MS_MAX + 1))
    watch = Watch(0, 1)
    assert not watch.tick(ms(2_000)), "the watch itself stood still: that is not blindness"
    assert not watch.tick(ms(2_500)) and not watch.tick(ms(2_600))
    assert any(watch.tick(ms(at)) for at in range(2_700, 3_600, 100))
    watch = Watch(0, 1)
    watch.saw(Glimpse(), ms(59_999))
    assert not watch.tick(ms(59_999)) and watch.tick(ms(60_000)) == "its time is over"
    watch = Watch(0, 1)
    watch.end()
    assert not watch.tick(ms(99_999_999)) and watch.state is AbortState.ENDED
    with pytest.raises(InvariantBroken):
        watch._move(AbortState.ABORTED)


@pytest.mark.parametrize("trouble", ["incident", "hanging look", "failing look"])
async def test_an_incident_stops_a_drill_within_a_second_and_everything_heals(trouble: str) -> None:
    broken, troubled_ns = list[str](), 0

    async def begin() -> None:
        broken.append("broken")

    async def heal() -> None:
        await asyncio.sleep(0.05)
        broken.clear()

    fault = Fault("a fault", begin, heal)

    async def work() -> None:
        async with fault:
            await asyncio.sleep(60)

    async def look() -> Glimpse:
        nonlocal troubled_ns
        if not broken or time.monotonic_ns() - began_ns < ms(300):
            return Glimpse()
        troubled_ns = troubled_ns or time.monotonic_ns()
        if trouble == "hanging look":
            await asyncio.sleep(60)
        if trouble == "failing look":
            raise OSError("no answer")
        return Glimpse(("node-b is taken over",))

    late_ms = 0.0

    async def lateness() -> None:
        nonlocal late_ms
        while True:
            before_ns = time.monotonic_ns()
            await asyncio.sleep(0.01)
            late_ms = max(late_ms, (time.monotonic_ns() - before_ns) / NS_PER_MS - 10)

    began_ns, own = time.monotonic_ns(), asyncio.create_task(lateness())
    ended = await guarded(work, look, 1)
    own.cancel()
    assert ended.reason and not broken and fault.state is FaultState.HEALED
    assert ended.stopped_ns is not None
    assert (ended.stopped_ns - troubled_ns) / NS_PER_MS < ABORT_MS_MAX + late_ms, "what a busy machine was late is not ours"


async def test_a_drill_that_ends_by_itself_is_not_aborted_and_its_own_trouble_is_told() -> None:
    async def look() -> Glimpse:
        return Glimpse()

    async def short() -> None:
        await asyncio.sleep(0.01)

    async def wrong() -> None:
        raise ValueError("the drill's own")

    assert (await guarded(short, look, 1)).reason == ""
    with pytest.raises(ValueError, match="own"):
        await guarded(wrong, look, 1)
