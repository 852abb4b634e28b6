"""The timeline of a bundle as one SVG picture: lookups of clients outside, what was broken, and the moments in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from chaos.evidence.bundle import Broken, Bundle, Look, Moment, What

WIDTH, LEFT, TOP = 1_160, 190, 58
LANE_HEIGHT, FAULT_HEIGHT = 60, 22
SLOW_US = 1_000_000  # the top of a lane
TITLE_MAX = 26  # letters beside a lane
FAULTS_MAX, LANES_MAX = 40, 40  # drawn; the tables hold all
RED, GREEN, PURPLE, BLUE = "#cf222e", "#1a7f37", "#8250df", "#0550ae"
_LINES = {
    What.FAULT: RED,
    What.HEAL: GREEN,
    What.RETURN: GREEN,
    What.FIRST_ANSWER: PURPLE,
    What.STEADY: PURPLE,
}


def picture(bundle: Bundle) -> str:
    """One <svg>; its texts are escaped."""
    looks = [one for one in bundle.parts if isinstance(one, Look)]
    moments = sorted((one for one in bundle.parts if isinstance(one, Moment)), key=lambda one: one.at_us)
    spans = broken_spans([one for one in bundle.parts if isinstance(one, Broken)], bundle.drill.took_ms * 1_000)[:FAULTS_MAX]
    lanes = sorted({(one.lane, one.about) for one in looks})[:LANES_MAX]
    ends = [one.at_us + one.took_us for one in looks] + [one.at_us for one in moments] + [until for _, _, until in spans]
    end = max([*ends, bundle.drill.took_ms * 1_000, 1])
    below = TOP + LANE_HEIGHT * len(lanes)
    height = below + FAULT_HEIGHT * len(spans) + 34

    def x(at_us: int) -> float:
        return round(LEFT + at_us * (WIDTH - LEFT - 20) / end, 1)

    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="timeline of lookups, faults and moments">']
    for place, (lane, about) in enumerate(lanes):
        base = TOP + LANE_HEIGHT * (place + 1) - 12
        out.append(f'<text x="0" y="{base - 12}">{_title(f"{lane} {about}")}</text>')
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{base}" y2="{base}" stroke="#d8dee4"/>')
        out += [_dot(one, x(one.at_us), base) for one in looks if (one.lane, one.about) == (lane, about)]
    for place, (fault, since, until) in enumerate(spans):
        top = below + FAULT_HEIGHT * place
        out.append(f'<text x="0" y="{top + 12}">{_title(fault)}</text>')
        width = max(2.0, round(x(until) - x(since), 1))
        told = escape(_clean(f"{fault}: {(until - since) / 1_000:,.0f} ms"))
        out.append(f'<rect x="{x(since)}" y="{top}" width="{width}" height="14" fill="#cf222e"><title>{told}</title></rect>')
    out += _marks([one for one in moments if one.what is not What.NOTE], x, height)
    step_s = max(1, round(end / 1e6 / 12))
    out += [
        f'<text x="{x(second * 1_000_000)}" y="{height - 8}" fill="#656d76">{second} s</text>'
        for second in range(0, end // 1_000_000 + 1, step_s)
    ]
    return "".join(out) + "</svg>"


def broken_spans(log: Sequence[Broken], end_us: int) -> list[tuple[str, int, int]]:
    """(fault, from, until) of each fault, in the order of their begin; one that never healed lasts to the end."""
    open_, spans = dict[str, int](), list[tuple[str, int, int]]()
    for line in sorted(log, key=lambda one: one.at_us):
        if line.state == "active":
            open_.setdefault(line.fault, line.at_us)
        elif line.fault in open_:
            spans.append((line.fault, open_.pop(line.fault), line.at_us))
    spans += [(fault, since, max(end_us, since)) for fault, since in open_.items()]
    return sorted(spans, key=lambda one: one[1])


def _marks(moments: Sequence[Moment], x: Callable[[int], float], height: int) -> list[str]:
    out, level, last = list[str](), 0, float("-inf")
    for number, moment in enumerate(moments, 1):
        colour, at = _LINES.get(moment.what, BLUE), x(moment.at_us)
        level, last = (1 - level if at - last < 24 else 0), at  # neighbours' numbers stand one above the other
        top = TOP - 16 - 18 * level
        told = escape(_clean(f"{moment.what.value}: {moment.text}"))
        out.append(f'<line x1="{at}" x2="{at}" y1="{top}" y2="{height - 26}" stroke="{colour}" stroke-dasharray="3 3"/>')
        out.append(f'<circle cx="{at}" cy="{top}" r="9" fill="{colour}"><title>{told}</title></circle>')
        out.append(f'<text x="{at}" y="{top + 4}" fill="#fff" text-anchor="middle">{number}</text>')
    return out


def _dot(one: Look, at: float, base: int) -> str:
    up = min(1.0, one.took_us / SLOW_US) * (LANE_HEIGHT - 24)
    colour, radius = ("#2da44e", 1.6) if one.right else ("#cf222e", 2.6)
    return f'<circle cx="{at}" cy="{base - 3 - up:.1f}" r="{radius}" fill="{colour}"/>'


def _title(text: str) -> str:
    clean = _clean(text)
    return escape(clean if len(clean) <= TITLE_MAX else clean[: TITLE_MAX - 1] + "…")


def _clean(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
