"""From a seed to a setting and a schedule of faults: each seed turns on some kinds of fault, in some strength (swarm testing).

Events are values that JSON can carry: {"at": ticks, "do": name, ...}. The vocabulary, with `World._do_<name>` as its meaning:

    cut source to ticks            one direction                 crash member back             power cut, back after so long
    partition side ticks           both directions               crash_all back                all at once
    flap source to ticks count     down and up                   freeze member ticks           SIGSTOP, then all at once
    weather ticks ...              loss, delay, doubles          clock member ticks            the clock jumps: a burst of ticks
    disk_full member ticks         no save ends meanwhile        clock_stands member ticks     no ticks
    fsync_fails member             the member stops              fsync_lies member             until it crashes
    lost_tail member share back    flushed writes are missing    old_image member share back   the disk of yesterday
    hole member group depth back   unreadable entries            store member keep             store flushed, journal compacted
    lead group to                  leader transfer               campaign group member         an election out of turn
    members group voters           other voters are wished       write group count             a burst of writes
    forge group source name        messages under another name   replay count kind            old messages arrive once more
    strike group back ticks        its leader crashes and the member that is furthest is cut off
    behead group ticks count       its leader is cut off and gets a burst of writes
    apply_stands member ticks      its state machines take nothing
    lost_cut member group back     what was flushed since its log was last cut is missing
    old_lives member lives back    the disk of so many openings ago
    stranger group source          messages of another cluster

A third of the seeds is of one of four kinds that press on one thing: elections (votes, slow disks, restarts), tails (leaders cut
off with what nobody else has), membership (changes under cuts), disks (images of yesterday in the middle of elections).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.simulation.raft.world import Event, Setting

QUIET_TICKS = 12.0  # first election
Maker = Callable[[Random, Setting], Event]


def profile_of(seed: int) -> str:
    """What kind of run a seed is."""
    return PROFILES[seed % len(PROFILES)]


def setting_of(seed: int) -> Setting:
    """What the world of a seed is made of."""
    rng = Random(seed * 2 + 1)
    profile = profile_of(seed)
    if profile:
        return _pressed(rng, seed, profile)
    members = rng.choice((3, 3, 3, 5, 5))
    numbers = list(range(1, members + 1))
    voters = []
    for _ in range(2 if members == 5 else rng.choice((1, 2, 2, 3))):
        count = members if members == 3 else rng.choice((3, 5))
        voters.append(sorted(rng.sample(numbers, count)))
    return Setting(
        seed=seed,
        members=members,
        voters=voters,
        ticks=rng.choice((100.0, 140.0, 180.0)) if members == 3 else rng.choice((80.0, 110.0)),
        write_every=rng.choice((0.6, 1.5, 4.0)),
        read_every=rng.choice((1.0, 3.0)),
        flush_min=0.02,
        flush_spread=rng.choice((0.02, 0.3, 3.0)),
        late_storage=rng.random() < 0.5,
        slow_apply=rng.random() < 0.4,
        padding=rng.choice((0, 0, 40)),
        store_every=rng.choice((8.0, 20.0, 60.0)),
        store_keeps=rng.choice((0, 2, 10)),
        append_octets=rng.choice((1, 100, 2000)),
        inflight_messages=rng.choice((1, 3, 64)),
        pre_vote=rng.random() < 0.8,
        weather=_some_weather(rng),
        tail=_tail_of(seed),
    )


def _tail_of(seed: int) -> int:
    """In one seed of seven older entries are read from the disk before they are at hand."""
    return 3 if seed % 7 == 4 else 0


def _some_weather(rng: Random) -> dict[str, float]:
    weather: dict[str, float] = {"delay_spread": rng.choice((0.2, 0.4, 1.5))}
    if rng.random() < 0.5:
        weather["drop"] = rng.choice((0.01, 0.05, 0.15))
    if rng.random() < 0.5:
        weather["double"] = rng.choice((0.02, 0.1, 0.3))
    if rng.random() < 0.5:
        weather["late"] = rng.choice((0.02, 0.1))
        weather["late_ticks"] = rng.choice((4.0, 30.0))
    if rng.random() < 0.3:
        weather["transfer_breaks"] = 0.4
        weather["transfer_ticks"] = rng.choice((4.0, 15.0))
    return weather


def _pressed(rng: Random, seed: int, profile: str) -> Setting:
    """One group, much happening to it."""
    members = rng.choice((3, 3, 5)) if profile != "membership" else 5
    count = members if profile != "membership" else 3
    return Setting(
        seed=seed,
        profile=profile,
        members=members,
        voters=[sorted(rng.sample(range(1, members + 1), count))],
        ticks=110.0,
        write_every=rng.choice((0.7, 2.0)),
        read_every=2.0,
        flush_min=0.02,
        flush_spread=rng.choice((0.1, 1.0, 4.0)),
        late_storage=rng.random() < 0.5,
        slow_apply=rng.random() < 0.4,
        store_every=rng.choice((10.0, 60.0)),
        store_keeps=rng.choice((0, 3)),
        append_octets=rng.choice((1, 2000)),
        inflight_messages=rng.choice((1, 3, 64)),
        pre_vote=rng.random() < 0.4,
        weather={
            "delay_spread": rng.choice((0.3, 1.5)),
            "drop": rng.choice((0.0, 0.1)),
            "double": rng.choice((0.0, 0.2)),
            "late": rng.choice((0.0, 0.15)),
            "late_ticks": 15.0,
        },
        tail=_tail_of(seed),
    )


def _one(rng: Random, setting: Setting) -> int:
    return rng.randint(1, setting.members)


def _two(rng: Random, setting: Setting) -> tuple[int, int]:
    source, to = rng.sample(range(1, setting.members + 1), 2)
    return source, to


def _group(rng: Random, setting: Setting) -> int:
    return rng.randint(1, len(setting.voters))


def _back(rng: Random) -> float:
    return rng.choice((0.5, 3.0, 15.0, 40.0)) * (0.5 + rng.random())


def _long(rng: Random) -> float:
    return rng.choice((2.0, 8.0, 25.0, 50.0)) * (0.5 + rng.random())


def _cut(rng: Random, setting: Setting) -> Event:
    source, to = _two(rng, setting)
    return {"do": "cut", "source": source, "to": to, "ticks": _long(rng)}


def _partition(rng: Random, setting: Setting) -> Event:
    side = sorted(rng.sample(range(1, setting.members + 1), rng.randint(1, setting.members // 2)))
    return {"do": "partition", "side": side, "ticks": _long(rng)}


def _flap(rng: Random, setting: Setting) -> Event:
    source, to = _two(rng, setting)
    return {"do": "flap", "source": source, "to": to, "ticks": rng.choice((0.5, 2.0, 6.0)), "count": rng.randint(3, 8)}


def _weather(rng: Random, setting: Setting) -> Event:
    return {"do": "weather", "ticks": _long(rng), "drop": rng.choice((0.2, 0.5)), "late": 0.2, "late_ticks": 20.0, "double": 0.2}


def _members(rng: Random, setting: Setting) -> Event:
    count = 3 if setting.members == 5 else rng.choice((2, 3))
    count = rng.choice((count, setting.members))
    return {"do": "members", "group": _group(rng, setting), "voters": sorted(rng.sample(range(1, setting.members + 1), count))}


def _forge(rng: Random, setting: Setting) -> Event:
    source, name = _two(rng, setting)
    return {"do": "forge", "group": _group(rng, setting), "source": source, "name": name}


MAKERS: dict[str, tuple[float, Maker]] = {  # kind: how many in 100 ticks at most, maker
    "cut": (4, _cut),
    "partition": (3, _partition),
    "flap": (2, _flap),
    "weather": (1, _weather),
    "crash": (6, lambda rng, s: {"do": "crash", "member": _one(rng, s), "back": _back(rng)}),
    "crash_all": (2, lambda rng, s: {"do": "crash_all", "back": rng.choice((0.5, 5.0))}),
    "freeze": (4, lambda rng, s: {"do": "freeze", "member": _one(rng, s), "ticks": _long(rng)}),
    "clock": (3, lambda rng, s: {"do": "clock", "member": _one(rng, s), "ticks": rng.choice((5, 15, 60))}),
    "clock_stands": (2, lambda rng, s: {"do": "clock_stands", "member": _one(rng, s), "ticks": _long(rng)}),
    "disk_full": (2, lambda rng, s: {"do": "disk_full", "member": _one(rng, s), "ticks": _long(rng)}),
    "fsync_fails": (3, lambda rng, s: {"do": "fsync_fails", "member": _one(rng, s)}),
    "fsync_lies": (2, lambda rng, s: {"do": "fsync_lies", "member": _one(rng, s)}),
    "lost_tail": (
        4,
        lambda rng, s: {"do": "lost_tail", "member": _one(rng, s), "share": rng.random() ** 3 * 0.3, "back": _back(rng)},
    ),
    "old_image": (4, lambda rng, s: {"do": "old_image", "member": _one(rng, s), "share": rng.random(), "back": _back(rng)}),
    "hole": (
        2,
        lambda rng, s: {
            "do": "hole",
            "member": _one(rng, s),
            "group": _group(rng, s),
            "depth": rng.randint(1, 8),
            "back": _back(rng),
        },
    ),
    "store": (4, lambda rng, s: {"do": "store", "member": _one(rng, s), "keep": rng.choice((0, 0, 3))}),
    "lead": (4, lambda rng, s: {"do": "lead", "group": _group(rng, s), "to": _one(rng, s)}),
    "campaign": (3, lambda rng, s: {"do": "campaign", "group": _group(rng, s), "member": _one(rng, s)}),
    "members": (4, _members),
    "forge": (6, _forge),
    "strike": (2, lambda rng, s: {"do": "strike", "group": _group(rng, s), "back": _back(rng), "ticks": _long(rng)}),
    "behead": (2, lambda rng, s: {"do": "behead", "group": _group(rng, s), "ticks": _long(rng), "count": rng.randint(1, 8)}),
    "replay": (
        4,
        lambda rng, s: {"do": "replay", "count": rng.randint(1, 60), "kind": rng.choice(("", "", "VOTE", "APPEND_REPLY"))},
    ),
    "write": (3, lambda rng, s: {"do": "write", "group": _group(rng, s), "count": rng.randint(5, 25)}),
}


PRESSED: dict[str, dict[str, int]] = {  # profile: kind of event, weight
    "elections": {"campaign": 8, "crash": 6, "cut": 3, "strike": 4, "partition": 1, "write": 2, "lead": 2, "replay": 6},
    "tails": {"behead": 6, "strike": 5, "store": 5, "freeze": 3, "crash": 2, "lead": 2, "partition": 2, "replay": 5},
    "membership": {"members": 8, "strike": 3, "partition": 4, "cut": 3, "crash": 4, "campaign": 4, "store": 2, "lead": 2},
    "disks": {
        "lost_tail": 4,
        "old_image": 4,
        "campaign": 6,
        "strike": 3,
        "crash": 2,
        "fsync_lies": 2,
        "store": 2,
        "behead": 3,
        "replay": 4,
    },
}
PROFILES = ("", "elections", "", "tails", "", "membership", "", "disks", "", "", "", "")


def events_of(seed: int, setting: Setting) -> list[Event]:
    """The faults of a seed, in order of time."""
    rng = Random(seed * 2)
    if setting.profile:
        return _pressing(rng, setting)
    kinds = rng.sample(sorted(MAKERS), rng.randint(2, 9))
    events: list[Event] = []
    for kind in kinds:
        most, make = MAKERS[kind]
        for _ in range(rng.randint(1, max(1, round(most * setting.ticks / 100)))):
            event = make(rng, setting)
            events.append({"at": round(QUIET_TICKS + rng.random() * (setting.ticks - QUIET_TICKS), 3), **event})
    return sorted(events, key=lambda event: float(event["at"]))


def _pressing(rng: Random, setting: Setting) -> list[Event]:
    weights = PRESSED[setting.profile]
    every = rng.choice((2.0, 4.0, 8.0))
    at = QUIET_TICKS
    events: list[Event] = []
    while at < setting.ticks:
        kind = rng.choices(list(weights), list(weights.values()))[0]
        event = MAKERS[kind][1](rng, setting)
        if event.get("back", 0) > 8 or event.get("ticks", 0) > 16:  # short, so that much happens
            event = {**event, **{name: rng.choice((0.3, 2.0, 8.0)) for name in ("back", "ticks") if name in event}}
        events.append({"at": round(at, 3), **event})
        at += rng.choice((0.1, 1.0, 2.0)) * every * rng.random()
    return events
