"""`zaibei source`: publish a registry, show who it is and how it stands, and check what somebody publishes."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ops.cli.exits import Exit
from ops.cli.style import Console, guarded, pairs, styled, table
from ops.logs import set_up_logging
from replica.agent.config import SourceConfig
from replica.agent.edge_clocks import boottime_s
from replica.client.edge_agent import STATUS_FILE, Source, identity_of, load_source_config
from replica.model.errors import Code, ZaibeiError

STATUS_AGE_S_MAX = 5.0
DEFAULT_FILE = "source.toml"

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path(DEFAULT_FILE),
    show_default=True,
    help="The source's TOML file.",
)


@click.group()
def source() -> None:
    """Publish a registry so that it can be copied, and check what somebody publishes.

    \b
    Examples:
      zaibei source identity --config source.toml     what the copy's operators pin
      zaibei source serve --config source.toml
      zaibei source check node-a.example:2643 --identity ./me --pin node-a.pem
    """


@source.command()
@config_option
@styled
def serve(console: Console, config_path: Path) -> None:
    """Publish the registry that CONFIG names until it is stopped (SIGTERM or Ctrl-C).

    \b
    A file to begin with:
      [source]
      name = "node-a"
      prefixes = ["88.118"]
      [serve]
      listen = ["127.0.0.1:2643", "[::1]:2643"]
      [[input]]
      path = "registry.jsonl"
      [[member]]                    # what `zaibei identity show` prints; add push = "host:port" to call out
      name = "member-1"
      certificate = "MIIB..."
    """
    config = load_source_config(config_path)
    set_up_logging("json" if console.as_json else config.log, "info")
    asyncio.run(_serve(console, config))


async def _serve(console: Console, config: SourceConfig) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    opened = await asyncio.to_thread(Source.open, config)
    try:
        async with opened.running():
            ready = {"ready": True, **opened.status(), "fingerprint": opened.identity.fingerprint}
            where = ", ".join(map(str, opened.addresses)) or "nowhere yet (no member is pinned)"
            console.answer(ready, f"{config.nature.source} is offered on {where}; head {opened.agent.head().short()}")
            sys.stdout.flush()
            await _until(stop, opened)
    finally:
        await asyncio.to_thread(opened.close)


async def _until(stop: asyncio.Event, opened: Source) -> None:
    """Until somebody stops us; or the log's disk failed: then the process must end (DESIGN, promise 12)."""
    while not stop.is_set():
        if opened.agent.failed is not None:
            raise opened.agent.failed
        try:
            await asyncio.wait_for(stop.wait(), 0.5)
        except TimeoutError:
            continue


@source.command()
@config_option
@styled
def identity(console: Console, config_path: Path) -> None:
    """Print the block for the member's file: name, fingerprint, certificate, prefixes. Makes the identity when there is none.

    Compare the fingerprint with the copy's operators by another way than the file itself.
    """
    config = load_source_config(config_path)
    mine = identity_of(config)
    certificate = base64.b64encode(x509.load_pem_x509_certificate(mine.certificate_pem).public_bytes(Encoding.DER)).decode()
    fields = {
        "name": mine.name,
        "fingerprint": mine.fingerprint,
        "certificate": certificate,
        "prefixes": list(config.nature.prefixes),
    }
    block = "[[source]]\n" + "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in fields.items())
    if config.nature.case_sensitive:
        block += f"case_sensitive = {json.dumps(list(config.nature.case_sensitive))}\n"
    if config.listen and not config.push:
        block += f"pull = {json.dumps(list(config.listen))}    # as the member reaches it\n"
    console.answer({**fields, "block": block}, block)


@source.command()
@config_option
@styled
def status(console: Console, config_path: Path) -> int:
    """How the publishing process stands: head, receipts, spool, input. Exit 11 when it does not say."""
    config = load_source_config(config_path)
    path = config.data / STATUS_FILE
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        raise ZaibeiError(
            Code.NOT_FOUND, f"no status in {config.data}. Next: zaibei source serve --config {config_path}"
        ) from None
    age_s = boottime_s() - float(found["stated_s"])
    current = 0 <= age_s <= STATUS_AGE_S_MAX
    rows = [(name, _shown(value)) for name, value in found.items() if name not in ("push", "stated_s")]
    parts: list[object] = [pairs([*rows, ("running", current if current else None)])]
    if found["push"]:
        columns = ["member", "address", "connected", "trouble"]
        parts.append(table(columns, [[one[name] for name in columns] for one in found["push"]]))
    console.answer({**found, "running": True if current else None, "age_s": round(age_s, 1)}, *parts)
    return Exit.DONE if current else Exit.UNKNOWN


def _shown(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else value


if __name__ == "__main__":
    sys.exit(guarded(lambda: source(standalone_mode=False, prog_name="zaibei source"), "--json" in sys.argv))
