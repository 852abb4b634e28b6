"""`zaibei tenant`: who lives with us; begun, suspended, resumed; people, keys, rights and quotas; enterprises' prefixes."""

from __future__ import annotations

import functools
import getpass
import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ops.cli.exits import Exit
from ops.cli.style import Console, admin, pairs, styled, table, target_options
from ops.cli.tenant_files import export, import_
from ops.cli.tenant_leaving import graduate
from ops.cli.tenant_transfer import transfer
from ops.operators.tenants import SUSPEND, UNANSWERED
from replica.model.position import Position

R = TypeVar("R")
KINDS = ("person", "key", "right", "quota")


@click.group()
def tenant() -> None:
    """Tenants: sources that live with us, with their own people, rights and limits.

    A tenant is a source declared `hosted` in the configuration (or one whose registrations we took over). What is said about it
    are documents in its own registry, so that whoever takes it over finds them. Every change of them is in its audit.

    \b
    Examples:
      zaibei tenant create region-9 --title "Region 9" --why "contract 17"
      zaibei tenant set region-9 person 300:88.118.9/li --json-body '{"title": "Li Wei"}' --why "its first administrator"
      zaibei tenant set region-9 right r1 --why "as agreed" \\
          --json-body '{"who": "300:88.118.9/li", "operations": ["create", "modify"], "under": "88.118.9"}'
      zaibei tenant set region-9 quota tenant --json-body '{"identifiers": 1000000, "registrations_per_s": 200}' --why "contract"
      zaibei tenant suspend region-9 --why "unpaid"            prints a plan and its token
      zaibei tenant import names.csv --dry-run
      zaibei tenant graduate region-9                          to a node of its own: a plan and its token
      zaibei tenant transfer node-a                            adopted, and to another provider's node: the same
    """


tenant.add_command(import_)
tenant.add_command(export)
tenant.add_command(graduate)
tenant.add_command(transfer)


def acting(function: Callable[..., R]) -> Callable[..., R]:
    """--why and --by: kept in the document and its audit."""

    @click.option("--why", required=True, help="The reason, kept in the audit.")
    @click.option("--by", default="", help="Who acts. Default: the user who runs this.")
    @functools.wraps(function)
    def run(*args: Any, by: str, **options: Any) -> R:
        return function(*args, by=by or getpass.getuser(), **options)

    return run


# ------------------------------------------------------------------------------------------------------------- looking
@tenant.command("list")
@target_options
@styled
def list_(console: Console) -> None:
    """Every tenant of this member: state, identifiers, quota.

    \b
    Example:
      zaibei tenant list
    """
    rows = admin().tenant_list()
    columns = ["source", "state", "title", "identifiers", "quota", "enterprises", "led here"]
    shown = [
        [
            one["source"],
            one["state"] if one.get("answered", True) else f"{one['state']}, not answered",
            one.get("title") or one["detail"],
            one.get("identifiers"),
            _limit(one, "identifiers"),
            one.get("enterprises"),
            one.get("led_here"),
        ]
        for one in rows
    ]
    none = "No source lives here. Next: `hosted = true` in a [[source]] block, then zaibei tenant create NAME"
    console.answer({"tenants": rows}, table(columns, shown) if rows else none)


def _limit(one: dict[str, Any], name: str) -> str:
    limit = (one.get("quota") or {}).get(name)
    return "no limit" if limit is None else f"{limit:,}"


def _rate(one: dict[str, Any], name: str) -> str:
    rate = one["quota"].get(name)
    return "no limit" if rate is None else f"{rate:g}"


def _used(octets: int | None) -> str:
    return "not known, being counted," if octets is None else f"{octets:,}"


@tenant.command()
@click.argument("name")
@target_options
@styled
def sites(console: Console, name: str) -> int:
    """Health of the sites of NAME's enterprises, to which clients are referred: every interface at every address.

    Exit 9: one of them FAILED. Exit 11: none did, but of one nothing is known (not probed lately, or not to be probed).

    \b
    Example:
      zaibei tenant sites region-9
    """
    found = admin().tenant_sites(name)
    columns = ["enterprise", "health", "since", "interfaces", "why"]
    rows = [
        [one["prefix"], one["health"], f"{one['since_ms'] / 1_000:.0f} s", len(one["checks"]), one["why"]]
        for one in found["enterprises"]
    ]
    how = (
        f"Each interface is probed every {found['interval_s']:g} s."
        if found["per_s"]
        else "Nothing is probed: [probes] per_s = 0."
    )
    shown = table(columns, rows) if rows else f"No prefix record below {name}'s prefixes names a site."
    console.answer({"sites": found}, shown, how)
    states = {one["health"] for one in found["enterprises"]}
    return Exit.VERIFICATION_FAILED if "FAILED" in states else Exit.UNKNOWN if "UNKNOWN" in states else Exit.DONE


