"""`zaibei drill`: rehearse what can break, look at what earlier drills said, check their evidence."""

from __future__ import annotations

import getpass
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.text import Text

from chaos.drills.judge import PROBER_CHECK
from chaos.drills.schedule import QUIET
from chaos.evidence import verify_bundle
from chaos.evidence.bundle import Figure, Finding, RedProof, Rpo, Verdict
from chaos.evidence.history import Row, State
from chaos.evidence.page import page
from chaos.evidence.seal import read
from chaos.scenarios.all import SCENARIOS, named
from chaos.scenarios.scenario import Scenario
from ops.cli.exits import Exit
from ops.cli.style import Console, effective, pairs, styled, table, target_options
from ops.config.values import ADMIN_SOCKET_FILE
from ops.drills import edge_beside
from ops.drills.desk import Desk, Done
from ops.drills.edge_rigs import Rig
from replica.model.errors import Code, ZaibeiError

FOLDER = "drills"
NONE = "No drill was run here. Next: zaibei drill list"
CI = "CI"
RUNS_MAX = 3
COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.INCONCLUSIVE: "yellow"}
MARKS = {Verdict.PASS: "✓ pass", Verdict.FAIL: "✗ fail", Verdict.INCONCLUSIVE: "? inconclusive"}
evidence_option = click.option(
    "--evidence",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of bundles, key and drills.toml. Default: drills in the member's data folder.",
)


@click.group()
def drill() -> None:
    """Rehearse what can break, and keep signed evidence of what outside clients saw.

    \b
    Examples:
      zaibei drill list                        what there is, and what is due
      zaibei drill run s33-secondary-dies      play one, on a stage of its own on this machine
      zaibei drill history                     every drill of this folder
      zaibei drill show 7 --page drill-7.html  one bundle, for people
      zaibei drill verify                      every signature and the chain between them
    """


def _desk(evidence: Path | None) -> Desk:
    data = effective().config.member.data
    return Desk((evidence or data / FOLDER).absolute(), data / ADMIN_SOCKET_FILE)


@drill.command("list")
@click.option("--check", is_flag=True, help="Exit 9 when a scenario is not known to be rehearsed as often as promised.")
@evidence_option
@target_options
@styled
def list_(console: Console, check: bool, evidence: Path | None) -> int:
    """All scenarios: how each stands, when it must pass next, and whether its planted bug turned it red.

    Those of the rigs are played by `make faults` and `make faults-root` in a checkout of the code; elsewhere they are not judged.

    \b
    Example:
      zaibei drill list --check
    """
    desk = _desk(evidence)
    dues = {one.scenario: one for one in desk.standings(_now_ms())}
    own = [Rig(one.name, one.number, one.story, f"zaibei drill run {one.name}", "yes", one.minutes_max) for one in SCENARIOS]
    listed = sorted((*own, *(desk.rigs or ())), key=lambda one: (one.number, one.name))
    rows = []
    for one in listed:
        due = dues[one.name]
        red = {None: "not run" if one.planted else "none planted", True: "turned red", False: "STAYED GREEN"}[due.red]
        standing = Text(due.standing.value, style="green" if due.standing in QUIET else "bold red")
        rows.append([one.name, standing, _day(due.passed_ms), _day(due.due_ms), red, one.command, due.why])
    document = [
        {**msgspec.to_builtins(dues[one.name]), "number": one.number, "story": one.story, "alarm": dues[one.name].alarm,
         "minutes_max": one.minutes_max, "command": one.command, "planted": bool(one.planted)}
        for one in listed
    ]  # fmt: skip
    left_out = [] if desk.rigs is not None else ["Scenarios of the rigs are not judged: no checkout of the code is here."]
    console.answer(
        {"scenarios": document, "rigs_judged": desk.rigs is not None},
        table(["scenario", "standing", "passed", "due", "red run", "played by", "why"], rows),
        *left_out,
        "Next: zaibei drill run NAME",
    )
    return Exit.VERIFICATION_FAILED if check and any(one.alarm for one in dues.values()) else Exit.DONE


