"""`zaibei cluster`: begin a cluster, let members come and go, see how they and their groups stand."""

from __future__ import annotations

import time
from typing import Any

import click
import msgspec
from rich.console import Group
from rich.text import Text

from ops.admin.cluster_calls import INVITE_VALID_S
from ops.admin.cluster_values import ClusterStatus, GroupRow, MemberRow
from ops.cli import watching
from ops.cli.cluster_begin import init, join
from ops.cli.cluster_plans import remove, replace, reseed
from ops.cli.exits import Exit
from ops.cli.style import Console, admin, styled, table, target_options
from ops.text import printable
from replica.model.errors import Code, ZaibeiError
from replica.model.progress import Progress

WATCH_S_DEFAULT, WATCH_S_MIN = 1.0, 0.2
WAIT_S_DEFAULT, POLL_S = 120.0, 0.5
STATE_STYLE = {"active": "green", "joining": "yellow", "leaving": "yellow", "removed": "dim"}
MEMBER_COLUMNS = ("number", "member", "zone", "state", "connected", "boot", "copies", "leads", "lag", "what is wrong", "next")
GROUP_COLUMNS = ("group", "leader", "voters", "learners", "majority", "behind", "what is wrong", "next")


@click.group()
def cluster() -> None:
    """Several members that keep every acknowledged change while any minority of them is dead, frozen or cut off.

    \b
    Examples:
      zaibei cluster init --zone dc-1            at the first member, before `zaibei up`
      zaibei cluster invite member-2             there, once it is up; prints a token
      zaibei cluster join TOKEN --zone dc-2      at the second member, then `zaibei up`
      zaibei cluster status                      who is there, who leads what, what to do next
    """


@cluster.command()
@target_options
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C; with --json one document a line.")
@click.option(
    "--every", type=click.FloatRange(min=WATCH_S_MIN), default=WATCH_S_DEFAULT, show_default=True, help="Seconds between looks."
)
@click.option("--all", "everything", is_flag=True, help="Groups without trouble and removed members too.")
@click.option("--check", is_flag=True, help="For monitors: exit 9 when something is wrong, 11 when something is UNKNOWN.")
@styled
def status(console: Console, watch: bool, every: float, everything: bool, check: bool) -> int:
    """Members: zone, state, what they lack and lead. Groups: voters, leader, who is behind, who is out of service.

    Every member answers it, also without a majority; what that member cannot know is UNKNOWN.

    \b
    boot      how often its journal was opened
    lag       entries it lacks, in the group it lacks most
    majority  so many voters are up that changes are accepted

    \b
    Examples:
      zaibei cluster status
      zaibei cluster status --check --json
    """
    client = admin()
    if watch:
        return watching.watch(console, lambda: shown(client.cluster_status(), everything), every)
    found = client.cluster_status()
    console.answer(*shown(found, everything))
    return verdict(found) if check else Exit.DONE


@cluster.command()
@click.argument("name")
@click.option("--zone", default="", help="Place that can be lost at once; the new member may say it itself.")
@click.option(
    "--valid",
    "valid_s",
    type=click.IntRange(min=60, max=7 * 86_400),
    default=INVITE_VALID_S,
    show_default=True,
    help="Seconds the token is good for.",
)
@target_options
@styled
def invite(console: Console, name: str, zone: str, valid_s: int) -> None:
    """Print a one-time token with which the new member NAME may come.

    Whoever has the token is that member: hand it over as you would a key. It is good once.

    \b
    Example:
      zaibei cluster invite member-2 --zone dc-2
    """
    found = admin().cluster_invite(name, zone, valid_s)
    minutes = valid_s // 60
    where = f" --zone {found.zone}" if found.zone else ""
    console.say(f"Good once, for {minutes} minutes. Next, at the machine of {name}: zaibei cluster join TOKEN{where}")
    console.answer(msgspec.to_builtins(found), found.token)


@cluster.command()
@click.argument("group")
@click.option("--to", required=True, metavar="MEMBER", help="Name of the member that shall lead it.")
@target_options
@styled
def transfer(console: Console, group: str, to: str) -> None:
    """Let a member lead GROUP, now and from now on. Changes wait for some milliseconds; none is lost.

    \b
    Example:
      zaibei cluster transfer node-a --to member-2
    """
    done = admin().cluster_transfer(group, to)
    console.answer(msgspec.to_builtins(done), f"{done.detail}.")


wait_option = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=WAIT_S_DEFAULT,
    show_default=True,
    help="Seconds to wait until it leads nothing; 0: do not wait.",
)


