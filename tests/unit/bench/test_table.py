"""The bench table: what counts as met, how peers compare, what a written page keeps."""

from __future__ import annotations

import pytest

from ops.bench.__main__ import PAGE, PARTS
from ops.bench.table import END, Row, as_dict, begin, cells, markdown, number, replaced, row


def test_median_and_extremes() -> None:
    one = row("2", "ingest", [3.0, 9.0, 4.0], "records/s")
    assert (one.figure, one.low, one.high, one.runs) == (4.0, 3.0, 9.0, 3)


@pytest.mark.parametrize(
    ("figure", "fewer", "met"), [(130_000, False, True), (129_999, False, False), (130_000, True, True), (130_001, True, False)]
)
def test_met(figure: float, fewer: bool, met: bool) -> None:
    assert Row("2", "x", figure, "u", target=130_000, fewer=fewer).met is met


def test_no_target_is_neither_met_nor_missed() -> None:
    assert Row("2", "x", 1.0, "u").met is None


def test_peer_ratio_is_how_many_times_better_we_are() -> None:
    assert Row("2", "x", 200.0, "u").beside("p", [90.0, 100.0, 110.0]).ratio == 2.0
    assert Row("2", "x", 2.0, "ms", fewer=True).beside("p", [8.0]).ratio == 4.0
    missing = Row("2", "x", 2.0, "u").beside("PostgreSQL: not installed", [])
    assert missing.ratio is None and cells(missing)[5] == "PostgreSQL: not installed"


def test_numbers_for_people() -> None:
    assert [number(one) for one in (0.0912, 4.567, 29.87, 238_831.4)] == ["0.09", "4.57", "29.9", "238,831"]


def test_cells_say_everything() -> None:
    one = row("8", "p99", [4.0, 6.0, 5.5], "ms", target=5.0, fewer=True, note="n").beside("p", [11.0])
    assert cells(one) == ("p99", "5.50 ms", "4.00 to 6.00", "≤ 5.00", "NO", "p: 11.0 (we: 2.0x)", "n")
    assert as_dict(one)["met"] is False


def test_written_page_keeps_what_people_wrote_and_the_other_part() -> None:
    page = f"before\n{begin('a')}\nold a\n{END}\nbetween\n{begin('b')}\nold b\n{END}\nafter\n"
    rows = [Row("1", "a | b \\1", 1.0, "u")]
    written = replaced(page, "a", rows, "header")
    assert written.startswith("before\n") and written.endswith(f"{END}\nbetween\n{begin('b')}\nold b\n{END}\nafter\n")
    assert "old a" not in written and markdown(rows) in written and replaced(written, "a", rows, "header") == written
    assert "old a" in replaced(page, "b", rows, "header")


@pytest.mark.parametrize("page", ["", begin("a"), f"{END}{begin('a')}", f"{begin('b')}{END}", f"{begin('a')}{END}" * 2])
def test_page_without_its_marks_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="the page needs the mark"):
        replaced(page, "a", [], "header")


def test_the_page_of_benchmarks_has_all_tables() -> None:
    for part in PARTS:
        assert "header of a test" in replaced(PAGE.read_text(encoding="utf-8"), part, [], "header of a test")