@drill.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All scenarios, one after the other.")
@click.option("--red", is_flag=True, help="Each with its planted bug: passed is who turns red.")
@click.option("--quick", is_flag=True, help="What repeats itself is repeated ten times less; the bundle says so.")
@click.option(
    "--beside",
    type=click.IntRange(1, 8),
    default=1,
    show_default=True,
    help="Those in which no time is measured are played so many at once, before the others.",
)
@click.option("--seed", type=click.IntRange(0, 2**32), default=1, show_default=True, help="Of everything that is chosen.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep logs and histories of the stage here.")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts and schedules.")
@evidence_option
@target_options
@styled
def run(
    console: Console, names: tuple[str, ...], everything: bool, red: bool, quick: bool, beside: int, seed: int,
    keep: Path | None, yes: bool, evidence: Path | None,
) -> int:  # fmt: skip
    """Play scenarios with real processes and sign what was seen.

    Says first what it touches, what clients can notice, how to stop it and until when. It does not begin in a freeze
    (drills.toml), and stops within a second when a member that runs on this data folder has a real incident.

    \b
    exit 0   all passed
    exit 1   something failed
    exit 11  nothing failed, something was inconclusive: this machine was too busy, or something is missing
    \b
    Examples:
      zaibei drill run s33-secondary-dies
      zaibei drill run --all --red --yes
    """
    for number in (signal.SIGTERM, signal.SIGHUP):  # like Ctrl-C: everything heals, nothing stays behind
        signal.signal(number, signal.default_int_handler)
    if bool(names) == everything:
        raise click.UsageError("name scenarios, or say --all. `zaibei drill list` shows them.")
    chosen = list(SCENARIOS) if everything else [named(name) for name in names]
    desk = _desk(evidence)
    console.say(_before(chosen, red))
    for one in chosen:
        if (freeze := desk.frozen(one, _now_ms())) is not None:
            raise ZaibeiError(
                Code.REFUSED, f"{one.name} does not begin: frozen, {freeze.reason}, until {_moment(freeze.until_ms)}"
            )
    if not yes:
        click.confirm("Begin?", abort=True, err=True)
    counts, done = dict.fromkeys(Verdict, 0), list[dict[str, Any]]()
    together = [one for one in chosen if not one.alone] if beside > 1 else []
    words = ["--evidence", str(desk.folder), "--data", str(effective().config.member.data), "--seed", str(seed)]
    words += [*(["--red"] if red else []), *(["--quick"] if quick else []), *(["--keep", str(keep.absolute())] if keep else [])]
    desk.evidence.signer()  # the key is made once, before several want it
    alone = (_played(console, desk, one, seed=seed, red=red, quick=quick, keep=keep) for one in chosen if one not in together)
    with closing(edge_beside.played([one.name for one in together], words, beside)) as first:
        for told in chain(first, alone):
            verdict = Verdict(told["verdict"])
            counts[_turned(verdict) if red else verdict] += 1
            done.append({**told, "red": red})
            console.say(_line(told, red))
    last = f"{counts[Verdict.PASS]} passed, {counts[Verdict.FAIL]} failed, {counts[Verdict.INCONCLUSIVE]} inconclusive"
    console.answer({"drills": done, **{verdict.value: count for verdict, count in counts.items()}}, last)
    if counts[Verdict.FAIL] or (counts[Verdict.INCONCLUSIVE] and os.environ.get(CI, "").lower() == "true"):
        return Exit.FAILED
    return Exit.UNKNOWN if counts[Verdict.INCONCLUSIVE] else Exit.DONE


def _played(
    console: Console, desk: Desk, one: Scenario, *, seed: int, red: bool, quick: bool, keep: Path | None
) -> dict[str, Any]:
    """What is said of a drill. A run whose prober was late is played again, at most twice; each leaves its bundle."""
    for attempt in range(1, RUNS_MAX + 1):
        ended = desk.run(one, seed=seed, by=_by(), red=red, quick=quick, keep=keep, tell=lambda said: console.say(f"  {said}"))
        late = any(found.check == PROBER_CHECK and found.verdict is not Verdict.PASS for found in ended.judged.findings)
        if ended.judged.verdict is not Verdict.INCONCLUSIVE or not late or attempt == RUNS_MAX:
            return _told(ended)
        console.say(f"{_line(_told(ended), red)}\n  the prober itself was late: once more")
    raise AssertionError("the last run is returned")


