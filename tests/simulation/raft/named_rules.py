"""Schedules for the rules of votes, of the log and of membership: each is the interleaving in which its rule is what holds.

Like those of named.py, which collects them.
"""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.raft.setting import PLAIN, Event, Setting


def _stepped_down() -> tuple[Setting, list[Event]]:
    """A voter that asks who would elect it hears its leader, steps down, and is asked for a vote in the same term once more.

    1 leads with the vote of 2, whom no entry reaches; 3 knows nothing of that term. Then 2 asks beforehand (no answer comes),
    hears a heartbeat, asks again, and 3 stands for the very term in which 2 has voted.
    """
    events: list[Event] = [
        {"at": 14.0, "do": "lead", "group": 1, "to": 1},
        *[{"at": 18.9, "do": "clock_stands", "member": member, "ticks": 60.0} for member in (2, 3)],
        {"at": 19.0, "do": "crash", "member": 1, "back": 5.0},
        {"at": 29.4, "do": "cut", "source": 1, "to": 3, "ticks": 40.0},
        {"at": 29.4, "do": "cut", "source": 2, "to": 3, "ticks": 9.2},
        {"at": 29.6, "do": "campaign", "group": 1, "member": 1},
        {"at": 30.1, "do": "cut", "source": 1, "to": 2, "ticks": 4.5},
        {"at": 30.8, "do": "cut", "source": 2, "to": 1, "ticks": 40.0},
        {"at": 33.0, "do": "campaign", "group": 1, "member": 2},
        {"at": 37.8, "do": "cut", "source": 1, "to": 2, "ticks": 40.0},
        {"at": 38.4, "do": "campaign", "group": 1, "member": 2},
        {"at": 38.8, "do": "campaign", "group": 1, "member": 3},
    ]
    return replace(PLAIN, ticks=80.0, write_every=9.0, flush_spread=0.1, weather={"delay_spread": 0.2}), events


def _cold_tails() -> tuple[Setting, list[Event]]:
    """A leader is cut off with a long tail and comes back when what it lacks is no more in its successor's memory.

    While that is read from the disk, a message without entries goes to where the logs meet: it tells a commit far behind that.
    """
    events: list[Event] = []
    for at in (16.0, 70.0):
        events += [
            {"at": at, "do": "behead", "group": 1, "ticks": 36.0, "count": 30},
            {"at": at + 26, "do": "write", "group": 1, "count": 8},
            {"at": at + 30, "do": "write", "group": 1, "count": 8},
        ]
    return replace(PLAIN, ticks=125.0, write_every=7.0, store_every=500.0, tail=2), events


def _erased() -> tuple[Setting, list[Event]]:
    """A leader commits with one follower, which does not hear that; old appends reach it once more; then the leader dies."""
    events: list[Event] = []
    for at in (15.0, 55.0):
        events += [
            {"at": at, "do": "lead", "group": 1, "to": 1},
            {"at": at + 5, "do": "partition", "side": [3], "ticks": 7.0},
            {"at": at + 5.2, "do": "write", "group": 1, "count": 5},
            {"at": at + 5.25, "do": "cut", "source": 1, "to": 2, "ticks": 3.0},
            {"at": at + 6, "do": "replay", "count": 80, "kind": "APPEND"},
            {"at": at + 7.8, "do": "crash", "member": 1, "back": 25.0},
        ]
    return replace(PLAIN, ticks=95.0, write_every=20.0, flush_spread=0.1, weather={"delay_spread": 0.2}), events


def _unapplied_change() -> tuple[Setting, list[Event]]:
    """Three voters become five while the state machine of one stands still; then the network parts.

    1, 4 and 5 are a majority of the five and go on; 2 knows that the change is committed and has not taken it: to 2 its vote and
    that of 3 are a majority of the three.
    """
    events: list[Event] = [
        {"at": 12.5, "do": "members", "group": 1, "voters": [1, 2, 3, 4, 5]},
        {"at": 13.0, "do": "lead", "group": 1, "to": 1},
        {"at": 21.0, "do": "apply_stands", "member": 2, "ticks": 74.0},
        {"at": 54.0, "do": "partition", "side": [2, 3], "ticks": 36.0},
        {"at": 55.0, "do": "write", "group": 1, "count": 3},
        *[{"at": 67.0 + 2 * place, "do": "campaign", "group": 1, "member": 2} for place in range(5)],
    ]
    return replace(PLAIN, members=5, ticks=110.0, write_every=1.5, pre_vote=False, flush_spread=0.1), events


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


def _forged() -> tuple[Setting, list[Event]]:
    """Somebody on the network speaks in a member's name; the last time its leader, cut off, believes it and dies."""
    events: list[Event] = []
    for place in range(15):
        at = 15.0 + 4 * place
        source, name = place % 3 + 1, (place + 1) % 3 + 1
        events.append({"at": at, "do": "partition", "side": [(place + 2) % 3 + 1], "ticks": 3.0})
        events.append({"at": at + 0.4, "do": "write", "group": 1, "count": 3})
        events.append({"at": at + 0.6, "do": "forge", "group": 1, "source": source, "name": name})
    events += [
        {"at": 78.0, "do": "lead", "group": 1, "to": 3},
        {"at": 83.0, "do": "partition", "side": [3], "ticks": 8.0},
        {"at": 83.2, "do": "write", "group": 1, "count": 3},
        {"at": 83.6, "do": "forge", "group": 1, "source": 1, "name": 2},
        {"at": 85.0, "do": "crash", "member": 3, "back": 30.0},
    ]
    return replace(PLAIN, ticks=110.0), events


def _strangers() -> tuple[Setting, list[Event]]:
    """Another cluster with the same numbers speaks to this one."""
    events: list[Event] = [{"at": 16.0 + 5 * place, "do": "stranger", "group": 1, "source": place % 3 + 1} for place in range(10)]
    return replace(PLAIN, ticks=70.0), events


SCHEDULES = {
    "stepped down": _stepped_down,
    "old grants": _old_grants,
    "full leader": _full_leader,
    "full candidate": _full_candidate,
    "cold tails": _cold_tails,
    "erased": _erased,
    "unapplied change": _unapplied_change,
    "forged": _forged,
    "strangers": _strangers,
}
