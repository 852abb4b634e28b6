"""The table of the scale curve: one line a size, kept in the page; a run replaces the lines of the sizes it measured. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ops.bench.table import number

BEGIN, END = "<!-- table: make bench-scale -->", "<!-- end of table -->"
MACHINE_BEGIN, MACHINE_END = "<!-- machine: make bench-scale -->", "<!-- end of machine -->"


@dataclass(frozen=True, slots=True)
class Size:
    """What one size measured. Seconds, records or answers a second, MB of 10^6 octets.

    Args:
        load_rss_mb: most while it loaded, helper process included; rss_mb: later, while it answered.
        cold, warm: answers for a CPU second over TCP, pipelined.
    """

    records: int
    load_s: float
    load_a_s: float
    load_rss_mb: float
    disk_mb: float
    octets: float
    files: int
    changes_a_s: float
    cold: float
    warm: float
    rss_mb: float
    readout_a_s: float
    restart_s: float


HEADINGS = (
    "records", "load", "records/s", "RSS loading", "disk", "octets each", "open files", "changes/s", "cold answers/CPU-s",
    "warm answers/CPU-s", "RSS answering", "read out, records/s", "restart after SIGKILL",
)  # fmt: skip


def line(size: Size) -> str:
    """One line of the table."""
    cells = (
        f"{size.records:,}", f"{number(size.load_s)} s", number(size.load_a_s), f"{number(size.load_rss_mb)} MB",
        f"{number(size.disk_mb)} MB", number(size.octets), str(size.files), number(size.changes_a_s), number(size.cold),
        number(size.warm), f"{number(size.rss_mb)} MB", number(size.readout_a_s), f"{number(size.restart_s)} s",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def table(lines: Mapping[int, str]) -> str:
    """All lines, sizes ascending."""
    head = [f"| {' | '.join(HEADINGS)} |", f"|{' ---: |' * len(HEADINGS)}"]
    return "\n".join([*head, *(lines[records] for records in sorted(lines))])


def lines_of(page: str) -> dict[int, str]:
    """Lines that the page has, by size. Raises ValueError: it has not both marks."""
    inside = _inside(page, BEGIN, END)
    found = {}
    for one in inside.splitlines():
        first = one.strip("| ").split(" |")[0].replace(",", "")
        if first.isdigit():
            found[int(first)] = one
    return found


def renewed(page: str, sizes: Sequence[Size], machine: str) -> str:
    """The page with these sizes' lines. Raises ValueError: a mark is missing."""
    lines = {**lines_of(page), **{size.records: line(size) for size in sizes}}
    page = page.replace(f"{BEGIN}{_inside(page, BEGIN, END)}{END}", f"{BEGIN}\n{table(lines)}\n{END}")
    old = _inside(page, MACHINE_BEGIN, MACHINE_END)
    return page.replace(f"{MACHINE_BEGIN}{old}{MACHINE_END}", f"{MACHINE_BEGIN}\n{machine}\n{MACHINE_END}")


def _inside(page: str, begin: str, end: str) -> str:
    _, found, rest = page.partition(begin)
    inside, closed, _ = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page needs both marks, {begin} and {end}")
    return inside