@tenant.command()
@click.argument("name")
@target_options
@styled
def show(console: Console, name: str) -> int:
    """One tenant with every document about it. Exit 9: a document cannot be read, so its registrations are refused.

    \b
    Example:
      zaibei tenant show region-9
    """
    one = admin().tenant_show(name)
    facts: list[tuple[str, object]] = [
        ("tenant", one["title"] or "none so far: zaibei tenant create"),
        ("state", one["state"] + (f": {one['suspended']}" if one["suspended"] else "")),
        *([] if one["answered"] else [("resolved", "no: each identifier is answered 401 until it is resumed")]),
        ("prefixes", ", ".join(one["prefixes"])),
        ("suffixes keep their case in", ", ".join(one["case_sensitive"]) or "none"),
        ("read by", one["visibility"]),
        ("identifiers", f"{one['identifiers']:,} of {_limit(one, 'identifiers')}"),
        ("octets of keys and values", f"{_used(one['octets'])} of {_limit(one, 'octets')}"),
        ("registrations a second", _rate(one, "registrations_per_s")),
        ("resolutions a second, of each process that answers", _rate(one, "resolutions_per_s")),
        ("stands at", Position.parse(one["position"]).short()),
        ("led here", one["led_here"]),
    ]
    rows = [[doc["kind"], doc["id"], doc.get("fault") or _words(doc["body"])] for doc in one["documents"]]
    listed = [table(["document", "id", "says"], rows)] if rows else []
    console.answer({"tenant": one}, pairs(facts), *listed)
    return Exit.VERIFICATION_FAILED if one["state"] == "damaged" else Exit.DONE


def _words(body: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in body.items() if value not in (None, "", [], 0) and name != "format")


# ------------------------------------------------------------------------------------------------------------- acts
@tenant.command()
@click.argument("name")
@click.option("--title", default="", help="What people call it.")
@click.option(
    "--visibility", type=click.Choice(["public", "tenant"]), default="public", help="Who reads at the registration port."
)
@acting
@target_options
@styled
def create(console: Console, name: str, title: str, visibility: str, by: str, why: str) -> None:
    """Make the source NAME, which lives here, a tenant: from now on rights in its documents say who registers.

    The source itself is a [[source]] block with `hosted = true`. Registrars named there register nothing until a right says so.

    \b
    Example:
      zaibei tenant create region-9 --title "Region 9" --why "contract 17"
    """
    done = admin().tenant_run(name, "create", by, why, title, visibility, "")
    _told(console, done, f"Next: zaibei tenant set {name} right ID --json-body '{{…}}', or nobody can register")


@tenant.command()
@click.argument("name")
@click.option("--title", default="", help="What people call it.")
@click.option(
    "--visibility", type=click.Choice(["public", "tenant"]), default="public", help="Who reads at the registration port."
)
@click.option("--plan", "token", default="", metavar="TOKEN", help="Do what was planned; without it only look.")
@acting
@target_options
@styled
def adopt(console: Console, name: str, title: str, visibility: str, token: str, by: str, why: str) -> None:
    """Make the source NAME, whose registrations we took over, a tenant: an exiting node becomes hosted.

    Without --plan it looks, changes nothing, and prints a token.

    \b
    Example:
      zaibei tenant adopt node-a --why "its operator leaves the market"
    """
    _planned(console, name, "adopt", by, why, title, visibility, token)


@tenant.command()
@click.argument("name")
@click.option("--unanswered", is_flag=True, help="Answer none of its identifiers either, at any member: 401, final.")
@click.option("--plan", "token", default="", metavar="TOKEN", help="Do what was planned; without it only look.")
@acting
@target_options
@styled
def suspend(console: Console, name: str, unanswered: bool, token: str, by: str, why: str) -> None:
    """Refuse all registrations of the tenant NAME until it is resumed; resolution goes on, or with --unanswered it does not.

    Without --plan it looks, changes nothing, and prints a token. Exit 4: the world is no longer as planned. Run it with the other
    choice to change a suspension. Nothing of the copy is touched, and `resume` ends both within seconds.

    \b
    Examples:
      zaibei tenant suspend region-9 --why "unpaid"
      zaibei tenant suspend region-9 --why "unpaid" --plan 1f2e3d4c5b6a7988
      zaibei tenant suspend region-9 --unanswered --why "by order of the court"
    """
    _planned(console, name, UNANSWERED if unanswered else SUSPEND, by, why, "", "public", token)


