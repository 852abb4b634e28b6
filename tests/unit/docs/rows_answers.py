"""Rules of answering and takeover (semantics 4, 6, 7)."""

from __future__ import annotations

from tests.unit.docs.planting import Plant
from tests.unit.docs.rule_rows import APPLY, DETECTOR, FLAPS, LIFE, LOADING, MACHINE, RESOLVE, STANDING, Row, needed, twin

ANSWERS = [
    twin("4", "buffered beats say nothing", "a copy that calls itself fresh after a pause"),
    twin("4", "only heads that we reached count", "a copy that calls itself fresh while it lags"),
    Row(
        "4",
        "not found only when fresh",
        '"not found" for a name registered a minute ago',
        f"{STANDING}::test_row",
        Plant("hosting.answer.standing:row_of", "ROWS[view.authority, view.freshness]", "ROWS[view.authority, Freshness.FRESH]"),
    ),
    Row(
        "4",
        "past the horizon: 2",
        "old data passed off as good",
        "tests/unit/feed/test_parts.py::test_named_freshness",
        Plant("replica.feed.freshness:freshness_of", "age_ms is not None and age_ms <= how.horizon_ms", "age_ms is not None"),
    ),
    Row(
        "4",
        "unverified or incomplete: 2",
        "answers from a copy that is known to differ",
        f"{STANDING}::test_what_is_not_proved_never_answers",
        Plant("hosting.answer.standing:row_of", "if not view.ready or view.verified is False:", "if False:"),
    ),
    Row(
        "4",
        "a missing name below a gap is 2, whoever answers",
        '"not found" for what was registered and not yet copied',
        f"{RESOLVE}::test_below_a_gap_a_missing_name_is_2_even_after_a_registration_takeover",
        Plant("hosting.answer.resolve:_missing", "if not gaps or", "if True or"),
    ),
    Row(
        "4",
        "position is read with the values",
        "an answer that names a position it was not read at",
        f"{LOADING}::test_readers_move_over_without_a_wrong_answer",
        Plant(
            "replica.store.edge_generation:Generation.get_many",
            'self._position(values.pop() or b"")',
            "(values.pop(), self.row.position)[1]",
        ),
    ),
    Row(
        "4",
        "requests that waited over a pause are dropped",
        "an answer of before the pause given after it",
        "tests/unit/front/test_batcher.py::test_requests_that_may_have_waited_over_a_pause_are_refused",
        Plant("hosting.front.pause:PauseWatch.paused", "return now < self._until_ns", "return False"),
    ),
    Row(
        "4",
        "a follower's age counts from a beat of its own",
        "a copy that calls itself fresh while its leader's word was long on its way",
        "tests/unit/consensus/test_host_told.py::test_a_table_is_as_old_as_the_beat_it_echoes",
        Plant("replica.consensus.host_told:HostTold.take", "hosted.heard.told(head, left_ns", "hosted.heard.told(head, now_ns"),
    ),
    Row(
        "4",
        "a restarted member waits until it stands where it stood",
        "a client told by one member what is older than what that member told it before",
        "tests/unit/consensus/test_host_answers.py::test_it_waits_for_a_leader_where_its_last_entries_are_not_known_to_be_committed",
        Plant("replica.consensus.host_told:HostTold.recalls", "return hosted.log.caught_up or", "return True or"),
    ),
]

