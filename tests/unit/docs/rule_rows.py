"""What a row of the table of rules is, and the test files its rows name."""

from __future__ import annotations

from dataclasses import dataclass

from tests.unit.docs.planting import Plant

FEED = "tests/simulation/test_feed_planted.py"
APPLY = "tests/unit/store/test_apply_rules.py"
LOADING = "tests/unit/store/test_loading.py"
DAMAGE = "tests/unit/store/test_damage.py"
CONSENSUS = "tests/simulation/test_consensus_simulation.py"
GROUP = "tests/unit/consensus/test_group.py"
RECOVERY = "tests/unit/consensus/test_recovery.py"
JOURNAL = "tests/unit/consensus/test_edge_journal.py"
POWER = "tests/integration/test_journal_power.py"
STANDING = "tests/unit/answer/test_standing.py"
RESOLVE = "tests/unit/answer/test_resolve.py"
DETECTOR = "tests/unit/takeover/test_detector.py"
FLAPS = "tests/simulation/test_takeover_detector.py"
MACHINE = "tests/unit/takeover/test_machine.py"
LIFE = "tests/simulation/test_takeover_machine.py"
FILES = "tests/unit/agent/test_files.py"
AGENT = "tests/unit/agent/test_agent_log.py"


@dataclass(frozen=True, slots=True)
class Row:
    """One rule.

    Args:
        number: in ops/docs/semantics.md; name: the rule in a few words, unique; prevents: what its absence loses or lies about.
        test: id of the test that turns red; off: what switches the rule off.
    """

    number: str
    name: str
    prevents: str
    test: str
    off: Plant | str


def twin(number: str, name: str, prevents: str) -> Row:
    """A rule of the feed: the same scenario on a class that lacks it, in the simulation."""
    case = f"{number} {name}" if number != "P1" else f"promise 1: {name}"
    return Row(number, name, prevents, f"{FEED}::test_rule[{case}]", f"{FEED}::test_scenario_sees_the_rule_missing[{case}]")


def needed(number: str, name: str, prevents: str, file: str, test: str, rule: str) -> Row:
    """A rule of takeover: the seeded run fails when it is taken out."""
    return Row(number, name, prevents, f"{file}::{test}", f"{file}::test_each_rule_is_needed[{rule}]")
