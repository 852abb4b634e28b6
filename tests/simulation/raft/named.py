"""Named schedules: for each fault of raftos 0.2.6 and PySyncObj 0.3.17 one in which that library lost data or stood still.

Each is a setting and events like any story; the seed still decides delays, so that a schedule is tried with several. Those for
single rules of the design are in named_rules.py and named_amnesia.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.simulation.raft import named_amnesia, named_rules
from tests.simulation.raft.setting import PLAIN, Event, Setting

Schedule = Callable[[], tuple[Setting, list[Event]]]


def _compactions() -> tuple[Setting, list[Event]]:
    """All are killed soon after their journals were compacted."""
    events: list[Event] = []
    for at in (25.0, 50.0, 75.0):
        events += [{"at": at, "do": "store", "member": member, "keep": 1} for member in (1, 2, 3)]
        events.append({"at": at + 0.9, "do": "crash_all", "back": 0.5})
    return PLAIN, events


def _restarts() -> tuple[Setting, list[Event]]:
    """Leaders die and come back; then all at once; the journal is compacted between."""
    events: list[Event] = []
    for round_ in range(3):
        at = 20.0 + 20 * round_
        events += [{"at": at + member, "do": "crash", "member": member, "back": 4.0} for member in (1, 2, 3)]
        events += [{"at": at + 9 + member, "do": "store", "member": member, "keep": 4} for member in (1, 2, 3)]
        events.append({"at": at + 15, "do": "crash_all", "back": 0.5})
    return PLAIN, events


def _votes() -> tuple[Setting, list[Event]]:
    """A voter restarts after it voted; another candidate, who has not heard of that term, asks it for the same one."""
    events: list[Event] = []
    for at in (15.0, 55.0):
        events += [
            {"at": at, "do": "lead", "group": 1, "to": 1},
            *[{"at": at + 4.9, "do": "clock_stands", "member": member, "ticks": 14.0} for member in (2, 3)],
            {"at": at + 5, "do": "crash", "member": 1, "back": 5.0},
            {"at": at + 15.4, "do": "cut", "source": 1, "to": 3, "ticks": 8.0},
            {"at": at + 15.6, "do": "campaign", "group": 1, "member": 1},
            {"at": at + 16.7, "do": "partition", "side": [1], "ticks": 8.0},
            {"at": at + 16.7, "do": "crash", "member": 2, "back": 0.2},
            {"at": at + 18.2, "do": "campaign", "group": 1, "member": 3},
        ]
    return replace(PLAIN, pre_vote=False, flush_spread=0.1, weather={"delay_spread": 0.2}), events


def _four() -> tuple[Setting, list[Event]]:
    """Four members, cut in two halves."""
    events: list[Event] = [{"at": at, "do": "partition", "side": [1, 2], "ticks": 18.0} for at in (15.0, 45.0, 70.0)]
    events += [
        {"at": at + 4, "do": "campaign", "group": 1, "member": member} for at in (15.0, 45.0, 70.0) for member in (1, 2, 3, 4)
    ]
    return replace(PLAIN, members=4, voters=[[1, 2, 3, 4]], pre_vote=False), events


def _doubled_votes() -> tuple[Setting, list[Event]]:
    """Five members, two of them cut off; most messages come twice."""
    weather = {"double": 0.9, "late_ticks": 1.0}
    events: list[Event] = []
    for at in (14.0, 40.0, 65.0):
        events.append({"at": at, "do": "partition", "side": [1, 2], "ticks": 20.0})
        events += [{"at": at + 2 + 3 * place, "do": "campaign", "group": 1, "member": place % 2 + 1} for place in range(6)]
        events += [{"at": at + 3, "do": "campaign", "group": 1, "member": 3}]
    return replace(PLAIN, members=5, voters=[[1, 2, 3, 4, 5]], pre_vote=False, weather=weather), events


def _doubled_appends() -> tuple[Setting, list[Event]]:
    """Appends arrive twice, the second time late; leaders change."""
    weather = {"double": 0.5, "late_ticks": 12.0, "delay_spread": 1.0}
    events: list[Event] = [{"at": 15.0 + 6 * place, "do": "crash", "member": place % 3 + 1, "back": 3.0} for place in range(11)]
    return replace(PLAIN, write_every=0.5, weather=weather), events


def _concurrent() -> tuple[Setting, list[Event]]:
    """Bursts of commands, leaders cut off in the middle of them."""
    events: list[Event] = []
    for place in range(8):
        at = 15.0 + 8 * place
        events.append({"at": at, "do": "partition", "side": [place % 3 + 1], "ticks": 6.0})
        events.append({"at": at + 0.1, "do": "write", "group": 1, "count": 6})
    return PLAIN, events


def _long_entries() -> tuple[Setting, list[Event]]:
    """Entries of 70,000 octets."""
    return replace(PLAIN, padding=70_000, ticks=40.0, write_every=4.0, append_octets=1024 * 1024), []


def _tails() -> tuple[Setting, list[Event]]:
    """A leader is cut off with a long tail; the others commit little, drop their journals, and feed it by a transfer.

    Once with journals dropped, so that a state is announced; once without, so that entries are.
    """
    events: list[Event] = []
    for at in (16.0, 76.0):
        events.append({"at": at, "do": "behead", "group": 1, "ticks": 42.0, "count": 40})
        events.append({"at": at + 0.5, "do": "clock_stands", "member": 1, "ticks": 30.0})
        if at > 20:
            events += [{"at": at + 38, "do": "store", "member": member, "keep": 0} for member in (1, 2, 3)]
    return replace(PLAIN, ticks=140.0, write_every=7.0, store_every=500.0, append_octets=1), events


def _figure_8() -> tuple[Setting, list[Event]]:
    """Figure 3.7 of the thesis: an entry of an old term is on a majority, and is overwritten all the same."""
    events: list[Event] = [
        {"at": 15.0, "do": "lead", "group": 1, "to": 1},
        *[{"at": 19.5, "do": "clock_stands", "member": member, "ticks": 60.0} for member in (2, 3, 4, 5)],
        *[{"at": 20.0, "do": "cut", "source": 1, "to": member, "ticks": 3.0} for member in (3, 4, 5)],
        {"at": 20.1, "do": "write", "group": 1, "count": 3},
        {"at": 22.0, "do": "crash", "member": 1, "back": 22.0},
        {"at": 22.0, "do": "partition", "side": [2], "ticks": 24.0},
        *[{"at": 32.0, "do": "clock", "member": member, "ticks": 10} for member in (3, 4)],
        {"at": 33.0, "do": "campaign", "group": 1, "member": 5},
        {"at": 33.1, "do": "cut", "source": 5, "to": 3, "ticks": 10.0},
        {"at": 33.1, "do": "cut", "source": 5, "to": 4, "ticks": 10.0},
        {"at": 36.0, "do": "crash", "member": 5, "back": 19.0},
        {"at": 36.0, "do": "partition", "side": [4], "ticks": 19.5},
        *[{"at": 50.5 + place, "do": "campaign", "group": 1, "member": 1} for place in range(2)],
        {"at": 60.0, "do": "campaign", "group": 1, "member": 5},
        {"at": 61.0, "do": "campaign", "group": 1, "member": 5},
    ]
    return (
        replace(
            PLAIN,
            members=5,
            voters=[[1, 2, 3, 4, 5]],
            write_every=60.0,
            append_octets=1,
            inflight_messages=1,
            pre_vote=False,
            flush_spread=0.1,
            weather={"delay_spread": 0.2},
        ),
        events,
    )


def _joint() -> tuple[Setting, list[Event]]:
    """Three voters are replaced by three others; the old ones are cut off on the way."""
    events: list[Event] = [
        {"at": 14.0, "do": "lead", "group": 1, "to": 3},
        {"at": 15.0, "do": "members", "group": 1, "voters": [3, 4, 5]},
    ]
    for place in range(5):
        events.append({"at": 33.0 + 0.25 * place, "do": "write", "group": 1, "count": 1})
    return replace(PLAIN, members=5, slow_apply=True, ticks=110.0), events


def _stale_leader() -> tuple[Setting, list[Event]]:
    """A leader whose clock stands is cut off and asked for reads."""
    events: list[Event] = []
    for at in (15.0, 55.0):
        events += [
            {"at": at, "do": "lead", "group": 1, "to": 1},
            {"at": at + 5, "do": "partition", "side": [1], "ticks": 30.0},
            {"at": at + 5, "do": "clock_stands", "member": 1, "ticks": 30.0},
        ]
    return replace(PLAIN, read_every=0.7, ticks=95.0), events


SCHEDULES: dict[str, Schedule] = {
    **named_rules.SCHEDULES,
    **named_amnesia.SCHEDULES,
    "restarts": _restarts,
    "compactions": _compactions,
    "votes": _votes,
    "four members": _four,
    "doubled votes": _doubled_votes,
    "doubled appends": _doubled_appends,
    "concurrent commands": _concurrent,
    "long entries": _long_entries,
    "tails": _tails,
    "figure 8": _figure_8,
    "joint": _joint,
    "stale leader": _stale_leader,
}


def schedule(name: str, seed: int) -> tuple[Setting, list[Event]]:
    setting, events = SCHEDULES[name]()
    if name == "joint":
        at = round(28.0 + Random(seed).random() * 14, 2)
        events = [*events, {"at": at, "do": "partition", "side": [1, 2], "ticks": 35.0}]
    if name == "figure 8":
        events = [*events, {"at": round(51.6 + Random(seed).random() * 2, 2), "do": "crash", "member": 1, "back": 40.0}]
    return replace(setting, seed=seed), sorted(events, key=lambda event: float(event["at"]))