TAKEOVER = [
    Row(
        "6",
        "silence alone never takes over",
        "a takeover of a node whose beats were lost",
        f"{DETECTOR}::test_silence_alone_never_takes_over",
        Plant(
            "replica.takeover.detector:Detector.observation",
            "armed and self._alone()",
            "armed and self._tick_last_ns - self._alive_ns > self._limits.alone_window_ns",
        ),
    ),
    needed(
        "6",
        "one observer: three failed probes over 500 ms",
        "a takeover by a flapping link",
        FLAPS,
        "test_a_link_that_flaps_1000_times_takes_nothing_over",
        "alone: over 500 ms from the first missed beat",
    ),
    needed(
        "6",
        "two observers: the last probe started 300 ms after the last beat",
        "the same, with two",
        FLAPS,
        "test_a_link_that_flaps_1000_times_takes_nothing_over",
        "pair: last probe started 300 ms after the last beat",
    ),
    Row(
        "6",
        "a late detector discards its window",
        "a takeover because we ourselves stood still",
        f"{DETECTOR}::test_a_late_detector_discards_its_window",
        Plant("replica.takeover.detector:Detector._discard_if_late", "self._alive(now_ns)", "pass"),
    ),
    Row(
        "6",
        "any success clears",
        "failures of an hour ago added to those of now",
        f"{DETECTOR}::test_any_success_clears",
        Plant(
            "replica.takeover.detector:Detector._alive",
            "self._alive_ns = max(self._alive_ns, now_ns)\n    self._failed = self._failed_start_ns = self._failed_end_ns = 0",
            "pass",
        ),
    ),
    Row(
        "6",
        "two observers are two machines",
        "two processes on one broken machine agreeing with each other",
        f"{DETECTOR}::test_decision_table",
        Plant(
            "replica.takeover.detector:decide",
            "{one.machine for one in seen if one.pair}",
            "{one.observer for one in seen if one.pair}",
        ),
    ),
    Row(
        "6",
        "the last beat is the last that anybody had",
        "a takeover of a living source whose line became slow",
        "tests/simulation/test_takeover_late_line.py::test_a_living_source_is_not_taken_over_when_its_line_becomes_late_and_lossy",
        Plant(
            "replica.takeover.detector:_lately",
            "one.heard_ms < heard_ms_max",
            "False",
        ),
    ),
    needed(
        "7",
        "our site first",
        "the national SDK, which takes the first site, staying with the dead node",
        LIFE,
        "test_semantics_7_holds_through_everything",
        "our site first",
    ),
    needed(
        "7",
        "the node's site kept second",
        "registrations with nowhere to go",
        LIFE,
        "test_semantics_7_holds_through_everything",
        "the node's site kept second",
    ),
    needed(
        "7",
        "primary flag clear in a resolution takeover",
        "clients sending registrations to a copy",
        LIFE,
        "test_semantics_7_holds_through_everything",
        "primary flag clear",
    ),
    needed(
        "7",
        "serial above any seen, at withdrawal too",
        "resolvers keeping the older of two publications",
        LIFE,
        "test_semantics_7_holds_through_everything",
        "serial always above any seen, at withdrawal too",
    ),
    needed(
        "7",
        "serial above the node's own",
        "the same",
        LIFE,
        "test_semantics_7_holds_through_everything",
        "serial above the node's own",
    ),
    needed(
        "7",
        "a withdrawal is published",
        "clients sent to us for ever",
        LIFE,
        "test_semantics_7_holds_through_everything",
        "withdrawal is published",
    ),
    needed(
        "7",
        "overlays are withdrawn before the source has authority",
        "two sites that both call themselves the one",
        LIFE,
        "test_semantics_7_holds_through_everything",
        "overlay withdrawn before the source has authority",
    ),
    Row(
        "7",
        "serials rise at apply",
        "an old overlay put back by a late entry",
        f"{APPLY}::test_ownership_overlays_and_authority",
        Plant("replica.store.rules:overlay", "if body.serial <= group.serial_highest:", "if False:"),
    ),
    Row(
        "7",
        "overlays are merged at answer time",
        "a takeover written into the copy of somebody's registry",
        f"{RESOLVE}::test_our_site_comes_first_and_the_nodes_second",
        Plant("hosting.answer.resolve:_answer_prefix", "record if overlay is None else merge_overlay(overlay, record)", "record"),
    ),
    Row(
        "7",
        "an overlay is in no digest",
        "a copy that differs from its source while it is taken over",
        "tests/unit/store/test_overlay_apart.py::test_an_overlay_changes_neither_content_nor_digest",
        Plant(
            "replica.store.edge_store:SourceStore._rule",
            "if step.moved is not None:",
            "if kind == 'overlay':\n        change.records += 1\n    if step.moved is not None:",
        ),
    ),
    Row(
        "7",
        "serving without confirmed publication is not called found",
        "a takeover that nobody can reach, reported as done",
        f"{MACHINE}::test_unconfirmed_publication_is_serving_not_yet_found",
        Plant("replica.takeover.machine:phase_of", "Phase.PUBLISHED if found else Phase.TAKEN_OVER", "Phase.PUBLISHED"),
    ),
]

RECORD = "tests/unit/takeover/test_top_record.py"
REQUEST = "tests/unit/takeover/test_request.py"
PUBLISHING = [
    Row(
        "7",
        "an adapter never replaces a higher serial",
        "a late word of an old leader undoing a newer takeover or return",
        f"{RECORD}::test_an_older_publication_never_replaces_a_newer_one",
        Plant(
            "replica.takeover.top_record:next_change", "if marked is not None and marked[1].serial > wanted.serial:", "if False:"
        ),
    ),
    Row(
        "7",
        "what stood in the top-level record is kept before it is changed",
        "a node's site that nobody can put back",
        f"{RECORD}::test_our_site_comes_first_and_goes_again",
        Plant("replica.takeover.top_record:_publish", "if marked is None or mark != old:", "if marked is None and not sites:"),
    ),
    Row(
        "7",
        "what the node's people changed meanwhile is theirs",
        "a return that writes over the node's newer site",
        f"{RECORD}::test_what_the_nodes_people_changed_meanwhile_is_theirs",
        Plant("replica.takeover.top_record:_withdraw", "_digest(one.data) in mark.placed and", ""),
    ),
    Row(
        "7",
        "an answer by file confirms with the right signature about this very request alone",
        "a takeover called found because of a forged or older answer",
        f"{REQUEST}::test_only_a_signed_done_about_this_very_request_confirms",
        Plant("replica.takeover.request:judge_answer", "if about != sha256(request).digest():", "if False:"),
    ),
    Row(
        "7",
        "a challenge is proved only for our own request",
        "whoever sits between having a change of its own signed by us",
        "tests/unit/client/test_admin.py::test_a_challenge_about_another_request_is_never_proved",
        Plant("hosting.client.admin:challenge_in", "request_digest(request, kind)[1:] != challenge.digest", "False"),
    ),
]

QUOTAS = [
    Row(
        "4",
        "a tenant over its quota of resolutions is told to ask elsewhere",
        "one tenant's clients using up what all tenants are answered from",
        "tests/unit/front/test_quota.py::test_over_its_quota_a_tenant_is_refused_and_no_other",
        Plant("hosting.guard.quotas:Quotas.take", "taken = bucket.take_most(count, now_ms)", "taken = count"),
    ),
]

ANSWERING = [*ANSWERS, *QUOTAS, *TAKEOVER, *PUBLISHING]
