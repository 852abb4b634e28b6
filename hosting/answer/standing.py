"""How far a source's copy may be trusted at this moment, as one row of a table: what a found and a missing name are answered.

SEMANTICS 4 and DOMAIN ("what we answer"), as rows. 1 = the record, 100 = no such name, 2 = "ask another site", which is the one
code that makes standard resolvers go on (100, 3, 5, 7 and 301 are final for them).

| who answers | freshness | found | missing | authoritative | degraded |
| --- | --- | --- | --- | --- | --- |
| the source | fresh | 1 | 100 | no | no |
| the source | stale_bounded | 1 | 2 | no | no |
| the source | degraded (leader silent, source found dead) | 1 | 2 | no | yes |
| the source | expired | 2 | 2 | no | no |
| we, resolution | any: a takeover stops the horizon | 1 | 2 | no | yes |
| we, registration | any | 1 | 100, and 2 below a gap, HELD or quarantine | yes | no |
| another provider: TRANSFERRED | any | 1 | 2 | no | yes |

Over every row: a copy that is not ready, or whose last certificate compared unequal, answers 2. A member that has not heard its
group's leader for 2 s is never authoritative, its missing names are 2, and an expired view is 2 whoever answers. A quarantined
record is 2. Whoever asks for an authoritative answer (AT) and finds us not to be the authority gets 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from replica.model.blocks import NONE, Blocks, blocks_of
from replica.model.states import Authority, Freshness
from replica.model.view import SourceView

FOUND: Final = 1
TRY_ANOTHER: Final = 2
NO_SUCH_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: response codes, and what the answer says of itself."""

    found: int
    missing: int
    authoritative: bool
    degraded: bool


ROWS: Final[dict[tuple[Authority, Freshness], Row]] = {
    (Authority.SOURCE, Freshness.FRESH): Row(FOUND, NO_SUCH_NAME, authoritative=False, degraded=False),
    (Authority.SOURCE, Freshness.STALE_BOUNDED): Row(FOUND, TRY_ANOTHER, authoritative=False, degraded=False),
    (Authority.SOURCE, Freshness.DEGRADED): Row(FOUND, TRY_ANOTHER, authoritative=False, degraded=True),
    (Authority.SOURCE, Freshness.EXPIRED): Row(TRY_ANOTHER, TRY_ANOTHER, authoritative=False, degraded=False),
}
for _freshness in Freshness:
    ROWS[Authority.RESOLUTION, _freshness] = Row(FOUND, TRY_ANOTHER, authoritative=False, degraded=True)
    ROWS[Authority.REGISTRATION, _freshness] = Row(FOUND, NO_SUCH_NAME, authoritative=True, degraded=False)

_SILENCE = Row(TRY_ANOTHER, TRY_ANOTHER, authoritative=False, degraded=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """A row with the view it was taken for; made once for all questions answered from one read.

    Args:
        view: of the source; None: the source is not held here, or cannot be read.
        row: codes and marks.
        why: what stands in the way when there is no view.
        blocks: what of the source is not answered by order.
    """

    view: SourceView | None
    row: Row
    why: str = ""
    blocks: Blocks = NONE

    @property
    def text(self) -> str:
        """For a person, why the answer is 2; position and freshness are in it. Made only when an answer needs it."""
        return f"{self.why}; ask another site" if self.view is None else standing_text(self.view)


def row_of(view: SourceView) -> Row:
    """The row of the table above that holds for a view."""
    if not view.ready or view.verified is False:
        return _SILENCE
    row = ROWS[view.authority, view.freshness]
    if not view.leader_silent:
        return row
    if view.freshness is Freshness.EXPIRED:
        return _SILENCE
    return Row(
        row.found,
        TRY_ANOTHER,
        authoritative=False,
        degraded=row.degraded or view.authority is not Authority.SOURCE,
    )


def standing_of(view: SourceView) -> Standing:
    """The standing of a source that was read."""
    return Standing(view, row_of(view), blocks=blocks_of(view.blocks))


def no_standing(why: str) -> Standing:
    """The standing of a source that could not be read: every answer is 2."""
    return Standing(None, _SILENCE, why)


def freshness_of(view: SourceView, row: Row) -> Freshness:
    """What an answer calls itself: the view's freshness, and `degraded` wherever the row says so."""
    return Freshness.DEGRADED if row.degraded else view.freshness


def standing_text(view: SourceView) -> str:
    """One line: source, position, freshness, age and what stands against the copy."""
    age = "unknown" if view.age_ms is None else f"{view.age_ms / 1_000:.1f} s"
    faults = [
        text
        for holds, text in (
            (not view.ready, "no complete copy yet"),
            (view.verified is False, "content differs from the source's certificate"),
            (view.leader_silent, "no word from the group's leader"),
        )
        if holds
    ]
    return "; ".join(
        [f"{view.source}: position {view.position.short()}, {view.freshness}, age {age}", *faults, "ask another site"]
    )
