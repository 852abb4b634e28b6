"""The audit of refusals: counts are the truth however many there are, and the chain tells what was changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hosting.tenant import denials as rules
from hosting.tenant.denials import (
    GROUP,
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
from hosting.tenant.edge_denials import DenialBook
from replica.model.audit import NO_CHAIN, AuditHead, check_chain
from replica.model.errors import Code

MINUTE = 60_000
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


def test_the_oldest_go_and_the_chain_goes_on(tmp_path: Path) -> None:
    kept = book(tmp_path, records_max=4)
    for number in range(11):
        kept.add([row(1, str(number)), row(1, str(number))])
        head, lines = kept.page(0, 100)
        assert len(lines) == head.number - head.first + 1 <= 8
        before = bytes.fromhex(json.loads(lines[0])["before"])
        assert check_chain(lines, GROUP, head.first, before, head) == []
    assert head.number == 22 and head.first > 8 and book(tmp_path, 4).head == head
    assert kept.page(head.number - 1, 9)[1] == lines[-1:]


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
