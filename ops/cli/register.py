"""`zaibei register`: register, remove and look at identifiers of a source that is hosted here."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hosting.tenant.edge_client import Done, Found, RegistrationClient
from ops.cli.exits import Exit
from ops.cli.style import Console, pairs, styled, table
from ops.config.read import certificate as certificate_pem
from replica.agent.records import value_from_json
from replica.model.edge_identity import CERTIFICATE_FILE, ensure_identity
from replica.model.errors import Code, ZaibeiError
from replica.model.handle.json_api import resolution_json
from replica.model.handle.values import HandleValue, encode_values
from replica.model.identity import fingerprint, name_of
from replica.model.precondition import ABSENT, NOTHING, PRESENT, Must, Precondition

DEFAULT_SERVER = "127.0.0.1:2647"
DEFAULT_IDENTITY = Path("./registrar")
R = TypeVar("R")


@click.group()
def register() -> None:
    """Register, remove and look at identifiers of a source that is hosted here.

    \b
    Examples:
      zaibei register identity --name tenant-a               what the member's operators pin in `registrars`
      zaibei register put 88.118.9/A --value URL=https://example.cn/a --absent --member-file certificate.pem
      zaibei register get 88.118.9/A --member-file certificate.pem
    """


def client_options(function: Callable[..., R]) -> Callable[..., R]:
    """Where to, who we are, whom we believe."""

    @click.option("--server", "servers", multiple=True, help=f"host:port of a member, repeatable; {DEFAULT_SERVER}.")
    @click.option(
        "--member", "members", multiple=True, help="A member's certificate in one line, as `zaibei identity show` prints it."
    )
    @click.option(
        "--member-file",
        "member_files",
        multiple=True,
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="The same, in a file.",
    )
    @click.option(
        "--identity",
        type=click.Path(path_type=Path, file_okay=False),
        default=DEFAULT_IDENTITY,
        show_default=True,
        help="Our identity's folder.",
    )
    @click.option("--timeout-ms", default=10_000, type=click.IntRange(1), help="Patience, repetitions included.")
    @functools.wraps(function)
    def run(*args: Any, servers: tuple[str, ...], members: tuple[str, ...], member_files: tuple[Path, ...], **options: Any) -> R:
        identity, timeout_ms = options.pop("identity"), options.pop("timeout_ms")

        def connect() -> RegistrationClient:
            path = identity / CERTIFICATE_FILE
            if not path.exists():
                raise ZaibeiError(Code.NOT_FOUND, f"no identity in {identity}. Next: zaibei register identity --name NAME")
            mine = ensure_identity(identity, name_of(path.read_bytes()))
            believed = [certificate_pem(text) for text in members] + [path.read_bytes() for path in member_files]
            if not believed:
                raise click.UsageError("whom to believe? --member or --member-file: the member's certificate")
            return RegistrationClient(servers or (DEFAULT_SERVER,), mine, believed, patience_s=timeout_ms / 1_000)

        return function(*args, connect=connect, **options)

    return run


def need_options(function: Callable[..., R]) -> Callable[..., R]:
    """At most one precondition."""

    @click.option("--absent", is_flag=True, help="Only if there is no record.")
    @click.option("--present", is_flag=True, help="Only if there is one.")
    @click.option("--equal", default="", help="Only if it is this one: the hash that `get` shows.")
    @functools.wraps(function)
    def run(*args: Any, absent: bool, present: bool, equal: str, **options: Any) -> R:
        if absent + present + bool(equal) > 1:
            raise click.UsageError("one of --absent, --present, --equal")
        need = ABSENT if absent else PRESENT if present else _equal(equal) if equal else NOTHING
        return function(*args, need=need, **options)

    return run


def _equal(text: str) -> Precondition:
    try:
        octets = bytes.fromhex(text)
    except ValueError:
        octets = b""
    if len(octets) != 32:
        raise click.UsageError("--equal takes the 64 hex digits that `zaibei register get` shows")
    return Precondition(Must.EQUAL, octets)


def _run(connect: Callable[[], RegistrationClient], work: Callable[[RegistrationClient], Awaitable[R]]) -> R:
    async def inside() -> R:
        async with connect() as client:
            return await work(client)

    return asyncio.run(inside())


# --------------------------------------------------------------------------------------------------------------- verbs
@register.command()
@click.option("--name", required=True, help="Name of this registrar.")
@click.option(
    "--identity",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_IDENTITY,
    show_default=True,
    help="Its folder.",
)
@styled
def identity(console: Console, name: str, folder: Path) -> None:
    """Make this registrar's identity where there is none, and show what the member's operators pin.

    \b
    Example:
      zaibei register identity --name tenant-a
    """
    mine = ensure_identity(folder, name)
    der = x509.load_pem_x509_certificate(mine.certificate_pem).public_bytes(Encoding.DER)
    line = base64.b64encode(der).decode()
    printed = fingerprint(mine.certificate_pem)
    block = f'registrars = [{{ name = "{name}", fingerprint = "{printed}", certificate = "{line}" }}]\n'
    document = {"name": name, "fingerprint": printed, "certificate": line, "folder": str(folder), "block": block}
    console.answer(
        document,
        pairs([("name", name), ("fingerprint", printed), ("folder", folder)]),
        "\nFor the hosted source's [[source]] block at the member; compare the fingerprint by another way:\n",
        block,
    )


@register.command()
@click.argument("identifier", metavar="ID")
@click.option("--value", "texts", multiple=True, help="TYPE=TEXT, repeatable; indexes 1, 2, ... in that order.")
@click.option("--json-values", default="", help="Values as the JSON API writes them: a JSON list.")
@need_options
@client_options
@styled
def put(
    console: Console,
    identifier: str,
    texts: tuple[str, ...],
    json_values: str,
    need: Precondition,
    connect: Callable[[], RegistrationClient],
) -> int:
    """Register or replace an identifier. Exit 0 done, 7 precondition failed, 11 not known: look, then repeat if need be.

    \b
    Examples:
      zaibei register put 88.118.9/A --value URL=https://example.cn/a --absent --member-file certificate.pem
      zaibei register put 88.118.9/A --json-values '[{"index": 1, "type": "URL", "data": "x"}]' --member-file certificate.pem
    """
    values = _values(texts, json_values)
    return _tell(console, identifier, _run(connect, lambda client: client.put(identifier, values, need)))


@register.command()
@click.argument("identifier", metavar="ID")
@need_options
@client_options
@styled
def delete(console: Console, identifier: str, need: Precondition, connect: Callable[[], RegistrationClient]) -> int:
    """Remove an identifier. Exit 0 done (or there was none), 7 precondition failed, 11 not known.

    \b
    Example:
      zaibei register delete 88.118.9/A --present --member-file certificate.pem
    """
    return _tell(console, identifier, _run(connect, lambda client: client.delete(identifier, need)))


@register.command()
@click.argument("identifier", metavar="ID")
@click.option("--stale", is_flag=True, help="What the member asked has, perhaps behind the leader.")
@client_options
@styled
def get(console: Console, identifier: str, stale: bool, connect: Callable[[], RegistrationClient]) -> int:
    """Look an identifier up where it is registered. Exit 0 found, 6 not found.

    \b
    Example:
      zaibei register get 88.118.9/A --member-file certificate.pem
    """
    [found] = _run(connect, lambda client: client.get([identifier], stale=stale))
    rows = [[str(one.index), one.type.decode("utf-8", "replace"), str(one.ttl), repr(one.data)[2:-1]] for one in found.values]
    head = f"{identifier}: {'found, hash ' + found.value_hash.hex() if found.found else 'no record'} at {found.position}"
    console.answer(_document(found), *([table(["index", "type", "ttl", "data"], rows)] if rows else []), head)
    return Exit.DONE if found.found else Exit.NOT_FOUND


@register.command(name="list")
@click.argument("prefix")
@click.option("--limit", default=1_000, type=click.IntRange(1), help="Stop after so many.")
@click.option("--stale", is_flag=True, help="What the member asked has, perhaps behind the leader.")
@client_options
@styled
def list_(console: Console, prefix: str, limit: int, stale: bool, connect: Callable[[], RegistrationClient]) -> None:
    """Identifiers of a prefix and below it, ascending.

    \b
    Example:
      zaibei register list 88.118.9 --member-file certificate.pem
    """

    async def work(client: RegistrationClient) -> tuple[list[Found], bool]:
        rows: list[Found] = []
        async for found in client.list(prefix, page=min(limit, 1_000), stale=stale):
            if len(rows) == limit:
                return rows, True
            rows.append(found)
        return rows, False

    rows, more = _run(connect, work)
    console.answer(
        {"prefix": prefix, "records": [_document(found) for found in rows], "more": more},
        table(["identifier", "values", "hash"], [[one.identifier, len(one.values), one.value_hash.hex()[:16]] for one in rows]),
        f"{len(rows)} identifiers{', and more: --limit' if more else ''}",
    )


# --------------------------------------------------------------------------------------------------------------- pieces
def _values(texts: tuple[str, ...], json_values: str) -> list[HandleValue]:
    if bool(texts) is bool(json_values):
        raise click.UsageError("the values: --value TYPE=TEXT, or --json-values")
    if json_values:
        try:
            items = json.loads(json_values)
        except ValueError as exc:
            raise click.UsageError(f"--json-values is not JSON: {exc}") from None
        if not isinstance(items, list):
            raise click.UsageError("--json-values takes a list of values")
        return [value_from_json(item) for item in items]
    values = []
    for index, text in enumerate(texts, 1):
        kind, equals, data = text.partition("=")
        if not equals or not kind:
            raise click.UsageError(f"--value takes TYPE=TEXT, not {text[:60]!r}")
        values.append(HandleValue(index, kind.encode(), data.encode()))
    return values


def _tell(console: Console, identifier: str, done: Done) -> int:
    if not done.ok or done.position is None:
        trouble = done.trouble
        if trouble is None:
            raise ZaibeiError(Code.UNKNOWN, "no outcome", definite=False)
        raise ZaibeiError(trouble.code, trouble.message, definite=done.ok is False, retry=trouble.retry)
    document = {"identifier": identifier, "position": str(done.position), "hash": done.value_hash.hex(), "tries": done.tries}
    console.answer(document, f"{identifier}: done at {done.position.short()}")
    return Exit.DONE


def _document(found: Found) -> dict[str, Any]:
    values = json.loads(resolution_json(found.identifier.encode(), encode_values(found.values)))["values"] if found.found else []
    return {
        "identifier": found.identifier,
        "found": found.found,
        "values": values,
        "hash": found.value_hash.hex(),
        "position": str(found.position),
    }
