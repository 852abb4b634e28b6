"""The scale curve's page: a run replaces the lines of its own sizes and leaves the others."""

from __future__ import annotations

import pytest

from ops.bench.scale_page import BEGIN, END, MACHINE_BEGIN, MACHINE_END, Size, lines_of, renewed

EMPTY = f"# Scale\n{MACHINE_BEGIN}\n{MACHINE_END}\ntext\n{BEGIN}\n{END}\nmore\n"


def size(records: int, load_s: float = 2.0) -> Size:
    return Size(records, load_s, records / load_s, 300, 170, 170, 45, 30_000, 40_000, 60_000, 400, 200_000, 1.5)


def test_a_page_gets_its_first_lines_in_the_order_of_their_sizes() -> None:
    page = renewed(EMPTY, [size(10_000_000), size(1_000_000)], "this machine")
    assert [*lines_of(page)] == [1_000_000, 10_000_000]
    assert "this machine" in page and page.startswith("# Scale") and page.endswith("more\n")


def test_a_later_run_replaces_its_own_sizes_alone() -> None:
    page = renewed(EMPTY, [size(1_000_000), size(10_000_000)], "one")
    later = renewed(page, [size(10_000_000, 5.0), size(100_000_000)], "two")
    assert lines_of(later)[1_000_000] == lines_of(page)[1_000_000]
    assert lines_of(later)[10_000_000] != lines_of(page)[10_000_000]
    assert [*lines_of(later)] == [1_000_000, 10_000_000, 100_000_000]
    assert "two" in later and "one\n" not in later


def test_a_page_without_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="marks"):
        renewed("# Scale\n", [size(1_000_000)], "this machine")
