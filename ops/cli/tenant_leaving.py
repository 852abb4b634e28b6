"""`zaibei tenant graduate`: a region leaves for a node of its own, and we go on as its copy."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import click

from ops.cli.exits import Exit
from ops.cli.failback import FailbackAdmin, Row
from ops.cli.style import Console, admin, styled, target_options
from replica.model.progress import Progress

LOOK_S = 0.5
POLICY = "hold-for-person"  # a node that begins has written nothing, so nothing is ever decided by it
WAY = ("RETURN_REQUESTED", "CATCHING_UP", "FROZEN", "SOURCE_EQUAL", "HANDED_BACK", "ACCEPTED", "OBSERVED", "NORMAL")
UNDER_WAY = ("RETURN_REQUESTED", "CATCHING_UP", "FROZEN", "SOURCE_EQUAL")  # a new leader has to be told again
SHOWN = {
    "RETURN_REQUESTED": "waits for the node",
    "CATCHING_UP": "the node copies what is here",
    "FROZEN": "registrations wait for the switch",
    "SOURCE_EQUAL": "the node holds what we hold",
    "HANDED_BACK": "the next epoch is the node's, which takes it",
    "ACCEPTED": "the node took its epoch and is looked at",
    "OBSERVED": "the node registers",
}


@dataclass(frozen=True, slots=True)
class Leaving:
    """A way of leaving us. command: as typed; word: for it; home: where failures lead back to; ends: how its end is told."""

    command: str
    word: str
    home: str
    ends: str

    def stays(self, row: Row) -> bool:
        return bool(row["stage"] == self.home and (row["lives_here"] or self.home != "NORMAL"))


GRADUATION = Leaving("graduate", "graduation", "NORMAL", "registers at its own node")


@click.command()
@click.argument("name")
@click.option("--plan", "token", default="", metavar="TOKEN", help="Do what was planned; without it only look.")
@click.option("--abort", is_flag=True, help="Let it go on living here; possible until the node is handed its epoch.")
@click.option("--reason", default="by an operator", help="Kept with the act.")
@click.option("--timeout", "timeout_s", default=600.0, show_default=True, help="Stop watching after so many seconds; it goes on.")
@target_options
@styled
def graduate(console: Console, name: str, token: str, abort: bool, reason: str, timeout_s: float) -> int:
    """Let the tenant NAME leave for a node of its own, or for another provider's.

    The node copies everything, registrations wait for a moment, both sides are compared, and the next epoch is the node's: from
    then on it registers, and we go on as its copy. What fails before that leaves the tenant as it was.

    Before: name the node in the [[source]] block (leaves = true and its certificate, beside hosted = true), and start it, empty,
    with `zaibei source follow`. Without --plan this looks, changes nothing, and prints a token. Interrupting it stops nothing:
    run it again to go on watching.

    Exit 4: the world is no longer as planned, or it cannot leave. Exit 1: given up, and it lives here as before.

    \b
    Examples:
      zaibei tenant graduate region-9
      zaibei tenant graduate region-9 --plan 0123456789abcdef
      zaibei tenant graduate region-9 --abort
    """
    return leave(console, GRADUATION, name, token, reason, timeout_s, abort=abort)


def leave(console: Console, way: Leaving, name: str, token: str, reason: str, timeout_s: float, *, abort: bool) -> int:
    """Look, or do what was planned and show each step to the end; the exit code."""
    member: FailbackAdmin = admin()
    wish = "abort" if abort else "return"
    if not token:
        return _shown(console, way, member.failback_plan(name, wish, POLICY, {}), name, abort)
    [row] = member.failback_status(name)
    if abort or (row["stage"] in (way.home, *UNDER_WAY) and not _left(row)):
        row = member.failback_run(name, wish, POLICY, {}, token, reason)
    return _watched(console, way, member, row, token, reason, time.monotonic() + timeout_s, abort=abort)


def _left(row: Row) -> bool:
    return row["stage"] == "NORMAL" and not row["lives_here"]


def _shown(console: Console, way: Leaving, plan: Row, name: str, abort: bool) -> int:
    run_it = f"Next: zaibei tenant {way.command} {name}{' --abort' if abort else ''} --plan {plan['token']}"
    step = f"refused: {plan['refusal']}" if plan["refusal"] else run_it
    console.answer({"plan": dict(plan)}, plan["text"].rstrip("\n"), *(f"! {one}" for one in plan["warnings"]), step)
    return Exit.REFUSED if plan["refusal"] else Exit.DONE


def _watched(
    console: Console,
    way: Leaving,
    member: FailbackAdmin,
    row: dict[str, Any],
    token: str,
    reason: str,
    until_s: float,
    *,
    abort: bool,
) -> int:
    name, said = row["source"], ""
    with console.progress() as report:
        while not (way.stays(row) if abort else _left(row)):
            if not abort and row["stage"] in SHOWN:
                report(Progress(f"{way.word} of {name}", WAY.index(row["stage"]) + 1, len(WAY), "steps"))
            waiting = str([*row["alarms"], row["trouble"], row["failure"], SHOWN.get(row["stage"], row["shown"])][0]) or "begins"
            if waiting != said:
                console.say(f"{row['stage'].lower()}: {waiting}")
                said = waiting
            given_up = any("was given up" in alarm for alarm in row["alarms"]) or (
                row["stage"] == way.home and not row["ordered"]
            )
            if not abort and given_up:
                console.answer({way.word: row}, f"given up, {name} lives here as before: {row['failure'] or row['reason']}")
                return Exit.FAILED
            if time.monotonic() > until_s:
                console.answer({way.word: row}, f"still {row['stage'].lower()}: {waiting}. Run it again to go on watching.")
                return Exit.UNREACHABLE
            time.sleep(LOOK_S)
            [row] = member.failback_status(name)
            if not abort and not row["ordered"] and row["stage"] in UNDER_WAY:  # a new leader knows the stage, not the order
                row = member.failback_run(name, "return", POLICY, {}, token, reason)
    kept = f"zaibei tenant {way.command} may be run another day" if abort else "we go on as its copy. Next: zaibei source list"
    console.answer({way.word: row}, f"{name} {'lives here as before' if abort else way.ends}: {kept}")
    return Exit.DONE
