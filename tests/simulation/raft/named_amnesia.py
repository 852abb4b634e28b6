"""Schedules for the rules of amnesia: disks that went back, and who must notice. Like those of named.py, which collects them."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.raft.setting import PLAIN, Event, Setting


def _long_old_tail() -> tuple[Setting, list[Event]]:
    """A long tail is overwritten by a shorter end, which is acknowledged; then that part of the journal is lost.

    1 leads and is cut off with thirty entries of its own. 2 leads a later term; 3 hears it, but is not heard and gets no more
    entries, so that 1, back again, is the other half of each majority. Then 2 dies, and the disk of 1 shows the later term and
    the old tail, which is longer than all that 1 had acknowledged. 3 stands, and lacks what 1 and 2 had committed.
    """
    events: list[Event] = [
        {"at": 14.0, "do": "lead", "group": 1, "to": 1},
        {"at": 20.0, "do": "behead", "group": 1, "ticks": 26.0, "count": 30},
        {"at": 20.1, "do": "clock_stands", "member": 1, "ticks": 50.0},
        {"at": 37.0, "do": "campaign", "group": 1, "member": 2},
        {"at": 39.0, "do": "lead", "group": 1, "to": 2},
        {"at": 44.0, "do": "cut", "source": 3, "to": 2, "ticks": 60.0},
        {"at": 49.0, "do": "write", "group": 1, "count": 6},
        {"at": 74.0, "do": "crash", "member": 2, "back": 60.0},
        {"at": 74.1, "do": "lost_cut", "member": 1, "group": 1, "back": 0.4},
        *[{"at": 78.0 + 2 * place, "do": "campaign", "group": 1, "member": 3} for place in range(4)],
    ]
    setting = replace(PLAIN, ticks=100.0, write_every=60.0, read_every=50.0, store_every=500.0, pre_vote=False)
    return replace(setting, flush_spread=0.1, append_octets=1, inflight_messages=1, weather={"delay_spread": 0.2}), events


def _old_lives() -> tuple[Setting, list[Event]]:
    """A disk of two openings ago holds all that others remember of its member, but for the number of its openings.

    What 1 acknowledged last only 2 knows, and 2 is gone; 3 was cut off when it was written.
    """
    events: list[Event] = [
        {"at": 14.0, "do": "lead", "group": 1, "to": 2},
        {"at": 18.0, "do": "write", "group": 1, "count": 3},
        *[{"at": 26.0 + 3 * place, "do": "crash", "member": 1, "back": 1.0} for place in range(3)],
        {"at": 46.0, "do": "partition", "side": [3], "ticks": 7.5},
        {"at": 46.5, "do": "write", "group": 1, "count": 6},
        {"at": 52.0, "do": "crash", "member": 2, "back": 60.0},
        {"at": 52.1, "do": "old_lives", "member": 1, "lives": 2, "back": 0.4},
        *[{"at": 65.0 + 2 * place, "do": "campaign", "group": 1, "member": 3} for place in range(4)],
    ]
    setting = replace(PLAIN, ticks=90.0, write_every=140.0, read_every=50.0, store_every=500.0, pre_vote=False)
    return replace(setting, flush_spread=0.1, weather={"delay_spread": 0.2}), events


def _kept_match() -> tuple[Setting, list[Event]]:
    """A member loses what its leader has seen it match, of older terms, and shows the tail that it had before.

    1 leads and is cut off with a long tail; 2 commits with 3; then 3 leads, and brings 1 the entries of 2's term one by one. 1
    has promised nothing in the term of 3 but to follow: it may lose them and stay sound, and 3 must not believe its match.
    """
    events: list[Event] = [
        {"at": 14.0, "do": "lead", "group": 1, "to": 1},
        {"at": 20.0, "do": "behead", "group": 1, "ticks": 45.0, "count": 60},
        {"at": 20.1, "do": "clock_stands", "member": 1, "ticks": 60.0},
        {"at": 37.0, "do": "campaign", "group": 1, "member": 2},
        {"at": 42.0, "do": "write", "group": 1, "count": 40},
        {"at": 58.0, "do": "lead", "group": 1, "to": 3},
        {"at": 72.0, "do": "lost_cut", "member": 1, "group": 1, "back": 0.4},
    ]
    setting = replace(PLAIN, ticks=100.0, write_every=90.0, read_every=50.0, store_every=500.0, pre_vote=False)
    return replace(setting, flush_spread=0.1, append_octets=1, inflight_messages=1, weather={"delay_spread": 0.2}), events


def _fed_short() -> tuple[Setting, list[Event]]:
    """A member with an old disk is the other half of its leader's majorities, so that no change makes it a learner.

    Whoever feeds it all the same with what is at hand has a voter without what it had acknowledged; then the leader dies.
    """
    events: list[Event] = [
        {"at": 14.0, "do": "lead", "group": 1, "to": 2},
        {"at": 16.0, "do": "crash", "member": 1, "back": 1.0},
        {"at": 22.0, "do": "partition", "side": [3], "ticks": 31.0},
        {"at": 22.5, "do": "write", "group": 1, "count": 25},
        {"at": 40.0, "do": "old_lives", "member": 1, "lives": 1, "back": 0.4},
        {"at": 51.5, "do": "crash", "member": 2, "back": 60.0},
        *[{"at": 58.0 + place, "do": "campaign", "group": 1, "member": place % 2 * 2 + 1} for place in range(8)],
    ]
    setting = replace(PLAIN, ticks=85.0, write_every=140.0, read_every=50.0, store_every=500.0, pre_vote=False)
    return replace(setting, flush_spread=0.1, append_octets=1, inflight_messages=1, weather={"delay_spread": 0.2}), events


def _failed_fsync() -> tuple[Setting, list[Event]]:
    """An fsync fails on the member whose acknowledgement makes the majority; then the power goes."""
    events: list[Event] = []
    for at in (15.0, 60.0):
        events += [
            {"at": at, "do": "lead", "group": 1, "to": 1},
            {"at": at + 5, "do": "partition", "side": [3], "ticks": 6.0},
            {"at": at + 5.3, "do": "fsync_fails", "member": 2},
            {"at": at + 5.5, "do": "write", "group": 1, "count": 5},
            {"at": at + 9, "do": "crash", "member": 1, "back": 32.0},
            {"at": at + 9, "do": "crash", "member": 2, "back": 0.5},
        ]
    return replace(PLAIN, ticks=105.0, write_every=20.0), events


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


SCHEDULES = {
    "long old tail": _long_old_tail,
    "old lives": _old_lives,
    "kept match": _kept_match,
    "fed short": _fed_short,
    "failed fsync": _failed_fsync,
    "hole": _hole,
    "hole twice": _hole_twice,
    "lost vote": _lost_vote,
}
