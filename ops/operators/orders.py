"""Orders of the top-level node as its own engineer sees them: made, kept as text, checked and said in words. Pure.

An order travels as text, so that mail, a chat or a printed page may carry it:

    -----BEGIN ZAIBEI ORDER-----
    base64 of replica.v1.Order, 64 characters a line
    -----END ZAIBEI ORDER-----

The bare octets of the message are read as well. Who signed, and whether it may be believed: replica/takeover/orders.py.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from replica.model.errors import Code, ZaibeiError
from replica.model.ladder import Function, Ladder, OrderKind
from replica.model.signing import key_id
from replica.takeover.orders import ORDER_OCTETS_MAX, VALID_MS_MAX, judge, parse, well_formed
from replica.v1 import entry_pb2

BEGIN, END = "-----BEGIN ZAIBEI ORDER-----", "-----END ZAIBEI ORDER-----"
FILE_OCTETS_MAX = 2 * ORDER_OCTETS_MAX  # of text
LINE_CHARS = 64
KINDS = {
    "takeover": OrderKind.TAKEOVER,
    "end": OrderKind.END,
    "standing": OrderKind.STANDING,
    "probe-report": OrderKind.PROBE_REPORT,
}
FUNCTIONS = {"registration": Function.REGISTRATION, "resolution": Function.RESOLUTION}
UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
DURATION_DIGITS_MAX = 9


class Found(StrEnum):
    """What looking at an order without a member can tell. Only GOOD is good."""

    GOOD = "good"
    VOID = "void"  # past its end, or issued later than now
    FORGED = "forged"  # names a key we know, and its signature does not fit
    UNKNOWN = "unknown"  # signed by a key we were not told


@dataclass(frozen=True, slots=True)
class Look:
    """`issuer`: the name whose key signed; empty unless the signature is good. `why`: one sentence for a person."""

    found: Found
    issuer: str
    why: str


def duration_ms(text: str) -> int:
    """`90s`, `30m`, `24h`, `7d` to milliseconds. Raises ZaibeiError(MALFORMED)."""
    match = re.fullmatch(rf"(\d{{1,{DURATION_DIGITS_MAX}}})([smhd])", text.strip())
    if match is None or not int(match[1]):
        raise ZaibeiError(Code.MALFORMED, f"{text[:40]!r} is no duration: write 90s, 30m, 24h or 7d")
    return int(match[1]) * UNITS_S[match[2]] * 1_000


def moment_ms(text: str) -> int:
    """`2026-11-29T08:00Z` to Unix milliseconds; its zone must be said. Raises ZaibeiError(MALFORMED)."""
    try:
        found: datetime | None = datetime.fromisoformat(text.strip())
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or found.year < 1970:
        raise ZaibeiError(Code.MALFORMED, f"{text[:40]!r} is no moment with a zone: write 2026-11-29T08:00Z or …+08:00")
    return (found - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def order_of(
    kind: OrderKind,
    function: Function,
    source: str,
    number: int,
    *,
    issued_ms: int,
    until_ms: int,
    reason: str,
    findings: entry_pb2.Findings | None = None,
) -> entry_pb2.Order:
    """An order, not yet signed.

    Raises:
        ZaibeiError(MALFORMED): no member would take it in; the text says what to change.
    """
    made = entry_pb2.Order(
        format=1,
        kind=entry_pb2.Order.Kind.ValueType(int(kind)),
        number=number,
        source=source,
        function=entry_pb2.Function.ValueType(int(function)),
        issued_ms=issued_ms,
        until_ms=until_ms,
        reason=reason,
        findings=findings,
    )
    is_report = kind is OrderKind.PROBE_REPORT
    if is_report is not (findings is not None):
        text = "a probe report says --probes, --failing and --lasting" if is_report else "only a probe report has findings"
        raise ZaibeiError(Code.MALFORMED, text)
    if findings is not None and not (0 <= findings.failing <= findings.probes and findings.probes):
        raise ZaibeiError(Code.MALFORMED, f"{findings.failing} of {findings.probes} probes cannot fail: at most all of them")
    if not source or not reason.strip():
        raise ZaibeiError(Code.MALFORMED, "an order names a source and says why: it is read years later")
    if until_ms <= issued_ms:
        raise ZaibeiError(Code.MALFORMED, "the order would be void before it is signed: give a later end")
    if until_ms - issued_ms > VALID_MS_MAX[kind]:
        word = next(name for name, one in KINDS.items() if one is kind)
        longest = _length(VALID_MS_MAX[kind])
        raise ZaibeiError(Code.MALFORMED, f"a {word} order holds for at most {longest}; a longer one is a trap laid for later")
    well_formed(made)
    return made


def to_text(order: entry_pb2.Order) -> str:
    """The file's text."""
    line = base64.b64encode(order.SerializeToString()).decode()
    body = "\n".join(line[at : at + LINE_CHARS] for at in range(0, len(line), LINE_CHARS))
    return f"{BEGIN}\n{body}\n{END}\n"


