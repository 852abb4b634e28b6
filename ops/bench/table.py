"""The table of a benchmark: rows as values, how they are judged and how they read. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

END = "<!-- end of table -->"


def begin(part: str) -> str:
    """The mark before the table of a part."""
    return f'<!-- table: make bench ARGS="--part {part} --write" -->'


@dataclass(frozen=True, slots=True)
class Row:
    """One line.

    Args:
        stage: number of the stage that made it; what: for a person.
        figure: the median of `runs`; low and high: the extremes.
        target: None: none was set. `fewer`: less is better.
        peer: what the peer is, with its figure in the same unit; empty: no peer.
    """

    stage: str
    what: str
    figure: float
    unit: str
    runs: int = 1
    low: float = 0.0
    high: float = 0.0
    target: float | None = None
    fewer: bool = False
    peer: str = ""
    peer_figure: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """None: no target."""
        if self.target is None:
            return None
        return self.figure <= self.target if self.fewer else self.figure >= self.target

    @property
    def ratio(self) -> float | None:
        """How many times the peer we are, better being more; None: no peer."""
        if not self.peer_figure or not self.figure:
            return None
        return self.peer_figure / self.figure if self.fewer else self.figure / self.peer_figure

    def beside(self, peer: str, figures: Sequence[float]) -> Row:
        """With a peer's figures of the same run; none: it is not installed."""
        return replace(self, peer=peer, peer_figure=median(figures) if figures else None)


def row(stage: str, what: str, figures: Sequence[float], unit: str, *, target: float | None = None, fewer: bool = False,
        note: str = "") -> Row:  # fmt: skip
    """A row out of several runs: their median."""
    return Row(stage, what, median(figures), unit, len(figures), min(figures), max(figures), target, fewer, note=note)


def number(value: float) -> str:
    """As people read it: three digits that matter, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cells(one: Row) -> tuple[str, ...]:
    """what, figure, span, target, met, peer, note."""
    span = f"{number(one.low)} to {number(one.high)}" if one.runs > 1 else ""
    sign = "≤" if one.fewer else "≥"
    target = "" if one.target is None else f"{sign} {number(one.target)}"
    met = {None: "", True: "yes", False: "NO"}[one.met]
    peer = one.peer
    if one.peer_figure is not None and one.ratio is not None:
        peer = f"{one.peer}: {number(one.peer_figure)} (we: {one.ratio:.1f}x)"
    return one.what, f"{number(one.figure)} {one.unit}", span, target, met, peer, one.note


HEADINGS = ("what", "figure", "runs from, to", "target", "met", "peer in the same run", "note")


def markdown(rows: Sequence[Row]) -> str:
    """The table for a page."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{' --- |' * len(HEADINGS)}"]
    lines += [f"| {' | '.join(cells(one))} |" for one in rows]
    return "\n".join(lines)


def as_dict(one: Row) -> dict[str, object]:
    """For --json."""
    names = ("stage", "what", "figure", "unit", "runs", "low", "high", "target", "met", "peer", "peer_figure", "ratio", "note")
    return {name: getattr(one, name) for name in names}


def replaced(page: str, part: str, rows: Sequence[Row], header: str) -> str:
    """A page with the table of a part replaced between its marks; everything else in it is a person's and stays.

    Raises:
        ValueError: the page has not both marks of this part.
    """
    mark = begin(part)
    if page.count(mark) != 1 or END not in page.partition(mark)[2]:
        raise ValueError(f"the page needs the mark {mark} once, and {END} behind it")
    inside = f"{mark}\n{header}\n\n{markdown(rows)}\n{END}"
    return re.sub(f"{re.escape(mark)}.*?{re.escape(END)}", lambda _: inside, page, count=1, flags=re.DOTALL)
