"""Rules of the copy: batches and epochs, admission and apply, snapshots (semantics 1, 2, 3)."""

from __future__ import annotations

from tests.unit.docs.planting import Plant
from tests.unit.docs.rows_registering import REGISTERING
from tests.unit.docs.rule_rows import AGENT, APPLY, GROUP, LOADING, RESOLVE, Row, twin

BATCHES = [
    twin("1.1", "octets are what they say", "altered octets on the way becoming content"),
    twin("1.1", "cut once", "two histories that look alike because batches were cut again"),
    Row(
        "1.1",
        "limits of a batch",
        "one batch that holds every thread for seconds",
        "tests/unit/model/test_position_and_batch.py::test_the_limits_of_a_cut",
        Plant("replica.model.batch:cut_batch", "1 <= count <= BATCH_CHANGES_MAX", "count"),
    ),
    Row(
        "1.1",
        "a batch over our boundary is a conflict at apply",
        "half a batch applied twice",
        f"{APPLY}::test_a_batch_cut_again_is_a_conflict",
        Plant("replica.store.order:_same_epoch", "if after.seq > ours.seq:", "if False:"),
    ),
    twin("1.2", "only our group grants", "two writers of one prefix, each with an epoch of its own"),
    Row(
        "1.2",
        "an old epoch and another lineage are refused at apply",
        "a node that was taken over writing on",
        f"{APPLY}::test_old_epoch_other_lineage_and_ungranted_epoch",
        Plant("replica.store.order:judge", "if after.lineage != granted.lineage:", "if False:"),
    ),
    Row(
        "1.2",
        "grants only rise and are bound to their parent",
        "an epoch that begins where nobody stood",
        f"{APPLY}::test_grants_only_rise_and_their_start_is_bound_to_the_parent",
        Plant("replica.store.rules:grant", "if epoch_start(parent, start.lineage, start.epoch) != start:", "if False:"),
    ),
    Row(
        "1.2",
        "a source may ask for an epoch, never raise",
        "a restored backup being believed over what we hold",
        "tests/stories/feed/test_stories.py::test_story[epoch_asked_elsewhere]",
        Plant("replica.feed.meeting:Meeting.asked", "elif head == state.position and", "elif"),
    ),
    Row(
        "1.2",
        "a source takes a grant only at its parent",
        "a grant that skips changes the source made meanwhile",
        f"{AGENT}::test_a_grant_is_taken_once_and_only_at_its_parent",
        Plant("replica.agent.edge_log:AgentLog._begin_epoch", "if head != parent or", "if"),
    ),
    twin("1.4", "named states are committed", "a fork forgotten by a restart"),
    Row(
        "1.4",
        "holds and marks are in the store",
        "a destructive change applied because the member restarted",
        f"{APPLY}::test_a_held_batch_waits_and_all_after_it",
        Plant("replica.store.edge_state:put_state", "if octets != old_octets:", "if False:"),
    ),
]

