"""`zaibei pki`: a private CA and the certificates of members, sources and operators."""

from __future__ import annotations

import asyncio
import json
import re
import time
from hashlib import sha256
from pathlib import Path

import click
from cryptography.hazmat.primitives import hashes

from ops.cli.exits import Exit
from ops.cli.identity import described
from ops.cli.style import Console, effective, pairs, styled, table, target_options
from ops.config import MemberConfig
from ops.config.read import NAME_PATTERN
from ops.pki.book import Issued
from ops.pki.edge_folder import CERTIFICATE_DAYS, DAY_S, LIST_FILE, ROOT_DAYS, ROOT_FILE, PkiFolder
from ops.pki.edge_own import ca_of, has_ca, issue_into, place_of, trust_files
from ops.pki.edge_renew import renew_over_network
from replica.client.edge_agent import identity_of, load_source_config, trusts_of
from replica.model.edge_identity import ensure_identity
from replica.model.edge_trust import LiveTrust
from replica.model.errors import Code, ZaibeiError
from replica.model.identifier import prefix_key
from replica.model.identity import Pins
from replica.model.trust import CLUSTER_OCTETS, Claims, Role

DAYS_MAX = 36_500
TOKEN_CHARACTERS = 16

folder_option = click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), help="Folder of the CA.  [default: folder in [pki]]"
)
passphrase_option = click.option(
    "--passphrase-file", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="File with the passphrase of its key."
)


@click.group()
def pki() -> None:
    """A private CA instead of pinned certificates: make it, sign, renew, revoke. A CA you have works as well: [pki] roots, crl.

    \b
    Examples:
      zaibei pki init --folder pki                      then its [pki] block into zaibei.toml
      zaibei pki renew                                  this member's own certificate, by the CA
      zaibei pki show
      zaibei pki revoke source/node-a                   looks; with --plan TOKEN it does it
    """


@pki.command()
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where the CA shall lie.")
@click.option("--name", default="zaibei private CA", show_default=True, help="Name in its certificate.")
@click.option("--days", type=click.IntRange(1, DAYS_MAX), default=ROOT_DAYS, show_default=True, help="How long the CA lasts.")
@click.option("--passphrase", is_flag=True, help="Ask for a passphrase and lock the key with it.")
@passphrase_option
@styled
def init(console: Console, folder: Path, name: str, days: int, passphrase: bool, passphrase_file: Path | None) -> None:
    """Make a private CA: key (mode 0600), certificate, empty revocation list. Never over an existing one.

    A member that enrols others while it runs opens the key by itself: with a passphrase it needs [pki] passphrase_file.

    \b
    Examples:
      zaibei pki init --folder pki
      zaibei pki init --folder /media/usb/pki --passphrase
    """
    secret = passphrase_file.read_bytes().strip() if passphrase_file is not None else b""
    if passphrase and not secret:
        secret = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True).encode()
    made = PkiFolder.create(folder, name, days, secret)
    block = f"[pki]\nfolder = {json.dumps(str(folder))}\n"
    if passphrase_file is not None:
        block += f"passphrase_file = {json.dumps(str(passphrase_file))}\n"
    printed = _root_print(made)
    console.answer(
        {"folder": str(folder), "fingerprint": printed, "toml": block},
        f"CA in {folder}, {printed}. Keep a copy of the folder where this machine cannot lose it.",
        "Next: this block into the member's file, then `zaibei pki renew`:\n",
        block,
    )


def _root_print(ca: PkiFolder) -> str:
    return "sha256:" + ca.root.fingerprint(hashes.SHA256()).hex()


def _ca(folder: Path | None, passphrase_file: Path | None) -> PkiFolder:
    if folder is None:
        return ca_of(effective().config.pki)

    def secret() -> bytes:
        if passphrase_file is not None:
            return passphrase_file.read_bytes().strip()
        return str(click.prompt("Passphrase", hide_input=True, err=True)).encode()

    return PkiFolder(folder, secret)


