"""Named schedules: for each fault of raftos 0.2.6 and PySyncObj 0.3.17 one in which that library lost data or stood still.

Each is a setting and events like any story; the seed still decides delays, so that a schedule is tried with several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.simulation.raft.world import Event, Setting

PLAIN = Setting(seed=0, voters=[[1, 2, 3]], ticks=90.0, write_every=1.0, read_every=4.0)
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


def _stepped_down() -> tuple[Setting, list[Event]]:
    """A leader that lost its quorum is asked for a vote in its own term, by one who never heard of it."""
    events: list[Event] = [
        {"at": 14.0, "do": "lead", "group": 1, "to": 1},
        *[{"at": 18.9, "do": "clock_stands", "member": member, "ticks": 60.0} for member in (2, 3)],
        {"at": 19.0, "do": "crash", "member": 1, "back": 5.0},
        {"at": 29.4, "do": "cut", "source": 1, "to": 3, "ticks": 40.0},
        {"at": 29.4, "do": "cut", "source": 2, "to": 3, "ticks": 40.0},
        {"at": 29.6, "do": "campaign", "group": 1, "member": 1},
        {"at": 31.5, "do": "partition", "side": [2], "ticks": 35.0},
        {"at": 47.5, "do": "campaign", "group": 1, "member": 3},
    ]
    return replace(PLAIN, pre_vote=False, flush_spread=0.1, weather={"delay_spread": 0.2}), events


def _old_grants() -> tuple[Setting, list[Event]]:
    """A leader of the last term, cut off, stands again and hears the votes of that term once more."""
    events: list[Event] = []
    for at in (14.0, 62.0):
        events += [
            {"at": at, "do": "lead", "group": 1, "to": 1},
            {"at": at + 4, "do": "partition", "side": [1], "ticks": 36.0},
            *[{"at": at + 26 + 0.7 * place, "do": "campaign", "group": 1, "member": 1} for place in range(2)],
            *[{"at": at + 26.3 + 0.7 * place, "do": "replay", "count": 60, "kind": "VOTE_REPLY"} for place in range(2)],
        ]
    return replace(PLAIN, pre_vote=False, ticks=110.0), events


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


def _full_leader() -> tuple[Setting, list[Event]]:
    """A leader whose disk is full goes on sending; one follower has it all; both are gone, and the third is behind."""
    events: list[Event] = []
    for at in (15.0, 60.0):
        events += [
            {"at": at, "do": "lead", "group": 1, "to": 1},
            {"at": at + 5, "do": "partition", "side": [3], "ticks": 4.0},
            {"at": at + 5.1, "do": "disk_full", "member": 1, "ticks": 20.0},
            {"at": at + 5.2, "do": "write", "group": 1, "count": 6},
            {"at": at + 8.8, "do": "crash", "member": 1, "back": 0.5},
            {"at": at + 8.8, "do": "partition", "side": [2], "ticks": 30.0},
        ]
    return replace(PLAIN, ticks=105.0), events


def _full_candidate() -> tuple[Setting, list[Event]]:
    """A candidate with a full disk is elected, forgets it, and is elected once more in the same term."""
    events: list[Event] = []
    for place in range(4):
        at = 15.0 + 30 * place
        events += [
            {"at": at - 4, "do": "lead", "group": 1, "to": 1},
            {"at": at, "do": "crash", "member": 1, "back": 22.0},
            {"at": at + 9.8, "do": "disk_full", "member": 2, "ticks": 9.0},
            {"at": at + 10.2, "do": "campaign", "group": 1, "member": 2},
            {"at": at + 10.6, "do": "cut", "source": 2, "to": 3, "ticks": 1.6},
            {"at": at + 11.5, "do": "write", "group": 1, "count": 2},
            {"at": at + 12.0, "do": "crash", "member": 2, "back": 0.2},
            {"at": at + 13.5, "do": "campaign", "group": 1, "member": 2},
            {"at": at + 15.0, "do": "write", "group": 1, "count": 2},
        ]
    return replace(PLAIN, ticks=135.0, pre_vote=False, flush_spread=0.05, weather={"delay_spread": 0.2}), events


def _long_old_tail() -> tuple[Setting, list[Event]]:
    """A leader's long tail is overwritten by a short end; then the last flushed writes of that member are lost."""
    events: list[Event] = []
    for at, share in ((16.0, 0.02), (76.0, 0.05), (136.0, 0.08)):
        events += [
            {"at": at, "do": "behead", "group": 1, "ticks": 30.0, "count": 30},
            *[{"at": at + 50, "do": "lost_tail", "member": member, "share": share, "back": 0.4} for member in (1, 2, 3)],
        ]
    return replace(PLAIN, ticks=200.0, write_every=25.0, read_every=50.0, store_every=500.0, pre_vote=False), events


