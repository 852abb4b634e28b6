"""Rules of the digest, the journal, the stores, the agents and durability (semantics 10, 11, 12, P1)."""

from __future__ import annotations

from tests.unit.docs.planting import Plant
from tests.unit.docs.rule_rows import AGENT, APPLY, CONSENSUS, DAMAGE, FILES, GROUP, JOURNAL, POWER, RECOVERY, Row, twin

LINKS = "tests/unit/consensus/test_link_rules.py"

DIGEST = [
    twin("10", "certificates are compared in order", "drift that nobody ever sees"),
    Row(
        "10",
        "different content at an equal chain is DIVERGED",
        "a wrong copy answering",
        f"{APPLY}::test_certificates_compare_what_we_store",
        Plant("replica.store.rules:check", "if not equal and", "if False and"),
    ),
    Row(
        "10",
        "what apply did is what is summed",
        "a digest that counts a key twice",
        f"{APPLY}::test_a_key_that_comes_twice_in_a_batch_counts_once",
        Plant("replica.store.edge_generation:Generation.begin_batch", "if len(set(keys)) != len(keys):", "if False:"),
    ),
    Row(
        "10",
        "sums are those of the certificate's position",
        "bisection chasing changes that came later",
        f"{APPLY}::test_a_certificate_pins_sums_and_content",
        Plant("replica.store.edge_reads:StoreReads.pinned_sums", "and pinned.digest.position == position", ""),
    ),
    Row(
        "10",
        "no pinned sums: UNKNOWN",
        "a difference invented from sums of two moments",
        "tests/unit/feed/test_difference.py::test_sums_no_longer_held_are_unknown",
        Plant("replica.feed.difference:_check", "if not all(answer.pinned for answer in pair):", "if False:"),
    ),
    Row(
        "10",
        "the digest is made anew from the records, from time to time",
        "a copy that vouches for what it no longer holds",
        "tests/unit/store/test_scrub.py::test_a_record_that_the_digest_does_not_know_is_found",
        Plant("replica.store.scrub:judged", "if reply.buckets or reply.records != reply.stated:", "if False:"),
    ),
]

HELLO = "tests/unit/consensus/test_hello.py"

