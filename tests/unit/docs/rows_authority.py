"""Rules of taking over registrations: fences, leases, orders, the ladder (semantics 5 and 8)."""

from __future__ import annotations

from tests.unit.docs.planting import Plant
from tests.unit.docs.rule_rows import Row

LADDER = "tests/unit/takeover/test_ladder.py"
ACTS = "tests/unit/takeover/test_ladder_acts.py"
ORDERS = "tests/unit/takeover/test_threshold_and_orders.py"
SWITCH = "tests/unit/takeover/test_switchover.py"
DRAIN = "tests/unit/client/test_guard_drain.py"
CLIMBS = "tests/simulation/test_takeover_ladder.py"

FENCES = [
    Row(
        "5.1",
        "without a fence two people approve the very act",
        "two writers of one prefix by one person's decision",
        f"{LADDER}::test_one_person_is_not_enough_for_a_source_without_a_fence",
        Plant(
            "replica.model.ladder_rules:not_enough",
            "if people >= 1 and people + ordered >= APPROVALS_NEEDED:",
            "if people >= 1:",
        ),
    ),
    Row(
        "5.1",
        "a standing order never suffices without a fence",
        "a takeover that nobody decided, of a source that writes on",
        f"{LADDER}::test_a_standing_order_never_suffices_without_a_fence",
        Plant("replica.model.ladder_rules:not_enough", "ordered = OrderKind.TAKEOVER in orders", "ordered = bool(orders)"),
    ),
    Row(
        "5.1",
        "two names are two keys",
        "one person approving twice",
        f"{LADDER}::test_one_person_is_not_enough_for_a_source_without_a_fence",
        Plant(
            "replica.model.ladder_rules:_approved",
            "people = min(len(names), len({one.signature.key_id for one in said.approvals}))",
            "people = len(said.approvals)",
        ),
    ),
    Row(
        "5.1",
        "a guard that asks no more is no fence",
        "a source taken for fenced that writes on without its guard",
        f"{ACTS}::test_a_guard_that_asks_no_more_while_its_source_speaks_is_no_fence",
        Plant(
            "replica.takeover.ladder:unguarded",
            "return waited_ms - heard_ms_ago > lease_wait_ms(state.ladder.lease_ms)",
            "return False",
        ),
    ),
    Row(
        "5.1",
        "a loss is accepted in numbers",
        "a takeover that loses more than anybody knew",
        f"{LADDER}::test_a_copy_that_is_behind_is_refused_with_the_number",
        Plant("replica.model.ladder_rules:too_far_behind", "if behind <= accepted", "if True"),
    ),
    Row(
        "5.1",
        "break-glass is reviewed by somebody else",
        "one person deciding, and judging it too",
        f"{LADDER}::test_break_glass_is_one_person_a_typed_reason_and_a_review_that_is_owed",
        Plant("replica.model.ladder_words:review", "body.approval.operator == owed.operator or", ""),
    ),
    Row(
        "5.2",
        "the lease runs out before the fence",
        "a source acknowledging writes while we register",
        f"{ACTS}::test_the_lease_runs_out_before_the_fence",
        Plant("replica.model.ladder_epochs:fenced", "if said.waited_ms < needed:", "if False:"),
    ),
    Row(
        "5.2",
        "no lease is given from the approval on",
        "a living source that is never fenced, or one that gets a lease behind the fence",
        f"{ACTS}::test_the_lease_runs_out_before_the_fence",
        Plant("replica.model.ladder_words:renew", "if ladder.stage not in RENEWABLE:", "if False:"),
    ),
    Row(
        "5.2",
        "a lease given after the plan is waited for too",
        "a writer that got its lease between plan and fence",
        f"{ACTS}::test_a_lease_that_was_given_after_the_plan_is_waited_for_too",
        Plant(
            "replica.model.ladder_epochs:fenced",
            "if fence_of(group) is Fence.WRITE_PATH:",
            "if ladder.fence is Fence.WRITE_PATH:",
        ),
    ),
    Row(
        "5.2",
        "a leader counts from its election at the earliest",
        "a lease that ended only on a clock that stood still meanwhile",
        f"{ORDERS}::test_a_lease_is_counted_from_the_renewal_or_the_election",
        Plant("replica.takeover.lease:LeaseCount.look", "if not leads:", "if False:"),
    ),
    Row(
        "5.2",
        "a clock that jumps earns nothing",
        "a restored virtual machine that fences early",
        f"{ORDERS}::test_a_clock_that_jumps_or_goes_back_earns_nothing",
        Plant(
            "replica.takeover.lease:LeaseCount.look",
            "min(now_ns - self._looked_ns, self.interval_ns + LATE_NS_MAX)",
            "now_ns - self._looked_ns",
        ),
    ),
    Row(
        "5.2",
        "one writer of one prefix and epoch",
        "two histories of one registry, both acknowledged",
        f"{CLIMBS}::test_one_writer_of_one_prefix_and_epoch_in_a_thousand_runs",
        f"{CLIMBS}::test_the_runs_find_a_rule_that_is_off[no_wait]",
    ),
    Row(
        "5.2",
        "a switchover closes the epoch at the source's own end",
        "writes of a living source that never came over",
        f"{SWITCH}::test_the_epoch_is_closed_at_the_sources_end_with_its_content_only",
        Plant("replica.model.ladder_epochs:_not_drained", "if theirs.position != at.position:", "if False:"),
    ),
    Row(
        "5.2",
        "a switchover closes the epoch over equal content only",
        "registrations going on over a copy that differs",
        f"{SWITCH}::test_the_epoch_is_closed_at_the_sources_end_with_its_content_only",
        Plant("replica.model.ladder_epochs:_not_drained", '"" if theirs.same_content(at.digest) else', '"" if True else'),
    ),
    Row(
        "5.2",
        "a switchover needs a guard that holds a lease",
        "a source asked to end its writing that nobody can keep from it",
        f"{SWITCH}::test_a_guard_that_went_away_before_the_proposal_is_noticed_at_apply",
        Plant("replica.model.ladder_rules:not_switchable", "if fence_of(group) is Fence.NONE:", "if False:"),
    ),
    Row(
        "5.2",
        "what is not drained in time goes on",
        "nobody registering anywhere because a node answers no more",
        f"{SWITCH}::test_a_source_that_does_not_answer_is_asked_again_and_then_goes_on",
        Plant("replica.takeover.switchover:Draining.next", "if waited_ms >= DRAIN_MS_MAX:", "if False:"),
    ),
    Row(
        "5.2",
        "a drained guard takes no answer to an older question",
        "the source acknowledging again while its epoch is closed",
        f"{DRAIN}::test_an_answer_to_what_was_asked_before_does_not_let_it_go_on",
        Plant("replica.client.guard:Guard.given", "if self._closing or number <= self._drained:", "if self._closing:"),
    ),
    Row(
        "5.2",
        "a statement counts for its own act alone",
        "an end of yesterday that closes the epoch in which the source writes today",
        f"{SWITCH}::test_a_statement_about_another_act_counts_for_nothing",
        Plant(
            "replica.takeover.switchover:Draining.next", "drained is not None and drained.act == self.act", "drained is not None"
        ),
    ),
    Row(
        "5.2",
        "a sealed log takes nothing",
        "a write behind the end that the source stated",
        "tests/unit/agent/test_seal.py::test_a_sealed_log_takes_nothing_and_says_where_it_ended",
        Plant("replica.agent.edge_log:AgentLog.append", "if self.sealed:", "if False:"),
    ),
    Row(
        "5.3",
        "an order is signed whole",
        "an order about another source, or for ever, made of a true one",
        f"{ORDERS}::test_every_field_is_signed",
        Plant("replica.takeover.orders:judge", "if verify(public, order_octets(order), order.signature)", "if True"),
    ),
    Row(
        "5.3",
        "an order counts once",
        "last year's order beginning this year's takeover",
        f"{ORDERS}::test_a_committed_order_counts_once_and_an_end_takes_the_others_away",
        Plant("replica.model.ladder_words:take_order", "if body.number <= numbers.get(issuer, 0):", "if False:"),
    ),
    Row(
        "5.3",
        "51 % of at least 5 probes for the whole time",
        "a takeover declared because of one bad minute",
        f"{ORDERS}::test_the_threshold_needs_the_whole_time",
        Plant("replica.takeover.threshold:Meter.evidence", "if long_enough and reached(", "if reached("),
    ),
    Row(
        "5.3",
        "nothing begins by itself while the source is heard",
        "a healthy node taken over by whoever blocks our probes",
        f"{LADDER}::test_nothing_begins_by_itself",
        Plant("replica.takeover.ladder:LadderMachine._not_by_itself", "if world.source_heard:", "if False:"),
    ),
]

LADDERS = [
    Row(
        "8",
        "behind the fence nothing of the source counts",
        "an old epoch written after it was closed",
        f"{LADDER}::test_behind_the_fence_nothing_of_the_source_counts",
        Plant("replica.store.rules:grant", "if stored.group.ladder.closed:", "if False:"),
    ),
    Row(
        "8",
        "registrations are taken from SERVING on",
        "registrations before our epoch, or while frozen for the way back",
        f"{LADDER}::test_registrations_are_taken_from_serving_on_and_not_before",
        Plant(
            "replica.model.ladder_rules:registrations_refused",
            "if stage is S.NORMAL or group.ladder.registering:",
            "if True:",
        ),
    ),
    Row(
        "8",
        "a late move is a no-op",
        "an old leader's move undoing what came after it",
        f"{ACTS}::test_a_late_move_is_a_no_op_with_a_definite_outcome",
        Plant(
            "replica.model.ladder_rules:move",
            "if begun is not ladder.stage or stage not in MOVES[ladder.stage]:",
            "if False:",
        ),
    ),
    Row(
        "8",
        "after an act none begins by itself before the source was seen well",
        "a registry that is taken over and given back all night",
        f"{ACTS}::test_after_an_act_nothing_begins_by_itself_before_the_source_was_seen_well",
        Plant("replica.takeover.ladder:LadderMachine.normal", "if ladder.held_off:", "if False:"),
    ),
    Row(
        "8",
        "approvals of an earlier act count no more",
        "signatures of last time beginning another takeover",
        f"{ACTS}::test_an_abort_before_the_fence_forgets_and_its_approvals_count_no_more",
        Plant("replica.model.ladder_rules:_proposed", "acts=ladder.acts + 1,", "acts=ladder.acts,"),
    ),
]

