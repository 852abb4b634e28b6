"""`zaibei status`: every source of a member at a glance; what is not known is said to be UNKNOWN."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import click
import msgspec
from rich.console import Group
from rich.text import Text

from ops.admin.values import Readiness, SourceStatus, Status
from ops.cli import watching
from ops.cli.exits import Exit
from ops.cli.style import Console, admin, styled, table, target_options
from ops.text import printable
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position

WATCH_S_DEFAULT, WATCH_S_MIN = 1.0, 0.2
COLUMNS = (
    "source",
    "feed",
    "position",
    "lag",
    "age",
    "rpo",
    "freshness",
    "verified",
    "answers",
    "takeover-ready",
    "records",
    "held",
    "quarantined",
)
RESULT_STYLE = {"pass": "green", "fail": "red"}
FRESHNESS_STYLE = {"fresh": "green", "stale_bounded": "yellow", "degraded": "yellow", "expired": "red"}


@click.command()
@click.argument("source", default="")
@target_options
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C; with --json one document a line.")
@click.option(
    "--every", type=click.FloatRange(min=WATCH_S_MIN), default=WATCH_S_DEFAULT, show_default=True, help="Seconds between looks."
)
@click.option("--check", is_flag=True, help="For monitors: exit 9 when something is wrong, 11 when something is UNKNOWN.")
@styled
def status(console: Console, source: str, watch: bool, every: float, check: bool) -> int:
    """Every source of the running member; or one SOURCE, with what its readiness for a takeover rests on.

    \b
    lag         changes the source stated that we have not applied
    age         seconds since our position was known to be the newest
    rpo         lag and age are within the source's target; UNKNOWN 2 s after nothing is heard of it
    verified    a certificate of the source compared equal with our content, at most 7 s ago
    answers     who answers for it: itself, or we in its place
    takeover-ready   a takeover now would be found by clients

    \b
    Examples:
      zaibei status
      zaibei status --watch
      zaibei status node-a --check --json
    """
    if watch:
        return watching.watch(console, lambda: _look(source).shown(), every)
    look = _look(source)
    console.answer(*look.shown())
    return verdict(look.status.sources) if check else Exit.DONE


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What one look saw; `readiness` only for a named source."""

    status: Status
    readiness: list[Readiness] | None = None

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = msgspec.to_builtins(self.status)
        if self.readiness is not None:
            document["readiness"] = msgspec.to_builtins(self.readiness)
        return document

    def shown(self) -> watching.Shown:
        return self.document(), self.render()

    def render(self) -> Group:
        if self.readiness is None:
            return render(self.status)
        rows = [[one.check, Text(one.result, style=RESULT_STYLE.get(one.result, "yellow")), one.reason] for one in self.readiness]
        return Group(render(self.status), table(["takeover-ready?", "result", "why"], rows))


def _look(source: str) -> Look:
    client = admin()
    try:
        found: Status = client.status()
        if not source:
            return Look(found)
        chosen = [one for one in found.sources if one.source == source]
        if not chosen:
            names = ", ".join(one.source for one in found.sources) or "none"
            raise ZaibeiError(Code.NOT_FOUND, f"no source {source!r} at {found.member}; there are: {names}")
        return Look(dataclasses.replace(found, sources=chosen), client.readiness(source))
    finally:
        client.close()


def verdict(sources: Sequence[SourceStatus]) -> Exit:
    """The worst of all sources: wrong before UNKNOWN before good. No source at all is UNKNOWN: nothing was looked at."""
    wrong = [
        one
        for one in sources
        if one.feed in ("FORKED", "FENCED", "DIVERGED", "HELD")
        or _equal(one) is False
        or one.lag_check == "fail"
        or one.takeover_ready is False
        or not one.ready
    ]
    if wrong:
        return Exit.VERIFICATION_FAILED
    unknown = [one for one in sources if None in (one.lag_entries, one.lag_s, _equal(one), one.takeover_ready)]
    return Exit.UNKNOWN if unknown or not sources else Exit.DONE


def _equal(one: SourceStatus) -> bool | None:
    """Equal with the source as far as that is known now; of a member that does not say, as it last was."""
    return one.verified if one.digest_check is None else {"pass": True, "fail": False}.get(one.digest_check)


def render(found: Status) -> Group:
    """The table with a line above it, reasons and warnings below."""
    up_s = max(0, (found.now_ms - found.started_ms) // 1000)
    head = Text(f"{found.member}  {found.version}  process {found.pid}  on {found.machine}  up {_duration(up_s)}  {found.data}")
    parts: list[object] = [head]
    if found.sources:
        parts.append(table(COLUMNS, [_row(one) for one in found.sources]))
    else:
        parts.append(Text("No source yet. Next: add a [[source]] block to the configuration (`zaibei config example`)."))
    for one in found.sources:
        if one.detail.get("led_here") is False:
            text = f"{one.source}: another member leads it, and alone hears its node; here its feed is as it was committed last"
            parts.append(Text(printable(f"{text}. Next: zaibei cluster status names that member; zaibei status there")))
        if one.feed_reason:
            parts.append(Text(printable(f"{one.source}: {one.feed}: {one.feed_reason}"), style="yellow"))
        if one.lag_check == "fail":
            parts.append(Text(printable(f"{one.source}: lag: {one.detail.get('lag_check', '')}"), style="red"))
        if one.held:
            parts.append(Text(f"{one.source}: waits for two people. Next: zaibei hold list", style="yellow"))
        elif one.authority == "REGISTRATION" and one.feed == "FENCED":
            text = f"{one.source}: when it works again: zaibei failback plan {one.source}"
            parts.append(Text(printable(text), style="yellow"))
        elif one.feed in ("FORKED", "FENCED"):
            text = f"{one.source}: look at both sides. Next: zaibei source grant plan {one.source}"
            parts.append(Text(printable(text), style="yellow"))
    parts.extend(Text(printable(f"! {warning}"), style="yellow") for warning in found.warnings)
    return Group(*parts)  # type: ignore[arg-type]


def _row(one: SourceStatus) -> list[object]:
    return [
        one.source,
        Text(one.feed, style="green" if one.feed == "FLOWING" else "red"),
        _position(one),
        one.lag_entries,
        None if one.lag_s is None else f"{one.lag_s:.1f} s",
        None if one.lag_check in (None, "unknown") else Text(one.lag_check, style=RESULT_STYLE.get(one.lag_check, "")),
        Text(one.freshness, style=FRESHNESS_STYLE.get(one.freshness, "")),
        _equal(one),
        {"SOURCE": "itself", "RESOLUTION": "we resolve", "REGISTRATION": "we are authority"}.get(one.authority, one.authority),
        one.takeover_ready,
        one.records,
        one.held,
        one.quarantined,
    ]


def _position(one: SourceStatus) -> object:
    if not one.ready:
        return Text("not loaded", style="yellow")
    try:
        return Position.parse(one.position).short()
    except ZaibeiError:
        return None


def _duration(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    clock = f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock
