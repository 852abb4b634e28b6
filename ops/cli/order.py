"""`zaibei order`: orders of the top-level node, made and signed by its engineer, checked by anybody, handed in at a member."""

from __future__ import annotations

import re
import time
from pathlib import Path

import click

from ops.cli.exits import Exit
from ops.cli.operator import ask_passphrase
from ops.cli.order_answer import answer
from ops.cli.style import Console, effective, pairs, styled, target_options
from ops.cli.takeover_registration import hand_in
from ops.config.read import NAME_PATTERN, WrongError, public_key
from ops.operators import edge_keys, edge_orders
from ops.operators.orders import FUNCTIONS, KINDS, Found, duration_ms, in_words, look, moment_ms, order_of, when
from replica.model.ladder import Function, OrderKind
from replica.takeover.orders import sign
from replica.v1 import entry_pb2

MADE_BY = "zaibei order key NAME"
ENDS = {
    Found.GOOD: Exit.DONE,
    Found.VOID: Exit.REFUSED,
    Found.FORGED: Exit.VERIFICATION_FAILED,
    Found.UNKNOWN: Exit.UNKNOWN,
}


@click.group()
def order() -> None:
    """Signed orders of a top-level node: it makes them, a member of the disaster-recovery centre takes them in.

    At the top-level node: `key` once, `make` for each order. The file is text and no secret: send it by any means. At the
    centre: `show` says what it orders and whether it is genuine, `send` hands it in.

    \b
    Examples:
      zaibei order key beijing
      zaibei order make takeover registration node-a --key beijing.key --for 24h --reason "its hall burnt down"
      zaibei order show node-a-takeover.order --issuer beijing=<64 hex digits>
      zaibei order send node-a-takeover.order
    """


