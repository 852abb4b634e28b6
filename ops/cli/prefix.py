"""`zaibei prefix`: who owns a prefix and since when; and a prefix on its way from one source that lives here to another."""

from __future__ import annotations

import getpass
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import click

from ops.cli.exits import Exit
from ops.cli.style import Console, admin, styled, table, target_options
from replica.model.errors import Code, ZaibeiError
from replica.model.prefix_moves import MoveStep, Next, PrefixMove, next_of
from replica.model.progress import Progress, Report

Row = dict[str, Any]  # JSON of the admin API
R = TypeVar("R")
AGAIN_S = 0.5  # before what is busy for a moment, or between two leaders, is asked again
WORDS: Mapping[Next, str] = {
    Next.FREEZE: "registrations below it wait",
    Next.RELEASE: "the old source releases it",
    Next.RECORD: "the control group records it",
    Next.COPY: "content is copied, compared and acquired",
    Next.TELL: "the control group is told",
    Next.DROP: "the old content is dropped",
}


class MoveAdmin(Protocol):
    """What these commands ask a member; the admin client offers it."""

    def move_list(self, prefix: str) -> Row: ...

    def move_plan(self, source: str, prefix: str, to: str) -> Row: ...

    def move_look(self, source: str, prefix: str, token: str) -> Row: ...

    def move_step(self, source: str, prefix: str, to: str, token: str, step: str, by: str, reason: str) -> Row: ...

    def move_record(self, source: str, token: str) -> Row: ...

    def move_page(self, source: str, token: str, after: str) -> Row: ...

    def move_take(self, source: str, token: str, rows: list[list[str]]) -> Row: ...

    def move_acquire(self, source: str, token: str) -> Row: ...


def _member() -> MoveAdmin:
    found: MoveAdmin = admin()
    return found


@click.group()
def prefix() -> None:
    """Prefixes: who owns one and since when; and moving one, with all below it, to another source that lives here.

    A move goes in committed steps. Answers come from the old source until the new one holds the same content, by a digest equal
    on both sides; registrations below the prefix are told to come again meanwhile (7). The old content goes only afterwards.

    \b
    Examples:
      zaibei prefix show 88.118.9.5
      zaibei prefix move 88.118.9.5 --to region-5                  looks, and prints a token
      zaibei prefix move 88.118.9.5 --to region-5 --plan TOKEN     does it; run it again after any crash
    """


@prefix.command()
@click.argument("name", metavar="[PREFIX]", default="")
@target_options
@styled
def show(console: Console, name: str) -> None:
    """Who owns PREFIX, and every move of it this member knows; without PREFIX all moves.

    \b
    Example:
      zaibei prefix show 88.118.9.5
    """
    found = _member().move_list(name)
    columns = ["prefix", "move", "from", "to", "step", "as known to", "when", "by", "why"]
    rows = [
        [one["prefix"], one["number"], one["from"], one["to"], one["step"], one["group"], _time(one["at_ms"]), one["by"],
         one["reason"]]
        for one in found["moves"]
    ]  # fmt: skip
    owner = f"{name} belongs to {found['owner'] or 'nobody here'}; {_since(found)}" if name else ""
    none = "No prefix was moved."
    console.answer({"prefix": found | {"since": _since(found)}}, *filter(None, [owner, table(columns, rows) if rows else none]))


@prefix.command()
@click.argument("name", metavar="PREFIX")
@click.option("--to", "target", required=True, metavar="SOURCE", help="The source that shall own it; it lives here too.")
@click.option("--plan", "token", default="", metavar="TOKEN", help="Do what was planned, or go on with it; without it only look.")
@click.option("--cancel", is_flag=True, help="Give the move up; possible until the old source has released the prefix.")
@click.option("--reason", default="by an operator", help="Kept with the move and in the audit.")
@click.option("--by", default="", help="Who acts. Default: the user who runs this.")
@click.option("--timeout", "timeout_s", default=600.0, show_default=True, help="Stop after so many seconds; it can go on.")
@target_options
@styled
def move(console: Console, name: str, target: str, token: str, cancel: bool, reason: str, by: str, timeout_s: float) -> int:
    """Move PREFIX, with every identifier and prefix record below it, to another source that lives here.

    Without --plan this looks, changes nothing, and prints a token. With it: registrations below PREFIX wait; the old source
    releases it with a digest; the content is copied; the new source acquires it when its digest is the same; then the old content
    is dropped. Reads go on all the time. It may be stopped anywhere and run again, here or at another member: it goes on where
    it stood, and until the digest is equal the old source answers.
    A part of a region that leaves for a node of its own is moved out first: then zaibei tenant graduate that source.
    Exit 4: refused, or not as planned. Exit 8: busy or not reached, run it again. Exit 9: digests differ; nothing was acquired.

    \b
    Examples:
      zaibei prefix move 88.118.9.5 --to region-5
      zaibei prefix move 88.118.9.5 --to region-5 --plan 0123456789abcdef --reason "contract 17"
      zaibei prefix move 88.118.9.5 --to region-5 --plan 0123456789abcdef --cancel
    """
    member = _member()
    source = _source(member, name, token)
    if not token:
        plan = member.move_plan(source, name, target)
        said = "go on" if plan["begun"] else "do it"
        console.answer(
            {"plan": plan}, plan["text"], f"Next ({said}): zaibei prefix move {name} --to {target} --plan {plan['token']}"
        )
        return Exit.DONE
    mover = Mover(member, name, source, target, token, by or getpass.getuser(), reason, time.monotonic() + timeout_s)
    if cancel:
        mover.step("cancel")
        console.answer({"move": {"act": token, "done": False, "cancelled": True}}, f"Given up: {source} goes on with {name}.")
        return Exit.DONE
    with console.progress() as report:
        copied, dropped = mover.run(lambda text: console.say(text), report)
    document = {"act": token, "prefix": name, "from": source, "to": target, "copied": copied, "dropped": dropped, "done": True}
    console.answer({"move": document}, f"{name} belongs to {target}: {copied} records copied now, {dropped} dropped at {source}.")
    return Exit.DONE


