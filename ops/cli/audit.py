"""`zaibei audit`: what was decided, by whom, when and why; listed, written out, and verified without the cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ops.cli.exits import VERDICTS
from ops.cli.style import Console, admin, pairs, styled, table, target_options
from replica.model.audit import FORMAT, AuditHead, Broken, check_chain
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer, name_of, signing_key_of
from replica.model.sealed import Sealed, read_sealed
from replica.model.states import Result

PAGE = 1_000
CONTROL = "control"


@click.group()
def audit() -> None:
    """Every decision of a source's group, and of the group of the cluster itself (`control`), in a chain of hashes.

    A record is made from the committed entry, so every member has the same chain: compare its head at several of them.
    `denials` is another chain, each member's own: registrations and sign-ins that it refused, counted by identity, reason and
    minute.

    \b
    Examples:
      zaibei audit list node-a
      zaibei audit list node-a --kind grant --text li.wei
      zaibei audit list denials --text 300:88.118.9/li
      zaibei audit export node-a --out node-a.audit
      zaibei audit verify node-a.audit --trust member-1.pem
    """


@audit.command("list")
@click.argument("group", metavar="SOURCE|control|denials")
@click.option("--kind", default="", help="Of this kind alone, e.g. grant, decision, authority, overlay, mark, ladder, control.")
@click.option("--text", default="", help="Whose line holds this text: an operator, an act, a position.")
@click.option("--since", default="", metavar="DATE", help="Not older: 2027-01-31, or 2027-01-31T08:00 (UTC).")
@click.option("--last", default=50, show_default=True, help="How many, the newest ones.")
@target_options
@styled
def list_(console: Console, group: str, kind: str, text: str, since: str, last: int) -> None:
    """What was decided, oldest first; the last line is the head of the chain at this member.

    \b
    Example:
      zaibei audit list node-a --kind decision --since 2027-01-31
    """
    since_ms = _since(since)
    records, head = [], AuditHead()
    for page in _pages(group):
        head = AuditHead(page["number"], bytes.fromhex(page["chain"]), page["first"])
        for line in page["records"]:
            one = json.loads(line)
            if kind in ("", one["kind"]) and text.lower() in line.lower() and one["at_ms"] >= since_ms:
                records.append(one)
    shown = records[-last:]
    rows = [_row(one) for one in shown]
    columns = ["number", "when (UTC)", "kind", "what", "who", "why", "effect"]
    left = f"{len(records) - len(shown)} older ones match too: --last {len(records)}" if len(records) > len(shown) else ""
    console.answer(
        {"group": group, "head": str(head), "first": head.first, "records": shown},
        table(columns, rows),
        *([left] if left else []),
        f"head of the chain: {head}",
    )


@audit.command()
@click.argument("group", metavar="SOURCE|control|denials")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A file that is not there yet.")
@target_options
@styled
def export(console: Console, group: str, out: Path) -> None:
    """Write the whole audit of a group to a file, signed by this member.

    \b
    Example:
      zaibei audit export control --out control.audit
    """
    done = admin().audit_export(group, str(out.absolute()))
    console.answer({"exported": done}, f"{out}: the audit of {group} up to {done['head']}", f"Next: zaibei audit verify {out}")


@audit.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--trust",
    "trusted",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="Certificate (PEM) of a member whose seal counts. Repeatable; without one the seal is checked, and not whose it is.",
)
@click.option("--head", "stated", default="", metavar="NUMBER:CHAIN", help="The head another member shows: it must lie here.")
@styled
def verify(console: Console, path: Path, trusted: tuple[Path, ...], stated: str) -> int:
    """Is the file what a member sealed, and is no record changed, missing, out of order or cut off? Needs no network.

    Exit 0: sound; 9: something is wrong (each fault by its record); 11: sound in itself, but nobody trusted sealed it.

    \b
    Example:
      zaibei audit verify node-a.audit --trust member-1.pem --head 118:5f…
    """
    found = read_sealed(path.read_bytes(), FORMAT)
    faults, signer = faults_of(found, stated), _signer(found, trusted)
    result = Result.FAIL if faults else Result.PASS if signer else Result.UNKNOWN
    about = found.head
    document = {
        "file": str(path),
        "group": about.get("group"),
        "records": len(found.lines),
        "first": about.get("first"),
        "head": about.get("last"),
        "sealed_by": signer or None,
        "result": result.value,
        "faults": [{"number": one.number, "fault": one.fault, "detail": one.detail} for one in faults],
    }
    rows: list[tuple[str, object]] = [
        ("group", about.get("group")),
        ("records", len(found.lines)),
        ("begins at", about.get("first")),
        ("head", about.get("last")),
        ("sealed by", signer or "nobody that --trust names"),
        ("verdict", result.value),
    ]
    listed = [[one.number, one.fault, one.detail] for one in faults]
    console.answer(document, pairs(rows), *([table(["record", "fault", "what"], listed)] if listed else []))
    return VERDICTS[result]


def faults_of(found: Sealed, stated: str = "") -> list[Broken]:
    """Everything that is wrong with a file. Raises ZaibeiError(MALFORMED): it is no export of an audit."""
    about = found.head
    try:
        group, first = str(about["group"]), int(about["first"])
        before, end = bytes.fromhex(about["before"]), AuditHead.parse(about["last"])
    except (KeyError, TypeError, ValueError) as exc:
        raise ZaibeiError(Code.MALFORMED, f"its head does not say which records it holds: {exc}") from exc
    faults = [Broken(0, "cut" if found.seal is None else "changed", found.broken)] if found.broken else []
    faults += check_chain(found.lines, group, first, before, end)
    if found.seal is not None and not found.seal.by(_key(found.seal.chain_pem)):
        faults.append(Broken(0, "changed", "the seal is not over what the file says"))
    if stated:
        other = AuditHead.parse(stated)
        upto = found.lines[: max(0, other.number - first + 1)]
        faults += [] if other.number < first - 1 else check_chain(upto, group, first, before, other)
    return list(dict.fromkeys(faults))


def _key(chain_pem: bytes) -> bytes:
    try:
        return signing_key_of(chain_pem)
    except (ZaibeiError, ValueError):  # parts of a certificate are parsed when they are read
        return bytes(32)


def _signer(found: Sealed, trusted: tuple[Path, ...]) -> str:
    """Name of the trusted member whose seal this is; empty: none's."""
    for path in trusted:
        certificate = path.read_bytes()
        peer = Peer(name_of(certificate), certificate, role="member")
        if found.seal is not None and peer.name == found.member and found.seal.by(peer.signing_key):
            return peer.name
    return ""


def _row(one: dict[str, Any]) -> list[object]:
    return [one["number"], _time(one["at_ms"]), one["kind"], one["what"], ", ".join(one["who"]), one["why"], one["effect"]]


def _pages(group: str) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        page = admin().audit_page(group, after, PAGE)
        yield page
        if not page["records"]:
            return
        after = json.loads(page["records"][-1])["number"]
        if after >= page["number"]:
            return


def _since(text: str) -> int:
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"--since {text!r} is no date: write 2027-01-31, or 2027-01-31T08:00") from None
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1_000)


def _time(unix_ms: int) -> str:
    return f"{datetime.fromtimestamp(unix_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S}" if unix_ms else "not stated"
