"""The history of drills, made anew from the bundles each time: no index that could say something else than they do. Pure.

| state | when |
| --- | --- |
| sound | signed by the folder's key, and the bundle before it is the one it names |
| damaged | not as it was signed: nothing it says is shown |
| unchained | signed, but what lies before it is not what it names: that one was exchanged, changed or lost |
| missing | a number between others that is not there |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from chaos.evidence.bundle import FIRST, Bundle, RedProof, Rpo, Verdict
from chaos.evidence.seal import read
from replica.model.errors import ZaibeiError


class State(StrEnum):
    SOUND = "sound"
    DAMAGED = "damaged"
    UNCHAINED = "unchained"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Stored:
    """A bundle's file as it lies there; nothing of it is believed yet. `number`: by its name."""

    name: str
    number: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """One drill. What a damaged or missing bundle says is not known: verdict None. `planted`: "" but for red runs."""

    number: int
    name: str
    state: State
    why: str = ""
    scenario: str = ""
    story: str = ""
    planted: str = ""
    verdict: Verdict | None = None
    began_ms: int = 0
    took_ms: int = 0
    receipts_lost: int | None = None
    red: Verdict | None = None  # what the run with its planted bug said, as far as this bundle knows
    sha256: str = ""


def index(stored: Iterable[Stored], public: bytes) -> tuple[Row, ...]:
    """All drills of a folder.

    Args:
        stored: by rising number; read one after the other, never all at once.
        public: the folder's key, 32 octets.
    """
    rows, expected, before = list[Row](), 1, FIRST
    for one in stored:
        for gone in range(expected, one.number):
            rows.append(Row(gone, "", State.MISSING, "no bundle of this number is there"))
        before = before if one.number == expected else ""
        rows.append(_row(one, public, before))
        expected, before = one.number + 1, sha256(one.octets).hexdigest()
    return tuple(rows)


def _row(one: Stored, public: bytes, before: str) -> Row:
    try:
        bundle = read(one.octets, public)
    except ZaibeiError as exc:
        return Row(one.number, one.name, State.DAMAGED, exc.trouble.message)
    if bundle.header.number != one.number:
        return Row(one.number, one.name, State.DAMAGED, f"its name says {one.number}, it itself {bundle.header.number}")
    if bundle.header.previous != before:
        return _told(one, bundle, State.UNCHAINED, "the bundle before it is not the one it names")
    return _told(one, bundle, State.SOUND, "")


def _told(one: Stored, bundle: Bundle, state: State, why: str) -> Row:
    drill = bundle.drill
    rpo = next(part for part in bundle.parts if isinstance(part, Rpo))
    red = next(part for part in bundle.parts if isinstance(part, RedProof))
    return Row(
        one.number, one.name, state, why, drill.scenario, drill.story, drill.planted, bundle.verdict, drill.began_ms,
        drill.took_ms, rpo.receipts, red.verdict, bundle.sha256,
    )  # fmt: skip


def newest_red(rows: Iterable[Row], scenario: str, planted: str) -> Row | None:
    """The newest sound run of a scenario with its planted bug."""
    found = [row for row in rows if row.state is State.SOUND and row.scenario == scenario and planted and row.planted == planted]
    return max(found, key=lambda row: row.number, default=None)
