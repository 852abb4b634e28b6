"""Named schedules: for each fault of raftos 0.2.6 and PySyncObj 0.3.17 one in which that library lost data or stood still.

Each is a setting and events like any story; the seed still decides delays, so that a schedule is tried with several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.simulation.raft.world import Event, Setting

PLAIN = Setting(seed=0, voters=[[1, 2, 3]], ticks=90.0, write_every=1.0, read_every=4.0)
Schedule = Callable[[], tuple[Setting, list[Event]]]


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
    """Voters restart in the middle of elections."""
    events: list[Event] = []
    for place in range(24):
        at = 15.0 + place * 3
        events.append({"at": at, "do": "campaign", "group": 1, "member": place % 3 + 1})
        events.append({"at": at + 0.3, "do": "campaign", "group": 1, "member": (place + 1) % 3 + 1})
        events.append({"at": at + 0.9, "do": "crash", "member": (place + 2) % 3 + 1, "back": 0.2})
    return replace(PLAIN, pre_vote=False, flush_spread=0.2), events


def _four() -> tuple[Setting, list[Event]]:
    """Four members, cut in two halves."""
    events: list[Event] = [{"at": at, "do": "partition", "side": [1, 2], "ticks": 18.0} for at in (15.0, 45.0, 70.0)]
    events += [{"at": at + 4, "do": "campaign", "group": 1, "member": member} for at in (15.0, 45.0, 70.0) for member in (1, 2, 3, 4)]
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


def _frozen_leader() -> tuple[Setting, list[Event]]:
    """A leader is cut off with an unverified tail, frozen, and resumed; meanwhile the others compact, so that it gets a transfer."""
    events: list[Event] = []
    for place in range(4):
        at = 16.0 + 18 * place
        for member in (1, 2, 3):
            if place % 3 + 1 == member:
                events.append({"at": at, "do": "partition", "side": [member], "ticks": 9.0})
                events.append({"at": at + 0.2, "do": "write", "group": 1, "count": 8})
                events.append({"at": at + 1.0, "do": "freeze", "member": member, "ticks": 9.0})
            else:
                events.append({"at": at - 1.5, "do": "campaign", "group": 1, "member": place % 3 + 1})
                events.append({"at": at + 8.5, "do": "store", "member": member, "keep": 0})
    return replace(PLAIN, write_every=0.4, store_every=500.0), events


def _forged() -> tuple[Setting, list[Event]]:
    """Somebody on the network speaks in a member's name."""
    events: list[Event] = []
    for place in range(15):
        at = 15.0 + 4 * place
        source, name = place % 3 + 1, (place + 1) % 3 + 1
        events.append({"at": at, "do": "partition", "side": [(place + 2) % 3 + 1], "ticks": 3.0})
        events.append({"at": at + 0.4, "do": "write", "group": 1, "count": 3})
        events.append({"at": at + 0.6, "do": "forge", "group": 1, "source": source, "name": name})
    return PLAIN, events


SCHEDULES: dict[str, Schedule] = {
    "restarts": _restarts,
    "votes": _votes,
    "four members": _four,
    "doubled votes": _doubled_votes,
    "doubled appends": _doubled_appends,
    "concurrent commands": _concurrent,
    "long entries": _long_entries,
    "frozen leader": _frozen_leader,
    "forged": _forged,
}


def schedule(name: str, seed: int) -> tuple[Setting, list[Event]]:
    setting, events = SCHEDULES[name]()
    return replace(setting, seed=seed), sorted(events, key=lambda event: float(event["at"]))
