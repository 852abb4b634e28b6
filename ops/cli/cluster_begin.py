"""`zaibei cluster init` and `zaibei cluster join`: a data folder becomes a member, and its file says so."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from ops.cli.style import Console, effective, styled, target_options
from ops.cluster.config_part import Part, Values, part_of
from ops.cluster.edge_begin import PKI_FOLDER, begin_cluster, join_cluster
from ops.config import Effective, MemberConfig
from ops.config.edge_load import CONFIG_FILE, EMBEDDED, parse
from ops.config.read import WrongError, peer_address
from ops.config.read import name as read_name
from ops.config.read import zone as read_zone
from ops.pki.edge_own import ca_of, has_ca
from replica.enrol.token import decode_token
from replica.model.edge_audit_keys import AUDIT_KEY_FILE
from replica.model.errors import Code, ZaibeiError

reach_option = click.option(
    "--reach",
    multiple=True,
    metavar="HOST:PORT",
    help="Where other members reach this one. Repeatable.  [default: [cluster] reach or listen]",
)
zone_option = click.option("--zone", default="", help="Place that can be lost at once.  [default: [cluster] zone]")


@click.command()
@click.option("--name", default="", help="Name of this member.  [default: [member] name]")
@zone_option
@reach_option
@click.option("--replicas", type=click.Choice(["3", "5"]), help="Voters of each group.  [default: [cluster] replicas]")
@target_options
@styled
def init(console: Console, name: str, zone: str, reach: tuple[str, ...], replicas: str | None) -> None:
    """Make this member the first of a new cluster; before `zaibei up`, on an empty data folder or on one with data.

    Data that is there is kept: lineage, journal, stores, keys. The member gets a certificate of the CA, which is made in
    the data folder where [pki] names none. Missing sections are added to the member's file.

    \b
    Example:
      zaibei cluster init --zone dc-1 --reach member-1.example:2646
    """
    found = effective()
    config = found.config
    links, zone = _links(config, reach), _zone(zone)
    _same_name(found, name or config.member.name)
    ca = ca_of(config.pki) if has_ca(config.pki) else None
    own_ca = ca is None and bool(config.pki.roots)
    begun = begin_cluster(config.member.data, name or config.member.name, links, ca, own_ca=own_ca)
    cluster: Values = {"zone": zone, "reach": reach, "replicas": int(replicas) if replicas else ""}
    pki: Values = {} if ca is not None or own_ca else {"folder": begun.pki}
    file, part = _write_part(found, begun.card.name, {"cluster": cluster, "pki": pki})
    document = {
        "cluster": begun.card.cluster.hex(),
        "lineage": begun.card.lineage.hex(),
        "number": begun.card.number,
        "name": begun.card.name,
        "data": str(config.member.data),
        "kept_data": begun.kept,
        "pki": begun.pki,
        "made_ca": begun.made_ca,
        "pinned": begun.pinned,
        "certificate_names": list(begun.names),
        "file": file,
        "to_write": list(part.told),
    }
    lines = [f"{begun.card.name} is member 1 of the new cluster {begun.card.cluster.hex()}"]
    lines += ["the data that was there is kept"] if begun.kept else []
    lines += [f"the cluster's CA is in {begun.pki}: keep a copy of that folder in a safe place"] if begun.made_ca else []
    key = config.member.identity_folder / AUDIT_KEY_FILE
    lines.append(
        f"the key of the audit's personal words is {key}: each further member needs the same file, mode 0600, before it starts"
    )
    if begun.pinned and begun.kept:
        lines.append(
            f"! sources that pinned this member's earlier certificate ({begun.pinned}) must trust the CA: give each of them "
            f"{Path(begun.pki) / 'ca.pem'} as roots in [pki], before this member starts"
        )
    if begun.names:
        lines.append(f"! your own CA signs: its certificate for this member must carry the names {', '.join(begun.names)}")
    lines += _told(file, part)
    lines.append(f"Next: zaibei up{_where(found, file)}, then zaibei cluster invite NAME for each further member")
    console.answer(document, "\n".join(lines))


@click.command()
@click.argument("token")
@zone_option
@reach_option
@target_options
@styled
def join(console: Console, token: str, zone: str, reach: tuple[str, ...]) -> None:
    """Make this empty data folder a member of the cluster that gave the token out; then `zaibei up`.

    It fetches certificate, CA and card, and adds what is missing to the member's file. When it is interrupted, the same command
    goes on where it was. The same [[source]] blocks must stand in every member's file.

    \b
    Example:
      zaibei cluster join zaibei1-... --zone dc-2 --reach member-2.example:2646
    """
    found = effective()
    config, known = found.config, decode_token(token)
    _same_name(found, known.name)
    links, zone = _links(config, reach), _zone(zone)
    feeds = tuple(str(address) for address in config.listen.feed if not address.is_any and address.port)
    with console.progress():
        card = asyncio.run(join_cluster(config.member.data, known, zone or config.cluster.zone, links, feeds))
    roots = str(config.member.data / PKI_FOLDER / "ca.pem")
    sections: dict[str, Values] = {
        "cluster": {"zone": zone, "reach": reach},
        "pki": {"roots": [roots], "reach": known.addresses},
    }
    file, part = _write_part(found, card.name, sections)
    document = {
        "cluster": card.cluster.hex(),
        "lineage": card.lineage.hex(),
        "number": card.number,
        "name": card.name,
        "data": str(config.member.data),
        "members": [{"number": one.number, "name": one.name, "addresses": list(one.addresses)} for one in card.members],
        "file": file,
        "to_write": list(part.told),
    }
    others = ", ".join(one.name for one in card.others()) or "none"
    lines = [f"{card.name} is member {card.number} of the cluster {card.cluster.hex()}; others: {others}", *_told(file, part)]
    if not config.sources:
        lines.append("! no [[source]] is in its file yet: put the same blocks there as at the other members")
    key = config.member.identity_folder / AUDIT_KEY_FILE
    lines.append(
        f"! put {AUDIT_KEY_FILE} of another member there, mode 0600: {key}; without it words of persons stay masked here"
    )
    lines.append(f"Next: zaibei up{_where(found, file)}")
    console.answer(document, "\n".join(lines))


def _links(config: MemberConfig, reach: tuple[str, ...]) -> tuple[str, ...]:
    try:
        links = tuple(str(peer_address(one)) for one in reach) or config.cluster.links()
    except WrongError as wrong:
        raise ZaibeiError(Code.INVALID_CONFIG, f"--reach: {wrong.what}; write {wrong.instead}") from None
    if not links:
        raise ZaibeiError(
            Code.INVALID_CONFIG, "[cluster] listens on every address: say where others reach it. Next: --reach HOST:PORT"
        )
    return links


def _zone(zone: str) -> str:
    try:
        return read_zone(zone)
    except WrongError as wrong:
        raise ZaibeiError(Code.INVALID_CONFIG, f"--zone: {wrong.what}; write {wrong.instead}") from None


def _same_name(found: Effective, name: str) -> None:
    """A file that names another member is another member's. Embedded defaults name nobody."""
    try:
        read_name(name)
    except WrongError as wrong:
        raise ZaibeiError(Code.INVALID_CONFIG, f"--name: {wrong.what}; write {wrong.instead}") from None
    stated = found.origins.get("member.name") not in (None, "default")
    if stated and found.config.member.name != name:
        raise ZaibeiError(
            Code.CONFLICT,
            f"{found.origin} is the file of {found.config.member.name}, not of {name}. "
            f'Next: name = "{name}" there, or another --config',
        )


def _write_part(found: Effective, name: str, sections: dict[str, Values]) -> tuple[str, Part]:
    """Add what the file lacks; makes it when there is none. What is there is never changed."""
    fresh = found.origin == EMBEDDED
    path = Path(CONFIG_FILE) if fresh else Path(found.origin)
    member: Values = {"name": name, "data": str(found.config.member.data)} if fresh else {"name": name}
    part = part_of({} if fresh else parse(path), {"member": member, **sections})
    if part.text:
        octets = b"" if fresh else path.read_bytes()
        glue = b"" if not octets or octets.endswith(b"\n\n") else b"\n" if octets.endswith(b"\n") else b"\n\n"
        new = path.with_name(path.name + ".new")
        new.write_bytes(octets + glue + part.text.encode())
        if not fresh:
            new.chmod(path.stat().st_mode & 0o777)
        os.replace(new, path)
    return str(path), part


def _told(file: str, part: Part) -> list[str]:
    lines = [f"added to {file}: {', '.join(line for line in part.text.splitlines() if line)}"] if part.text else []
    return lines + [f"! write into {file}: {line}" for line in part.told]


def _where(found: Effective, file: str) -> str:
    return "" if file == CONFIG_FILE else f" --config {file}"