PREFIXES = "tests/unit/model/test_prefix_moves.py"
MOVING = "tests/unit/ops/test_moves.py"
MOVES = [
    Row(
        "9",
        "nothing is registered below what was released",
        "a registration acknowledged by the old source after the content was copied: lost",
        f"{PREFIXES}::test_nothing_is_registered_below_what_leaves_but_what_the_move_itself_drops",
        Plant("replica.model.move_rules:fenced", "if move is None or move.step not in AWAY:", "if True:"),
    ),
    Row(
        "9",
        "acquired only with the digest it was released with",
        "a prefix answered from a source that lacks half of it",
        f"{MOVING}::test_what_differs_is_not_acquired_and_nothing_is_dropped_before_it_is",
        Plant(
            "ops.moves:MemberMoves.move_acquire",
            "if (summed.records, summed.digest()) != (released.records, released.digest):",
            "if False:",
        ),
    ),
    Row(
        "9",
        "reads come from the old source until this member's own store has acquired it",
        "not found, for names that every other member answers",
        f"{PREFIXES}::test_who_answers_at_each_moment",
        Plant("replica.model.prefix_moves:where_moved", "move.target not in held", "True"),
    ),
    Row(
        "9",
        "what is neither here nor there any more is 2",
        "not found, at a member whose copies of the two groups differ in age",
        f"{PREFIXES}::test_who_answers_at_each_moment",
        Plant("replica.model.prefix_moves:_where", "return NOWHERE", "return found[0][0].source"),
    ),
    Row(
        "9",
        "old data is dropped only after it was acquired, and late",
        "the only copy of a prefix deleted; members that still read there",
        f"{MOVING}::test_old_content_stays_until_every_member_can_know",
        Plant("ops.moves:MemberMoves._drop", "if (left_ms := since_ms + DROP_AFTER_MS - _now_ms()) > 0:", "if False:"),
    ),
    Row(
        "9",
        "steps of a move come in their order, each once",
        "two sources that both own a prefix",
        f"{PREFIXES}::test_only_the_tables_steps_are_taken",
        Plant(
            "replica.model.prefix_moves:moved_on", "if move.step not in STEPS[None if was is None else was.step]:", "if False:"
        ),
    ),
    Row(
        "9",
        "registrations over every protocol go to who owns the prefix after all moves",
        "301 for ever, over the Handle protocol, below a prefix that moved",
        f"{MOVING}::test_registrations_wait_at_the_old_one_and_go_on_at_the_new_one",
        Plant("hosting.tenant.offices:Offices._settings_at", "if moved is not None:", "if False:"),
    ),
    Row(
        "9",
        "the configuration does not undo a move",
        "the old source owning the prefix again after a change of leader",
        f"{PREFIXES}::test_configured_prefixes_after_moves",
        Plant("replica.model.prefix_moves:with_moves", "if prefix not in gone", ""),
    ),
    Row(
        "9",
        "a move is recorded once, and acquired only as it was recorded",
        "one prefix recorded as on its way to two sources",
        "tests/unit/cluster/test_prefix_moved.py::test_what_is_refused",
        Plant("replica.cluster.rules:_prefix_moved", "_check(other.acquired,", "_check(True,"),
    ),
]