def _before(chosen: Sequence[Scenario], red: bool) -> str:
    out = []
    for one in chosen:
        planted = f"\n  planted bug      {one.red.value}: it must turn red" if red else ""
        until = _moment(_now_ms() + one.minutes_max * 60_000)
        out.append(
            f"{one.name}: {one.story}\n  touches          {one.touches}\n  clients notice   {one.clients_notice}\n"
            f"  how to stop it   {one.how_to_stop}\n  until            {until} at the latest, if it begins now{planted}"
        )
    return "\n".join(out)


def _told(ended: Done) -> dict[str, Any]:
    bad = [f"{one.verdict} {one.check}: {one.why}" for one in ended.judged.findings if one.verdict is not Verdict.PASS]
    figures = {one.name: one.value for one in ended.judged.figures}
    verdict = ended.judged.verdict.value
    return {"scenario": ended.scenario.name, "verdict": verdict, "figures": figures, "why": bad, "bundle": str(ended.bundle)}


def _line(told: dict[str, Any], red: bool) -> str:
    figures = ", ".join(f"{name} {value}" for name, value in told["figures"].items())
    bad = "".join(f"\n      {one}" for one in told["why"])
    return f"{told['verdict']}{' (red run)' if red else ''}  {told['scenario']}  {figures}  {Path(told['bundle']).name}{bad}"


def _turned(verdict: Verdict) -> Verdict:
    """For a planted bug: found is passed, not found is failed, undecided stays so."""
    return {Verdict.FAIL: Verdict.PASS, Verdict.PASS: Verdict.FAIL}.get(verdict, verdict)


@drill.command()
@click.argument("scenario", default="")
@evidence_option
@target_options
@styled
def history(console: Console, scenario: str, evidence: Path | None) -> int:
    """Every drill of this folder, or of one SCENARIO; a bundle that is damaged or missing is shown as that.

    \b
    Example:
      zaibei drill history
    """
    every = _desk(evidence).history()
    of_a_rig = any(row.scenario == scenario for row in every)
    wanted = scenario if of_a_rig or not scenario else named(scenario).name
    rows = [row for row in every if not wanted or row.scenario in (wanted, "")]
    shown = [
        [row.number, row.scenario or "?", row.state.value, _verdict(row), row.planted or "-",
         _moment(row.began_ms) if row.began_ms else None,
         row.receipts_lost, row.why]
        for row in rows
    ]  # fmt: skip
    columns = ["drill", "scenario", "bundle", "verdict", "planted bug", "begun", "receipts lost", "why"]
    console.answer(
        {"drills": msgspec.to_builtins(rows)},
        *([table(columns, shown)] if rows else [NONE]),
    )
    return Exit.DONE if all(row.state is State.SOUND for row in rows) else Exit.VERIFICATION_FAILED


