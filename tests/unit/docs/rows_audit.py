"""Rules of the audit: words about persons, and how long records are kept (semantics 2.2)."""

from __future__ import annotations

from tests.unit.docs.planting import Plant
from tests.unit.docs.rule_rows import Row

SEAL = "tests/unit/model/test_audit_seal.py"
DENIALS = "tests/unit/tenant/test_denials.py"
SHOWN = "tests/unit/ops/test_audit_commands.py"

AUDIT = [
    Row(
        "2.2",
        "words about persons are sealed before the log takes them",
        "names and reasons on every disk and in every export, for whoever reads them",
        f"{SEAL}::test_no_personal_word_is_in_a_record_and_the_key_gives_back_all_of_it",
        Plant("replica.model.audit:seal_entry", "if sealed is not None:", "if False:"),
    ),
    Row(
        "2.2",
        "a record's hash has octets in it that nobody guesses",
        "the sealed words found out by trying names against the hash",
        f"{SEAL}::test_the_hash_of_an_entry_is_no_help_to_who_guesses_its_words",
        Plant("replica.model.audit:seal_entry", "sealed.words, sealed.salt", "sealed.words, b''"),
    ),
    Row(
        "2.2",
        "sealed words are of one record alone",
        "one person's words put under another's act, and every check passed",
        f"{SEAL}::test_words_of_another_record_or_altered_ones_are_found",
        Plant("replica.model.audit_seal:_beside", "group.encode(), kind.encode(), str(at_ms).encode()", "b''"),
    ),
    Row(
        "2.2",
        "who is refused is not on the disk in the clear",
        "addresses and names of all who ever failed, on a stolen disk",
        f"{DENIALS}::test_who_was_refused_and_from_where_is_not_on_the_disk_in_the_clear",
        Plant("hosting.tenant.own_records:own_record", "if sealed is not None:", "if False:"),
    ),
    Row(
        "2.2",
        "words about persons are masked when they are shown",
        "everybody at the member's socket reading names for no reason",
        f"{SHOWN}::test_what_is_told_is_masked_and_found_by_the_whole_name",
        Plant(
            "ops.proofs:page_of", "if plain and words is not None else masked(fields, words)", "if words is not None else fields"
        ),
    ),
    Row(
        "2.2",
        "whoever is shown words about persons is in the audit first",
        "somebody looking people up, and no trace of it",
        f"{SHOWN}::test_words_are_shown_for_a_reason_that_is_kept_first",
        Plant("ops.proofs:MemberProofs.audit_reveal", "if lines:", "if False:"),
    ),
    Row(
        "2.2",
        "no record of the audit goes before six months",
        "a busy week pushing out what was decided, before anybody asks",
        "tests/unit/store/test_audit_rows.py::test_no_record_that_is_younger_than_six_months_goes_however_many_there_are",
        Plant("replica.store.edge_audit:AuditTrail._may_go", "may_go(oldest, now_ms)", "True"),
    ),
    Row(
        "2.2",
        "no setting keeps the audit for less than six months",
        "an audit that a line in a file empties",
        f"{SEAL}::test_nothing_younger_than_six_months_may_go",
        Plant("replica.model.audit_personal:may_go", "max(kept_days, KEPT_DAYS)", "kept_days"),
    ),
    Row(
        "2.2",
        "records that go leave one that says so",
        "an audit that begins somewhere, and nobody knowing what went",
        f"{DENIALS}::test_whole_pieces_go_once_they_are_older_than_the_limit_and_a_record_says_so[4-5]",
        Plant("hosting.tenant.edge_denials:DenialBook._add", "made = [*made, lambda head:", "_ = [*made, lambda head:"),
    ),
    Row(
        "2.2",
        "a clock that leaps drops no record",
        "half a year of refusals gone for one wrong second",
        f"{DENIALS}::test_a_clock_that_leaps_drops_nothing",
        Plant("hosting.tenant.edge_denials:DenialBook._going", "min(now_ms, newest_ms)", "now_ms"),
    ),
]
