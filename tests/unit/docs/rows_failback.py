"""Rules of failback: the ledger, the freeze, and what a returning source may and may not (semantics 8)."""

from __future__ import annotations

from tests.unit.docs.planting import Plant
from tests.unit.docs.rows_graduation import GRADUATION
from tests.unit.docs.rule_rows import Row

LEDGER = "tests/unit/takeover/test_ledger.py"
LINES = "tests/unit/store/test_ledger_apply.py"
FOLLOW = "tests/unit/agent/test_follow.py"
SECOND = "tests/integration/test_failback.py"
RETURN = "tests/simulation/test_failback.py"

FAILBACK = [
    Row(
        "8",
        "failback does not pass FROZEN with an open ledger",
        "a node overwritten with writes of its own that nobody looked at",
        f"{LINES}::test_failback_does_not_pass_frozen_unsettled",
        Plant("replica.model.ladder_epochs:source_equal", "unsettled(group.ledger, group.ladder.closed_at)", '""'),
    ),
    Row(
        "8",
        "what only the source wrote enters under every policy",
        "registrations dropped because they were not copied in time",
        f"{LEDGER}::test_nothing_is_lost",
        Plant("replica.takeover.ledger:_last_word", "if side.written is Written.NO:", "if False:"),
    ),
    Row(
        "8",
        "unacknowledged needs the source's proof",
        "an acknowledged registration written off as never confirmed",
        f"{LEDGER}::test_unacknowledged_needs_a_proof",
        Plant("replica.takeover.ledger:classify", "if unacknowledged(write.seq):", "if True:"),
    ),
    Row(
        "8",
        "a key that changed since it was judged is judged again",
        "a registration here overwritten by one nobody compared it with",
        f"{LINES}::test_a_line_whose_key_changed_since_stays_open",
        Plant("replica.store.edge_ledger:_enter", "(line.verdict is Verdict.ACCEPT and now != line.ours) or", ""),
    ),
    Row(
        "8",
        "a settled line stays settled",
        "a write entering twice when a failback is run twice",
        f"{LINES}::test_an_accepted_line_enters_once_as_a_change_of_our_epoch",
        Plant("replica.store.edge_ledger:_replaces", "old.verdict not in OPEN or", ""),
    ),
    Row(
        "8",
        "the freeze closes the ledger",
        "a write classified behind the digest that was compared",
        f"{LINES}::test_failback_does_not_pass_frozen_unsettled",
        Plant("replica.store.edge_ledger:_take_lines", "if ladder.stage not in TAKEN_IN:", "if False:"),
    ),
    Row(
        "8",
        "a copy that comes nearer is waited for before the freeze",
        "nobody registering while a source copies what it could have copied before",
        f"{RETURN}::test_a_copy_that_comes_nearer_is_waited_for_before_anybody_has_to_wait",
        Plant("replica.takeover.failback:Failback._near", "if behind > NEAR and", "if False and"),
    ),
    Row(
        "8",
        "FROZEN ends after 30 s",
        "nobody registering anywhere because a node came back half",
        f"{RETURN}::test_a_freeze_that_does_not_end_leads_back",
        Plant("replica.takeover.failback:Failback._frozen", "if self._frozen_ms(world) >= FREEZE_MS_MAX:", "if False:"),
    ),
    Row(
        "8",
        "our sites stay until the node itself answers what was registered here",
        "clients sent to a node whose resolver still says that what was registered here does not exist",
        f"{RETURN}::test_it_ends_in_one_state_and_nothing_is_lost",
        Plant("replica.takeover.failback:Failback._withdraw", "if not found.agreed:", "if False:"),
    ),
    Row(
        "8",
        "each address of the node that answers must answer right",
        "one of its two resolvers read anew, the other sending its clients away",
        "tests/unit/takeover/test_hand_back.py::test_all_that_answer_must_answer_all_as_it_is_held",
        Plant(
            "replica.takeover.hand_back:answers_of",
            "if any(said[server].get(name) is False for server in speaking)",
            "if all(said[server].get(name) is False for server in speaking)",
        ),
    ),
    Row(
        "8",
        "a returning source writes no more of its own",
        "two writers between the ledger and the hand-back",
        f"{FOLLOW}::test_its_own_writing_ends_for_good_until_it_is_handed_an_epoch",
        Plant("replica.agent.edge_log:AgentLog.append", "if self.own_end is not None:", "if False:"),
    ),
    Row(
        "8",
        "where its own history ended is asked in each return",
        "a second return with the end of the first: a ledger that lacks writes, and a return that never ends",
        f"{SECOND}::test_a_second_return_over_the_same_stream_asks_anew_where_the_nodes_own_history_ends",
        Plant("replica.member.failback_runner:FailbackRunner.node", "driver.described_in == granted and ", ""),
    ),
    Row(
        "8",
        "a source keeps its own history until the ledger has it",
        "the only copy of a diverged write overwritten",
        f"{FOLLOW}::test_nothing_is_overwritten_before_our_ledger_has_it",
        Plant("replica.agent.edge_follow:begin", "own is None or taken_in != own", "False"),
    ),
    *GRADUATION,
]
