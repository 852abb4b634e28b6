"""`zaibei config`: check, show and begin a configuration file."""

from __future__ import annotations

import click

from ops.cli.exits import Exit
from ops.cli.style import Console, effective, styled, table, target_options
from ops.config.faults import ConfigError
from ops.config.show import document, example, rows


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
        faults = [{"path": fault.path, "what": fault.what, "instead": fault.instead} for fault in exc.faults]
        console.answer(
            {"ok": False, "origin": exc.origin, "faults": faults},
            table(["where", "what is wrong", "write instead"], [list(fault.values()) for fault in faults]),
            f"{exc.origin}: {len(faults)} to correct. Nothing was started.",
        )
        return Exit.USAGE
    notes = list(found.config.notes)
    answer = {"ok": True, "origin": found.origin, "faults": [], "notes": notes}
    console.answer(answer, f"{found.origin}: no fault.", *(f"note: {note}" for note in notes), "Next: zaibei up")
    return Exit.DONE


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
