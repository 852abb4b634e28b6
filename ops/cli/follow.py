"""`zaibei source follow`: a node that was taken over comes back, copies what was registered meanwhile, and gets its epoch."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import click

from ops.cli.exits import Exit
from ops.cli.style import Console, styled
from ops.logs import set_up_logging
from replica.agent.config import SourceConfig
from replica.agent.edge_content import View
from replica.agent.export import line_of
from replica.client.edge_agent import Source, load_source_config
from replica.client.edge_follow import Follower, take_nothing, ways_of
from replica.feed.phases import TAKEN_OVER
from replica.model.errors import Code, ZaibeiError
from replica.model.position import Position

LOOK_S = 0.5
RESOLVER_OFF = (
    "Keep this node's own resolver off until the export is in place of its files: from old ones it answers that what was "
    "registered meanwhile does not exist. Who looks for its site is sent back to it when it answers right, not before."
)
LINGER_S = 3.0  # the feed carries our acceptance of the epoch before the process ends


@click.command()
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path, dir_okay=False), default=Path("source.toml"), show_default=True
)
@click.option(
    "--member",
    "members",
    multiple=True,
    metavar="NAME=ADDRESS",
    help="A member and its feed address, e.g. member-1=192.0.2.1:2643. Repeatable.  [default: those we push to]",
)
@click.option(
    "--export",
    "export_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the registry's content is written at the end, as lines that [[input]] reads. Must not exist.",
)
@styled
def follow(console: Console, config_path: Path, members: tuple[str, ...], export_path: Path | None) -> int:
    """End this registry's own writing, copy what was registered at the centre, and wait until it is given back.

    Its files are not read meanwhile. What it wrote by itself goes to the centre's ledger first; nothing here is overwritten
    before that. Interrupting it is harmless: run it again. With [[input]] files, keep the node's own resolver off, and put the
    export in their place (JSON lines: name it .jsonl) before `zaibei source serve`; then start the resolver.

    \b
    Example:
      zaibei source follow --config node-a.toml --member member-1=192.0.2.1:2643 --export registry.jsonl
    """
    config = load_source_config(config_path)
    if config.inputs and export_path is None:
        raise click.UsageError("This registry is kept in files: say with --export where its content goes at the end.")
    if export_path is not None and export_path.exists():
        raise ZaibeiError(Code.CONFLICT, f"{export_path} is there already: name a new file")
    given = []
    for one in members:
        name, equals, address = one.partition("=")
        if not equals:
            raise ZaibeiError(Code.MALFORMED, f"{one!r}: write NAME=ADDRESS")
        given.append((name, address))
    if export_path is not None:
        console.say(RESOLVER_OFF)
    set_up_logging("json" if console.as_json else config.log, "info")
    return asyncio.run(_follow(console, config, given, export_path))


async def _follow(console: Console, config: SourceConfig, given: list[tuple[str, str]], export_path: Path | None) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    opened = await asyncio.to_thread(Source.open, config)
    opened.reader = None  # its files are older than what it copies
    try:
        follower = Follower(opened.agent, opened.identity, ways_of(config, given), opened.trusts, take_nothing)
        async with opened.running():
            work = asyncio.create_task(follower.run())
            stopped = asyncio.create_task(stop.wait())
            logging.getLogger("zaibei.feed.source").addFilter(lambda record: TAKEN_OVER not in record.getMessage())
            said = ""
            while not work.done() and not stopped.done():
                await asyncio.wait([work, stopped], timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                trouble = follower.trouble.replace(TAKEN_OVER, "its registrations were taken over")  # what is next runs here
                now = f"{follower.state}; {trouble}" if trouble else follower.state
                if now != said:
                    console.say(now)
                    said = now
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                document = {"handed_back": False, "state": follower.state}
                console.answer(document, f"stopped: {follower.state}. Run it again to go on.")
                return Exit.UNREACHABLE
            position = work.result()
            records = 0 if export_path is None else await asyncio.to_thread(_export, opened, export_path)
            await asyncio.wait([stopped], timeout=LINGER_S)
            stopped.cancel()
            _say_end(console, position, export_path, records)
            return Exit.DONE
    except BaseException:
        opened.close()
        raise


def _say_end(console: Console, position: Position, export_path: Path | None, records: int) -> None:
    document: dict[str, Any] = {"handed_back": True, "position": str(position), "records": records, "export": None}
    text = f"handed back: epoch {position.epoch} is this registry's, from {position.seq} on."
    if export_path is not None:
        document["export"] = str(export_path)
        text += f" {records} records in {export_path}: make it the only path of [[input]]."
        text += " Next: zaibei source serve, then the node's own resolver"
    console.answer(document, text if export_path is not None else f"{text} Next: zaibei source serve")


def _export(opened: Source, path: Path) -> int:
    """Write the content at our head; whole or not at all. Blocks."""
    beside, records = path.with_name(path.name + ".part"), 0
    with View(opened.agent.content.path) as view, beside.open("xb") as file:
        for key, value in view.scan():
            file.write(line_of(key, value))
            records += 1
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    return records