def octets_of(file: bytes) -> bytes:
    """The order's own octets, out of a file of either form; text around the two marks is passed over.

    Raises:
        ZaibeiError(MALFORMED): the marks are there, and what is between them is not base64.
    """
    begin, end = BEGIN.encode(), END.encode()
    if begin not in file:
        return file
    _, _, rest = file.partition(begin)
    body, mark, _ = rest.partition(end)
    try:
        if not mark:
            raise ValueError("its last line is missing")
        return base64.b64decode(b"".join(body.split()), validate=True)
    except (ValueError, binascii.Error) as exc:
        raise ZaibeiError(Code.MALFORMED, f"the order was changed or cut on its way: {exc}. Next: have it sent again") from exc


def read(file: bytes) -> entry_pb2.Order:
    """The order in a file of either form. Raises ZaibeiError(MALFORMED)."""
    if len(file) > FILE_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"an order's file has at most {FILE_OCTETS_MAX} octets")
    order = parse(octets_of(file))
    well_formed(order)
    return order


def look(order: entry_pb2.Order, issuers: Mapping[str, bytes], at_ms: int) -> Look:
    """Check an order as a member would, except for what only a member knows: which numbers it has seen.

    Args:
        issuers: name -> Ed25519 public key of those whose orders count.
        at_ms: Unix milliseconds.
    """
    signed_by = order.signature.key_id
    issuer = next((name for name, public in issuers.items() if key_id(public) == signed_by), "")
    if not issuer:
        known = ", ".join(sorted(issuers)) or "none"
        return Look(
            Found.UNKNOWN,
            "",
            f"signed with the key {signed_by.hex()[:16] or 'nobody named'}, and the keys known here are: {known}",
        )
    try:
        judge(order, order.source, issuers, Ladder(), at_ms)
    except ZaibeiError as exc:
        if exc.code is Code.NOT_AUTHORISED:
            return Look(
                Found.FORGED,
                "",
                f"it names the key of {issuer}, and the signature is not of that key: changed on its way, or forged",
            )
        return Look(Found.VOID, issuer, exc.trouble.message)
    return Look(Found.GOOD, issuer, f"signed by {issuer}; whether its number was used before, only a member knows")


def in_words(order: entry_pb2.Order) -> str:
    """One sentence: what it orders. `order`: well formed."""
    function = Function(order.function).name.lower()
    match OrderKind(order.kind):
        case OrderKind.TAKEOVER:
            said = f"Take over the {function} of {order.source}. It counts as one of the two approvals"
        case OrderKind.END:
            said = f"End the takeover of the {function} of {order.source}, and take every earlier order about it back"
        case OrderKind.STANDING:
            said = (
                f"Take over the {function} of {order.source} by yourselves when most probes of it fail for the agreed time, "
                "if its writers are fenced by leases"
            )
        case OrderKind.PROBE_REPORT:
            found = order.findings
            failing = f"{found.failing} of {found.probes} probes"
            said = f"{failing} find the {function} of {order.source} unavailable, for {_length(found.lasting_ms)} by now"
    if order.function == int(Function.RESOLUTION) and OrderKind(order.kind) is not OrderKind.PROBE_REPORT:
        said += ". Resolution is taken over by the centre's own detector or people: this order is kept, and starts nothing"
    return said + "."


def when(ms: int) -> str:
    """Unix milliseconds for a person, UTC."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)).strftime("%Y-%m-%d %H:%M:%S UTC")
    except OverflowError:
        return f"{ms} ms after 1970"


def _length(ms: int) -> str:
    """A duration in its largest whole unit."""
    for unit, seconds in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if ms >= seconds * 1_000 and not ms % (seconds * 1_000):
            return f"{ms // (seconds * 1_000)} {unit}"
    return f"{ms / 1_000:g} s"
