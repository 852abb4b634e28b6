"""`zaibei config`: check, show and begin a configuration file."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ops.cli.exits import Exit
from ops.cli.style import Console, effective, styled, table, target_options
from ops.config import MemberConfig
from ops.config.faults import ConfigError, Fault
from ops.config.show import document, example, rows
from ops.pki.edge_own import trust_files
from replica.cluster.edge_card import read_card


@click.group()
def config() -> None:
    """Check, show and begin a configuration file.

    \b
    Examples:
      zaibei config example > zaibei.toml
      zaibei config check --config zaibei.toml
      zaibei config show
    """


@config.command()
@target_options
@styled
def check(console: Console) -> int:
    """Tell every fault of the file at once; exit 2 when there is one.

    Files it names (certificates, tokens) are read, nothing is started or changed.

    \b
    Example:
      zaibei config check --config zaibei.toml
    """
    try:
        found = effective()
    except ConfigError as exc:
        return _faulty(console, exc.origin, exc.faults)
    if fault := _of_cluster(found.config):
        return _faulty(console, found.origin, (fault,))
    notes = list(found.config.notes)
    answer = {"ok": True, "origin": found.origin, "faults": [], "notes": notes}
    console.answer(answer, f"{found.origin}: no fault.", *(f"note: {note}" for note in notes), "Next: zaibei up")
    return Exit.DONE


def _faulty(console: Console, origin: str, faults: Sequence[Fault]) -> int:
    rows = [{"path": fault.path, "what": fault.what, "instead": fault.instead} for fault in faults]
    console.answer(
        {"ok": False, "origin": origin, "faults": rows},
        table(["where", "what is wrong", "write instead"], [list(row.values()) for row in rows]),
        f"{origin}: {len(rows)} to correct. Nothing was started.",
    )
    return Exit.USAGE


def _of_cluster(config: MemberConfig) -> Fault | None:
    """What `zaibei up` would refuse of a member that belongs to a cluster: its links need a CA."""
    if read_card(config.member.data) is None or trust_files(config) is not None:
        return None
    folder = config.member.data / "pki"
    return Fault(
        "pki",
        f"{config.member.data} belongs to a cluster, and [pki] names no CA",
        f'folder = "{folder}" at the member with the CA, elsewhere roots = ["{folder / "ca.pem"}"]',
    )


@config.command()
@target_options
@styled
def show(console: Console) -> None:
    """Effective values, each with where it comes from. Secrets are not shown: they stay in their own files.

    \b
    Example:
      zaibei config show --data /srv/zaibei --json
    """
    found = effective()
    console.answer(
        {"origin": found.origin, "config": document(found.config), "origins": dict(found.origins)},
        table(["key", "value", "from"], list(rows(found.config, found.origins))),
    )


@config.command("example")
@styled
def example_(console: Console) -> None:
    """Print a file with every key, its default and what it is for.

    As it is, it means the defaults: uncomment what you change.

    \b
    Example:
      zaibei config example > zaibei.toml
    """
    console.answer({"toml": example()}, example())
