"""The audit of refusals: counts are the truth however many there are, and the chain tells what was changed."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting.tenant import denials as rules
from hosting.tenant.denials import (
    KEYS_MAX,
    NO_RIGHT,
    NOT_PROVED,
    OTHERS,
    ROWS_KEPT_MAX,
    Denial,
    Denials,
    record_of,
    summed,
)
from hosting.tenant.edge_denials import PIECE_DAYS, DenialBook
from hosting.tenant.own_records import GROUP
from replica.model.audit import NO_CHAIN, AuditHead, check_chain
from replica.model.audit_personal import DAY_MS, KEPT_DAYS
from replica.model.audit_seal import AuditKeys
from replica.model.errors import Code

MINUTE = 60_000
NOW_MS = 1_800_000_000_000
WHYS = (NO_RIGHT, NOT_PROVED)
NOTES = st.lists(st.tuples(st.integers(0, 99), st.sampled_from("ab"), st.sampled_from(WHYS), st.integers(0, 90_000)))


def row(count: int = 1, who: str = "300:88.118.9/LI", at_ms: int = 5) -> Denial:
    return Denial("region-9", who, NO_RIGHT, "", count, at_ms, at_ms)


@given(NOTES)
def test_the_sum_of_all_rows_is_the_number_of_refusals(notes: list[tuple[int, str, str, int]]) -> None:
    kept, now_ms, found = Denials(), 0, []
    for who, source, why, passed in notes:
        now_ms += passed
        kept.note(why, source, f"300:88.118.9/{who}", now_ms)
        if passed % 3 == 0:
            found += kept.over(now_ms)
    found += kept.rest()
    assert kept.rest() == [] and sum(one.count for one in found) == kept.total == len(notes)
    for why in WHYS:
        assert sum(one.count for one in found if one.why == why) == sum(1 for note in notes if note[2] == why)


def test_one_row_for_each_identity_reason_source_and_minute() -> None:
    kept = Denials()
    for at_ms in (1, 2, 59_999):
        kept.refused(Code.NOT_AUTHORISED, "region-9", "300:88.118.9/LI", at_ms)
    kept.refused(Code.OVER_QUOTA, "region-9", "300:88.118.9/LI", 3)
    kept.refused(Code.NOT_AUTHORISED, "region-8", "300:88.118.9/LI", 4)
    kept.refused(Code.CONFLICT, "region-9", "300:88.118.9/LI", 5)
    assert kept.over(59_999) == [], "the minute is not over"
    found = kept.over(MINUTE)
    assert [(one.source, one.why, one.count, one.first_ms, one.last_ms) for one in found] == [
        ("region-9", NO_RIGHT, 3, 1, 59_999), ("region-9", "over quota", 1, 3, 3), ("region-8", NO_RIGHT, 1, 4, 4)]  # fmt: skip
    assert kept.over(MINUTE) == [], "told once"


def test_an_attack_makes_counts_grow_and_not_rows() -> None:
    kept = Denials()
    for number in range(100_000):
        kept.note(NOT_PROVED, "", f"300:88.118.9/{number}" + "x" * 3_000, 7, "192.0.2.1")
    found = kept.over(MINUTE)
    assert len(found) == KEYS_MAX + 1 and found[-1].who == OTHERS and found[-1].count == 100_000 - KEYS_MAX
    assert all(len(one.who) <= rules.NAME_CHARS_MAX for one in found)
    kept.refused(Code.NOT_AUTHORISED, "region-9", "300:88.118.9/LI", MINUTE)
    assert [one.who for one in kept.over(2 * MINUTE)] == ["300:88.118.9/LI"], "the next minute has room for all"


def test_rows_that_wait_for_the_disk_are_summed_up_and_none_is_lost() -> None:
    many = [row(2, f"{number}") for number in range(3 * ROWS_KEPT_MAX)]
    found = summed(many)
    assert len(found) == ROWS_KEPT_MAX + 1 and sum(one.count for one in found) == 6 * ROWS_KEPT_MAX
    kept = Denials()
    kept.back(many)
    assert sum(one.count for one in kept.over(1)) == 6 * ROWS_KEPT_MAX


def book(folder: Path, records_max: int = 100) -> DenialBook:
    return DenialBook(folder, Denials(), lambda: 9, records_max=records_max)


def test_what_was_written_is_there_after_a_start_and_its_chain_holds(tmp_path: Path) -> None:
    first = book(tmp_path)
    first.add([row(3), row(1, "300:88.118.9/WANG")])
    again = book(tmp_path)
    again.add([row(5)])
    head, lines = again.page(0, 10)
    assert head == again.head == book(tmp_path).head and head.number == 3
    assert check_chain(lines, GROUP, 1, NO_CHAIN, head) == []
    assert [json.loads(line)["evidence"]["count"] for line in lines] == [3, 1, 5]
    assert again.page(1, 1)[1] == lines[1:2] and again.page(3, 10)[1] == []
    changed = [lines[0].replace(b'"count":3', b'"count":1'), *lines[1:]]
    for bad in (changed, lines[:2], lines[::-1], lines[1:]):
        assert check_chain(bad, GROUP, 1, NO_CHAIN, head), "changed, cut, in another order, the first one taken out"
    assert (tmp_path / "denials.audit").stat().st_mode & 0o777 == 0o600


def aged(folder: Path, now: list[int], records_max: int = 4, **more: int) -> DenialBook:
    return DenialBook(folder, Denials(), lambda: now[0], records_max=records_max, **more)


def sound(kept: DenialBook) -> list[bytes]:
    """All lines that are kept, which follow the chain that the first of them names."""
    head, lines = kept.page(0, 10_000)
    assert len(lines) == head.number - head.first + 1
    before = bytes.fromhex(json.loads(lines[0])["before"])
    assert check_chain(lines, GROUP, head.first, before, head) == []
    return lines


@pytest.mark.parametrize(("days", "first"), [(3, 1), (4, 5)])
def test_whole_pieces_go_once_they_are_older_than_the_limit_and_a_record_says_so(tmp_path: Path, days: int, first: int) -> None:
    now = [NOW_MS]
    kept = aged(tmp_path, now)
    for number in range(10):  # three pieces of four days each, the last one open
        kept.add([row(1, str(number), now[0])])
        now[0] += DAY_MS
    now[0] = NOW_MS + (KEPT_DAYS + days) * DAY_MS  # the newest record of the first piece is of day 3
    kept.add([row(1, "a", now[0])])
    assert kept.head.first == 1 and len(sound(kept)) == 11, "by the newest whole piece nothing is old yet"
    now[0] += PIECE_DAYS * DAY_MS
    kept.add([row(1, "b", now[0])])
    lines = sound(kept)
    assert kept.head.first == first and aged(tmp_path, now).head == kept.head
    told = [one["evidence"] for one in map(json.loads, lines) if one["kind"] == "dropped"]
    assert [(one["first"], one["last"], one["kept_days"]) for one in told] == ([(1, 4, KEPT_DAYS)] if first > 1 else [])
    assert all(one["chain"] == json.loads(lines[0])["before"] for one in told), "what is kept follows what went"
    assert kept.page(kept.head.number - 1, 9)[1] == lines[-1:] and kept.page(6, 3)[1] == lines[7 - first : 10 - first]


def test_a_clock_that_leaps_drops_nothing(tmp_path: Path) -> None:
    now = [NOW_MS]
    kept = aged(tmp_path, now, records_max=100)
    for days in (0, 40, 3_650, 41, 3_650, 42):
        now[0] = NOW_MS + days * DAY_MS
        kept.add([row(1, "a", now[0])])
    assert kept.head.first == 1 and len(sound(kept)) == 6


@pytest.mark.parametrize(("days", "first"), [(1, 6), (KEPT_DAYS + 100, 1)])
def test_a_longer_limit_counts_and_a_shorter_one_does_not(tmp_path: Path, days: int, first: int) -> None:
    now = [NOW_MS]
    kept = aged(tmp_path, now, kept_days=days)
    for number in range(4):
        kept.add([row(1, str(number), now[0])])
    for after in (1, KEPT_DAYS - 1, KEPT_DAYS + 40):
        assert kept.head.first == 1
        now[0] = NOW_MS + after * DAY_MS
        kept.add([row(1, "a", now[0])])
    now[0] += PIECE_DAYS * DAY_MS
    kept.add([row(1, "a", now[0])])
    assert kept.head.first == first


def test_a_quiet_members_piece_ends_too_and_files_of_the_version_before_go_on(tmp_path: Path) -> None:
    now = [NOW_MS]
    kept = aged(tmp_path, now)
    kept.add([row(1, "a", now[0])])
    os.replace(tmp_path / "denials.audit", tmp_path / "denials.before.audit")
    kept = aged(tmp_path, now)
    kept.add([row(1, "b", now[0])])
    now[0] += PIECE_DAYS * DAY_MS
    kept.add([row(1, "c", now[0])])
    assert len(sound(kept)) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "denials.000000000001.audit", "denials.000000000002.audit", "denials.audit"]  # fmt: skip


def test_a_piece_that_lacks_lies_beside_with_the_rest(tmp_path: Path) -> None:
    now = [NOW_MS]
    kept = aged(tmp_path, now)
    for number in range(13):
        kept.add([row(1, str(number), now[0])])
    (tmp_path / "denials.000000000005.audit").unlink()
    assert aged(tmp_path, now).head == AuditHead() and len(list(tmp_path.glob("*.damaged-*"))) == 3


def test_who_was_refused_and_from_where_is_not_on_the_disk_in_the_clear(tmp_path: Path) -> None:
    keys = AuditKeys((b"k" * 32,))
    kept = DenialBook(tmp_path, Denials(), lambda: NOW_MS, keys=keys)
    kept.add([Denial("region-9", "300:88.118.9/LI", NO_RIGHT, "192.0.2.77", 3, 5, 6)])
    kept.reveal("denials", [1], "wang.fang", "telephone 123")
    octets = (tmp_path / "denials.audit").read_bytes()
    for word in (b"88.118.9", b"192.0.2", b"wang.fang", b"telephone"):
        assert word not in octets
    one, other = (json.loads(line) for line in sound(kept))
    assert (one["why"], one["evidence"]["count"], one["evidence"]["source"]) == (NO_RIGHT, 3, "region-9")
    assert keys.open(one) == {"who": ["300:88.118.9/LI"], "evidence": {"client": "192.0.2.77"}}
    assert (other["kind"], other["evidence"]) == ("reveal", {"group": "denials", "numbers": [1]})
    assert keys.open(other) == {"who": ["wang.fang"], "why": "telephone 123"}
    said = json.dumps({**one["evidence"], "client": "192.0.2.77"}, sort_keys=True).encode()
    assert sha256(said).hexdigest() != one["entry"], "the record's hash is no help to who guesses an address"


def test_a_line_that_was_cut_short_is_taken_off(tmp_path: Path) -> None:
    kept = book(tmp_path)
    kept.add([row(), row()])
    path = tmp_path / "denials.audit"
    whole = path.read_bytes()
    for cut in (1, 40):
        path.write_bytes(whole[:-cut])
        again = book(tmp_path)
        assert again.head.number == 1
        again.add([row(9)])
        head, lines = again.page(0, 9)
        assert check_chain(lines, GROUP, 1, NO_CHAIN, head) == [] and head.number == 2


def test_a_file_that_cannot_be_read_lies_beside(tmp_path: Path) -> None:
    (tmp_path / "denials.audit").write_bytes(b"no record\n")
    kept = book(tmp_path)
    assert kept.head == AuditHead() and (tmp_path / "denials.damaged-9.audit").read_bytes() == b"no record\n"
    kept.add([row()])
    assert kept.head.number == 1


async def test_rows_wait_while_the_disk_takes_nothing(tmp_path: Path) -> None:
    kept = Denials()
    made = DenialBook(tmp_path / "not there", kept, lambda: MINUTE)
    kept.note(NO_RIGHT, "region-9", "300:88.118.9/LI", 1)
    await made._write(kept.over(MINUTE))
    assert made.head.number == 0
    (tmp_path / "not there").mkdir()
    made.start()
    await made.stop()
    assert made.head.number == 1 and json.loads(made.page(0, 1)[1][0])["who"] == ["300:88.118.9/LI"]


def test_a_claimed_name_says_nothing_to_a_terminal() -> None:
    kept = Denials()
    kept.note(NOT_PROVED, "", "300:88.118.9/\x1b[2J李", 1)
    assert [one.who for one in kept.rest()] == ["300:88.118.9/?[2J李"]


@pytest.mark.parametrize("who", ["300:88.118.9/李", 'a"b\n', "\x00"])
def test_a_record_is_one_line_whatever_the_name(who: str) -> None:
    line, head = record_of(row(who=who), AuditHead())
    assert b"\n" not in line and json.loads(line)["who"] == [who] and head.number == 1