@cluster.command()
@click.argument("member")
@wait_option
@target_options
@styled
def drain(console: Console, member: str, wait_s: float) -> int:
    """Before a restart: let MEMBER lead nothing and get nothing new. Its copies stay, it goes on voting and answering.

    Exit 11 when it still leads something after --wait: look before you stop it.

    \b
    Example, for each member in turn:
      zaibei cluster drain member-2 && ssh member-2 systemctl restart zaibei && zaibei cluster undrain member-2
    """
    client = admin()
    done = client.cluster_drain(member, True)
    left = _leads(client, member)
    if wait_s:
        left = _until_none_led(console, client, member, wait_s, left)
    document = {**msgspec.to_builtins(done), "leads": left}
    if left == 0:
        console.answer(document, f"{done.detail}; it leads nothing now. Next: restart it, then zaibei cluster undrain {member}")
        return Exit.DONE
    still = "how many groups it leads is not known" if left is None else f"it still leads {left} groups"
    console.answer(document, f"{done.detail}; {still}. Next: zaibei cluster status")
    return Exit.UNKNOWN if wait_s else Exit.DONE


def _until_none_led(console: Console, client: Any, member: str, wait_s: float, left: int | None) -> int | None:
    total, deadline = left or 0, time.monotonic() + wait_s
    with console.progress() as report:
        while left != 0 and time.monotonic() < deadline:
            time.sleep(POLL_S)
            left = _leads(client, member)
            total = max(total, left or 0)
            report(Progress(f"{member} hands over", total - (total if left is None else left), total, "groups"))
    return left


def _leads(client: Any, member: str) -> int | None:
    """Groups it leads; None: of some group it is not known who leads."""
    found: ClusterStatus = client.cluster_status()
    if any(not group.leader for group in found.groups):
        return None
    return sum(1 for group in found.groups if group.leader == member)


@cluster.command()
@click.argument("member")
@target_options
@styled
def undrain(console: Console, member: str) -> None:
    """End a drain: MEMBER may lead again, a little later, and gets new copies.

    \b
    Example:
      zaibei cluster undrain member-2
    """
    done = admin().cluster_drain(member, False)
    console.answer(msgspec.to_builtins(done), f"{done.detail}.")


# ------------------------------------------------------------------------------------------------------------ showing
def verdict(found: ClusterStatus) -> Exit:
    """The worst of all: wrong before UNKNOWN before good."""
    living = [member for member in found.members if member.state != "removed"]
    wrong = [member for member in living if member.connected is False or (member.trouble and not member.draining)]
    bad = [group for group in found.groups if group.quorum is False or group.out_of_service]
    if wrong or bad:
        return Exit.VERIFICATION_FAILED
    unknown = [member for member in living if member.connected is None]
    blind = [group for group in found.groups if None in (group.quorum, group.moving) or not group.leader]
    return Exit.UNKNOWN if unknown or blind or not found.groups else Exit.DONE


def shown(found: ClusterStatus, everything: bool) -> watching.Shown:
    return msgspec.to_builtins(found), render(found, everything)


def render(found: ClusterStatus, everything: bool = False) -> Group:
    """Members, then groups: those with trouble, or all of them where there are few."""
    members = [member for member in found.members if everything or member.state != "removed"]
    few = 20
    groups = [group for group in found.groups if everything or len(found.groups) <= few or group.trouble]
    head = f"cluster {found.cluster}, lineage {found.lineage}: {len(members)} members, {len(found.groups)} groups, "
    parts: list[object] = [Text(printable(f"{head}{found.replicas} voters each; as {found.member} sees it"))]
    parts.append(table(MEMBER_COLUMNS, [_member_row(member) for member in members]))
    parts.append(table(GROUP_COLUMNS, [_group_row(group) for group in groups]))
    if len(groups) < len(found.groups):
        parts.append(Text(f"{len(found.groups) - len(groups)} groups without trouble are not shown: --all shows them"))
    parts.extend(Text(printable(f"! {warning}"), style="yellow") for warning in found.warnings)
    return Group(*parts)  # type: ignore[arg-type]


def _member_row(member: MemberRow) -> list[object]:
    name = f"{member.name} (this one)" if member.me else member.name
    boot: object = member.boot if member.state in ("active", "leaving") else "-"
    lag: object = member.lag_entries if member.copies else "-"
    connected: object = member.connected if member.state != "removed" else "-"
    state = Text("draining" if member.draining else member.state, style=STATE_STYLE.get(member.state, ""))
    return [
        member.number,
        name,
        member.zone or "-",
        state,
        connected,
        boot,
        member.copies,
        member.leads,
        lag,
        member.trouble,
        member.next,
    ]


def _group_row(group: GroupRow) -> list[object]:
    known = group.quorum is not None
    late = {name: lag for name, lag in group.behind.items() if lag != 0}
    behind = ", ".join(f"{name} {'UNKNOWN' if lag is None else format(lag, ',')}" for name, lag in late.items())
    return [
        group.group,
        group.leader or None,
        " ".join(group.voters) if known else None,
        " ".join(group.learners) if known else None,
        group.quorum,
        behind or ("-" if known else None),
        group.trouble,
        group.next,
    ]


def member_row(found: ClusterStatus, name: str) -> MemberRow:
    """The row of a living member. Raises ZaibeiError(NOT_FOUND)."""
    for member in found.members:
        if member.name == name and member.state != "removed":
            return member
    raise ZaibeiError(Code.NOT_FOUND, f"no member {name!r}; there are: {', '.join(one.name for one in found.members)}")


for _command in (init, join, remove, replace, reseed):
    cluster.add_command(_command)
