"""`zaibei order answer`: the top-level node reads a request that came by file, and answers it with its signature."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ops.cli.exits import Exit
from ops.cli.operator import ask_passphrase
from ops.cli.style import Console, pairs, styled
from ops.operators import edge_keys
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.faults import ProtocolFault
from replica.model.handle.types import decode_site
from replica.model.identity import Peer, name_of
from replica.takeover.request import (
    ANSWER_SUFFIX,
    DONE,
    FILE_OCTETS_MAX,
    REFUSED,
    REQUEST_SUFFIX,
    TEXT_CHARS_MAX,
    Asked,
    read_request,
    write_answer,
)

MADE_BY = "zaibei order key NAME"


@click.command()
@click.argument("request", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--trust",
    "trusted",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Certificate of a member that may ask, as `zaibei identity show` prints it there; may be given again.",
)
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Your key: signs the answer. Default: only look.")
@click.option("--refuse", metavar="WHY", default="", help="It is not done, and why. Default: it is done.")
@click.option("--text", default="", help="Of an answer that it is done: a remark.")
@styled
def answer(console: Console, request: Path, trusted: tuple[Path, ...], key: Path | None, refuse: str, text: str) -> int:
    """Read a request about a prefix's record; with --key, answer that it was done, or refuse it.

    Do first what it asks, then answer: the centre takes the answer for the record's own word. The answer lies beside the request,
    and goes back the way the request came. Of several requests about a prefix the one with the highest serial counts.

    \b
    Examples:
      zaibei order answer 88.118_00009_publish_member-1.request --trust member-1.pem
      zaibei order answer 88.118_00009_publish_member-1.request --trust member-1.pem --key beijing.key
    """
    with request.open("rb") as file:
        octets = file.read(FILE_OCTETS_MAX + 1)
    asked = read_request(octets)
    member = _member(asked, trusted)
    one = asked.publication
    if (refuse and text) or len(refuse or text) > TEXT_CHARS_MAX:
        raise click.UsageError(f"either --refuse or --text, of at most {TEXT_CHARS_MAX} characters")
    result, path = REFUSED if refuse else DONE, None
    if key is not None:
        path = request.with_name(request.name.removesuffix(REQUEST_SUFFIX) + ANSWER_SUFFIX)
        _replace(path, write_answer(octets, result, refuse or text, edge_keys.load(key, ask_passphrase, made_by=MADE_BY)))
    sites = [_shown(site) for site in one.sites]
    document = {
        "member": member, "prefix": one.prefix, "serial": one.serial, "act": one.act, "withdrawn": one.withdrawn,
        "shadow": one.shadow, "sites": sites, "answer": None if path is None else str(path),
        "result": None if path is None else result,
    }  # fmt: skip
    words = "put back what stood there before" if one.withdrawn else "exactly these HS_SITE values, in this order"
    rows: list[tuple[str, object]] = [
        ("asked by", member),
        ("record", f"0.NA/{one.prefix}{' (a rehearsal: no client uses it)' if one.shadow else ''}"),
        ("asks for", words),
        *((f"site {at}", site) for at, site in enumerate(sites, 1)),
        ("serial", str(one.serial)),
        ("act", one.act),
    ]
    done = "Not answered. Next: the same with --key FILE, once it is done" if path is None else f"{path}: {result}, signed."
    console.answer(document, pairs(rows), done)
    return Exit.DONE


def _member(asked: Asked, trusted: tuple[Path, ...]) -> str:
    """Who asked. Raises ZaibeiError(NOT_AUTHORISED): nobody that is trusted."""
    for path in trusted:
        certificate = path.read_bytes()
        peer = Peer(name_of(certificate), certificate, role="member")
        if peer.name == asked.member and asked.by(peer.signing_key):
            return peer.name
    text = f"the request names {asked.member[:80]!r} and bears no signature of it that --trust knows: changed, or not theirs"
    raise ZaibeiError(Code.NOT_AUTHORISED, text)


def _shown(octets: bytes) -> str:
    try:
        site = decode_site(octets)
    except ProtocolFault as fault:
        return f"no site: {fault.detail}"
    hosts = ", ".join(host for server in site.servers for host in site.hosts(server))
    return f"{hosts}, serial {site.serial}{', primary' if site.primary else ''}; {octets.hex()}"


def _replace(path: Path, octets: bytes) -> None:
    """Whole or not at all, on the disk. Raises OSError."""
    new = path.with_name(f".{path.name}.new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    with os.fdopen(handle, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
