"""`make bench`: every stage, one table. `python -m ops.bench --help` says how to run a part of it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ops.bench.bench import FULL, LONG_FLOOD_S, LONG_KILLS, QUICK, Bench, Stage
from ops.bench.edge_answers import end_to_end, resolution, under_changes
from ops.bench.edge_guarded import guarded
from ops.bench.edge_hosting import hosting
from ops.bench.edge_ingest import ingest, load, updates, use_member_threading
from ops.bench.edge_many import core, groups
from ops.bench.edge_registrations import registrations
from ops.bench.edge_repair import catch_up, memory, transfer
from ops.bench.edge_replicated import failover, replicated
from ops.bench.edge_rpo import rpo
from ops.bench.edge_steps import steps
from ops.bench.edge_takeovers import TAKEOVERS
from ops.bench.table import HEADINGS, Row, as_dict, cells, replaced
from replica.native import BACKEND

WIDTH_MIN = 160  # columns of the table; narrower ones cannot be read
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
MAIN: dict[str, Stage] = {
    "steps": steps,
    "ingest": ingest,
    "updates": updates,
    "feed": end_to_end,
    "load": load,
    "resolution": resolution,
    "changes": under_changes,
    "rpo": rpo,
    "guard": guarded,
}
CLUSTER: dict[str, Stage] = {
    "replicated": replicated,
    "failover": failover,
    "catch-up": catch_up,
    "transfer": transfer,
    "memory": memory,
    "groups": groups,
    "core": core,
}
ACTS: dict[str, Stage] = {"registrations": registrations}
HOSTING: dict[str, Stage] = {"hosting": hosting}
PARTS = {"main": MAIN, "cluster": CLUSTER, "hosting": HOSTING, "takeover": TAKEOVERS, "registration": ACTS}
UNASKED = ("main", "cluster")  # the others take long
STAGES = MAIN | CLUSTER | HOSTING | TAKEOVERS | ACTS


def machine() -> str:
    """Machine, versions and the moment, for the page."""
    cpu = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory_kb = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    parts = [f"{name} {version(name)}" for name in ("rocksdict", "grpcio", "protobuf", "uvloop", "httptools", "cffi")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=PAGE.parent, check=False)
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, commit {commit.stdout.strip() or 'unknown'}; {os.cpu_count()} x {cpu}, "
        f"{memory_kb / 2**20:.0f} GiB, Linux {platform.release()}; Python {platform.python_version()}, native module: {BACKEND}, "
        f"{', '.join(parts)}."
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text(errors="replace").splitlines()


def run(
    names: Sequence[str], *, quick: bool, long: bool, console: Console, deaths: int | None = None, keep: Path | None = None
) -> list[Row]:
    """Run stages in order; progress goes to the console."""
    use_member_threading()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="zaibei-bench-") as folder, console.status("starting") as status:
        Path(folder).chmod(0o711)  # the peer may run as another user
        began = time.monotonic()

        def tell(text: str) -> None:
            status.update(f"[{time.monotonic() - began:4.0f} s] {text}")

        def say(text: str) -> None:
            console.print(text, highlight=False, markup=False, soft_wrap=True)

        scale = replace(FULL, kills=LONG_KILLS, flood_s=LONG_FLOOD_S) if long else QUICK if quick else FULL
        bench = Bench(Path(folder), scale if deaths is None else replace(scale, deaths=deaths), tell, keep, say)
        for name in names:
            made = STAGES[name](bench)
            rows += made
            for one in made:
                what, figure, _, _, _, peer, _ = cells(one)
                mark = {None: " ", True: "[green]✓[/]", False: "[red]✗[/]"}[one.met]
                console.print(f"{mark} {what}: [bold]{figure}[/]{f'   {peer}' if peer else ''}", highlight=False)
    return rows


def show(console: Console, rows: Sequence[Row]) -> None:
    table = Table(*HEADINGS, title="zaibei bench", show_lines=False)
    for one in rows:
        table.add_row(*cells(one))
    console.print(table)


@click.command()
@click.option(
    "--part",
    type=click.Choice([*PARTS]),
    help="One member, a cluster, hosting, nodes that die (45 minutes), registrations that move (17). Without it: the first two.",
)
@click.option("--only", multiple=True, type=click.Choice([*STAGES]), help="One stage; may be given several times.")
@click.option("--quick", is_flag=True, help="Short runs on small stores: shows that it works; the figures say little.")
@click.option(
    "--long", is_flag=True, help=f"{LONG_KILLS} kills of a leader instead of {FULL.kills}, ten minutes of full-speed intake."
)
@click.option("--deaths", type=click.IntRange(1, FULL.deaths), help="So many deaths of nodes of each kind in this piece.")
@click.option(
    "--keep",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Deaths of nodes in pieces: what this one saw is added to the file, and the table is of all that it holds.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document a part instead of tables.")
@click.option("--write", is_flag=True, help="Put the table of each part into ops/docs/benchmarks.md.")
def main(
    part: str | None, only: tuple[str, ...], quick: bool, long: bool, deaths: int | None, keep: Path | None, as_json: bool,
    write: bool,
) -> None:  # fmt: skip
    """Measure every stage; the median of three runs each. Takes about twenty minutes; a quiet machine says more."""
    if write and (only or quick):
        raise click.UsageError("--write takes the whole table of a part: without --only and --quick")
    if part and only:
        raise click.UsageError("--part or --only, not both")
    if (deaths or keep) and not (part == "takeover" or (only and set(only) <= TAKEOVERS.keys())):
        raise click.UsageError("--deaths and --keep are for stages in which nodes die: --part takeover, or --only node-...")
    if write and deaths:
        raise click.UsageError("--write takes the whole table of a part: without --deaths")
    if long and quick:
        raise click.UsageError("--long or --quick, not both")
    console = Console(stderr=as_json)
    console.width = max(console.width, WIDTH_MIN)
    rows: list[Row] = []
    for name in [part] if part else PARTS if only else UNASKED:
        names = [one for one in PARTS[name] if not only or one in only]
        if not names:
            continue
        began = time.monotonic()
        found = run(names, quick=quick, long=long, console=console, deaths=deaths, keep=keep)
        words = [f"--only {one}" for one in only] or [f"--part {name}"]
        words += ["--long"] * long + [f"--deaths {deaths}"] * bool(deaths) + [f"--keep {keep}"] * bool(keep)
        asked = f'ARGS="{" ".join(words)}"'
        header = f"`make bench {asked}` ({(time.monotonic() - began) / 60:.0f} minutes). {machine()}"
        if as_json:
            print(json.dumps({"part": name, "machine": header, "rows": [as_dict(one) for one in found]}))
        else:
            show(console, found)
            console.print(header, highlight=False)
        if write:
            PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), name, found, header), encoding="utf-8")
        rows += found
    missed = [one.what for one in rows if one.met is False]
    if missed:
        console.print(f"{len(missed)} target(s) missed: {'; '.join(missed)}. ops/docs/benchmarks.md explains known gaps.")
    sys.exit(0 if not missed or quick else 1)


if __name__ == "__main__":
    main()