class Mover:
    """Carries a move out, one committed step after the other; what is committed says what comes next."""

    def __init__(
        self, member: MoveAdmin, name: str, source: str, target: str, token: str, by: str, reason: str, until_s: float
    ) -> None:
        self._member, self._name, self._source, self._target = member, name, source, target
        self._token, self._by, self._reason, self._until_s = token, by, reason, until_s

    def run(self, told: Callable[[str], None], report: Report) -> tuple[int, int]:
        """Until it is done. Returns records copied and dropped by this run. Raises ZaibeiError."""
        copied = dropped = 0
        while (following := self.next()) is not Next.DONE:
            told(f"{self._name}: {WORDS[following]}")
            match following:
                case Next.FREEZE:
                    self.step("freeze")
                case Next.RELEASE:
                    self.step("release")
                case Next.RECORD:
                    self._again(lambda: self._member.move_record(self._source, self._token))
                case Next.COPY:
                    copied += self._copy(report)
                    self._again(lambda: self._member.move_acquire(self._target, self._token))
                case Next.TELL:
                    self._again(lambda: self._member.move_record(self._target, self._token))
                case Next.DROP:
                    dropped += int(self.step("drop")["dropped"])
        return copied, dropped

    def next(self) -> Next:
        """What is left, out of what both groups and the control group have committed."""
        old = self._again(lambda: self._member.move_look(self._source, self._name, self._token))
        new = self._again(lambda: self._member.move_look(self._target, self._name, self._token))
        recorded = old["recorded"] or new["recorded"]
        if new["recorded"] and new["recorded"]["step"] == MoveStep.ACQUIRED.name:
            recorded = new["recorded"]
        return next_of(_row(old["row"]), _row(recorded), _row(new["row"]), alone=bool(old["alone"]))

    def step(self, step: str) -> Row:
        """One step of the old group."""
        by, reason = self._by, self._reason
        return self._again(lambda: self._member.move_step(self._source, self._name, self._target, self._token, step, by, reason))

    def _copy(self, report: Report) -> int:
        after, read, taken, more = "", 0, 0, True
        while more:
            page = self._again(partial(self._member.move_page, self._source, self._token, after))
            rows, more = page["rows"], bool(page["more"])
            if rows:
                taken += int(self._again(partial(self._member.move_take, self._target, self._token, rows))["taken"])
                after, read = rows[-1][0], read + len(rows)
            report(Progress(f"copy {self._name}", read, None, "records"))
        return taken

    def _again(self, ask: Callable[[], R]) -> R:
        """Ask until it is no more busy, within the time. Every call here may be repeated, also when its outcome is not known."""
        while True:
            try:
                return ask()
            except ZaibeiError as exc:
                repeat = exc.trouble.retry or exc.code is Code.UNKNOWN
                if not repeat or time.monotonic() > self._until_s:
                    raise
            time.sleep(AGAIN_S)


def _source(member: MoveAdmin, name: str, token: str) -> str:
    """The source that a prefix leaves: of the move that is named, or who owns it now."""
    found = member.move_list(name)
    begun = next((one["from"] for one in found["moves"] if token and one["act"] == token), "")
    if not (begun or found["owner"]):
        raise ZaibeiError(Code.NOT_FOUND, f"{name} belongs to no source here. Next: zaibei tenant list")
    return str(begun or found["owner"])


def _row(row: Row | None) -> PrefixMove | None:
    if row is None:
        return None
    return PrefixMove(row["act"], b"", row["number"], MoveStep[row["step"]], row["from"], row["to"])


def _since(found: Row) -> str:
    came = [one["at_ms"] for one in found["moves"] if one["step"] == MoveStep.ACQUIRED.name and one["to"] == found["owner"]]
    return f"since {_time(max(came))}" if came else "as configured"


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
