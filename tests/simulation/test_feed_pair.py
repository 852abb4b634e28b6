"""Seeded runs of the joined pair over a link that drops, doubles, swaps and cuts, with crashes on both sides.

Invariants: content equals the source's at the applied position; receipts never exceed what is applied (checked where they are
made); an honest source is never called forked or fenced; after healing everything arrives. A failure names its seed.
"""

from __future__ import annotations

import pytest

from replica.feed.limits import FeedLimits
from replica.model.states import FeedState
from tests.simulation.feed_world import LinkFaults, World, delete, put

RUNS = 45  # per parameter
ROUGH = LinkFaults(drop=20, duplicate=40, swap=60, cut=15)
REFUSED = (FeedState.FORKED, FeedState.FENCED)


def heal(world: World, steps: int = 600) -> None:
    world.faults = LinkFaults()
    world.busy = 0
    world.pressure = False
    world.connect()
    for _ in range(steps):
        if world.session is None:
            world.connect()
        world.step()
        world.check()
        if world.caught_up() and world.receipts and world.receipts[-1][0] == world.log.head() and world.state().verified:
            return
    raise AssertionError("never caught up:\n" + "\n".join(world.history[-40:]))


def wild(world: World, steps: int, *, forget: bool, crash: bool) -> None:
    """An honest source and an unlucky link."""
    chance = world.random.randrange
    serial = 0
    for _ in range(steps):
        for _ in range(chance(3)):
            names = [f"N{chance(400)}" for _ in range(1 + chance(4))]
            serial += 1
            world.write(*[put(name, f"https://{serial}.cn") if chance(8) else delete(name) for name in dict.fromkeys(names)])
        if world.session is None and not chance(3):
            world.connect()
        if crash and not chance(40):
            world.crash_member()
        if forget and not chance(30):
            world.log.forget_before(world.log.head())
        if not chance(25):
            world.busy = chance(4)
        if not chance(20):
            world.pressure = not world.pressure
        world.step()
        world.check()
        assert world.state().feed not in REFUSED, "an honest source was refused:\n" + "\n".join(world.history[-40:])


@pytest.mark.parametrize("kind", ["link", "crash", "forget", "all", "calm"])
def test_joined_pair(kind: str) -> None:
    for seed in range(RUNS):
        try:
            world = World(seed, LinkFaults() if kind == "calm" else ROUGH, FeedLimits(credit_batches=6 + seed % 20, brake=False))
            world.write(*[put(f"N{place}") for place in range(50)])
            wild(world, 120, forget=kind in ("forget", "all"), crash=kind in ("crash", "all"))
            heal(world)
        except Exception as exc:
            raise AssertionError(f"REPLAY seed {seed} kind {kind}: {exc}") from exc


def test_receipts_rise() -> None:
    for seed in range(20):
        world = World(seed, LinkFaults(), FeedLimits(brake=False))
        world.write(put("A"))
        world.connect()
        wild(world, 80, forget=False, crash=False)
        seqs = [position.seq for position, level in world.receipts if level == 2]
        assert seqs == sorted(seqs), f"REPLAY seed {seed}"


@pytest.mark.parametrize("seed", range(30))
def test_fork_is_never_applied(seed: int) -> None:
    """A source restored from an old backup goes on differently: refused by name, whatever the link does meanwhile."""
    world = World(seed, LinkFaults(cut=30), FeedLimits(brake=False))
    world.write(*[put(f"N{place}") for place in range(20)])
    marks = [world.write(put(f"M{place}")) for place in range(3)]
    world.connect()
    world.steps(80)
    marks += [world.write(put(f"K{place}")) for place in range(6)]
    heal(world)
    held = world.state().position
    back = marks[3 + world.random.randrange(5)]
    world.log.rewind(back)
    if world.random.randrange(2):
        world.cut()
    for place in range(world.random.randrange(1, 12)):
        world.write(put(f"X{place}", "https://forked.cn"))
        if world.session is None:
            world.connect()
        world.step()
        world.check()
    for _ in range(200):
        if world.session is None:
            world.connect()
        world.step()
        world.check()
    # within one stream the log may only say that it does not go back to our position: then the snapshot stays beside
    assert world.state().feed in (*REFUSED, FeedState.HELD), "\n".join(world.history[-30:])
    assert world.state().position == held
