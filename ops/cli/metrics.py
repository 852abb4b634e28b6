"""`zaibei metrics`: current numbers of a running member, without a Prometheus."""

from __future__ import annotations

import click
import msgspec

from ops.cli.style import Console, admin, styled, table, target_options


@click.command()
@click.argument("prefix", default="")
@target_options
@styled
def metrics(console: Console, prefix: str) -> None:
    """Values whose name begins with PREFIX, or all. `[listen] metrics` serves the same for Prometheus.

    \b
    Examples:
      zaibei metrics zaibei_feed
      zaibei metrics zaibei_process_cpu --json
    """
    samples = admin().metrics(prefix)
    rows = [[one.name, " ".join(f"{name}={value}" for name, value in one.labels.items()), f"{one.value:g}"] for one in samples]
    console.answer(
        {"samples": msgspec.to_builtins(samples)}, table(["name", "labels", "value"], rows) if rows else "No such metric."
    )
