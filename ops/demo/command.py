"""`zaibei demo`: plays the story, shows it as it happens, has it judged, writes the page, exits 0 only if everything held."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ops.cli.exits import Exit
from ops.cli.style import Console, styled, table
from ops.demo.judge import MEANING, PROBER_LATE_MS_MAX, History, Judgement, Verdict, judge
from ops.demo.members import NAMES
from ops.demo.page import Moment, page
from ops.demo.stage import Stage
from ops.demo.story import Story
from replica.model.errors import Code, ZaibeiError

RUNS_MAX = 3  # a run whose own prober was late is repeated at most twice
PAGE_FILE = "zaibei-demo.html"
MARK = {"fault": "✖", "act": "●", "return": "↩", "note": "·"}
STYLE = {"fault": "bold red", "act": "bold blue", "return": "green", "note": "dim"}


class Show:
    """The story on a terminal: a line a moment, a bar while the copy is made."""

    def __init__(self, console: Console) -> None:
        self._console, self._began_ns = console, time.monotonic_ns()
        self._bars = Progress(
            TextColumn("            {task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} records"),
            console=console.rich,
            transient=True,
            disable=console.as_json or not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Show:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def tell(self, moment: Moment) -> None:
        at_s = (moment.at_ns - self._began_ns) / 1e9
        if not self._console.as_json:
            line = f"[dim]{at_s:8.3f} s[/]  [{STYLE[moment.kind]}]{MARK[moment.kind]} {moment.text}[/]"
            self._bars.console.print(line, highlight=False)

    def progress(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=min(done, total))


@click.command()
@click.option(
    "--page", "page_file", type=click.Path(path_type=Path), default=PAGE_FILE, show_default=True, help="The page to write."
)
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep registries, logs and history in this folder."
)
@styled
def demo(console: Console, page_file: Path, keep: Path | None) -> int:
    """Play the main job with real processes on loopback and judge it by what outside clients saw.

    \b
    Three members become a cluster. A top-level node and two secondary nodes are copied; changes stream; clients resolve all the
    time over UDP, TCP and HTTP, others register in a region that lives at the cluster. Our leader is SIGKILLed; a secondary, the
    top-level node, and a member while both are dead; they return; a node hangs; our leader is frozen; a member's copy is deleted
    and fed anew by one command; all members are SIGKILLed at once; contents are compared. A region without a node is begun,
    filled and resolved here, and leaves for a node of its own with equal digests. Then node and leader die together.
    \b
    exit 0   everything held
    exit 1   something did not: the reasons are printed
    exit 11  inconclusive: this machine was too busy to judge, or something could not be measured
    With --json the last line is the figures as one document.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):  # like Ctrl-C: none of our processes stays behind
        signal.signal(number, signal.default_int_handler)
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise ZaibeiError(Code.REFUSED, f"{keep} is not empty: name a new folder, nothing there is ever overwritten")
    for attempt in range(1, RUNS_MAX + 1):
        judged, moments, history = _play(console, keep, attempt)
        late = history.prober_late_ms > PROBER_LATE_MS_MAX and judged.verdict is Verdict.INCONCLUSIVE
        if not late or attempt == RUNS_MAX:
            break
        console.say(f"the prober itself was {history.prober_late_ms:.0f} ms late: this run says nothing, once more")
    text = page(judged, moments, history.lookups, _machine(), NAMES, history.cluster.spans)
    page_file.write_text(text, encoding="utf-8")
    document: dict[str, Any] = {
        **judged.figures,
        "verdict": judged.verdict.value,
        "reasons": list(judged.reasons),
        "runs": attempt,
        "page": str(page_file.resolve()),
    }
    console.answer(document, *_shown(judged, page_file))
    return {Verdict.PASS: Exit.DONE, Verdict.FAIL: Exit.FAILED}.get(judged.verdict, Exit.UNKNOWN)


def _play(console: Console, keep: Path | None, attempt: int) -> tuple[Judgement, list[Moment], History]:
    folder = Path(tempfile.mkdtemp(prefix="zaibei-demo-")) if keep is None else keep / f"run-{attempt}"
    try:
        with Show(console) as show, Stage(folder) as stage:
            story = Story(stage, show.tell, show.progress)
            history = story.run()
            return judge(history), story.told.moments, history
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _shown(judged: Judgement, page_file: Path) -> list[Any]:
    parts: list[Any] = [
        table(
            ("figure", "value", "what it means"),
            [(name, _figure(value), MEANING.get(name, "")) for name, value in judged.figures.items()],
        )
    ]
    if judged.slow:
        rows = [(one.name, one.protocol, f"{one.took_ms:.0f} ms", one.note) for one in judged.slow[:20]]
        parts.append(table(("slow lookups of the hedging client", "over", "took", "answer"), rows))
    parts += [f"- {reason}" for reason in judged.reasons]
    parts.append(f"\n{judged.verdict.value.upper()}. The timeline as a picture: {page_file}")
    return parts


def _figure(value: float | int | bool | None) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}"


def _machine() -> str:
    return (
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {time.strftime('%Y-%m-%d %H:%M %Z')}"
    )