@order.command()
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Key file. Default: NAME.key, here.")
@click.option("--passphrase", is_flag=True, help="Ask for a passphrase and lock the key with it.")
@styled
def key(console: Console, name: str, out: Path | None, passphrase: bool) -> None:
    """Make the key with which the top-level node NAME signs, and print the block for the members' files.

    The private key stays in its file (mode 0600) and is never printed. Tell the centre the public key by another way than the
    one orders come by: a letter, a telephone call.

    \b
    Examples:
      zaibei order key beijing --passphrase
      zaibei order key beijing --out /media/usb/beijing.key
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise click.UsageError(f"{name!r} is not a name: lower-case letters, digits, dots and dashes, like beijing")
    path = out or Path(f"{name}{edge_keys.SUFFIX}")
    secret = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True) if passphrase else ""
    public = edge_keys.create(path, secret.encode()).public.hex()
    block = f'[[top_level]]\nname = "{name}"\npublic_key = "{public}"\n'
    console.say(
        f"Private key in {path}. Keep it; nobody else needs it.\nNext, at the centre: this block into every member's file:\n"
    )
    console.answer({"name": name, "public_key": public, "key_file": str(path), "toml": block}, block)


@order.command()
@click.argument("kind", type=click.Choice(sorted(KINDS)))
@click.argument("function", type=click.Choice(sorted(FUNCTIONS)))
@click.argument("source")
@click.option(
    "--key", "key_file", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The top-level node's key."
)
@click.option("--reason", required=True, help="Why; kept for good with what comes of it.")
@click.option("--for", "lasting", help="How long it holds from now: 90s, 30m, 24h, 7d.")
@click.option("--until", help="Or until when: 2026-11-29T08:00Z.")
@click.option(
    "--number",
    type=click.IntRange(min=1, max=2**63 - 1),
    help="Must be above that of every earlier order of this key about this source. Default: the time in milliseconds.",
)
@click.option("--probes", type=click.IntRange(min=1, max=2**32 - 1), help="Of a probe report: how many of your probes look.")
@click.option("--failing", type=click.IntRange(min=0, max=2**32 - 1), help="Of a probe report: how many find it unavailable.")
@click.option("--lasting", "without_break", help="Of a probe report: for how long without a break: 5m.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File. Default: SOURCE-KIND-NUMBER.order, here.")
@styled
def make(
    console: Console,
    kind: str,
    function: str,
    source: str,
    key_file: Path,
    reason: str,
    lasting: str | None,
    until: str | None,
    number: int | None,
    probes: int | None,
    failing: int | None,
    without_break: str | None,
    out: Path | None,
) -> None:
    """Make and sign an order, and write it to a file that may travel by any means.

    takeover: this takeover is declared (at most 7 days). end: it ends, and earlier orders are taken back (7 days). standing:
    act by yourselves when the threshold is reached (400 days). probe-report: what your own probes find (10 minutes).
    SOURCE is the name the centre gives the node, as `zaibei status` shows it there.

    \b
    Examples:
      zaibei order make takeover registration node-a --key beijing.key --for 24h --reason "its hall burnt down"
      zaibei order make end registration node-a --key beijing.key --for 24h --reason "its operator reports it repaired"
      zaibei order make standing registration node-a --key beijing.key --for 90d --reason "agreement 2026-17, annex 4"
      zaibei order make probe-report registration node-a --key beijing.key --for 5m --reason "our probes" \\
          --probes 9 --failing 8 --lasting 5m
    """
    now_ms = time.time_ns() // 1_000_000
    made = order_of(
        KINDS[kind],
        FUNCTIONS[function],
        source,
        number or now_ms,
        issued_ms=now_ms,
        until_ms=_until_ms(lasting, until, now_ms),
        reason=reason,
        findings=_findings(probes, failing, without_break),
    )
    signer = edge_keys.load(key_file, ask_passphrase, made_by=MADE_BY)
    signed = sign(made, signer)
    path = out or Path(f"{source}-{kind}-{made.number}.order")
    edge_orders.write_new(path, signed)
    console.answer(
        {**_document(signed), "file": str(path), "public_key": signer.public.hex()},
        f"{path}: {in_words(signed)} Until {when(signed.until_ms)}, order {signed.number}.",
        "Next: send this file by any means; at the centre: zaibei order send FILE",
    )


@order.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--issuer",
    "issuers",
    multiple=True,
    metavar="[NAME=]KEY",
    help="Public key (64 hex digits) of a top-level node whose orders count. Default: [[top_level]] of the configuration.",
)
@target_options
@styled
def show(console: Console, file: Path, issuers: tuple[str, ...]) -> int:
    """Say what an order orders, until when, and whether it is genuine. Needs no member and no network.

    Exit 0: good; 4: void (past its end, or not yet issued); 9: changed or forged; 11: signed by a key that is not known here.

    \b
    Example:
      zaibei order show node-a-takeover.order --issuer beijing=<64 hex digits>
    """
    found = edge_orders.read_file(file)
    known = dict(map(_issuer, issuers)) if issuers else effective().config.issuers()
    seen = look(found, known, time.time_ns() // 1_000_000)
    rows = [
        ("orders", in_words(found)),
        ("reason", found.reason),
        ("issued", when(found.issued_ms)),
        ("void after", when(found.until_ms)),
        ("number", str(found.number)),
        ("verdict", f"{seen.found.value.upper()}: {seen.why}"),
    ]
    console.answer({**_document(found), "verdict": seen.found.value, "issuer": seen.issuer or None, "why": seen.why}, pairs(rows))
    return ENDS[seen.found]


@order.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@target_options
@styled
def send(console: Console, file: Path) -> None:
    """Hand an order in at this machine's member, which judges it. Each counts once.

    After an outcome that is not known (exit 11 or 8) send it again: 7 with "is a replay" then means that it was taken in.

    \b
    Example:
      zaibei order send node-a-takeover.order --config zaibei.toml
    """
    edge_orders.read_file(file)  # what is no order need not travel to the member
    hand_in(console, file)


def _until_ms(lasting: str | None, until: str | None, now_ms: int) -> int:
    if (lasting is None) is (until is None):
        raise click.UsageError("until when does it hold? Either --for 24h or --until 2026-11-29T08:00Z")
    return now_ms + duration_ms(lasting) if lasting is not None else moment_ms(until or "")


def _findings(probes: int | None, failing: int | None, lasting: str | None) -> entry_pb2.Findings | None:
    if probes is None and failing is None and lasting is None:
        return None
    if probes is None or failing is None or lasting is None:
        raise click.UsageError("a probe report says all three: --probes 9 --failing 8 --lasting 5m")
    return entry_pb2.Findings(probes=probes, failing=failing, lasting_ms=duration_ms(lasting))


def _issuer(text: str) -> tuple[str, bytes]:
    name, equals, octets = text.partition("=") if "=" in text.rstrip("=") else ("", "", text)  # base64 may end in one
    try:
        public = public_key(octets)
    except WrongError as wrong:
        raise click.UsageError(f"--issuer: {wrong.what}; write {wrong.instead}") from None
    return (name if equals else public.hex()[:16]), public


def _document(one: entry_pb2.Order) -> dict[str, object]:
    """The stable contract of `--json`."""
    kind, function = OrderKind(one.kind), Function(one.function)
    found = one.findings
    return {
        "kind": next(name for name, known in KINDS.items() if known is kind),
        "function": function.name.lower(),
        "source": one.source,
        "number": one.number,
        "issued_ms": one.issued_ms,
        "until_ms": one.until_ms,
        "reason": one.reason,
        "findings": {"probes": found.probes, "failing": found.failing, "lasting_ms": found.lasting_ms}
        if kind is OrderKind.PROBE_REPORT
        else None,
        "key_id": one.signature.key_id.hex(),
        "words": in_words(one),
    }


order.add_command(answer)
