"""ops/docs/map.md names every file of the product once, and no file that is not there."""

from __future__ import annotations

import pytest

from tests.unit.docs.code_map import PAGE, named, tracked, updated

HINT = "python -m tests.unit.docs.code_map adds and drops lines; then give them their place and words"


def test_the_map_names_every_file_and_nothing_else() -> None:
    there, on_the_map = set(tracked()), set(named(PAGE.read_text(encoding="utf-8")))
    assert (sorted(there - on_the_map), sorted(on_the_map - there)) == ([], []), HINT


def test_the_map_is_complete_when_updated() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert updated(page) == page, HINT


def test_a_file_that_is_missing_is_added_and_a_gone_one_dropped() -> None:
    page = PAGE.read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("* `session.py`"))
    without = page.replace(line + "\n", "* `gone.py`: was here.\n")
    assert set(named(without)) - set(tracked()) == {"replica/feed/gone.py"}
    assert set(named(updated(without))) == set(tracked())


def test_a_file_named_twice_is_a_fault() -> None:
    with pytest.raises(AssertionError, match="twice"):
        named("## `ops/`: x\n* `up.py`: one.\n* `up.py`: two.\n")
