"""`zaibei source`: publish a registry, show who it is and how it stands, and check what somebody publishes."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from rich.text import Text

from ops.cli.diff import diff, mirror
from ops.cli.enroll import enroll, join
from ops.cli.exits import VERDICTS, Exit
from ops.cli.follow import follow
from ops.cli.grant import grant
from ops.cli.identity import described
from ops.cli.receipts import receipts
from ops.cli.reseed import reseed
from ops.cli.style import Console, guarded, pairs, styled, table
from ops.config.edge_load import load_config
from ops.logs import set_up_logging
from replica.agent.config import SourceConfig
from replica.agent.edge_clocks import boottime_s
from replica.client.edge_agent import STATUS_FILE, Source, identity_of, load_source_config
from replica.kit.edge_inspect import Inspection
from replica.kit.rules import Group
from replica.kit.settings import Settings
from replica.kit.sheet import worst
from replica.model.edge_collector import settle
from replica.model.edge_identity import CERTIFICATE_FILE, Identity, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer, name_of
from replica.model.position import Position
from replica.model.states import Result

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
      zaibei source enroll node-a --prefix 88.118.8   at the centre: a one-time token for a node
      zaibei source join TOKEN                        at the node: certificate and source.toml
      zaibei source identity --config source.toml     without a CA: what the copy's operators pin
      zaibei source serve --config source.toml
      zaibei source check node-a                      at the centre: the one in zaibei.toml
      zaibei source reseed plan node-a                at the centre: when its copy here is damaged
      zaibei source receipts verify                   at the node: the copy's signed promises
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
      listen = ["127.0.0.1:2645", "[::1]:2645"]
      [[input]]
      path = "registry.csv"         # columns handle,index,type,data,ttl; or JSON lines
      [[member]]                    # what `zaibei identity show --block` prints at the centre
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
        settle()
        async with opened.running():
            ready = {"ready": True, **opened.status(), "fingerprint": opened.identity.fingerprint}
            pushed = "".join(f"pushed to {name} at {address}" for name, address in config.push[:1])
            listening = f"offered on {', '.join(map(str, opened.addresses))}" if opened.addresses else ""
            where = listening or pushed or "offered nowhere yet (no member is pinned)"
            when = "" if opened.offered else " as soon as its files were read as a whole"
            console.answer(ready, f"{config.nature.source} is {where}{when}; head {opened.agent.head().short()}")
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
            async with asyncio.timeout(0.5):
                await stop.wait()
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
    listen = [address for address in config.listen if not address.endswith(":0")]
    if listen and not config.push:
        block += f"pull = {json.dumps(listen)}    # as the member reaches it\n"
    about = described(mine.certificate_pem)
    console.say(f"{mine.name}: serial {about['serial']}, issuer {about['issuer']}, ends {about['ends']}\n")
    console.answer({**fields, "block": block, **about}, block)


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
    parts: list[object] = [pairs([*_rows(found), ("running", current if current else None)])]
    if found["push"]:
        columns = ["member", "address", "connected", "trouble"]
        parts.append(table(columns, [[one[name] for name in columns] for one in found["push"]]))
    console.answer({**found, "running": True if current else None, "age_s": round(age_s, 1)}, *parts)
    return Exit.DONE if current else Exit.UNKNOWN


@source.command()
@click.argument("address", metavar="ADDRESS|NAME")
@click.option(
    "--member",
    "member_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With NAME: the member's file that names the source.  [default: zaibei.toml]",
)
@click.option("--pin", "pin_path", type=click.Path(path_type=Path, dir_okay=False), help="The source's certificate (PEM).")
@click.option(
    "--identity",
    "identity_path",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of our identity, which the source has pinned; made when there is none.",
)
@click.option("--name", default="conformance-kit", show_default=True, help="Name in our identity, when it is made now.")
@click.option("--also", multiple=True, help="A further address that must be the same source, e.g. its IPv6 one. Repeatable.")
@click.option("--seconds", default=Settings().watch_s, show_default=True, help="How long to watch beats and certificates.")
@click.option("--only", multiple=True, type=click.Choice([group.value for group in Group]), help="Look at these groups alone.")
@styled
def check(
    console: Console,
    address: str,
    member_path: Path | None,
    pin_path: Path | None,
    identity_path: Path | None,
    name: str,
    also: tuple[str, ...],
    seconds: float,
    only: tuple[str, ...],
) -> int:
    """Does a source keep the rules of the feed? Any source, in any language.

    At the centre its NAME is enough: address, certificate and our identity come from the member's file. Elsewhere: its ADDRESS
    (host:port), --pin and --identity.

    It reads only: no epoch is granted, no receipt given. Change and delete a record while it looks, so that there is something to
    see.
    Exit 0: every rule passes; 9: a rule is broken; 11: something could not be looked at; 8: not reachable.

    \b
    Examples:
      zaibei source check node-a
      zaibei source check [2001:db8::7]:2645 --pin node-a.pem --identity ./checker --seconds 20
    """
    if pin_path is None and identity_path is None:
        addresses, mine, peer = _named(address, member_path)
    elif pin_path is None or identity_path is None:
        raise click.UsageError("an ADDRESS needs both --pin and --identity")
    else:
        addresses = [address] if also else both_families(address)
        peer = _pinned(pin_path)
        mine = ensure_identity(identity_path, present_name(identity_path) or name)
    addresses += also
    settings = replace(Settings(), watch_s=seconds)
    groups = frozenset(Group(group) for group in only) or None
    inspection = Inspection(addresses[0], mine, peer, settings, addresses[1:], groups)
    findings = asyncio.run(inspection.run())
    verdict = worst(findings)
    document = {
        "address": address,
        "source": peer.name,
        "verdict": verdict.value,
        "rules": [finding.document() for finding in findings],
    }
    rows = [
        [finding.rule.ident, colour(finding.result), finding.looked, finding.rule.title, finding.detail] for finding in findings
    ]
    counts = ", ".join(f"{sum(finding.result is result for finding in findings)} {result.value}" for result in Result)
    console.answer(
        document, table(["rule", "result", "looked", "what", "detail"], rows), f"{address}: {verdict.value} ({counts})"
    )
    return VERDICTS[verdict]


def _pinned(pin_path: Path) -> Peer:
    try:
        certificate = pin_path.read_bytes()
    except FileNotFoundError:
        raise ZaibeiError(Code.NOT_FOUND, f"{pin_path} is not there: write the source's certificate into it") from None
    return Peer(name_of(certificate), certificate)


def _named(name: str, member_path: Path | None) -> tuple[list[str], Identity, Peer]:
    """Addresses and pin of a source in the member's file, and the member's own identity, which the source has pinned."""
    config = load_config(member_path).config
    found = next((one for one in config.sources if one.name == name), None)
    if found is None:
        known = ", ".join(one.name for one in config.sources) or "none"
        raise click.UsageError(
            f"{name!r} is no source of this member (it has: {known}); for an address give --pin and --identity too"
        )
    if found.peer is None:
        raise ZaibeiError(Code.NOT_FOUND, f"{name} is hosted here and has no node: see `zaibei register --help`")
    if not found.pull:
        raise ZaibeiError(Code.NOT_FOUND, f"{name} pushes to us and listens nowhere: there is nothing to connect to")
    folder = config.member.identity_folder
    if not present_name(folder):
        raise ZaibeiError(Code.NOT_FOUND, f"no identity in {folder} yet. Next: zaibei identity create")
    return [str(one) for one in found.pull], ensure_identity(folder, config.member.name), found.peer


def present_name(folder: Path) -> str:
    """Name of the identity in a folder; empty when there is none."""
    path = folder / CERTIFICATE_FILE
    return name_of(path.read_bytes()) if path.exists() else ""


def both_families(address: str) -> list[str]:
    """The address, and where it is a name with addresses of both families, one of each."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise click.UsageError(f"{address!r} is no address: write host:port, IPv6 as [::1]:port")
    try:
        ipaddress.ip_address(host.strip("[]"))
        return [address]
    except ValueError:
        pass
    try:
        infos = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        raise ZaibeiError(Code.UNREACHABLE, f"{host}: {exc.strerror}", retry=True) from exc
    four = [f"{info[4][0]}:{port}" for info in infos if info[0] == socket.AF_INET][:1]
    six = [f"[{info[4][0]}]:{port}" for info in infos if info[0] == socket.AF_INET6][:1]
    return four + six or [address]