@drill.command()
@click.argument("number", type=click.IntRange(1))
@click.option(
    "--page", "page_file", type=click.Path(path_type=Path, dir_okay=False), help="Also write it as a page, with the timeline."
)
@evidence_option
@target_options
@styled
def show(console: Console, number: int, page_file: Path | None, evidence: Path | None) -> None:
    """One drill: verdict, findings, figures, loss. Nothing is shown of a bundle that is not as it was signed.

    \b
    Example:
      zaibei drill show 7 --page drill-7.html
    """
    desk = _desk(evidence)
    rows = {row.number: row for row in desk.history()}
    bundle = read(desk.evidence.stored(number).octets, desk.evidence.public())
    said, drilled = rows[number], bundle.drill
    findings = [one for one in bundle.parts if isinstance(one, Finding)]
    figures = [one for one in bundle.parts if isinstance(one, Figure)]
    rpo = next(one for one in bundle.parts if isinstance(one, Rpo))
    red = next(one for one in bundle.parts if isinstance(one, RedProof))
    if page_file is not None:
        checked = f"Signature and every line are as they were signed; chain: {said.state.value} {said.why}"
        page_file.write_text(page(bundle, checked), encoding="utf-8")
    red_said = "not run" if red.verdict is None else f"{red.verdict.value}, {red.why}"
    head = pairs(
        [
            ("drill", f"{drilled.scenario}: {drilled.story}"),
            ("verdict", Text(MARKS[bundle.verdict], style=COLOURS[bundle.verdict])),
            ("begun", _moment(drilled.began_ms)),
            ("by", drilled.by),
            ("planted bug", drilled.planted or "none"),
            ("red run", f"{red.planted}: {red_said}"),
            ("RPO_receipts", rpo.receipts),
            ("RPO_source", None if rpo.source_records is None else f"{rpo.source_records} records, {rpo.source_ms} ms"),
            ("chain", f"{said.state.value} {said.why}"),
            ("SHA-256", bundle.sha256),
        ]
    )
    rows_of_findings = [[one.check, Text(MARKS[one.verdict], style=COLOURS[one.verdict]), one.why] for one in findings]
    rows_of_figures = [
        [one.name, one.value, one.unit, "" if one.most is None else f"{one.most:,}", one.meaning] for one in figures
    ]
    parts: list[Any] = [head, table(["check", "verdict", "why"], rows_of_findings)]
    parts += [table(["figure", "value", "unit", "budget", "meaning"], rows_of_figures)] if figures else []
    parts += [f"The page: {page_file}"] if page_file is not None else []
    lines = [part for part in msgspec.to_builtins(list(bundle.parts)) if part["kind"] not in ("lookup",)]
    console.answer({"drill": lines, "state": said.state, "sha256": bundle.sha256}, *parts)


@drill.command()
@click.argument("number", type=click.IntRange(0), default=0)
@evidence_option
@target_options
@styled
def verify(console: Console, number: int, evidence: Path | None) -> int:
    """Check signatures and chain with the verifier that strangers use, of one drill or of all.

    The same check works without zaibei: hand out the bundle, the one before it, and chaos/evidence/verify_bundle.py; tell the
    key's fingerprint by another way.

    \b
    Example:
      zaibei drill verify
    """
    desk = _desk(evidence)
    public, before, rows = desk.evidence.public(), None, []
    for one in desk.evidence.bundles():
        try:
            found = verify_bundle.verify(one.octets, public, before)
            chained = before is not None or found["number"] == 1
            rows.append((one.number, one.name, chained, "" if chained else "the bundle before it is not there"))
        except verify_bundle.NotGenuine as exc:
            rows.append((one.number, one.name, False, str(exc)))
        before = one.octets
    rows = [row for row in rows if not number or row[0] == number]
    if not rows:
        raise ZaibeiError(Code.NOT_FOUND, f"there is no drill {number or ''} in {desk.folder}. Next: zaibei drill run NAME")
    shown = [[row[0], row[1], "genuine" if row[2] else Text("NOT GENUINE", style="bold red"), row[3]] for row in rows]
    document = [dict(zip(("number", "name", "genuine", "why"), row, strict=True)) for row in rows]
    console.answer(
        {"bundles": document, "key": public.hex()}, table(["drill", "file", "bundle", "why"], shown), f"key {public.hex()}"
    )
    return Exit.DONE if all(row[2] for row in rows) else Exit.VERIFICATION_FAILED


def _by() -> str:
    if os.environ.get(CI, "").lower() == "true":
        return "CI"
    try:
        return f"{getpass.getuser()} at {'a terminal' if sys.stdin.isatty() else 'no terminal'}"
    except (KeyError, OSError):
        return "somebody without a name"


def _verdict(row: Row) -> Text | None:
    return None if row.verdict is None else Text(MARKS[row.verdict], style=COLOURS[row.verdict])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _day(at_ms: int | None) -> str:
    return "-" if at_ms is None else _moment(at_ms)[:10]