ADMISSION = [
    twin("2.1", "order at apply", "an old leader's late entry overwriting newer content"),
    Row(
        "2.1",
        "an entry names what it follows",
        "an entry admitted for one place applied at another",
        f"{APPLY}::test_the_entry_must_name_the_boundary_its_batch_follows",
        Plant(
            "replica.store.edge_store:SourceStore._append", "if Position.from_wire(body.follows) != batch.before:", "if False:"
        ),
    ),
    Row(
        "2.1",
        "nothing is applied over a gap",
        "changes missing in the middle, and nobody knowing",
        f"{APPLY}::test_a_batch_behind_a_gap_is_not_applied",
        Plant("replica.store.order:judge", "if before == ours:", "if before.seq >= ours.seq:"),
    ),
    Row(
        "2.1",
        "a leader's own first entry comes first",
        "a new leader admitting before it knows what was committed",
        f"{GROUP}::test_nothing_is_admitted_before_the_first_entry_of_the_own_term_is_applied",
        Plant("replica.consensus.group:GroupLog._check_admission", "if self._phase is not GroupPhase.LEADING:", "if False:"),
    ),
    *REGISTERING,
    twin("2.3", "brake", "a copy that copies the disaster"),
    twin("2.3", "brake counts in flight", "a disaster in four parts"),
    Row(
        "2.3",
        "24 hours beside one minute",
        "a slow leak that empties a registry overnight",
        "tests/unit/feed/test_brake.py::test_slow_leak_trips_the_day_and_not_the_minute",
        Plant("replica.model.brake:BrakeWindows.trips", "zip(old, WINDOWS, strict=True)", "zip(old[:1], WINDOWS)"),
    ),
    Row(
        "2.3",
        "all after a hold waits",
        "what follows the disaster applied without it",
        f"{APPLY}::test_a_held_batch_waits_and_all_after_it",
        Plant("replica.store.edge_store:SourceStore._append", "if body.live and group.hold is not None and", "if False and"),
    ),
    Row(
        "2.3",
        "two people, at admission",
        "one tired person releasing a disaster",
        "tests/unit/feed/test_parts.py::test_one_key_under_two_names_is_one_person",
        Plant("replica.feed.decision:decision_entry", "min(len(names), len(keys))", "len(names)"),
    ),
    Row(
        "2.3",
        "two people, at apply",
        "the same, through an entry nobody admitted",
        f"{APPLY}::test_release_applies_what_was_held_and_needs_two",
        Plant("replica.store.edge_store:SourceStore._decide", "< APPROVALS_MIN:", "< 1:"),
    ),
    Row(
        "2.3",
        "a snapshot's difference trips the brake too",
        "the disaster coming in as a fresh full copy",
        "tests/stories/feed/test_stories.py::test_story[snapshot_over_brake]",
        Plant("replica.feed.load:Load.difference", "if not reason and desk.limits.brake:", "if False:"),
    ),
    Row(
        "2.4",
        "one bad record does not stop the rest",
        "a registry frozen by one row",
        "tests/unit/feed/test_parts.py::test_one_bad_record_does_not_stop_the_others",
        Plant("replica.feed.admission:judge", "if not rights.allows(part):", "if False:"),
    ),
    Row(
        "2.4",
        "a quarantined record counts in the digest and is hidden",
        "a copy that looks different for ever, or serves what nobody may write",
        f"{APPLY}::test_a_quarantined_record_counts_and_answers_nothing",
        Plant("replica.store.edge_generation:Generation.get_many", "if self.quarantined_total:", "if False:"),
    ),
    Row(
        "2.4",
        "a quarantined record answers 2",
        '"not found" for a name that exists',
        f"{RESOLVE}::test_quarantined_octets_are_2",
        Plant(
            "hosting.answer.resolve:answer_record",
            "if value is None else _quarantined(standing)",
            "if not value else _quarantined(standing)",
        ),
    ),
]

SNAPSHOTS = [
    Row(
        "3.1",
        "a switch waits until the members needed have staged",
        "a live copy whose files are on no disk",
        f"{LOADING}::test_a_switch_waits_until_the_copy_is_staged",
        Plant(
            "replica.store.rules:load_begin",
            '"side": SideGeneration(body.side, position, False,',
            '"side": SideGeneration(body.side, position, True,',
        ),
    ),
    Row(
        "3.1",
        "the switch names the digest that was loaded",
        "a switch to other content than was verified",
        f"{LOADING}::test_a_switch_to_other_content_takes_the_group_out_of_service",
        Plant("replica.store.edge_store:SourceStore._switch", "if wrong:", "if False:"),
    ),
    Row(
        "3.1",
        "what the source states of its snapshot must hold",
        "a transfer that lost a part becoming the copy",
        f"{LOADING}::test_what_the_source_states_must_hold",
        Plant("replica.store.edge_loader:GenerationLoader._verify", "if differs:", "if False:"),
    ),
    twin("3.2", "changes flow beside", "a registry that never catches up because it never stands still"),
    Row(
        "3.2",
        "changes reach the side generation and the live one",
        "changes lost at the switch",
        f"{LOADING}::test_the_live_copy_goes_on_while_another_loads",
        Plant("replica.store.edge_store:SourceStore._append", "if body.side:", "if False:"),
    ),
    Row(
        "3.2",
        "the source keeps its log under our lease",
        "the changes after a snapshot gone before we have them",
        f"{AGENT}::test_released_is_only_what_receipts_and_leases_allow",
        Plant("replica.agent.retention:Retention.releasable", "or wanted or", "or"),
    ),
    Row(
        "3.2",
        "no room, no load",
        "a load that fills the disk under the live copy",
        f"{LOADING}::test_no_room_no_load",
        Plant(
            "replica.store.edge_loader:GenerationLoader.start",
            "budget.disk.require_for(records_estimate * RECORD_DISK_OCTETS)",
            "pass",
        ),
    ),
    twin("3.3", "our position is proved", "another registry's content, or a rewound one, replacing ours"),
    Row(
        "3.3",
        "a snapshot behind our receipts stays beside",
        "changes we gave a receipt for vanishing with a switch",
        "tests/unit/feed/test_load_rules.py::test_a_snapshot_behind_our_receipts_stays_beside",
        Plant("replica.feed.load:Load.header", "live is not None and position.seq < live.seq", "False"),
    ),
]

COPY = [*BATCHES, *ADMISSION, *SNAPSHOTS]
