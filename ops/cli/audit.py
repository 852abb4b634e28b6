"""`zaibei audit`: what was decided, by whom, when and why; listed, written out, and verified without the cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ops.cli.exits import VERDICTS
from ops.cli.style import Console, admin, effective, pairs, styled, table, target_options
from replica.model.audit import FORMAT, AuditHead, Broken, check_chain
from replica.model.audit_seal import NO_KEYS, AuditKeys
from replica.model.edge_audit_keys import AUDIT_KEY_FILE, add_audit_key, load_audit_keys
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
    minute; and who was shown words about persons. These are masked and, where the member has the key, encrypted on the disk.

    \b
    Examples:
      zaibei audit list node-a
      zaibei audit list node-a --kind decision --who li.wei
      zaibei audit list denials --who 300:88.118.9/LI
      zaibei audit export node-a --out node-a.audit
      zaibei audit verify node-a.audit --trust member-1.pem
    """


@audit.command("list")
@click.argument("group", metavar="SOURCE|control|denials")
@click.option("--kind", default="", help="Of this kind alone, e.g. grant, decision, authority, overlay, mark, ladder, control.")
@click.option("--text", default="", help="Whose line, as it is shown, holds this text: an act, a position, a prefix.")
@click.option("--who", "person", default="", help="About exactly this name, key (300:88.118.9/LI) or address, masked or not.")
@click.option("--since", default="", metavar="DATE", help="Not older: 2027-01-31, or 2027-01-31T08:00 (UTC).")
@click.option("--last", default=50, show_default=True, help="How many, the newest ones.")
@click.option("--reveal", is_flag=True, help="Words about persons as they are. An act: --by and --why go into the audit first.")
@click.option("--by", default="", help="Who looks; with --reveal.")
@click.option("--why", default="", help="For what reason; with --reveal.")
@target_options
@styled
def list_(
    console: Console, group: str, kind: str, text: str, person: str, since: str, last: int, reveal: bool, by: str, why: str
) -> None:
    """What was decided, oldest first; the last line is the head of the chain at this member.

    Words about persons (who, why, addresses) are shown masked, as 300:88.118.9/L… and 192.0.2.0/24; those this member has no key
    for as `masked`. `--reveal` shows them, where the key is, and is itself a record in this member's audit `denials`.

    Exit 0: shown; 2: --reveal without --by and --why; 3: --reveal at a member that has no key of the audit; 6: no such group
    here; 9: words were not sealed for their record: keys or audit were altered; 11: not known what was shown: look at
    `zaibei audit list denials --kind reveal`.

    \b
    Examples:
      zaibei audit list node-a --kind decision --since 2027-01-31
      zaibei audit list node-a --who li.wei
      zaibei audit list node-a --who li.wei --reveal --by wang.fang --why "case 17"
    """
    if reveal and not (by.strip() and why.strip()):
        raise click.UsageError("--reveal is an act that the audit keeps: name --by and --why")
    since_ms = _since(since)
    records, head, closed = [], AuditHead(), 0
    for page in _pages(group, person):
        head = AuditHead(page["number"], bytes.fromhex(page["chain"]), page["first"])
        closed += page["closed"]
        for line in page["records"]:
            one = json.loads(line)
            if kind in ("", one["kind"]) and text.lower() in line.lower() and one["at_ms"] >= since_ms:
                records.append(one)
    shown = records[-last:] if last > 0 else []
    if reveal:
        told = admin().audit_reveal(group, [one["number"] for one in shown], by, why)
        shown = [json.loads(line) for line in told["records"]]
    rows = [_row(one) for one in shown]
    columns = ["number", "when (UTC)", "kind", "what", "who", "why", "effect"]
    left = f"{len(records) - len(shown)} older ones match too: --last {len(records)}" if len(records) > len(shown) else ""
    console.answer(
        {"group": group, "head": str(head), "first": head.first, "records": shown, "closed": closed},
        table(columns, rows),
        *([left] if left else []),
        *([f"! words of {closed} records are sealed with a key that is not here"] if closed else []),
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
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The cluster's audit.key: words about persons are opened and checked as well. None of them is shown.",
)
@styled
def verify(console: Console, path: Path, trusted: tuple[Path, ...], stated: str, key_file: Path | None) -> int:
    """Is the file what a member sealed, and is no record changed, missing, out of order or cut off? Needs no network, and no key.

    With `--key` each record's sealed words are opened too: they must be what was sealed for that record. A key that is not in the
    file leaves its words closed, which is counted and no fault.

    Exit 0: sound; 9: something is wrong (each fault by its record); 11: sound in itself, but nobody trusted sealed it.

    \b
    Examples:
      zaibei audit verify node-a.audit --trust member-1.pem --head 118:5f…
      zaibei audit verify node-a.audit --trust member-1.pem --key audit.key
    """
    found = read_sealed(path.read_bytes(), FORMAT)
    faults, signer = faults_of(found, stated), _signer(found, trusted)
    words = opened_of(found, NO_KEYS if key_file is None else load_audit_keys(key_file))
    faults += words.faults
    result = Result.FAIL if faults else Result.PASS if signer else Result.UNKNOWN
    about = found.head
    document = {
        "file": str(path),
        "group": about.get("group"),
        "records": len(found.lines),
        "first": about.get("first"),
        "head": about.get("last"),
        "sealed_by": signer or None,
        "words": {"sealed": words.sealed, "opened": words.opened},
        "result": result.value,
        "faults": [{"number": one.number, "fault": one.fault, "detail": one.detail} for one in faults],
    }
    rows: list[tuple[str, object]] = [
        ("group", about.get("group")),
        ("records", len(found.lines)),
        ("begins at", about.get("first")),
        ("head", about.get("last")),
        ("sealed by", signer or "nobody that --trust names"),
        ("words about persons", f"sealed in {words.sealed} records, opened and as sealed in {words.opened}"),
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


@dataclass(frozen=True, slots=True)
class Opened:
    """Records with sealed words, those that were opened, and what is wrong with any."""

    sealed: int
    opened: int
    faults: list[Broken]


def opened_of(found: Sealed, keys: AuditKeys) -> Opened:
    """Each record's sealed words, opened with these keys."""
    sealed = opened = 0
    faults: list[Broken] = []
    for line in found.lines:
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict) or "sealed" not in fields:
                continue
            sealed += 1
            opened += keys.open(fields) is not None
        except ZaibeiError as exc:
            faults.append(Broken(int(fields["number"]), "changed", exc.trouble.message))
        except ValueError:
            continue  # no record at all: the chain's check says so
    return Opened(sealed, opened, faults)


@audit.command()
@click.option("--new", is_flag=True, help="Another key seals from the member's next start on; those before it go on to open.")
@target_options
@styled
def key(console: Console, new: bool) -> None:
    """Which keys of the audit this member's file has, by their ids; the first one seals. A key itself is never shown.

    Put the same file at every member, then restart them one after the other. Whoever takes an old line out of every copy of the
    file makes the words sealed with it unreadable for good, and loses nothing else: chains go on to be verified.

    Exit 0: told; 3: the file can be read by others; 9: it is no file of the audit's keys.

    \b
    Example:
      zaibei audit key --new
    """
    path = effective().config.member.identity_folder / AUDIT_KEY_FILE
    keys = add_audit_key(path) if new else load_audit_keys(path)
    rows = [[one, "seals" if at == 0 else "opens"] for at, one in enumerate(keys.ids)]
    said = table(["key", "it"], rows) if rows else f"no key is in {path}: words about persons are masked, and stand plain"
    console.answer({"file": str(path), "keys": list(keys.ids)}, said, f"file: {path}")


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


def _pages(group: str, person: str) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        page = admin().audit_page(group, after, PAGE, person)
        yield page
        if page["last"] <= after or page["last"] >= page["number"]:
            return
        after = page["last"]


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
