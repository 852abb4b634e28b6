"""The demo's page: one self-contained HTML file with the timeline as a picture. No script, no request to anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ops.demo.cluster_judge import Span, State
from ops.demo.judge import MEANING, NS_PER_MS, SLOW_MS, Judgement, Lane, Lookup, Verdict

WIDTH, LEFT, LANE_HEIGHT, TOP = 1_160, 150, 66, 58
_COLOUR = {Verdict.PASS: "#1a7f37", Verdict.FAIL: "#cf222e", Verdict.INCONCLUSIVE: "#9a6700"}
_STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; margin: 2em auto; max-width: 1160px; color: #1f2328 }
table { border-collapse: collapse; margin: 1em 0 }
td { padding: .15em .8em .15em 0; border-bottom: 1px solid #d8dee4; vertical-align: top }
td + td { font-variant-numeric: tabular-nums }
tr.fault td { color: #cf222e } tr.act td { color: #0550ae } tr.return td { color: #1a7f37 }
svg text { font: 12px system-ui, sans-serif }
"""
_LANES = {
    Lane.HEDGED: "hedging client",
    Lane.RECURSIVE: "recursive, TTL 0",
    Lane.NATIONAL: "recursive, TTL kept",
    Lane.PORT: "our addresses",
}
_STATES = {State.DOWN: "#cf222e", State.FROZEN: "#9a6700", State.FED: "#0550ae"}
MEMBER_HEIGHT = 26


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened. `kind`: "fault", "act" (ours), "return" or "note"."""

    at_ns: int
    kind: str
    text: str


def page(
    judged: Judgement,
    moments: Sequence[Moment],
    lookups: Sequence[Lookup],
    machine: str,
    members: Sequence[str] = (),
    spans: Sequence[Span] = (),
) -> str:
    """The whole page as text. `members`: a lane each, below those of the clients; `spans`: what happened to them."""
    figures = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(_figure(value))}</td><td>{escape(MEANING.get(name, ''))}</td></tr>"
        for name, value in judged.figures.items()
    )
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in judged.reasons)
    start = min([moment.at_ns for moment in moments] + [one.began_ns for one in lookups], default=0)
    moments = sorted(moments, key=lambda one: one.at_ns)
    story = "".join(
        f'<tr class="{escape(one.kind)}"><td>{number}</td><td>{(one.at_ns - start) / NS_PER_MS / 1000:.3f} s</td>'
        f"<td>{escape(one.text)}</td></tr>"
        for number, one in enumerate(moments, 1)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>zaibei demo: {judged.verdict.value}</title>
<style>{_STYLE}</style></head><body>
<h1>Main job: <span style="color: {_COLOUR[judged.verdict]}">{judged.verdict.value}</span></h1>
<p>A node's registry is copied to three members, the node dies, its identifiers go on being answered, it comes back with nothing
lost; members are killed, frozen and wiped meanwhile. A region without a node lives at the cluster and leaves for one of its own.
Every dot is one lookup of an outside client: green right, red not right, height = how long it took (top line: {SLOW_MS} ms).
Below, each member's time: green up, {_legend()}.
Numbers are those of "What happened" below.</p>
{_picture(moments, lookups, start, members, spans)}
<ul>{reasons}</ul><h2>Figures</h2><table>{figures}</table><h2>What happened</h2><table>{story}</table>
<p>{escape(machine)}</p></body></html>
"""


def _figure(value: float | int | bool | None) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}"


def _legend() -> str:
    colours = {State.DOWN: "red", State.FROZEN: "brown", State.FED: "blue"}
    return ", ".join(f"{colours[state]} {state.value}" for state in State)


def _picture(
    moments: Sequence[Moment], lookups: Sequence[Lookup], start: int, members: Sequence[str], spans: Sequence[Span]
) -> str:
    end = max([moment.at_ns for moment in moments] + [one.ended_ns for one in lookups], default=start + 1)
    scale = (WIDTH - LEFT - 20) / max(1, end - start)
    clients = TOP + LANE_HEIGHT * len(_LANES)
    height = clients + MEMBER_HEIGHT * len(members) + 30

    def x(at_ns: int) -> float:
        return round(LEFT + (at_ns - start) * scale, 1)

    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="timeline of lookups and faults">']
    for place, (lane, title) in enumerate(_LANES.items()):
        base = TOP + LANE_HEIGHT * (place + 1) - 12
        parts.append(f'<text x="0" y="{base - 14}">{escape(title)}</text>')
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{base}" y2="{base}" stroke="#d8dee4"/>')
        parts += [_dot(one, x(one.began_ns), base) for one in _thinned([one for one in lookups if one.lane == lane])]
    for place, member in enumerate(members):
        top = clients + MEMBER_HEIGHT * place
        parts.append(f'<text x="0" y="{top + 12}">{escape(member)}</text>')
        parts.append(f'<rect x="{LEFT}" y="{top}" width="{WIDTH - 20 - LEFT}" height="14" fill="#aceebb"/>')
        for span in sorted((one for one in spans if one.member == member), key=lambda one: one.from_ns):
            left, right = x(max(start, span.from_ns)), x(min(end, span.until_ns))
            width = max(2.0, round(right - left, 1))
            title = f"{span.state.value}, {(span.until_ns - span.from_ns) / NS_PER_MS:,.0f} ms"
            box = f'<rect x="{left}" y="{top}" width="{width}" height="14" fill="{_STATES[span.state]}">'
            parts.append(f"{box}<title>{escape(title)}</title></rect>")
    level, last = 0, float("-inf")
    for number, moment in enumerate(moments, 1):
        if moment.kind != "note":
            colour, at = {"fault": "#cf222e", "act": "#0550ae"}.get(moment.kind, "#1a7f37"), x(moment.at_ns)
            level, last = (1 - level if at - last < 24 else 0), at  # neighbours' numbers stand one above the other
            top = TOP - 16 - 18 * level
            parts.append(f'<line x1="{at}" x2="{at}" y1="{top}" y2="{height - 26}" stroke="{colour}" stroke-dasharray="3 3"/>')
            parts.append(f'<circle cx="{at}" cy="{top}" r="9" fill="{colour}"><title>{escape(moment.text)}</title></circle>')
            parts.append(f'<text x="{at}" y="{top + 4}" fill="#fff" text-anchor="middle">{number}</text>')
    step_s = max(1, round((end - start) / 1e9 / 12))
    for second in range(0, int((end - start) / 1e9) + 1, step_s):
        parts.append(f'<text x="{x(start + second * 1_000_000_000)}" y="{height - 8}" fill="#656d76">{second} s</text>')
    return "".join(parts) + "</svg>"


def _dot(one: Lookup, at: float, base: int) -> str:
    up = min(1.0, one.took_ms / SLOW_MS) * (LANE_HEIGHT - 26)
    colour = "#2da44e" if one.right else "#cf222e"
    return f'<circle cx="{at}" cy="{base - 3 - up:.1f}" r="{1.6 if one.right else 2.6}" fill="{colour}"/>'


def _thinned(lookups: Sequence[Lookup], most: int = 1_500) -> list[Lookup]:
    """Every lookup that was not right or took long, and evenly chosen others: the picture stays small and hides no fault."""
    step = max(1, len(lookups) // most)
    return [one for place, one in enumerate(lookups) if place % step == 0 or not one.right or one.took_ms > SLOW_MS / 4]
