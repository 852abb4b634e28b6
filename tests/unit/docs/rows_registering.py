"""Rules of registration in hosted sources (semantics 2.2)."""

from __future__ import annotations

from tests.unit.docs.planting import Plant
from tests.unit.docs.rule_rows import Row

REGISTRATION = "tests/unit/store/test_registration.py"
CLERK = "tests/unit/tenant/test_clerk.py"
LEADER = "tests/integration/test_registration_leader.py"

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
]
