"""All scenarios, in the order of their numbers."""

from __future__ import annotations

from chaos.scenarios import (
    s11_flapping,
    s26_lost_history,
    s27_other_history,
    s28_purged_gap,
    s29_snapshot_interrupted,
    s30_mass_delete,
    s31_silent_divergence,
    s32_switchover,
    s33_secondary_dies,
    s34_cut_off,
    s35_returns_with_writes,
    s36_return_interrupted,
    s37_taken_over_behind,
    s38_many_at_once,
    s39_control_down,
    s47_forged_source,
    s48_noisy_tenant,
    s49_top_level_dies,
    s50_top_and_nodes_die,
    s51_two_publish,
    s53_zone_off_in_return,
    s54_withdraws_for_good,
    s55_incident_during_drill,
    s56_flood,
    s57_probes_blocked,
    s59_old_answers,
)
from chaos.scenarios.scenario import Scenario
from replica.model.errors import Code, ZaibeiError

SCENARIOS: tuple[Scenario, ...] = (
    s11_flapping.SCENARIO,
    s26_lost_history.SCENARIO,
    s27_other_history.SCENARIO,
    s28_purged_gap.SCENARIO,
    s29_snapshot_interrupted.SCENARIO,
    s30_mass_delete.SCENARIO,
    s31_silent_divergence.SCENARIO,
    s32_switchover.SCENARIO,
    s33_secondary_dies.SCENARIO,
    s34_cut_off.SCENARIO,
    s35_returns_with_writes.SCENARIO,
    s36_return_interrupted.SCENARIO,
    s37_taken_over_behind.SCENARIO,
    s38_many_at_once.SCENARIO,
    s39_control_down.SCENARIO,
    s47_forged_source.SCENARIO,
    s48_noisy_tenant.SCENARIO,
    s49_top_level_dies.SCENARIO,
    s50_top_and_nodes_die.SCENARIO,
    s51_two_publish.SCENARIO,
    s53_zone_off_in_return.SCENARIO,
    s54_withdraws_for_good.SCENARIO,
    s55_incident_during_drill.SCENARIO,
    s56_flood.SCENARIO,
    s57_probes_blocked.SCENARIO,
    s59_old_answers.SCENARIO,
)
BY_NAME = {one.name: one for one in SCENARIOS}


def named(word: str) -> Scenario:
    """By name, number, or the beginning of one name. Raises ZaibeiError(NOT_FOUND)."""
    found = [one for one in SCENARIOS if word in (one.name, str(one.number), f"s{one.number}")]
    found = found or [one for one in SCENARIOS if word and one.name.startswith(word)]
    if len(found) != 1:
        raise ZaibeiError(Code.NOT_FOUND, f"no scenario {word!r}. There are: {', '.join(BY_NAME)}. Next: zaibei drill list")
    return found[0]
