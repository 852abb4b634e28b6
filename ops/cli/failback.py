"""`zaibei failback`: give a source's registrations back, without dropping a write that either side acknowledged."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import click

from ops.admin.values import Approval
from ops.cli.exits import Exit
from ops.cli.operator import ask_passphrase, confirm
from ops.cli.style import Console, admin, styled, table, target_options
from ops.operators import edge_keys
from ops.operators.approval import approve
from replica.model.errors import Code, ZaibeiError
from replica.model.progress import Progress
from replica.takeover.ledger import Policy

LOOK_S = 0.5
PAGE = 500
SHOWN_CHARS = 60
WHOLE_WAY = ("RETURN_REQUESTED", "CATCHING_UP", "FROZEN", "SOURCE_EQUAL", "HANDED_BACK", "ACCEPTED", "OBSERVED", "NORMAL")
ENDS = {"return": "NORMAL", "abort": "SERVING", "transfer": "TRANSFERRED"}
Row = Mapping[str, Any]  # JSON of the admin API


class FailbackAdmin(Protocol):
    """What these commands ask a member; the admin client offers it."""

    def failback_status(self, source: str = "") -> list[dict[str, Any]]: ...

    def failback_plan(self, source: str, wish: str, policy: str, by_prefix: dict[str, str]) -> Row: ...

    def failback_run(
        self, source: str, wish: str, policy: str, by_prefix: dict[str, str], token: str, reason: str
    ) -> dict[str, Any]: ...

    def failback_lines(self, source: str, after: str, limit: int) -> Sequence[Row]: ...

    def failback_decision(self, source: str, lines: list[str], accept: bool, reason: str) -> Row: ...

    def failback_decide(self, source: str, lines: list[str], accept: bool, reason: str, approval: Approval) -> Row: ...


def _member() -> FailbackAdmin:
    found: FailbackAdmin = admin()
    return found


@click.group()
def failback() -> None:
    """Give a source's registrations back to its node: one command that may be run again wherever it stopped.

    What the node wrote by itself meanwhile enters a ledger first, each write with both values and what decided. Then the node
    copies ours, registrations wait for a moment, both sides are compared, and the next epoch is the node's.

    \b
    Examples:
      zaibei failback plan SOURCE                 look; prints a token
      zaibei failback run SOURCE --plan TOKEN     do exactly that, to its end
      zaibei failback status                      where each source stands
      zaibei failback conflicts SOURCE            writes that wait for a person
    """


def _policy_options(function: Any) -> Any:
    for option in (
        click.option(
            "--for",
            "pairs_given",
            multiple=True,
            metavar="PREFIX=POLICY",
            help="Another policy below a prefix. Repeatable.",
        ),
        click.option(
            "--policy",
            type=click.Choice([policy.value for policy in Policy]),
            default=Policy.HOLD.value,
            show_default=True,
            help="What decides where both sides wrote the same identifier.",
        ),
        click.option("--transfer", is_flag=True, help="Another provider takes over: the end of our epoch, without the node."),
        click.option("--abort", is_flag=True, help="Go on registering here; possible until the source is handed its epoch."),
    ):
        function = option(function)
    return function


@failback.command()
@click.argument("source")
@_policy_options
@target_options
@styled
def plan(console: Console, source: str, abort: bool, transfer: bool, policy: str, pairs_given: tuple[str, ...]) -> int:
    """Show what would happen, change nothing; prints the token that `run` needs.

    \b
    Example:
      zaibei failback plan node-a --policy newest-by-timestamp --for 88.118.1=ours-wins
    """
    row = _member().failback_plan(source, _wish(abort, transfer), policy, _by_prefix(pairs_given))
    parts: list[object] = [row["text"].rstrip("\n"), _status_table([{**row, "behind": None, "shown": row["stage"].lower()}])]
    parts += [f"! {warning}" for warning in row["warnings"]]
    options = "".join(f" --for {one}" for one in pairs_given) + (" --abort" if abort else " --transfer" if transfer else "")
    given = f" --policy {policy}" if policy != Policy.HOLD.value else ""
    run_it = f"Next: zaibei failback run {source} --plan {row['token']}{given}{options}"
    parts.append(f"refused: {row['refusal']}" if row["refusal"] else run_it)
    console.answer(dict(row), *parts)
    if row["loses"]:
        return Exit.WOULD_LOSE_DATA
    return Exit.REFUSED if row["refusal"] else Exit.DONE


@failback.command()
@click.argument("source")
@click.option("--plan", "token", required=True, help="Token printed by `plan`.")
@click.option("--reason", default="by an operator", help="Kept with the act.")
@click.option("--timeout", "timeout_s", default=600.0, show_default=True, help="Stop watching after so many seconds; it goes on.")
@_policy_options
@target_options
@styled
def run(
    console: Console,
    source: str,
    token: str,
    reason: str,
    timeout_s: float,
    abort: bool,
    transfer: bool,
    policy: str,
    pairs_given: tuple[str, ...],
) -> int:
    """Give the source back as planned, and watch it to its end. Interrupting this stops nothing; run it again to go on watching.

    Exit 12 while writes wait for a person: going on would lose them. Exit 4 when the world is no longer the one looked at.

    \b
    Example:
      zaibei failback run node-a --plan 0123456789abcdef
    """
    member, wish, by_prefix = _member(), _wish(abort, transfer), _by_prefix(pairs_given)
    end, until_s, said = ENDS[wish], time.monotonic() + timeout_s, ""
    row = member.failback_run(source, wish, policy, by_prefix, token, reason)
    with console.progress() as report:
        while row["stage"] != end:
            if wish == "return" and row["stage"] in WHOLE_WAY:
                report(Progress(f"failback {source}", WHOLE_WAY.index(row["stage"]) + 1, len(WHOLE_WAY), "steps"))
            waiting = _waiting(row)
            if waiting != said:
                console.say(f"{row['stage'].lower()}: {waiting}")
                said = waiting
            if (ledger := row["ledger"]) and ledger["held"] and row["stage"] in ("SERVING", "CATCHING_UP"):
                return _would_lose(console, row)
            if wish == "return" and row["stage"] == "SERVING" and any("was given up" in alarm for alarm in row["alarms"]):
                console.answer(dict(row), f"given up: {row['failure']}")
                return Exit.FAILED
            if time.monotonic() > until_s:
                console.answer(dict(row), f"still {row['stage'].lower()}: {waiting}. Next: zaibei failback status {source}")
                return Exit.UNREACHABLE
            time.sleep(LOOK_S)
            row = _again(member, source, wish, policy, by_prefix, token, reason)
    console.answer(dict(row), _done(row, wish))
    return Exit.DONE


def _again(
    member: FailbackAdmin, source: str, wish: str, policy: str, by_prefix: dict[str, str], token: str, reason: str
) -> dict[str, Any]:
    """Look; a member that restarted or came to lead forgot the order, not where it stands: order again."""
    [row] = member.failback_status(source)
    if not row["ordered"] and wish == "return" and row["stage"] in ("SERVING", "RETURN_REQUESTED", "CATCHING_UP", "FROZEN"):
        return member.failback_run(source, wish, policy, by_prefix, token, reason)
    return row


def _waiting(row: Row) -> str:
    return str((row["alarms"] or [row["trouble"] or row["failure"] or row["shown"]])[0])


def _would_lose(console: Console, row: Row) -> int:
    text = f"{row['ledger']['held']} writes of {row['source']} wait for a person: going on without a decision would lose them"
    console.answer(dict(row), f"{text}. Next: zaibei failback conflicts {row['source']}")
    return Exit.WOULD_LOSE_DATA


def _done(row: Row, wish: str) -> str:
    if wish == "abort":
        return f"{row['source']}: we go on registering."
    if wish == "transfer":
        return f"{row['source']}: transferred; another provider registers."
    ledger = row["ledger"]
    return (
        f"{row['source']} registers again. Of {ledger['lines']} writes of its own {ledger['entered']} entered, {ledger['kept']} "
        f"stay in the ledger beside ours, {ledger['same']} were the same. Next: zaibei failback conflicts {row['source']} --all"
    )


@failback.command()
@click.argument("source", default="")
@target_options
@styled
def status(console: Console, source: str) -> None:
    """Where each source stands on its way back.

    \b
    Example:
      zaibei failback status node-a
    """
    rows = _member().failback_status(source)
    parts: list[object] = [_status_table(rows)]
    parts += [f"! {row['source']}: {alarm}" for row in rows for alarm in row["alarms"]]
    parts += [f"! {row['source']}: {row['trouble']}" for row in rows if row["trouble"]]
    console.answer(rows, *parts)


@failback.command()
@click.argument("source")
@click.option("--all", "everything", is_flag=True, help="Every line of the ledger, not only those that wait for a person.")
@click.option(
    "--class", "kinds", multiple=True, type=click.Choice(["same", "superseded", "conflict", "unacknowledged"]), help="These only."
)
@target_options
@styled
def conflicts(console: Console, source: str, everything: bool, kinds: tuple[str, ...]) -> int:
    """Writes of the source beside what we hold: both values, the class, and the policy that decided.

    Exit 12 while some wait for a person: going on would lose them.

    \b
    Example:
      zaibei failback conflicts node-a
      zaibei failback conflicts node-a --all --class unacknowledged --json
    """
    member, rows, after, waits = _member(), list[Row](), "", 0
    while page := member.failback_lines(source, after, PAGE):
        after = page[-1]["line"]
        waits += sum(one["verdict"] == "hold" for one in page)
        rows += [one for one in page if (everything or one["verdict"] == "hold") and (not kinds or one["class"] in kinds)]
    body = [
        [one["line"], one["identifier"], one["class"], one["verdict"], one["by"], _shown(one["theirs"]), _shown(one["ours"])]
        for one in rows
    ]
    columns = ["line", "identifier", "class", "verdict", "decided by", "the source's", "ours"]
    next_step = f"Next: zaibei failback decide {source} LINE... --accept|--keep --reason TEXT --key FILE"
    hint = next_step if waits else "No write waits for a person."
    console.answer({"source": source, "waiting": waits, "lines": [dict(one) for one in rows]}, table(columns, body), hint)
    return Exit.WOULD_LOSE_DATA if waits else Exit.DONE


@failback.command()
@click.argument("source")
@click.argument("lines", nargs=-1, required=True, metavar="LINE...")
@click.option("--accept", is_flag=True, help="The source's value enters.")
@click.option("--keep", is_flag=True, help="What we hold stays; the source's value stays in the ledger.")
@click.option("--reason", required=True, help="Kept in the ledger's history.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Your key file.")
@click.option("--as", "name", help="Your name in the member's file. Default: the key file's name.")
@click.option("--yes", is_flag=True, help="Do not ask; for scripts that asked already.")
@target_options
@styled
def decide(
    console: Console,
    source: str,
    lines: tuple[str, ...],
    accept: bool,
    keep: bool,
    reason: str,
    key: Path,
    name: str | None,
    yes: bool,
) -> None:
    """Decide about writes that wait for a person; signed with your key. The text is shown first and has to be confirmed.

    \b
    Example:
      zaibei failback decide node-a 000000000000002a0123456789abcdef --accept --reason "the node's clerk confirms" --key li.key
    """
    if accept is keep:
        raise click.UsageError("Say what shall happen: --accept or --keep.")
    member = _member()
    asked = member.failback_decision(source, list(lines), accept, reason)
    confirm(asked["text"], yes)
    given = approve(name or key.name.removesuffix(edge_keys.SUFFIX), edge_keys.load(key, ask_passphrase), asked["text"])
    done = member.failback_decide(source, list(lines), accept, reason, given)
    word = "enter" if accept else "stay in the ledger"
    console.answer(dict(done), f"{len(lines)} writes of {source} {word}, decided by {done['operator']}.")


def _wish(abort: bool, transfer: bool) -> str:
    if abort and transfer:
        raise click.UsageError("--abort and --transfer are two different things.")
    return "abort" if abort else "transfer" if transfer else "return"


def _by_prefix(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for one in given:
        prefix, equals, policy = one.partition("=")
        if not equals or policy not in {word.value for word in Policy}:
            raise ZaibeiError(Code.MALFORMED, f"{one!r}: write PREFIX=POLICY, with one of {', '.join(Policy)}")
        found[prefix] = policy
    return found


def _status_table(rows: Sequence[Row]) -> object:
    body = []
    for row in rows:
        ledger, node = row["ledger"], row["node"]
        lines = "-" if not ledger else f"{ledger['lines']} lines, {ledger['open']} open"
        seen = "not reached" if not node["reached"] else "writes by itself" if node["own_end"] is None else "follows us"
        behind = "-" if row["behind"] is None else f"{row['behind']} changes"
        body.append([row["source"], row["stage"].lower(), row["shown"], seen, behind, lines])
    return table(["source", "stage", "what happens", "its node", "behind", "ledger"], body)


def _shown(value: Row | None) -> str:
    if value is None:
        return "(none)"
    text = "".join(letter if letter.isprintable() else " " for letter in value["text"]).split()
    return " ".join(text)[:SHOWN_CHARS]
