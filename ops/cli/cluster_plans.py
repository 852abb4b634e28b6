"""`zaibei cluster remove`, `replace` and `reseed`: without --plan they show what would happen, with it they do exactly that."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from ops.admin.cluster_calls import INVITE_VALID_S
from ops.admin.cluster_values import ClusterStatus
from ops.cli.exits import Exit
from ops.cli.style import Console, admin, styled, target_options
from replica.model.progress import Progress

POLL_S = 0.5
F = TypeVar("F", bound=Callable[..., Any])

plan_option: Callable[[F], F] = click.option(
    "--plan", "token", default="", metavar="TOKEN", help="Token this command printed; without it the plan is shown."
)
reason_option: Callable[[F], F] = click.option("--reason", default="by an operator", help="Kept with the act.")


@click.command()
@click.argument("member")
@plan_option
@click.option("--fewer", is_flag=True, help="Accept fewer voters, or a majority in one zone.")
@reason_option
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Seconds to wait until it holds nothing any more.  [default: do not wait]",
)
@target_options
@styled
def remove(console: Console, member: str, token: str, fewer: bool, reason: str, wait_s: float) -> int:
    """Give MEMBER up for good: its copies go to others, one after the other, then its number is refused.

    Refused (4) when a group would lose its majority, voters or the rule of zones; it says what comes first.

    \b
    Example:
      zaibei cluster remove member-2                  look; prints a token
      zaibei cluster remove member-2 --plan TOKEN     do exactly that
    """
    client = admin()
    extra = " --fewer" if fewer else ""
    if not token:
        return _show(console, client.cluster_plan("remove", member, "", fewer), f"zaibei cluster remove {member}{extra}")
    done = client.cluster_run("remove", member, fewer=fewer, token=token, reason=reason)
    left = _until_gone(console, client, member, wait_s) if wait_s else None
    document = {**msgspec.to_builtins(done), "left": left}
    tail = "it is removed: its data folder may be deleted" if left == 0 else "Next: zaibei cluster status"
    console.answer(document, f"{done.detail}. {tail}")
    return Exit.UNKNOWN if wait_s and left != 0 else Exit.DONE


def _until_gone(console: Console, client: Any, member: str, wait_s: float) -> int | None:
    """Groups that still hold the member; 0: it is removed; None: not known."""
    deadline, total = time.monotonic() + wait_s, 0
    with console.progress() as report:
        while True:
            left = _left(client.cluster_status(), member)
            total = max(total, left or 0)
            report(Progress(f"{member} is emptied", total - (total if left is None else left), total, "groups"))
            if left == 0 or time.monotonic() >= deadline:
                return left
            time.sleep(POLL_S)


def _left(found: ClusterStatus, member: str) -> int | None:
    rows = [one for one in found.members if one.name == member]
    if rows and rows[-1].state == "removed":
        return 0
    if any(group.quorum is None for group in found.groups):
        return None
    held = sum(1 for group in found.groups if member in (*group.voters, *group.learners))
    return max(held, 1)  # empty, but its end is not committed yet


@click.command()
@click.argument("old")
@plan_option
@click.option("--name", default="", help="Name of the new member.  [required with --plan]")
@click.option("--zone", default="", help="Its zone.  [default: that of OLD]")
@click.option(
    "--valid",
    "valid_s",
    type=click.IntRange(min=60, max=7 * 86_400),
    default=INVITE_VALID_S,
    help="Seconds the token is good for.",
)
@target_options
@styled
def replace(console: Console, old: str, token: str, name: str, zone: str, valid_s: int) -> int:
    """A new member takes the place of OLD, whose machine, disk or journal is lost.

    The new one gets a new number and starts with an empty folder: never bring a lost member back from an image of its disk,
    because it would have forgotten what it had promised. OLD keeps its places until the new one has come.

    \b
    Example:
      zaibei cluster replace member-2                                     look; prints a plan's token
      zaibei cluster replace member-2 --plan TOKEN --name member-4        prints the new member's token
      zaibei cluster join TOKEN                                           at the new machine, then `zaibei up`
    """
    client = admin()
    if not token:
        return _show(console, client.cluster_plan("replace", old, "", False), f"zaibei cluster replace {old}", " --name NEW")
    if not name:
        raise click.UsageError("a new member needs a name of its own: --name NEW")
    done = client.cluster_run("replace", old, token=token, name=name, zone=zone, valid_s=valid_s)
    console.say(f"{done.detail}. Good once. Next, at the machine of {name}: zaibei cluster join TOKEN")
    console.answer(msgspec.to_builtins(done), done.invite)
    return Exit.DONE


@click.command()
@click.argument("group")
@click.argument("member")
@plan_option
@target_options
@styled
def reseed(console: Console, group: str, member: str, token: str) -> int:
    """Feed MEMBER its copy of GROUP anew, when it is damaged, lost, or the member forgot what it had promised.

    What it holds is moved aside, not deleted; the others go on meanwhile. A whole member that is lost: `zaibei cluster replace`.

    \b
    Example:
      zaibei cluster reseed node-a member-2                  look; prints a token
      zaibei cluster reseed node-a member-2 --plan TOKEN
    """
    client = admin()
    if not token:
        return _show(console, client.cluster_plan("reseed", member, group, False), f"zaibei cluster reseed {group} {member}")
    done = client.cluster_run("reseed", member, group=group, token=token)
    console.answer(msgspec.to_builtins(done), f"{done.detail}. Next: zaibei cluster status --watch")
    return Exit.DONE


def _show(console: Console, plan: Any, command: str, more: str = "") -> int:
    parts = [*plan.text, *(f"! {warning}" for warning in plan.warnings)]
    step = f"Next: {command} --plan {plan.token}{more}"
    parts.append(f"refused: {plan.refusal}" if plan.refusal else step)
    console.answer({"plan": msgspec.to_builtins(plan)}, "\n".join(parts))
    if plan.refusal:
        return Exit.WOULD_LOSE_DATA if plan.loses else Exit.REFUSED
    return Exit.DONE
