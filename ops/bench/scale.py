"""`make bench-scale`: one source of 1, 10 and 100 million records on a member, then many groups on three; the curve in a page."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from ops.bench.__main__ import machine
from ops.bench.bench import FULL, QUICK, Bench
from ops.bench.edge_ingest import use_member_threading
from ops.bench.edge_many import groups
from ops.bench.edge_scale import OCTETS_EACH_MAX, measure
from ops.bench.scale_page import Size, line, renewed, table
from ops.bench.table import Row, as_dict, cells

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scale.md"
MILLION = 1_000_000
WIDTH_MIN = 200


def _sizes(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(round(float(one) * MILLION) for one in text.split(",") if one)
    except ValueError:
        raise click.BadParameter("millions of records, with commas between: 1,10,100") from None
    if any(one < 1_000 or one % 1_000 for one in sizes):
        raise click.BadParameter("at least 0.001, in whole thousands of records")
    return sizes


def _check_room(folder: Path, sizes: tuple[int, ...]) -> None:
    need, free = max(sizes, default=0) * OCTETS_EACH_MAX, shutil.disk_usage(folder).free
    if need > free:
        raise click.UsageError(
            f"{max(sizes):,} records need {need / 1e9:.0f} GB free under {folder}, there are {free / 1e9:.0f}: "
            "smaller --sizes, or TMPDIR on a larger disk"
        )


@click.command()
@click.option("--sizes", default="1,10,100", show_default=True, callback=_sizes, help="Millions of records, one run each.")
@click.option("--groups/--no-groups", "with_groups", default=True, help="Sleeping and busy groups on three members.")
@click.option("--quick", is_flag=True, help="Short runs and few groups: shows that it works; the figures say little.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of the table.")
@click.option("--write", is_flag=True, help="Put the lines of these sizes into ops/docs/scale.md.")
def main(sizes: tuple[int, ...], with_groups: bool, quick: bool, as_json: bool, write: bool) -> None:
    """Measure how time, memory and disk grow with the size of a source. 100 million take about half an hour and 30 GB free."""
    console = Console(stderr=as_json)
    console.width = max(console.width, WIDTH_MIN)
    use_member_threading()
    began = time.monotonic()
    done: list[Size] = []
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="zaibei-scale-") as folder, console.status("starting") as status:
        _check_room(Path(folder), sizes)

        def tell(text: str) -> None:
            status.update(f"[{time.monotonic() - began:4.0f} s] {text}")

        bench = Bench(Path(folder), QUICK if quick else FULL, tell)
        for records in sizes:
            done.append(measure(bench, records))
            console.print(line(done[-1]), highlight=False)
            if write:
                PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), done, _machine()), encoding="utf-8")
        if with_groups:
            rows = groups(bench)
    if as_json:
        print(json.dumps({"machine": _machine(), "sizes": [asdict(one) for one in done], "rows": [as_dict(one) for one in rows]}))
        return
    console.print(table({size.records: line(size) for size in done}), highlight=False)
    for one in rows:
        what, figure, _, target, _, _, note = cells(one)
        console.print(f"{what}: [bold]{figure}[/] {target} ({note})", highlight=False)
    console.print(f"{(time.monotonic() - began) / 60:.0f} minutes. {_machine()}", highlight=False)


def _machine() -> str:
    one, _, _ = os.getloadavg()
    return f"Last renewed: {machine()} Load of the machine when it ended: {one:.1f}."


if __name__ == "__main__":
    main()
    sys.exit(0)