@pki.command()
@click.argument("role", type=click.Choice([str(role) for role in Role]))
@click.argument("name")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the identity.  [default: NAME-identity]"
)
@click.option("--number", type=click.IntRange(1, 2**32 - 1), help="Of a member; the cluster gives it.")
@click.option("--cluster", default="", help="Of a member: the cluster's id, 32 hex digits.")
@click.option("--prefix", "prefixes", multiple=True, help="Of a source: what it may write; for the block that is printed.")
@click.option("--days", type=click.IntRange(1, DAYS_MAX), default=CERTIFICATE_DAYS, show_default=True, help="How long it lasts.")
@folder_option
@passphrase_option
@target_options
@styled
def issue(
    console: Console,
    role: str,
    name: str,
    out: Path | None,
    number: int | None,
    cluster: str,
    prefixes: tuple[str, ...],
    days: int,
    folder: Path | None,
    passphrase_file: Path | None,
) -> None:
    """Keys and a certificate for NAME as member, source or operator, into a folder to be carried there.

    Enrolment by a token is better: keys made at the node never travel. See `zaibei source enroll --help`.

    \b
    Examples:
      zaibei pki issue source node-a --prefix 88.118.8 --out node-a/zaibei-source/identity
      zaibei pki issue member member-2 --number 2 --folder pki
    """
    claims = _claims(role, name, number, cluster)
    for prefix in prefixes:
        prefix_key(prefix)
    if claims.role is Role.SOURCE and not prefixes:
        raise click.UsageError("a source owns prefixes: --prefix 88.118.8")
    target = out or Path(f"{name}-identity")
    if (target / "certificate.pem").exists():
        raise ZaibeiError(Code.CONFLICT, f"{target} holds an identity already. Next: zaibei pki renew, or another --out")
    ca = _ca(folder, passphrase_file)
    made = issue_into(ca, target, claims, days * DAY_S)
    (target / ROOT_FILE).write_bytes(ca.roots_pem())
    (target / LIST_FILE).write_bytes(ca.lists_pem())
    about = described(made.certificate_pem)
    block = ""
    if claims.role is Role.SOURCE:
        block = f"[[source]]\nname = {json.dumps(name)}\nprefixes = {json.dumps(list(prefixes))}\n"
    document = {"role": role, "name": name, "number": claims.number, "folder": str(target), "toml": block}
    console.answer(
        document | {"fingerprint": made.fingerprint, **about},
        f"{role} {name}: identity in {target}, serial {about['serial']}, ends {about['ends']}.",
        *([f"For the member's file:\n\n{block}"] if block else []),
    )


def _claims(role: str, name: str, number: int | None, cluster: str) -> Claims:
    if not re.fullmatch(NAME_PATTERN, name):
        raise click.UsageError(f"{name!r} is not a name: lower-case letters, digits, dots and dashes")
    if (number is None) is (role == Role.MEMBER):
        raise click.UsageError("a member has a --number, and nobody else has")
    if cluster and (role != Role.MEMBER or not re.fullmatch(f"[0-9a-f]{{{2 * CLUSTER_OCTETS}}}", cluster)):
        raise click.UsageError("--cluster is 32 hex digits, and of a member")
    return Claims(Role(role), name, number or 0, bytes.fromhex(cluster))


@pki.command()
@click.argument("what", metavar="SERIAL|NAME")
@click.option("--plan", "token", default="", help="Token of what was shown; without it nothing is revoked, it is shown.")
@folder_option
@passphrase_option
@target_options
@styled
def revoke(console: Console, what: str, token: str, folder: Path | None, passphrase_file: Path | None) -> None:
    """Revoke a certificate by its serial number, or all of a NAME (role/NAME where two roles have it). It cannot be undone.

    Members that read this CA's list end its running streams within seconds. Copy crl.pem to the others ([pki] crl).

    \b
    Examples:
      zaibei pki revoke source/node-a                          what would be revoked, and a token
      zaibei pki revoke source/node-a --plan 0123456789abcdef
    """
    ca = _ca(folder, passphrase_file)
    if token and all(one.revoked_s for one in _with_token(ca, token)) and _with_token(ca, token):
        console.answer({"revoked": [], "already": True}, "It is revoked already.")
        return
    found = ca.book().named(what)
    planned = _token_of([one.serial for one in found])
    shown = table(["serial", "role", "name", "ends"], [[one.serial, str(one.role), one.name, _day(one.ends_s)] for one in found])
    if not token:
        console.answer(
            {"plan": {"token": planned, "serials": [one.serial for one in found]}},
            shown,
            f"Would be revoked for good. Next: zaibei pki revoke {what} --plan {planned}",
        )
        return
    if token != planned:
        raise ZaibeiError(Code.REFUSED, f"that is not what stands now. Next: zaibei pki revoke {what}, and look again")
    ca.revoke(frozenset(one.serial for one in found))
    console.answer(
        {"revoked": [one.serial for one in found], "list": str(ca.path / LIST_FILE)},
        shown,
        f"Revoked; the list is {ca.path / LIST_FILE}. Members that do not read that very file need a copy of it.",
    )


def _token_of(serials: list[str]) -> str:
    return sha256("\n".join(["zaibei-revoke-1", *sorted(serials)]).encode()).hexdigest()[:TOKEN_CHARACTERS]


def _with_token(ca: PkiFolder, token: str) -> list[Issued]:
    """Certificates that were revoked together by this token; so repeating it is harmless."""
    by_time: dict[int, list[Issued]] = {}
    for one in ca.book().issued:
        by_time.setdefault(one.revoked_s, []).append(one)
    return next((ones for at, ones in by_time.items() if at and _token_of([one.serial for one in ones]) == token), [])


def _day(unix_s: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(unix_s))


