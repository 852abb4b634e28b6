"""The table of SEMANTICS 4, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hosting.answer.standing import freshness_of, no_standing, row_of, standing_of
from replica.model.position import Position
from replica.model.states import Authority, Freshness
from replica.model.view import SourceView

VIEW = SourceView("gd", position=Position(bytes(16), 3, 77, b"\xab" * 32), age_ms=900, freshness=Freshness.FRESH, ready=True)

ROWS = [
    # authority, freshness, leader silent -> found, missing, authoritative, degraded
    (Authority.SOURCE, Freshness.FRESH, False, 1, 100, False, False),
    (Authority.SOURCE, Freshness.STALE_BOUNDED, False, 1, 2, False, False),
    (Authority.SOURCE, Freshness.DEGRADED, False, 1, 2, False, True),
    (Authority.SOURCE, Freshness.EXPIRED, False, 2, 2, False, False),
    (Authority.RESOLUTION, Freshness.FRESH, False, 1, 2, False, True),
    (Authority.RESOLUTION, Freshness.STALE_BOUNDED, False, 1, 2, False, True),
    (Authority.RESOLUTION, Freshness.DEGRADED, False, 1, 2, False, True),
    (Authority.RESOLUTION, Freshness.EXPIRED, False, 1, 2, False, True),
    (Authority.REGISTRATION, Freshness.FRESH, False, 1, 100, True, False),
    (Authority.REGISTRATION, Freshness.STALE_BOUNDED, False, 1, 100, True, False),
    (Authority.REGISTRATION, Freshness.DEGRADED, False, 1, 100, True, False),
    (Authority.REGISTRATION, Freshness.EXPIRED, False, 1, 100, True, False),
    (Authority.SOURCE, Freshness.FRESH, True, 1, 2, False, False),
    (Authority.SOURCE, Freshness.STALE_BOUNDED, True, 1, 2, False, False),
    (Authority.SOURCE, Freshness.DEGRADED, True, 1, 2, False, True),
    (Authority.SOURCE, Freshness.EXPIRED, True, 2, 2, False, False),
    (Authority.RESOLUTION, Freshness.DEGRADED, True, 1, 2, False, True),
    (Authority.RESOLUTION, Freshness.EXPIRED, True, 2, 2, False, False),
    (Authority.REGISTRATION, Freshness.FRESH, True, 1, 2, False, True),
    (Authority.REGISTRATION, Freshness.EXPIRED, True, 2, 2, False, False),
]


@pytest.mark.parametrize(("authority", "freshness", "silent", "found", "missing", "authoritative", "degraded"), ROWS)
def test_row(
    authority: Authority, freshness: Freshness, silent: bool, found: int, missing: int, authoritative: bool, degraded: bool
) -> None:
    row = row_of(replace(VIEW, authority=authority, freshness=freshness, leader_silent=silent))
    assert (row.found, row.missing, row.authoritative, row.degraded) == (found, missing, authoritative, degraded)


@pytest.mark.parametrize("authority", Authority)
@pytest.mark.parametrize("fault", [{"ready": False}, {"verified": False}])
def test_what_is_not_proved_never_answers(authority: Authority, fault: dict[str, bool]) -> None:
    row = row_of(replace(VIEW, authority=authority, **fault))  # type: ignore[arg-type]
    assert (row.found, row.missing, row.authoritative) == (2, 2, False)


def test_never_compared_is_not_unequal() -> None:
    assert row_of(replace(VIEW, verified=None)).found == 1


def test_text_of_2_names_position_and_freshness() -> None:
    text = standing_of(replace(VIEW, freshness=Freshness.EXPIRED, age_ms=412_000, verified=False)).text
    assert text == (
        "gd: position 3/77·abababab, expired, age 412.0 s; content differs from the source's certificate; ask another site"
    )
    assert "age unknown" in standing_of(replace(VIEW, age_ms=None)).text


def test_without_a_view_everything_is_2() -> None:
    standing = no_standing("gd: not held here")
    assert (standing.row.found, standing.row.missing) == (2, 2)
    assert standing.text == "gd: not held here; ask another site"


def test_an_answer_after_a_takeover_calls_itself_degraded() -> None:
    standing = standing_of(replace(VIEW, authority=Authority.RESOLUTION))
    assert standing.view is not None
    assert freshness_of(standing.view, standing.row) is Freshness.DEGRADED
