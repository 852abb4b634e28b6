"""What the guard costs answers: the same member with every limit counted and none, by turns, each pair of runs a ratio."""

from __future__ import annotations

from ops.bench.bench import Bench
from ops.bench.edge_answers import FIRST_NEW, NAMES, USUAL_MB, Running
from ops.bench.edge_member import world
from ops.bench.table import Row, row

SHARE_MIN = 0.9  # of the answers without a guard
TURNS = 3
FAR = 10**9  # counted, and never reached: what a limit holds back would be cheap
LIMITS = ("udp_requests_per_s", "udp_calm_per_s", "udp_long_octets_per_s", "stream_requests_per_s", "identifier_per_s")
REFUSED = 'refused = ["192.0.2.0/24", "2001:db8::/32"]'
OFF = ("[guard]", *(f"{name} = 0" for name in LIMITS), "trusted = []")
ON = ("[guard]", *(f"{name} = {FAR}" for name in LIMITS), "trusted = []", REFUSED)


def guarded(bench: Bench) -> list[Row]:
    """Answers for a CPU second with the guard, as a share of those without it."""
    scale, turns = bench.scale, TURNS if bench.scale.runs > 1 else 1
    found: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in NAMES}
    with bench.room() as room, world(room, bench.material.path, scale.records, FIRST_NEW, 0) as one:
        for turn in range(turns):
            for place in (0, 1) if turn % 2 else (1, 0):  # who goes first takes turns too
                with one.member(memory_mb=USUAL_MB, more=ON if place else OFF) as member:
                    running = Running(bench, one, member)
                    running.wait_for_answers()
                    for kind, figures in found.items():
                        bench.tell(f"{NAMES[kind]}, guard {'on' if place else 'off'}, turn {turn + 1} of {turns}")
                        result = running.send(kind, scale.seconds)
                        figures[place].append(result["answered"] / result["cpu_s"])
    return [_row(kind, off, on) for kind, (off, on) in found.items()]


def _row(kind: str, off: list[float], on: list[float]) -> Row:
    ratios = [with_it / without for without, with_it in zip(off, on, strict=True)]
    note = f"answers/CPU-s by turns, without: {_listed(off)}; with: {_listed(on)}"
    what = f"resolution, {NAMES[kind]}, every limit of the guard counted, as a share of none"
    return row("6", what, ratios, "of the answers", target=SHARE_MIN, note=note)


def _listed(figures: list[float]) -> str:
    return ", ".join(f"{figure:,.0f}" for figure in figures)