@pki.command()
@folder_option
@target_options
@styled
def show(console: Console, folder: Path | None) -> int:
    """The CA, what it signed, revoked and gave out tokens for; elsewhere: which CA is trusted, and how old its lists are.

    Exit 11 when a revocation list should have been replaced by now: what was revoked since is not known here.

    \b
    Example:
      zaibei pki show --folder pki
    """
    now_s = time.time()
    config = None if folder is not None else effective().config
    if config is not None and not has_ca(config.pki):
        return _show_trust(console, config, now_s)
    ca = PkiFolder(folder) if folder is not None else ca_of(config.pki) if config is not None else PkiFolder(Path())
    book, root = ca.book(), ca.root
    certificates = [
        [one.serial, str(one.role), one.name, one.number or "", one.state(now_s), _day(one.ends_s)] for one in book.issued
    ]
    tickets = [[t.ident.hex(), str(t.role), t.name, t.state(now_s).value, _day(t.expires_s), t.wrong] for t in book.tickets]
    document = {
        "folder": str(ca.path),
        "fingerprint": _root_print(ca),
        "ends_s": int(root.not_valid_after_utc.timestamp()),
        "certificates": [
            {
                "serial": one.serial,
                "role": str(one.role),
                "name": one.name,
                "number": one.number,
                "fingerprint": one.fingerprint,
                "state": one.state(now_s),
                "ends_s": one.ends_s,
            }
            for one in book.issued
        ],
        "tokens": [dict(zip(("token", "role", "name", "state", "ends", "wrong"), row, strict=True)) for row in tickets],
    }
    console.answer(
        document,
        pairs([("folder", ca.path), ("fingerprint", _root_print(ca)), ("ends", _day(int(root.not_valid_after_utc.timestamp())))]),
        table(["serial", "role", "name", "number", "state", "ends"], certificates),
        *([table(["token", "role", "name", "state", "ends", "wrong"], tickets)] if tickets else []),
    )
    return Exit.DONE


def _show_trust(console: Console, config: MemberConfig, now_s: float) -> int:
    files = trust_files(config)
    if files is None:
        raise ZaibeiError(Code.NOT_FOUND, "no CA is configured, pins alone count. Next: zaibei pki init --folder pki")
    authority = files.read()
    roots = [["sha256:" + one.fingerprint(hashes.SHA256()).hex(), one.subject.rfc4514_string()] for one in authority.roots]
    outdated = authority.outdated(now_s)
    lists = [
        [one.issuer.rfc4514_string(), len(one), None if one.issuer.rfc4514_string() in outdated else "current"]
        for one in authority.lists
    ]
    console.answer(
        {
            "roots": [{"fingerprint": printed, "subject": subject} for printed, subject in roots],
            "lists": [{"issuer": issuer, "revoked": count, "current": current is not None} for issuer, count, current in lists],
        },
        table(["fingerprint", "root"], roots),
        table(["list of", "revoked", "state"], lists),
    )
    return Exit.UNKNOWN if outdated else Exit.DONE


@pki.command()
@click.option("--source", "source_path", type=click.Path(path_type=Path, dir_okay=False), help="At a node: the source's file.")
@click.option(
    "--days", type=click.IntRange(1, DAYS_MAX), default=CERTIFICATE_DAYS, show_default=True, help="Where the CA is here."
)
@target_options
@styled
def renew(console: Console, source_path: Path | None, days: int) -> None:
    """A new certificate and TLS key for this member, or for a source; the running process takes it into use by itself.

    Where the CA's folder is, it signs here, and a self-signed certificate becomes one of the CA (who has pinned the old one must
    be told). Elsewhere the member that enrols is asked ([pki] reach), as long as the present certificate is good; the
    revocation list comes with it.

    \b
    Examples:
      zaibei pki renew --config zaibei.toml
      zaibei pki renew --source source.toml
    """
    if source_path is not None:
        source = load_source_config(source_path)
        if source.trust is None:
            raise ZaibeiError(Code.NOT_FOUND, f"{source_path} names no CA: [pki] roots. A pinned certificate lasts ten years")
        folder = source.data / "identity"
        made = asyncio.run(renew_over_network(identity_of(source), folder, source.reach, trusts_of(source), source.trust))
    else:
        config = effective().config
        folder = config.member.identity_folder
        files = trust_files(config)
        if has_ca(config.pki):
            number, cluster = place_of(config)
            config.member.data.mkdir(parents=True, exist_ok=True, mode=0o700)
            made = issue_into(ca_of(config.pki), folder, Claims(Role.MEMBER, config.member.name, number, cluster), days * DAY_S)
        elif files is None:
            raise ZaibeiError(Code.NOT_FOUND, "no CA is configured, pins alone count. Next: zaibei pki init --folder pki")
        else:
            trusts = LiveTrust(Pins, files, frozenset({Role.MEMBER}))
            reach = tuple(map(str, config.pki.reach))
            made = asyncio.run(renew_over_network(ensure_identity(folder, config.member.name), folder, reach, trusts, files))
    about = described(made.certificate_pem)
    console.answer(
        {"name": made.name, "fingerprint": made.fingerprint, "folder": str(folder), **about},
        f"{made.name}: serial {about['serial']}, {made.fingerprint}, ends {about['ends']}.",
    )
