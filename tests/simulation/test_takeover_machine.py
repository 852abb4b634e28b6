"""Seeded life of one source: deaths, returns, restarts of ours in the middle of a step, adapters down, orders; SEMANTICS 7 holds.

Each rule is also taken out (PLANTED), and the same run must then fail.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import pytest

from replica.model.errors import InvariantBroken
from replica.model.group_state import GroupState
from replica.model.states import Authority
from replica.takeover import machine
from replica.takeover.detector import MS, Verdict
from replica.takeover.machine import Order, Phase, Policy
from replica.takeover.overlay import live_overlays, site_serial, site_with
from replica.takeover.publish import Publication
from tests.unit.takeover.test_machine import NODE, OWN, P1, P2, Bench

SEEDS = range(60)
STEPS = 250


class Broken(AssertionError):
    """A rule does not hold."""


def hold(condition: bool, what: str) -> None:
    if not condition:
        raise Broken(what)


class Life:
    """One seeded run; every step is followed by the checks."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.bench = Bench(policy=Policy(return_stable_ms=500, return_stable_ms_max=2_000), adapters=2)
        self.deaths = 0
        self.orders = 0

    def run(self) -> None:
        for _ in range(STEPS):
            self._happen()
            self.bench.step(only=self.random.choice((None, None, 1, 2)))
            self._check()
        self._end()

    def _happen(self) -> None:
        bench, chance = self.bench, self.random.random()
        bench.now += self.random.choice((10, 100, 1_500)) * MS
        if chance < 0.08:
            bench.dead()
            self.deaths += 1
        elif chance < 0.2:
            bench.alive()
        elif chance < 0.24:
            bench.verdict = Verdict.SUSPECT
        elif chance < 0.30:
            bench.restarted()
        elif chance < 0.38:
            adapter = self.random.choice(list(bench.adapters.values()))
            adapter.down = not adapter.down
        elif chance < 0.41:
            self.orders += 1
            word = self.random.choice(("planned:", "ordered:"))
            bench.machine.order = Order(self.random.random() < 0.5, f"{word}{self.orders:x}", "by hand")

    def _check(self) -> None:
        bench = self.bench
        hold(bench.refused == 0, "the log refused an entry of ours: serials do not rise")
        for overlay in live_overlays(bench.state).values():
            ours, *others = overlay.sites
            hold(site_with(ours, serial=0, primary=False) == site_with(OWN, serial=0, primary=False), "our site is first")
            hold(ours[6] & 0xC0 == 0, "primary flags are clear in a resolution takeover")
            hold(others == ([NODE] if overlay.prefix == P1 else []), "the node's site is kept second, untouched")
            hold(site_serial(ours) == overlay.serial > site_serial(NODE), "the serial is above any seen")
        if bench.state.authority is not Authority.SOURCE:
            hold(self.deaths + self.orders > 0, "taken over without a dead source or an order")
        hold(bench.state.authority is not Authority.SOURCE or not live_overlays(bench.state), "an overlay without authority")
        for adapter in bench.adapters.values():
            for prefix in ("88.118.8", "88.118.9"):
                serials = [call.serial for call in adapter.calls if call.prefix == prefix]
                hold(serials == sorted(serials), "a serial went down at an adapter")

    def _end(self) -> None:
        """Heal all and wait: a dead source ends published, a living one normal, with nothing of ours left anywhere."""
        bench = self.bench
        for adapter in bench.adapters.values():
            adapter.down = False
        bench.alive()
        bench.machine.order = Order(False, "ordered:ffff", "end")
        self._wait()
        hold(bench.machine.phase is Phase.NORMAL, f"ends in {bench.machine.phase}")
        hold(bench.state.authority is Authority.SOURCE, "the source has its authority back")
        hold(all(not adapter.stands for adapter in bench.adapters.values()), "nothing of ours stays published")
        bench.dead()
        self._wait()
        hold(bench.machine.phase is Phase.PUBLISHED, f"dead, and {bench.machine.phase}")
        hold(set(live_overlays(bench.state)) == {P1, P2}, "every prefix has its overlay")
        hold(all(set(adapter.stands) == {"88.118.8", "88.118.9"} for adapter in bench.adapters.values()), "all is published")

    def _wait(self) -> None:
        for _ in range(80):
            self.bench.now += 500 * MS
            self.bench.step()
            self._check()


def test_semantics_7_holds_through_everything() -> None:
    for seed in SEEDS:
        try:
            Life(seed).run()
        except AssertionError as exc:
            raise AssertionError(f"seed {seed}: {exc}") from exc


def _same_serial(state: GroupState, sites: Iterable[bytes]) -> int:
    return max(1, state.serial_highest)


def _serial_of_the_group_alone(state: GroupState, sites: Iterable[bytes]) -> int:
    return state.serial_highest + 1


def _primary(own: bytes, node: Iterable[bytes], serial: int) -> tuple[bytes, ...]:
    return (site_with(own, serial=serial, primary=True), *node)


def _node_first(own: bytes, node: Iterable[bytes], serial: int) -> tuple[bytes, ...]:
    return (*node, site_with(own, serial=serial, primary=False))


def _ours_alone(own: bytes, node: Iterable[bytes], serial: int) -> tuple[bytes, ...]:
    return (site_with(own, serial=serial, primary=False),)


def _no_withdrawals(state: GroupState) -> list[Publication]:
    return [] if state.authority_act.startswith(machine.RETURNING) else real_publications(state)


def _no_overlay_withdrawal(state: GroupState) -> dict[bytes, object]:
    return {} if state.authority_act.startswith(machine.RETURNING) else dict(live_overlays(state))


real_publications = machine.publications

# rule of SEMANTICS 7 -> (name in the machine, what stands in its place)
PLANTED: dict[str, tuple[str, Callable[..., object]]] = {
    "serial always above any seen, at withdrawal too": ("serial_above", _same_serial),
    "serial above the node's own": ("serial_above", _serial_of_the_group_alone),
    "primary flag clear": ("resolution_sites", _primary),
    "our site first": ("resolution_sites", _node_first),
    "the node's site kept second": ("resolution_sites", _ours_alone),
    "withdrawal is published": ("publications", _no_withdrawals),
    "overlay withdrawn before the source has authority": ("live_overlays", _no_overlay_withdrawal),
}


@pytest.mark.parametrize("rule", PLANTED)
def test_each_rule_is_needed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, planted = PLANTED[rule]
    monkeypatch.setattr(machine, name, planted)
    with pytest.raises((AssertionError, InvariantBroken)):
        for seed in SEEDS:
            Life(seed).run()
