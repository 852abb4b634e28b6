"""A bundle as a page for people: one self-contained HTML file, the timeline as a picture, no script, no request to anywhere.

Chapters follow GB/T 20988-2025: 8.3 response and takeover, 8.4 rebuild and fallback, 8.5 audit, 9 test and evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TypeVar

from chaos.evidence.bundle import (
    FIRST,
    Broken,
    Bundle,
    Digest,
    Figure,
    Finding,
    LaneCount,
    Made,
    Moment,
    RedProof,
    Rpo,
    Verdict,
    What,
)
from chaos.evidence.picture import picture

COLOUR = {Verdict.PASS: "#1a7f37", Verdict.FAIL: "#cf222e", Verdict.INCONCLUSIVE: "#9a6700"}
BACK = (What.HEAL, What.RETURN)  # moments of chapter 8.4; all others belong to 8.3
T = TypeVar("T")
_STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; margin: 2em auto; max-width: 1160px; color: #1f2328 }
table { border-collapse: collapse; margin: .6em 0 }
th, td { padding: .15em .9em .15em 0; border-bottom: 1px solid #d8dee4; vertical-align: top; text-align: left }
td { font-variant-numeric: tabular-nums } code { word-break: break-all }
svg text { font: 12px system-ui, sans-serif }
"""


def page(bundle: Bundle, checked: str) -> str:
    """The whole page.

    Args:
        checked: how the bundle itself was judged before it was drawn, one sentence for the chapter on audit.
    """
    drill, verdict = bundle.drill, bundle.verdict
    began = datetime.fromtimestamp(drill.began_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    red = f"<p><b>Red run:</b> <i>{shown(drill.planted)}</i> was planted; red is right.</p>" if drill.planted else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Drill {drill.number}: {verdict.value}</title><style>{_STYLE}</style></head><body>
<h1>Drill {drill.number}, {shown(drill.story)}: <span style="color: {COLOUR[verdict]}">{verdict.value}</span></h1>
<p>{shown(drill.scenario)}, {shown(drill.layer)}, seed {drill.seed}, by {shown(drill.by)}; begun {began},
took {drill.took_ms / 1000:.1f} s, on {shown(drill.machine)}. Bundle {bundle.header.number} of its chain.</p>{red}
{_response(bundle)}{_rebuild(bundle)}{_audit(bundle, checked)}{_evaluation(bundle)}</body></html>
"""


def _response(bundle: Bundle) -> str:
    rows = [[_at(one.at_us), one.what.value, one.about, one.text] for one in _moments(bundle) if one.what not in BACK]
    return f"""<h2>8.3 Response and takeover</h2>
{picture(bundle)}
<p>Each dot is a lookup of a client outside: green right, red not right; height: how long it took. Bars: what was broken.
Lines: moments of the table, in their order.</p>
{_table(("at", "what", "about", "seen"), rows)}
<p>Touches: {shown(bundle.drill.touches)}. Clients can notice: {shown(bundle.drill.clients_notice)}. Stopped by:
{shown(bundle.drill.how_to_stop)}. At most {bundle.drill.minutes_max} minutes.</p>"""


def _rebuild(bundle: Bundle) -> str:
    rows = [[_at(one.at_us), one.what.value, one.about, one.text] for one in _moments(bundle) if one.what in BACK]
    contents = [[one.when, one.source, one.place, one.position, f"{one.records:,}", one.total] for one in _of(bundle, Digest)]
    return f"""<h2>8.4 Rebuild and fallback</h2>
{_table(("at", "what", "about", "seen"), rows)}
<h3>Content before and after</h3>{_table(("when", "source", "place", "position", "records", "sum"), contents)}"""


def _audit(bundle: Bundle, checked: str) -> str:
    faults = [[_at(one.at_us), one.fault, one.state, one.detail] for one in _of(bundle, Broken)]
    made = [[one.of, one.name, one.algorithm, one.value] for one in _of(bundle, Made)]
    before = "none, it is the first" if bundle.header.previous == FIRST else bundle.header.previous
    return f"""<h2>8.5 Audit</h2>
<p>{shown(checked)}</p>
{_table(("", ""), [["SHA-256 of this bundle", bundle.sha256], ["the bundle before it", before], ["key", bundle.header.key_id]])}
<h3>Fault log</h3>{_table(("at", "fault", "state", "detail"), faults)}
<h3>What ran</h3>{_table(("of", "name", "algorithm", "value"), made)}"""


def _evaluation(bundle: Bundle) -> str:
    figures = [[one.name, _value(one), _most(one), one.meaning] for one in _of(bundle, Figure)]
    findings = [[one.check, one.verdict.value, one.why] for one in _of(bundle, Finding)]
    lanes = [[one.lane, f"{one.lookups:,}", f"{one.failed:,}", f"{one.wrong:,}"] for one in _of(bundle, LaneCount)]
    [rpo], [red] = _of(bundle, Rpo), _of(bundle, RedProof)
    lost = [
        ["RPO_receipts", _unknown(rpo.receipts), "receipts that were not honoured"],
        ["RPO_source", _unknown(rpo.source_records), "records its clients had been told and we do not serve"],
        ["RPO_source", f"{_unknown(rpo.source_ms)} ms", "how far back in time that reaches"],
    ]
    said = "not run yet" if red.verdict is None else f"{red.verdict.value} (bundle {red.bundle[:16] or 'not kept'})"
    return f"""<h2>9 Test and evaluation</h2>
{_table(("check", "verdict", "why"), findings)}
<h3>Figures</h3>{_table(("figure", "value", "budget", "meaning"), figures)}
<h3>Loss</h3>{_table(("", "value", "meaning"), lost)}
<h3>Lookups</h3>{_table(("way of asking", "lookups", "failed", "wrong"), lanes)}
<h3>Red proof</h3><p>Planted bug: {shown(red.planted or "none stated")}. Its run said: {shown(said)}. {shown(red.why)}</p>"""


def _of(bundle: Bundle, kind: type[T]) -> list[T]:
    return [one for one in bundle.parts if isinstance(one, kind)]


def _moments(bundle: Bundle) -> list[Moment]:
    return sorted((one for one in bundle.parts if isinstance(one, Moment)), key=lambda one: one.at_us)


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{shown(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    if not body:
        return "<p>Nothing.</p>"
    return "<table><tr>" + "".join(f"<th>{shown(head)}</th>" for head in heads) + f"</tr>{body}</table>"


def _at(at_us: int) -> str:
    return f"{at_us / 1_000_000:.3f} s"


def _value(figure: Figure) -> str:
    return "not measured" if figure.value is None else f"{figure.value:,} {figure.unit}"


def _most(figure: Figure) -> str:
    return "" if figure.most is None else f"at most {figure.most:,} {figure.unit}"


def _unknown(value: int | None) -> str:
    return "not measured" if value is None else f"{value:,}"


def shown(value: object) -> str:
    """Text from elsewhere: as HTML text, and nothing in it may hide or turn round what stands beside it."""
    text = str(value)
    return escape("".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text))
