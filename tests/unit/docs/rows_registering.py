"""Rules of registration in hosted sources (semantics 2.2)."""

from __future__ import annotations

from tests.unit.docs.planting import Plant
from tests.unit.docs.rows_audit import AUDIT
from tests.unit.docs.rule_rows import Row

REGISTRATION = "tests/unit/store/test_registration.py"
CLERK = "tests/unit/tenant/test_clerk.py"
ADMITTING, RIGHTS = "tests/unit/tenant/test_admitting.py", "tests/unit/tenant/test_rights.py"
OCTETS = "tests/unit/tenant/test_octets_quota.py"
LEADER = "tests/integration/test_registration_leader.py"
HOSTILE = "tests/unit/hostile"
JSON, SESSIONS = "tests/unit/handle/test_json_writes.py", "tests/unit/handle/test_sessions.py"

REGISTERING = [
    Row(
        "2.2",
        "preconditions are tested again at apply",
        "two leaders' registrations both taking one name",
        f"{REGISTRATION}::test_one_failed_precondition_leaves_everything_as_it_was",
        Plant("replica.store.registration:judge_registration", "if unmet := _unmet(parsed, held):", "if unmet := '':"),
    ),
    Row(
        "2.2",
        "only where we are the authority",
        "two writers of one prefix: its node and us",
        f"{REGISTRATION}::test_another_registrys_authority_is_not_ours",
        Plant(
            "replica.store.registration:judge_registration",
            "if (closed := registrations_refused(group)) is not None:",
            "if (closed := None) is not None:",
        ),
    ),
    Row(
        "2.2",
        "a rate is asked before the work",
        "a tenant over its quota slowing the others by what it is refused",
        "tests/unit/tenant/test_noise.py::test_the_rate_is_asked_before_a_body_is_read_and_asking_takes_nothing_from_it",
        Plant("hosting.tenant.offices:Office.has_room", "if refusal is not None and", "if False and"),
    ),
    Row(
        "2.2",
        "a tenant's streams share one turn of the event loop",
        "a tenant with many streams keeping the others waiting for all of them",
        "tests/unit/tenant/test_noise.py::test_a_tenant_has_one_turn_a_round_however_many_streams_it_has",
        Plant("hosting.tenant.edge_turns:Turn.go_on", "while self._turns.over():", "while False:"),
    ),
    Row(
        "2.2",
        "of a lot what is not as usual is judged by itself",
        "values that nobody looked at, kept because those beside them were in order",
        "tests/unit/tenant/test_lots.py::test_of_a_lot_the_usual_values_are_not_taken_apart",
        Plant("hosting.tenant.lots:_put", "if usual and", "if True and"),
    ),
    Row(
        "2.2",
        "a lot is admitted whole only where all of it has room",
        "a quota passed by as many as are judged together",
        "tests/unit/tenant/test_lots.py::test_what_is_judged_together_ends_as_it_would_alone",
        Plant("hosting.tenant.offices:Office._ample", "desk.pending + len(lot)", "desk.pending"),
    ),
    Row(
        "2.2",
        "a refusal over the rate is told late",
        "a client that asks again at once, for ever",
        "tests/unit/tenant/test_noise.py::test_refusals_of_a_stream_are_told_late_and_nothing_is_read_meanwhile",
        Plant("hosting.tenant.rates:Bucket.refused", "return held_ms", "return 0"),
    ),
    Row(
        "2.2",
        "a tenant takes no more places than are free besides",
        "two noisy tenants whose answers are held back, and nobody else let in",
        "tests/unit/tenant/test_places.py::test_two_noisy_tenants_leave_places_for_a_third",
        Plant(
            "hosting.tenant.places:Places.one", "if self.of(tenant) >= self.total - self.taken:", "if self.taken >= self.total:"
        ),
    ),
    Row(
        "2.2",
        "what a stream holds back counts to its tenant",
        "answers held back beyond any limit",
        "tests/unit/tenant/test_noise.py::test_what_a_stream_holds_back_counts_to_its_tenants_answers",
        Plant("hosting.tenant.edge_stream:_held", "office.held += 1", "pass"),
    ),
    Row(
        "2.2",
        "a key is latched until its change ended",
        "a precondition tested against what is about to change",
        f"{CLERK}::test_changes_of_one_key_take_turns",
        Plant("hosting.tenant.desk:Desk.ask", "if line is None:", "if True:"),
    ),
    Row(
        "2.2",
        "a failed precondition is told behind a barrier",
        "a leader that was replaced stating what is no longer so",
        f"{CLERK}::test_who_was_replaced_unawares_tells_no_conflict",
        Plant("hosting.tenant.edge_clerk:Clerk._settle", "await self.barrier()", "pass"),
    ),
    Row(
        "2.2",
        "a read is behind a barrier that begins after it",
        "a read that misses what was acknowledged before it began",
        f"{CLERK}::test_reads_share_a_barrier_that_begins_after_them",
        Plant(
            "hosting.tenant.edge_clerk:Clerk._next_barrier",
            "self._barrier, self._barrier_next = self._barrier_next, None",
            "self._barrier = self._barrier_next",
        ),
    ),
    Row(
        "2.2",
        "what a request reads to be judged is behind one barrier of its own",
        "rights that were taken away, and acknowledged so, counting once more",
        "tests/unit/handle/test_sight.py::test_no_barrier_no_answer",
        Plant("hosting.handle.edge_look:Sight.at_desk", "stale=office.clerk in self._behind", "stale=True"),
    ),
    Row(
        "2.2",
        "who was overtaken is judged anew",
        "a right that another change took away meanwhile counting once more",
        "tests/unit/handle/test_sight.py::test_who_was_overtaken_is_judged_by_what_holds_then[False]",
        Plant("hosting.handle.edge_work:Work._do", "sight = self._looks.sight()", "pass"),
    ),
    Row(
        "2.2",
        "after an entry without effect all begin anew",
        "batches chained on one that never was, for ever",
        f"{CLERK}::test_an_entry_without_effect_is_cut_again",
        Plant("hosting.tenant.desk:Desk._flown", "self._tail = None", "pass"),
    ),
    Row(
        "2.2",
        "an unknown outcome is not called failed",
        "a registrar repeating a change that was carried out",
        f"{CLERK}::test_stepping_down_leaves_what_flies_unknown_and_the_rest_definite",
        Plant("hosting.tenant.desk:Desk.ended", "definite=False", "definite=True"),
    ),
    Row(
        "2.2",
        "what may have been carried out is not repeated by itself",
        "a change carried out twice",
        f"{LEADER}::test_an_answer_lost_on_the_way_is_unknown_and_not_repeated",
        Plant("hosting.tenant.edge_client:RegistrationClient._change", "None if failed.sent else False", "False"),
    ),
    Row(
        "2.2",
        "a registrar has the rights of its source alone",
        "one tenant writing another's names",
        "tests/integration/test_registration.py::test_a_registrar_writes_and_reads_its_own_source_alone",
        Plant(
            "hosting.tenant.offices:Offices.office",
            "if all(peer.fingerprint != who.fingerprint for peer in settings.registrars.peers):",
            "if False:",
        ),
    ),
    Row(
        "2.2",
        "what a right allows is tested again at apply",
        "two changes racing until one replaces what its caller may not",
        f"{ADMITTING}::test_who_may_only_create_replaces_nothing_at_apply_either",
        Plant("hosting.tenant.admitting:put_need", "return _narrowed(need, ABSENT) or replaces or need", "return need"),
    ),
    Row(
        "2.2",
        "documents are read again once one was written",
        "a right that was taken away going on to hold",
        f"{ADMITTING}::test_a_revoked_right_is_gone_with_the_next_change",
        Plant("hosting.tenant.follow:Follow.same", "if step is None or step[1]:", "if step is None:"),
    ),
    Row(
        "2.2",
        "identifiers are counted with what is under way",
        "a quota passed by many changes at once",
        f"{ADMITTING}::test_identifiers_never_exceed_their_quota_however_many_come_at_once",
        Plant("hosting.tenant.admitting:over_count", "if found + pending < limit:", "if found < limit:"),
    ),
    Row(
        "2.2",
        "octets are counted with what is under way",
        "a quota passed by many changes at once",
        f"{OCTETS}::test_octets_never_exceed_their_quota_however_many_come_at_once",
        Plant("hosting.tenant.admitting:over_octets", "if found + pending + more <= limit:", "if found + more <= limit:"),
    ),
    Row(
        "2.2",
        "what is put in place of something replaces exactly that, at apply too",
        "a quota passed by who makes it smaller, and larger again",
        f"{OCTETS}::test_what_another_leader_wrote_meanwhile_is_seen_at_apply",
        Plant("hosting.tenant.admitting:in_place", "return (exact, len", "return (need, len"),
    ),
    Row(
        "2.2",
        "a sum of octets counts for the content it names alone",
        "a quota judged by the sum of other content",
        "tests/unit/store/test_octets.py::test_a_row_left_behind_by_the_version_before_counts_for_nothing",
        Plant("replica.store.rows:OctetsRow.of", "if (records, ", "if True or (records, "),
    ),
    Row(
        "2.2",
        "a suspended tenant is not answered where its document says so",
        "a suspension by order of a court that everybody reads past",
        "tests/unit/tenant/test_views.py::test_a_suspended_tenant_is_answered_unless_its_document_says_otherwise",
        Plant("hosting.answer.resolve:plan", "if not catalog.answers(owner.source):", "if False:"),
    ),
    Row(
        "2.2",
        "a suspended tenant changes nothing",
        "a suspension that holds nobody up",
        f"{RIGHTS}::test_a_suspended_tenant_changes_nothing_and_is_read",
        Plant("hosting.tenant.rights:may", "if tenant.suspended and changes:", "if False:"),
    ),
    Row(
        "2.2",
        "a change of a tenant's documents is in the audit",
        "rights given and taken, and nobody knowing by whom",
        "tests/unit/tenant/test_audited.py::test_who_suspended_a_tenant_and_why",
        Plant("replica.model.audit_documents:documents_in", "if not changed:", "if True:"),
    ),
    *AUDIT,
    Row(
        "2.2",
        "a secret is not taken where others listen",
        "a secret key that whoever listens may use",
        f"{JSON}::test_a_secret_in_clear_is_not_even_looked_at",
        Plant("hosting.handle.edge_json:JsonDesk._takes_basic", "asked.private or self._basic_in_clear", "True"),
    ),
    Row(
        "2.2",
        "a certificate counts for the key it holds alone",
        "whoever writes another's name into a certificate registers as that one",
        "tests/unit/front/test_https.py::test_a_certificate_counts_for_the_key_it_holds_alone",
        Plant(
            "hosting.handle.edge_judge:Judge.certified",
            "same_public(public_key_of(found or NOBODYS_PUBLIC), shown.public)",
            "True",
        ),
    ),
    Row(
        "2.2",
        "all that was altered in an encrypted message sounds the same",
        "whoever alters a message on its way learns from our answers what it says",
        "tests/unit/handle/test_ciphers.py::test_all_that_was_altered_sounds_the_same",
        Plant(
            "hosting.handle.sessions:Sessions.readable",
            "raise ProtocolFault(UNREADABLE, ResponseCode.INVALID_SESSION_KEY, envelope) from",
            "raise fault from",
        ),
    ),
    Row(
        "2.2",
        "a challenge is answered once",
        "a credential that was overheard, used again",
        f"{JSON}::test_what_is_no_proof_changes_nothing[replay]",
        Plant("hosting.handle.challenges:Challenges.take", "self._drop(session_id)", "pass"),
    ),
    Row(
        "2.2",
        "a message of a session has the MAC of its key",
        "a stranger registering in a session it does not have",
        f"{SESSIONS}::test_what_is_not_of_the_session_changes_nothing[key]",
        Plant("replica.model.handle.macs:judge_mac", "if not hmac.compare_digest(wanted, credential.signature):", "if False:"),
    ),
    Row(
        "2.2",
        "a counter of a session is good once",
        "a message of a session that was overheard, carried out again",
        f"{SESSIONS}::test_what_is_not_of_the_session_changes_nothing[replay]",
        Plant("hosting.handle.sessions:Session.fresh", "if counter in self.seen or counter <= self.top - window:", "if False:"),
    ),
    Row(
        "2.2",
        "a session ends with its key",
        "a key that was taken away going on to register",
        f"{SESSIONS}::test_a_key_that_was_taken_away_ends_its_sessions",
        Plant("hosting.handle.edge_sessions:SessionDesk.lapsed", "== mark:", "!= b'':"),
    ),
    Row(
        "2.2",
        "sessions without a proof have a share of their own client",
        "one address opening sessions until nobody else gets one",
        f"{SESSIONS}::test_half_open_sessions_by_the_thousand_cost_their_sender_alone",
        Plant("hosting.handle.sessions:Sessions.room", "len(waiting) >= limits.client_opened_max", "False"),
    ),
    Row(
        "2.2",
        "a session of the JSON API ends with its key, however it was opened",
        "a key that was taken away going on to register in a session opened out of another",
        f"{HOSTILE}/test_hostile_sessions.py::test_however_a_session_was_opened_it_ends_with_its_key[another session]",
        Plant(
            "hosting.handle.edge_json_sessions:JsonSessions.lapsed",
            "await self._judge.mark(kind, session.identity) == mark",
            "True",
        ),
    ),
    Row(
        "2.2",
        "what waits for a proof over UDP, where addresses are forged, has a part of the places",
        "a hundred forged datagrams a second, and nobody registers over the Handle protocol",
        f"{HOSTILE}/test_hostile_forged.py::test_datagrams_from_everywhere_leave_streams_their_room[challenge]",
        Plant("hosting.handle.challenges:Challenges.room", "self._datagrams >= limits.datagrams_max", "False"),
    ),
    Row(
        "2.2",
        "wrong proofs in datagrams that anybody can send are counted apart from their address's streams",
        "20 forged datagrams a minute shutting a tenant's administrators out",
        f"{HOSTILE}/test_hostile_forged.py::test_wrong_proofs_in_an_owners_name_do_not_shut_it_out[verification]",
        Plant("hosting.guard.guesses:Guesses.wrong", "FORGEABLE * forgeable + client", "client"),
    ),
    Row(
        "2.2",
        "a prefix's record that another tenant keeps lends nothing the tenant does not grant",
        "a parent reading and changing a tenant's records, its secret keys among them",
        f"{HOSTILE}/test_hostile_parent.py::test_whom_a_parent_names_in_the_prefix_record_below_gains_nothing_there[key-False]",
        Plant("hosting.handle.delegation:lends", "keeper is Keeper.NODE and (own_key", "(True or own_key"),
    ),
    Row(
        "2.2",
        "whom a node above names counts below it as the tenant's documents grant",
        "a parent's administrator who writes in every tenant below",
        f"{HOSTILE}/test_hostile_parent.py::test_whom_a_parent_names_in_the_prefix_record_below_gains_nothing_there[key-True]",
        Plant("hosting.handle.delegation:lends", "if keeper is Keeper.TENANT:", "if True:"),
    ),
    Row(
        "2.2",
        "a failed sign-in has one answer",
        "a stranger told which hidden keys there are",
        f"{HOSTILE}/test_hostile_guess.py::test_a_wrong_proof_has_one_answer_whatever_stands_there",
        Plant("hosting.handle.edge_judge:_good", "if fault.code is not ResponseCode.INVALID_VALUE:", "if True:"),
    ),
    Row(
        "2.2",
        "a session is opened by a key that everybody may read",
        "a stranger told which hidden keys there are, by opening sessions with them",
        f"{HOSTILE}/test_hostile_guess.py::test_a_session_is_opened_by_a_key_that_everybody_may_read_alone",
        Plant("hosting.handle.edge_judge:Judge.to_open", "or not found.permissions & Permission.PUBLIC_READ", ""),
    ),
    Row(
        "2.2",
        "a key kept elsewhere reads secrets by a right alone",
        "a parent reading a tenant's secret keys through a group that it keeps",
        f"{HOSTILE}/test_hostile_again.py::test_a_group_or_key_that_the_parent_keeps_reads_no_secret[group in the prefix record]",
        Plant("hosting.handle.delegation:reads_hidden", "return own_key or", "return True or"),
    ),
    Row(
        "2.2",
        "a registrar without the right to read is told no secret",
        "a registrar signing in as an administrator who has more rights than it",
        f"{HOSTILE}/test_hostile_grpc.py::test_a_registrar_without_the_right_to_read_is_told_no_secret",
        Plant("hosting.tenant.offices:Office.tells_all", "return papers.tenant is None or", "return True or"),
    ),
]