HEALTH = "tests/unit/tenant/test_site_health.py"
SITES = "tests/integration/test_tenant_sites.py"
PROBES = [
    Row(
        "P9",
        "an enterprise's site reads OK no longer than its interval and 2 s",
        "a dead service called healthy because nobody looks any more",
        f"{HEALTH}::test_none_reads_ok_longer_than_its_interval_and_two_seconds",
        Plant("hosting.tenant.site_health:Check.at", "return Health.UNKNOWN if stale else self.health", "return self.health"),
    ),
    Row(
        "P9",
        "a late probe of ours says nothing of an enterprise",
        "a busy moment here told to an enterprise as its failure",
        f"{SITES}::test_a_probe_of_ours_that_was_late_says_nothing",
        Plant("ops.sites:SiteProber._probe", "if now_ns - began_ns > (PROBE_S_MAX + LATE_S_MAX) * NS:", "if False:"),
    ),
    Row(
        "P9",
        "an enterprise is OK only when all its interfaces are",
        "clients of one family sent to what does not answer, under a green light",
        f"{HEALTH}::test_an_enterprise_is_ok_only_when_all_of_it_is",
        Plant("hosting.tenant.site_health:Enterprise.at", "states == {Health.OK} and", "Health.OK in states and"),
    ),
    Row(
        "P9",
        "one failed probe is no failure",
        "an event for each lost datagram",
        f"{HEALTH}::test_three_values_and_what_each_needs",
        Plant("hosting.tenant.site_health:Check.probed", "elif self.failures >= FAILED_MIN:", "elif True:"),
    ),
    Row(
        "P13",
        "no tenant sends our probes into our own network",
        "a tenant's record that lets us scan what only we can reach",
        f"{HEALTH}::test_public_ones_are_and_configured_networks_and_never_ourselves",
        Plant("hosting.tenant.site_health:not_to_probe", "if not one.is_global or one.is_multicast:", "if False:"),
    ),
    Row(
        "P13",
        "so many probes a second and no more",
        "a tenant with a thousand records making us flood somebody",
        f"{SITES}::test_no_more_probes_a_second_than_configured",
        Plant(
            "ops.sites:SiteProber.run",
            "await asyncio.sleep(self._chance.uniform(*SPREAD) / self.settings.per_s)",
            "await asyncio.sleep(0)",
        ),
    ),
]

AUTHORITY = [*FENCES, *LADDERS, *MOVES, *PROBES]