JOURNALS = [
    Row(
        "11.1",
        "every index is walked at open, what lies behind a gap is cut",
        "a log with a hole, replayed as if it were whole",
        f"{RECOVERY}::test_entries_behind_a_gap_are_cut",
        Plant("replica.consensus.walk:walk", 'fault = "" if index == last + 1 else f"index {last + 1} is missing"', 'fault = ""'),
    ),
    Row(
        "11.1",
        "a lost acknowledged entry refuses its group",
        "a receipt whose change silently vanished",
        f"{RECOVERY}::test_a_lost_entry_that_may_have_been_acknowledged_refuses_the_group",
        Plant("replica.consensus.recovery:_refuse_loss", "if max(journal.last, index) < journal.flushed:", "if False:"),
    ),
    Row(
        "11.1",
        "a leader feeds from the last change of members it knows, where its log begins before that",
        "after a restart, members that need entries that are gone are fed nothing for ever, and nobody says so",
        "tests/unit/consensus/test_log_reads.py::test_where_the_log_begins_before_the_last_known_change_a_member_is_fed_from_that_change",
        Plant(
            "replica.consensus.log_tail:LogTail.snapshot",
            "max(self._journal.floor, self._memberships[0][0])",
            "self._journal.floor",
        ),
    ),
    Row(
        "11.1",
        "who cannot take an offered state may say so",
        "a link that ends each time, and a member that is fed nothing for as long as the offer is repeated",
        "tests/unit/consensus/test_wire.py::test_the_sound_ones_of_these_tests_are_sound",
        Plant("replica.consensus.wire:_fault_of_snapshot", " and not message.reject", ""),
    ),
    Row(
        "11.1",
        "that others know our raised boot is no promise of an earlier life",
        "a member that was fed and is fed again and again",
        f"{HELLO}::test_that_others_know_the_raised_boot_is_no_promise_of_an_earlier_life",
        Plant("replica.consensus.hello:Recall.above", "or self.boot == told.boot == self._ours", ""),
    ),
    Row(
        "11.1",
        "a boot that came to light before ours was raised to it is one",
        "two lives of one member under one number",
        f"{HELLO}::test_more_that_comes_to_light_meanwhile_is_above_what_was_raised",
        Plant("replica.consensus.hello:Recall.raised", "if boot > self.told.boot:", "if True:"),
    ),
    Row(
        "11.1",
        "a Hello is made once its connection stands",
        "a process made sound by what was known before the last promises of its former life",
        "tests/integration/test_links.py::test_a_hello_is_no_older_than_its_connection",
        Plant("replica.consensus.edge_link_call:MemberCall._once", "await _connect(channel)", "pass"),
    ),
    Row(
        "4",
        "little is on its way to a member beyond what is known to have come",
        "live changes behind megabytes of a catch-up on a narrow line",
        f"{LINKS}::test_little_is_on_its_way_and_the_line_does_not_stand_idle",
        Plant("replica.consensus.link_pace:Pace.room", "room = self.octets_max - ahead_octets", "room = 1 << 20"),
    ),
    Row(
        "4",
        "a group that has little to say waits for one turn of the others",
        "a group that catches up having the link for itself",
        f"{LINKS}::test_a_group_with_little_to_say_waits_for_one_turn_of_each_other_group",
        Plant("replica.consensus.link_frames:Outbox.take", "self._fresh or self._groups", "self._groups or self._fresh"),
    ),
    Row(
        "11.2",
        "truncated only behind what was applied before a flush that returned",
        "entries gone from the journal and not yet in the store",
        f"{GROUP}::test_truncates_only_behind_what_was_applied_before_the_flush",
        Plant(
            "replica.consensus.group_keep:GroupKeep._truncate",
            "self._durable if keep is None else",
            "self.last if keep is None else",
        ),
    ),
    Row(
        "11.2",
        "durable_applied is read before the flush",
        "the same, one write later",
        f"{CONSENSUS}::test_every_seed_keeps_the_promises",
        f"{CONSENSUS}::test_each_planted_fault_turns_a_seed_red[durable_applied read after the flush]",
    ),
    Row(
        "11.2",
        "a store older than the first journal entry is refused",
        "a copy that skips the entries in between",
        f"{RECOVERY}::test_a_store_older_than_the_journal_is_refused_with_the_command",
        Plant("replica.consensus.recovery:_refuse_loss", "if journal.known and index < journal.floor:", "if False:"),
    ),
    Row(
        "11.2",
        "entries come once and without a hole, at apply too",
        "position rows that vouch for what was never written",
        f"{APPLY}::test_an_entry_applied_before_is_skipped_and_a_missing_one_is_damage",
        Plant(
            "replica.store.edge_store:SourceStore._apply", "if live.row.index and entry.index != live.row.index + 1:", "if False:"
        ),
    ),
    Row(
        "11.3",
        "a stalled store write is back-pressure and comes again",
        "every thread of the process frozen, or a batch lost",
        f"{DAMAGE}::test_no_write_ahead_log_and_no_stalled_writes",
        Plant("replica.store.edge_rocks:write_options", "no_slowdown = True", "no_slowdown = False"),
    ),
    Row(
        "11.3",
        "a stalled journal write is tried again with a new batch",
        "the same, in the journal",
        f"{JOURNAL}::test_a_stalled_write_is_tried_again_with_a_new_batch",
        Plant("replica.consensus.edge_journal:Journal._write", "if exc.code is not Code.BUSY:", "if True:"),
    ),
    Row(
        "11.5",
        "one budget for all stores, kept over a reopen",
        "memory that grows with the number of sources",
        f"{DAMAGE}::test_reopening_uses_the_budgets_cache",
        Plant("replica.store.edge_rocks:options", "budget.cache if budget else", ""),
    ),
    Row(
        "11.5",
        "nearly empty memtables of all stores fit the budget",
        "stores that flush at every write, because there are many of them",
        "tests/unit/store/test_memtables.py::test_nearly_empty_memtables_of_all_stores_fit_the_budget",
        Plant("replica.store.edge_rocks:options", "budget.memtable_octets_each if budget else", ""),
    ),
    Row(
        "11.5",
        "open files are checked at start",
        "a store that fails hours later, in the middle of a compaction",
        f"{DAMAGE}::test_open_files_are_checked",
        Plant("replica.store.edge_rocks:check_open_files", "hard < needed:", "False:"),
    ),
]