def _hole() -> tuple[Setting, list[Event]]:
    """Entries of which only a dead leader knows that they were acknowledged are unreadable; the other member is behind."""
    events: list[Event] = []
    for at in (15.0, 65.0):
        events += [
            {"at": at, "do": "lead", "group": 1, "to": 1},
            {"at": at + 6, "do": "partition", "side": [3], "ticks": 4.0},
            {"at": at + 8.6, "do": "write", "group": 1, "count": 9},
            {"at": at + 9.6, "do": "crash", "member": 1, "back": 35.0},
            {"at": at + 9.7, "do": "hole", "member": 2, "group": 1, "depth": 6, "back": 0.3},
        ]
    return replace(PLAIN, ticks=110.0, write_every=30.0, store_every=500.0, flush_spread=0.05), events


def _hole_twice() -> tuple[Setting, list[Event]]:
    """As `hole`, with a store beyond the hole, and the member restarts once more before anybody fed it."""
    setting, events = _hole()
    more: list[Event] = []
    for at in (15.0, 65.0):
        more.append({"at": at + 9.3, "do": "store", "member": 2, "keep": 9})
        more.append({"at": at + 10.6, "do": "crash", "member": 2, "back": 0.3})
    return setting, [*events, *more]


def _lost_vote() -> tuple[Setting, list[Event]]:
    """A voter saves a term, then its vote in it; that record is lost; the request of another candidate arrives once more."""
    events: list[Event] = [
        {"at": 14.0, "do": "lead", "group": 1, "to": 5},
        {"at": 20.0, "do": "partition", "side": [4], "ticks": 21.0},
        {"at": 22.0, "do": "write", "group": 1, "count": 4},
        {"at": 30.0, "do": "crash", "member": 5, "back": 50.0},
        {"at": 40.5, "do": "cut", "source": 4, "to": 1, "ticks": 4.0},
        {"at": 40.5, "do": "cut", "source": 4, "to": 3, "ticks": 4.0},
        {"at": 41.1, "do": "campaign", "group": 1, "member": 4},
        {"at": 41.9, "do": "campaign", "group": 1, "member": 3},
        {"at": 40.5, "do": "cut", "source": 3, "to": 1, "ticks": 9.0},
        {"at": 43.2, "do": "lost_tail", "member": 2, "share": 0.001, "back": 0.2},
        {"at": 45.0, "do": "campaign", "group": 1, "member": 1},
    ]
    return replace(
        PLAIN, members=5, voters=[[1, 2, 3, 4, 5]], pre_vote=False, store_every=500.0, weather={"delay_spread": 0.2}
    ), events


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
    "compactions": _compactions,
    "votes": _votes,
    "stepped down": _stepped_down,
    "old grants": _old_grants,
    "four members": _four,
    "doubled votes": _doubled_votes,
    "doubled appends": _doubled_appends,
    "concurrent commands": _concurrent,
    "long entries": _long_entries,
    "tails": _tails,
    "full leader": _full_leader,
    "full candidate": _full_candidate,
    "long old tail": _long_old_tail,
    "hole": _hole,
    "hole twice": _hole_twice,
    "lost vote": _lost_vote,
    "figure 8": _figure_8,
    "joint": _joint,
    "stale leader": _stale_leader,
    "forged": _forged,
}


def schedule(name: str, seed: int) -> tuple[Setting, list[Event]]:
    setting, events = SCHEDULES[name]()
    if name == "joint":
        at = round(28.0 + Random(seed).random() * 14, 2)
        events = [*events, {"at": at, "do": "partition", "side": [1, 2], "ticks": 35.0}]
    if name == "figure 8":
        events = [*events, {"at": round(51.6 + Random(seed).random() * 2, 2), "do": "crash", "member": 1, "back": 40.0}]
    return replace(setting, seed=seed), sorted(events, key=lambda event: float(event["at"]))