@tenant.command()
@click.argument("name")
@acting
@target_options
@styled
def resume(console: Console, name: str, by: str, why: str) -> None:
    """End the suspension of the tenant NAME.

    \b
    Example:
      zaibei tenant resume region-9 --why "paid"
    """
    _told(console, admin().tenant_run(name, "resume", by, why, "", "public", ""), "")


def _planned(console: Console, name: str, act: str, by: str, why: str, title: str, visibility: str, token: str) -> None:
    if token:
        _told(console, admin().tenant_run(name, act, by, why, title, visibility, token), f"Next: zaibei tenant show {name}")
        return
    planned = admin().tenant_plan(name, act, by, why, title, visibility)
    step = "It is done already." if planned["done"] else f"Next: the same with --plan {planned['token']}"
    console.answer({"plan": planned}, planned["text"], f"token {planned['token']}", step)


def _told(console: Console, done: dict[str, Any], step: str) -> None:
    what = f"{done['source']}: {done['act']}"
    said = f"{what} done at {Position.parse(done['position']).short()}" if done["changed"] else f"{what} was done already"
    console.answer({"done": done}, said, *([step] if step and done["changed"] else []))


# ------------------------------------------------------------------------------------------------------------- documents
@tenant.command("set")
@click.argument("name")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("ident", metavar="ID")
@click.option("--json-body", required=True, help="Fields of the document; what is left out has its default.")
@acting
@target_options
@styled
def set_(console: Console, name: str, kind: str, ident: str, json_body: str, by: str, why: str) -> None:
    """Write one document about the tenant NAME: a person, a key, a right or the quota. It holds from the next registration on.

    \b
    person ID=index:handle        title, active, groups
    key    ID=sha256:fingerprint  person, active, until_ms
    right  ID=any                 who (index:handle, sha256:fingerprint, group:NAME), under (prefix), until_ms,
                                  operations (create delete add modify remove read list administer)
    quota  ID=tenant              identifiers, octets, registrations_per_s, resolutions_per_s, burst_s

    Nothing is deleted, so that the past stays readable: take a person or key out of use with active = false, and end a right with
    until_ms. Exit 7: somebody else wrote it meanwhile.

    \b
    Example:
      zaibei tenant set region-9 key sha256:… --json-body '{"person": "300:88.118.9/li"}' --why "her new card"
    """
    try:
        body = json.loads(json_body)
    except ValueError as exc:
        raise click.UsageError(f"--json-body is not JSON: {exc}") from None
    if not isinstance(body, dict):
        raise click.UsageError("--json-body takes an object")
    done = admin().tenant_document(name, kind, ident, body, by, why)
    console.answer({"done": done}, f"{kind} {ident} of {name}: written at {Position.parse(done['position']).short()}")


@tenant.command()
@click.argument("name")
@click.argument("prefix")
@click.argument("state", type=click.Choice(["applied", "review", "granted", "in_effect", "suspended", "rejected", "revoked"]))
@click.option("--title", default="", help="The enterprise.")
@click.option(
    "--administrator", "administrators", multiple=True, metavar="INDEX:HANDLE", help="Repeatable; replaces those before."
)
@acting
@target_options
@styled
def enterprise(
    console: Console, name: str, prefix: str, state: str, title: str, administrators: tuple[str, ...], by: str, why: str
) -> None:
    """The next step in the life of an enterprise's PREFIX below the tenant NAME.

    applied, review, granted, in_effect; then suspended and back, or revoked. rejected and revoked are final. While it is in
    effect its administrators register below it. The time from application to effect is measured. Exit 4: no legal step.

    \b
    Example:
      zaibei tenant enterprise region-9 88.118.9.1 applied --title "Works" --administrator 300:88.118.9.1/boss --why "form 3"
    """
    done = admin().tenant_enterprise(name, prefix, state, title, list(administrators), by, why)
    took = done["time_to_effect_ms"]
    console.answer(
        {"done": done},
        f"{done['prefix']}: {done['state']} at {Position.parse(done['position']).short()}",
        *([f"in effect {took / 1_000:.1f} s after the application"] if took is not None else []),
    )
