"""`zaibei tenant import` and `export`: many identifiers in, everything a tenant owns out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import msgspec

from hosting.tenant.bulk import FORMATS, Progress
from hosting.tenant.edge_client import RegistrationClient
from hosting.tenant.edge_import import Import
from ops.cli.exits import Exit
from ops.cli.register import client_options
from ops.cli.style import Console, admin, pairs, styled, target_options
from replica.agent.export import line_of
from replica.model import progress as model_progress
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position

PAGE_ROWS = 1_000


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: by the file's name.")
@click.option("--absent", is_flag=True, help="Register only what is not there; the same values already there count as done.")
@click.option("--dry-run", is_flag=True, help="Judge every row as far as can be told without the registry; send nothing.")
@client_options
@styled
def import_(
    console: Console, file: Path, form: str | None, absent: bool, dry_run: bool, connect: Callable[[], RegistrationClient]
) -> int:
    """Register the identifiers of FILE, by the rights of the registrar who runs this. It may be stopped and run again.

    CSV: a header `identifier,TYPE,TYPE…`, then a row an identifier. JSONL: as `tenant export` writes it. Rows that are left out
    stand with the reason in FILE.rejected.jsonl; how far it came in FILE.progress, until all is done.
    Exit 0: every row is registered; 9: some were rejected; 8: no more can be sent now, run it again.

    \b
    Examples:
      zaibei tenant import names.csv --dry-run
      zaibei tenant import names.csv --identity ./registrar --member-file certificate.pem
    """
    chosen = form or file.suffix.removeprefix(".").lower()
    if chosen not in FORMATS:
        raise click.UsageError(f"which format has {file.name}? --format {' or '.join(FORMATS)}")
    with console.progress() as report:

        def told(progress: Progress) -> None:
            report(model_progress.Progress(f"import {file.name}", progress.rows, None, "rows"))

        async def work() -> Progress:
            if dry_run:
                return await Import(file, chosen, None, absent=absent, told=told).run()
            async with connect() as client:
                return await Import(file, chosen, client, absent=absent, told=told).run()

        done = asyncio.run(work())
    rejected = f"{file}.rejected.jsonl" if done.rejected else None
    document = {"file": str(file), "rows": done.rows, "done": done.done, "rejected": done.rejected, "dry_run": dry_run}
    facts: list[tuple[str, object]] = [
        ("rows could be registered" if dry_run else "rows registered", done.done),
        ("rows rejected", f"{done.rejected}, see {rejected}" if rejected else "none"),
    ]
    console.answer({"import": document | {"rejected_file": rejected}}, pairs(facts))
    return Exit.VERIFICATION_FAILED if done.rejected else Exit.DONE


@click.command()
@click.argument("name")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A file that is not there yet.")
@target_options
@styled
def export(console: Console, name: str, out: Path) -> None:
    """Everything the tenant NAME owns at one position: identifiers, prefix records and documents, a JSON line each.

    The first line says what it is, the last one how many lines and the SHA-256 of all before it. Where registrations come in
    while it is written, it is not of one moment, and is given up (exit 8): suspend the tenant, or come again at night.

    \b
    Example:
      zaibei tenant export region-9 --out region-9.jsonl
    """
    fresh = out.with_name(out.name + ".new")
    if out.exists():
        raise ZaibeiError(Code.CONFLICT, f"{out} is there already: name another file")
    try:
        with console.progress() as report:
            done = _write(name, fresh, lambda lines: report(model_progress.Progress(f"export {name}", lines, None, "lines")))
        os.link(fresh, out)  # never over a file that came meanwhile
    finally:
        fresh.unlink(missing_ok=True)
    facts: list[tuple[str, object]] = [
        ("file", out),
        ("lines", done["records"]),
        ("at", Position.parse(done["position"]).short()),
        ("sha256", done["sha256"]),
    ]
    console.answer({"export": done | {"source": name, "file": str(out)}}, pairs(facts))


def _write(name: str, path: Path, told: Callable[[int], None]) -> dict[str, Any]:
    summed, count, after, position = sha256(), 0, "", ""
    with path.open("xb") as file:

        def put(line: bytes) -> None:
            summed.update(line)
            file.write(line)

        while True:
            page = admin().tenant_page(name, after, PAGE_ROWS)
            if not position:
                position = page["position"]
                put(_line({"format": "zaibei-tenant-1", "source": name, "position": position}))
            if page["moved"] or page["position"] != position:
                raise ZaibeiError(
                    Code.BUSY, f"{name} changed while it was read, so this is no one moment: again later", retry=True
                )
            for key, value in page["rows"]:
                put(line_of(bytes.fromhex(key), bytes.fromhex(value)))
            count += len(page["rows"])
            told(count)
            if not page["more"]:
                break
            after = page["rows"][-1][0]
        end = {"records": count, "position": position, "algorithm": "sha256", "sha256": summed.hexdigest()}
        file.write(_line(end))
        file.flush()
        os.fsync(file.fileno())
    return end


def _line(fields: dict[str, Any]) -> bytes:
    return msgspec.json.encode(fields) + b"\n"
