"""`zaibei source receipts`: what the copy promised this source in writing, and after a disaster, which promises it kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from ops.cli.exits import VERDICTS
from ops.cli.style import Console, admin, pairs, styled, table, target_options
from replica.agent.edge_receipts import BOOK_FILE
from replica.agent.receipt_proof import Broken, Promise, Refused, Replay, Signers, judge_book, replay, whose
from replica.agent.receipts import Book, read_book
from replica.client.edge_agent import RECEIPTS_FOLDER, load_source_config, trusts_of
from replica.model.errors import Code, ZaibeiError
from replica.model.identity import Peer, Pins, Trusts, name_of
from replica.model.position import Position
from replica.model.serving_state import ServingState, read_state
from replica.model.states import ReceiptLevel, Result

SHOWN_MAX = 20  # rows of a table; --json has all
LEVELS = {level.name.lower(): level for level in ReceiptLevel}


@click.group()
def receipts() -> None:
    """The receipts a source keeps: signed promises of the copy, each covering everything up to a position.

    `verify` and `replay` need no network and no running process: the receipt book, the members' certificates and, for `replay`,
    what the copy serves now, written by `serving` at the centre.

    \b
    Examples:
      zaibei source receipts verify --config source.toml
      zaibei source receipts serving node-a --out node-a.state     at the centre, after the disaster
      zaibei source receipts replay node-a.state --config source.toml
    """


def book_options(function: click.decorators.FC) -> click.decorators.FC:
    for option in (
        click.option(
            "--trust",
            "trusted",
            type=click.Path(path_type=Path, dir_okay=False),
            multiple=True,
            help="A member's certificate (PEM) whose receipts count, instead of those in CONFIG. Repeatable.",
        ),
        click.option(
            "--book", "book_path", type=click.Path(path_type=Path, dir_okay=False), help="The receipt book.  [default: CONFIG's]"
        ),
        click.option(
            "--config",
            "config_path",
            type=click.Path(path_type=Path, dir_okay=False),
            help="The source's TOML file: its book, and whom it trusts.  [default: source.toml]",
        ),
    ):
        function = option(function)
    return function


@receipts.command()
@book_options
@styled
def verify(console: Console, config_path: Path | None, book_path: Path | None, trusted: tuple[Path, ...]) -> int:
    """Is every receipt in the book a promise of a member this source trusts?

    Exit 0: all are; 9: some are refused (each is listed by name); 11: there is none.

    \b
    Example:
      zaibei source receipts verify --book receipts.book --trust member-1.pem
    """
    book, where, trusts = _given(config_path, book_path, trusted)
    promises, refused = judge_book(book, Signers(book.signers, trusts))
    newest = {
        level: max((one.position for one in promises if one.level is level), key=_place, default=None) for level in ReceiptLevel
    }
    result = Result.FAIL if refused else Result.PASS if promises else Result.UNKNOWN
    document = {
        "book": str(where),
        "source": book.source,
        "result": result.value,
        "promises": len(promises),
        "left_out": book.left_out,
        "newest": {level.name.lower(): str(at) if at else None for level, at in newest.items()},
        "refused": [_refused(one) for one in refused],
    }
    rows: list[tuple[str, object]] = [
        ("source", book.source),
        ("promises that hold", len(promises)),
        ("left out, covered by newer ones", book.left_out),
        *((f"newest {level.name.lower()}", at.short()) for level, at in newest.items() if at is not None),
    ]
    console.answer(document, pairs(rows), *_refused_table(refused), f"{where}: {result.value}")
    return VERDICTS[result]


@receipts.command("replay")
@click.argument("state_path", metavar="STATE", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--level", type=click.Choice(list(LEVELS)), default="quorum", show_default=True, help="The level that was promised."
)
@book_options
@styled
def replay_(
    console: Console, state_path: Path, level: str, config_path: Path | None, book_path: Path | None, trusted: tuple[Path, ...]
) -> int:
    """After a disaster: hold every receipt against what the copy serves now; RPO_receipts counts the broken promises.

    Exit 0: none is broken; 9: some are (each is listed); 11: it cannot be told.

    \b
    Example:
      zaibei source receipts replay node-a.state --config source.toml
    """
    book, where, trusts = _given(config_path, book_path, trusted)
    state = _state(state_path, book, trusts)
    promises, refused = judge_book(book, Signers(book.signers, trusts))
    proof = replay(promises, refused, state, LEVELS[level], book.left_out)
    document = {"book": str(where), "state": str(state_path), **_document(proof, state)}
    rows = [
        ("RPO_receipts", proof.rpo_receipts),
        ("verdict", proof.result.value),
        ("served up to", state.position.short()),
        ("served by", f"{state.member}, stated {_time(state.stated_ms)}"),
        ("promises", f"{proof.promises:,}: {proof.honoured:,} honoured, {proof.implied:,} by a later one"),
        ("changes beyond what is served", proof.lost_changes),
        ("left out, covered by newer ones", proof.left_out),
    ]
    parts: list[object] = [pairs(rows), *_refused_table(proof.refused)]
    for title, broken in (("broken promises", proof.dishonoured), ("cannot be told", proof.untold)):
        if broken:
            lines = [[one.promise.number, one.promise.position.short(), _time(one.promise.stated_ms), one.why] for one in broken]
            parts.append(table(["receipt", "position", "given", "why"], lines[:SHOWN_MAX], title=f"{title} ({len(broken)})"))
    console.answer(document, *parts)
    return VERDICTS[proof.result]


@receipts.command()
@click.argument("name")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A file that is not there yet.")
@target_options
@styled
def serving(console: Console, name: str, out: Path) -> None:
    """At the centre: write what this member serves for the source NAME, signed, for the source to hold its receipts against.

    \b
    Example:
      zaibei source receipts serving node-a --out node-a.state
    """
    done = admin().serving_state(name, str(out.absolute()))
    at = Position.parse(done["position"]).short()
    console.answer(
        {"serving": done},
        f"{out}: {name} is served up to {at}; {done['boundaries']:,} boundaries of its history",
        f"Next, at the node: zaibei source receipts replay {out.name} --config source.toml",
    )


def _given(config_path: Path | None, book_path: Path | None, trusted: tuple[Path, ...]) -> tuple[Book, Path, Trusts]:
    if book_path is not None and trusted:
        return _book(book_path), book_path, _pins(trusted)
    config = load_source_config(config_path or Path("source.toml"))
    where = book_path or config.data / RECEIPTS_FOLDER / BOOK_FILE
    book = _book(where)
    if book.source != config.nature.source:
        raise ZaibeiError(Code.WRONG_SOURCE, f"{where} is the book of {book.source!r}, not of {config.nature.source!r}")
    return book, where, _pins(trusted) if trusted else trusts_of(config)


def _book(path: Path) -> Book:
    try:
        return read_book(path.read_bytes(), str(path))[0]
    except FileNotFoundError:
        raise ZaibeiError(
            Code.NOT_FOUND, f"{path} is not there: the source keeps it from its first receipt on. Next: name it with --book"
        ) from None


def _pins(paths: Sequence[Path]) -> Pins:
    found = []
    for path in paths:
        certificate = path.read_bytes()
        found.append(Peer(name_of(certificate), certificate, role="member"))
    return Pins(tuple(found))


def _state(path: Path, book: Book, trusts: Trusts) -> ServingState:
    state, seal = read_state(path.read_bytes())
    if state.source != book.source:
        raise ZaibeiError(Code.WRONG_SOURCE, f"{path} is about {state.source!r}, the receipts are of {book.source!r}")
    peer = whose(seal.chain_pem, trusts, state.stated_ms)
    if isinstance(peer, str):
        raise ZaibeiError(Code.NOT_AUTHORISED, f"{path} is signed by nobody this source trusts: {peer}")
    if peer.name != state.member or not seal.by(peer.signing_key):
        raise ZaibeiError(Code.VERIFICATION_FAILED, f"{path} says it is of {state.member!r}, whose signature it does not carry")
    return state


def _document(proof: Replay, state: ServingState) -> dict[str, object]:
    return {
        "source": state.source,
        "result": proof.result.value,
        "rpo_receipts": proof.rpo_receipts,
        "promises": proof.promises,
        "honoured": proof.honoured,
        "implied": proof.implied,
        "dishonoured": [_broken(one) for one in proof.dishonoured],
        "untold": [_broken(one) for one in proof.untold],
        "refused": [_refused(one) for one in proof.refused],
        "refusals": dict(proof.refusals()),
        "lost_changes": proof.lost_changes,
        "left_out": proof.left_out,
        "position": str(state.position),
        "verified": state.verified,
    }


def _promise(one: Promise) -> dict[str, object]:
    return {**asdict(one), "position": str(one.position), "level": one.level.name.lower()}


def _broken(one: Broken) -> dict[str, object]:
    return {**_promise(one.promise), "why": one.why}


def _refused(one: Refused) -> dict[str, object]:
    return {"number": one.number, "refusal": one.refusal.value, "detail": one.detail}


def _refused_table(refused: Sequence[Refused]) -> list[object]:
    rows = [[one.number, one.refusal.value, one.detail] for one in refused[:SHOWN_MAX]]
    return [table(["receipt", "refused as", "why"], rows, title=f"refused ({len(refused)})")] if rows else []


def _place(position: Position) -> tuple[int, int]:
    return position.place


def _time(unix_ms: int) -> str:
    return f"{datetime.fromtimestamp(unix_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
