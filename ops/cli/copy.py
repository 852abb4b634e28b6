"""`zaibei copy`: the copies on this member's disk: when each was read through, and whether it was sound."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click

from ops.cli.exits import Exit
from ops.cli.style import Console, admin, pairs, styled, table, target_options
from replica.store.scrub import DAMAGED, Finding

POLL_S = 0.5
DAMAGED_WORDS = frozenset(finding.value for finding in DAMAGED)


@click.group()
def copy() -> None:
    """The copies on this member's disk.

    Each copy is read through every few days (`scrub_days` in `[limits]`), slowly and beside everything else: every block's
    checksum is tried, every record is hashed again, and the sums are compared with the digest that was kept since it was
    written. So damage is found before a client asks for what it hit, and while other copies are whole.

    \b
    Examples:
      zaibei copy list
      zaibei copy scrub node-a
    """


@copy.command("list")
@click.option("--check", is_flag=True, help="For monitors: exit 9 when a copy is damaged, 11 when one was never read to its end.")
@target_options
@styled
def show(console: Console, check: bool) -> int:
    """When each copy was last read through, and what was found.

    \b
    finding   sound; unreadable: a file is damaged; different: the records are not those of the digest; unknown: it could not look
    """
    rows = admin().copies()
    columns = ("source", "finding", "read", "records", "megabytes", "took", "why")
    console.answer({"copies": rows}, table(columns, [_row(one) for one in rows]))
    return _verdict(rows) if check else Exit.DONE


@copy.command()
@click.argument("source")
@click.option("--no-wait", is_flag=True, help="Ask for it, and look later with `zaibei copy list`.")
@target_options
@styled
def scrub(console: Console, source: str, no_wait: bool) -> int:
    """Read the copy of SOURCE through now. Nothing is changed; answers and intake go on.

    Exit 0: sound; 9: damaged (the message says what to do); 11: it could not look to the end.
    Ctrl-C ends the waiting only: the reading goes on.
    """
    client = admin()
    asked: dict[str, Any] = client.scrub(source)
    if no_wait:
        console.answer(asked, "Asked for. Next: zaibei copy list")
        return Exit.DONE
    console.say(f"Reading the copy of {source}; at the configured pace this may take hours. Ctrl-C ends the waiting only.")
    while True:
        found = next((one for one in client.copies() if one["source"] == source), None)
        if found is None:
            console.say(f"{source} went out of service at this member meanwhile. Next: zaibei status")
            return Exit.UNKNOWN
        if not found["waiting"] and not found["reading"] and found["at_ms"] is not None and found["at_ms"] >= asked["asked_ms"]:
            break
        time.sleep(POLL_S)
    console.answer(
        found, pairs(zip(("source", "finding", "read", "records", "megabytes", "took", "why"), _row(found), strict=True))
    )
    return _verdict([found])


def _verdict(rows: list[dict[str, Any]]) -> Exit:
    """The worst of all; none at all is UNKNOWN: nothing was looked at."""
    findings = {one["finding"] for one in rows}
    if findings & DAMAGED_WORDS:
        return Exit.VERIFICATION_FAILED
    return Exit.DONE if findings == {Finding.SOUND.value} else Exit.UNKNOWN


def _row(one: dict[str, Any]) -> list[object]:
    at_ms = one["at_ms"]
    when = "now" if one["reading"] else "asked for" if one["waiting"] else "never"
    if at_ms is not None and when == "never":
        when = datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    known = at_ms is not None
    return [
        one["source"],
        one["finding"],
        when,
        one["records"] if known else None,
        round(one["octets"] / 1e6, 1) if known else None,
        f"{one['took_ms'] / 1_000:.1f} s" if known else None,
        one["text"],
    ]