def colour(result: Result) -> Text:
    return Text(result.value, style={Result.PASS: "green", Result.FAIL: "red", Result.UNKNOWN: "yellow"}[result])


SHOWN = {
    "source": "source",
    "head": "head",
    "receipted": "safe at the copy up to",
    "records": "records",
    "offered": "offered",
    "input": "input",
    "input_reason": "input says",
    "rejects": "lines left out",
    "spool_octets": "octets not receipted",
    "spool_full": "spool full",
    "epoch_wanted": "asks for an epoch",
    "failed": "failed",
    "listen": "listens on",
    "pid": "process",
}  # what a person is shown, in this order; --json has everything
HIDDEN_WHEN_EMPTY = ("input_reason", "spool_full", "epoch_wanted", "failed", "rejects")


def _rows(found: Mapping[str, object]) -> list[tuple[str, object]]:
    return [
        (label, _shown(name, found[name]))
        for name, label in SHOWN.items()
        if name in found and (found[name] or name not in HIDDEN_WHEN_EMPTY)
    ]


def _shown(name: str, value: object) -> object:
    if name == "receipted" and value is None:
        return "nothing yet"
    if name in ("head", "receipted"):
        try:
            return Position.parse(str(value)).short()
        except ZaibeiError:
            return value
    return " ".join(map(str, value)) if isinstance(value, list) else value


source.add_command(reseed)
source.add_command(grant)
source.add_command(enroll)
source.add_command(join)
source.add_command(receipts)
source.add_command(diff)
source.add_command(mirror)
source.add_command(follow)

if __name__ == "__main__":
    sys.exit(guarded(lambda: source(standalone_mode=False, prog_name="zaibei source"), "--json" in sys.argv))