AGENTS = [
    Row(
        "12",
        "files are read at rest",
        "a half-written file taken for a mass delete",
        f"{FILES}::test_a_file_is_read_only_at_rest",
        Plant("replica.agent.edge_files:FileReader.poll", "if now - self._seen_s < self.rest_s:", "if False:"),
    ),
    Row(
        "12",
        "what changed while it was read does not count",
        "a mixture of two states published as one",
        f"{FILES}::test_what_changed_while_it_was_read_does_not_count",
        Plant("replica.agent.edge_files:FileReader._read", "or self._signature() != found:", "or False:"),
    ),
    Row(
        "12",
        "a missing file is no empty registry",
        "a registry deleted by an unmounted disk",
        f"{FILES}::test_a_missing_file_is_no_empty_registry",
        Plant("replica.agent.edge_files:FileReader._signature", "return None", "continue"),
    ),
    Row(
        "12",
        "deletes are found by the full difference",
        "names that live on in the copy",
        f"{FILES}::test_a_full_difference_with_deletes",
        Plant(
            "replica.agent.readers:difference",
            "while have is not None and have[0] < key:\n            yield Change(OP_DELETE, have[0])",
            "while have is not None and have[0] < key:",
        ),
    ),
    Row(
        "12",
        "fsynced before it is offered",
        "a change the copy has and its source forgot",
        f"{AGENT}::test_nothing_is_readable_before_the_fsync_returned",
        Plant("replica.agent.edge_segments:SegmentFiles.append", "self._fsync(self._handle)", "pass"),
    ),
    Row(
        "12",
        "without its state it asks for an epoch",
        "seq numbers given twice",
        f"{AGENT}::test_lost_state_asks_for_an_epoch_and_invents_none",
        Plant(
            "replica.agent.edge_log:AgentLog._remember",
            'self._epoch_wanted = "the agent\'s log was lost: it no longer holds the epoch it was granted"',
            "pass",
        ),
    ),
]

DURABLE = [
    twin("P1", "receipts follow apply", "a receipt for what was never committed"),
    Row(
        "P1",
        "acknowledged means fsynced",
        "a receipted change lost with the power",
        f"{POWER}::test_all_that_was_acknowledged_survives_a_power_cut",
        f"{POWER}::test_a_journal_that_forgets_to_flush_is_caught_twice",
    ),
    Row(
        "P1",
        "a failed fsync ends the journal for good",
        'a later fsync that "succeeds" over lost pages',
        f"{JOURNAL}::test_a_failed_flush_ends_the_journal_for_good",
        Plant("replica.consensus.edge_journal:Journal._write_and_flush", "self._fail(exc)\n", "self._tell(ops)\n"),
    ),
    Row(
        "P1",
        "committed is what was flushed",
        "the same, in the order of the group",
        f"{CONSENSUS}::test_every_seed_keeps_the_promises",
        f"{CONSENSUS}::test_each_planted_fault_turns_a_seed_red[acknowledged before the flush]",
    ),
]

GROUND = [*DIGEST, *JOURNALS, *AGENTS, *DURABLE]
