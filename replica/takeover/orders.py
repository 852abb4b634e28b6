"""Words of the top-level node: their octets, and whether one may be believed. Pure.

Refused with a reason: octets that are no order, a signature of nobody we trust, another source's, one that is void or not yet
issued, and a number that was seen before. What is believed is committed, and counts once (model/ladder_words.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from replica.model.errors import Code, ZaibeiError
from replica.model.ladder import Function, Ladder, OrderKind
from replica.model.signing import Signer, canonical, verify
from replica.v1 import entry_pb2

FORMAT = 1
ORDER_OCTETS_MAX = 16 * 1024
REASON_CHARS_MAX = 500
SKEW_MS_MAX = 300_000  # how far its clock may run before ours
# An order that stays in force for longer than this is a mistake, or a trap laid for later.
VALID_MS_MAX: dict[OrderKind, int] = {
    OrderKind.TAKEOVER: 7 * 86_400_000,
    OrderKind.END: 7 * 86_400_000,
    OrderKind.STANDING: 400 * 86_400_000,
    OrderKind.PROBE_REPORT: 600_000,
}


def order_octets(order: entry_pb2.Order) -> bytes:
    """What the issuer signs: every field but the signature."""
    found = order.findings
    return canonical(
        "zaibei-order-1",
        order.kind,
        order.number,
        order.source,
        order.function,
        order.issued_ms,
        order.until_ms,
        order.reason,
        found.probes,
        found.failing,
        found.lasting_ms,
    )


def sign(order: entry_pb2.Order, signer: Signer) -> entry_pb2.Order:
    """The same order, signed."""
    signed = entry_pb2.Order()
    signed.CopyFrom(order)
    signed.format = FORMAT
    signed.signature.CopyFrom(signer.sign(order_octets(signed)))
    return signed


def parse(octets: bytes) -> entry_pb2.Order:
    """Raises ZaibeiError(MALFORMED)."""
    if len(octets) > ORDER_OCTETS_MAX:
        raise ZaibeiError(Code.MALFORMED, f"an order has at most {ORDER_OCTETS_MAX} octets, these are {len(octets)}")
    try:
        return entry_pb2.Order.FromString(octets)
    except DecodeError as exc:
        raise ZaibeiError(Code.MALFORMED, f"no order: {exc}") from exc


def judge(order: entry_pb2.Order, source: str, issuers: Mapping[str, bytes], ladder: Ladder, at_ms: int) -> OrderKind:
    """Believe an order, or say why not.

    Args:
        source: the one whose group it is handed to.
        issuers: name -> Ed25519 public key of every top-level node whose orders count.
        ladder: of the group, for the numbers that were seen.
        at_ms: Unix milliseconds.
    Returns:
        What it is.
    Raises:
        ZaibeiError: MALFORMED, NOT_AUTHORISED (forged, or of nobody we trust), WRONG_SOURCE, REFUSED (void, or not yet issued),
            CONFLICT (a replay). Nothing was done.
    """
    kind = well_formed(order)
    issuer = next((name for name, public in issuers.items() if verify(public, order_octets(order), order.signature)), None)
    if issuer is None:
        known = ", ".join(sorted(issuers)) or "nobody"
        raise ZaibeiError(
            Code.NOT_AUTHORISED,
            f"order {order.number} bears no valid signature of a top-level node that counts here ({known}): it was changed on "
            "its way, or its key is not configured",
        )
    if order.source != source:
        raise ZaibeiError(Code.WRONG_SOURCE, f"order {order.number} of {issuer} is about {order.source[:80]!r}, not {source!r}")
    if at_ms > order.until_ms:
        late_s = (at_ms - order.until_ms) // 1_000
        raise ZaibeiError(Code.REFUSED, f"order {order.number} of {issuer} is void since {late_s} s: ask for a new one")
    if order.issued_ms > at_ms + SKEW_MS_MAX:
        early_s = (order.issued_ms - at_ms) // 1_000
        raise ZaibeiError(Code.REFUSED, f"order {order.number} of {issuer} is issued in {early_s} s: compare the clocks")
    seen = dict(ladder.numbers).get(order.signature.key_id.hex(), 0)
    if order.number <= seen:
        raise ZaibeiError(Code.CONFLICT, f"order {order.number} of {issuer} is a replay: number {seen} was seen")
    return kind


def well_formed(order: entry_pb2.Order) -> OrderKind:
    """What kind of order it is. Raises ZaibeiError(MALFORMED): none of ours, whoever signed it."""
    try:
        kind = OrderKind(order.kind)
        Function(order.function)
    except ValueError:
        raise ZaibeiError(
            Code.MALFORMED,
            f"an order of kind {order.kind} about function {order.function}: we know kinds 1 to 4, functions 1 and 2",
        ) from None
    if order.format != FORMAT:
        raise ZaibeiError(Code.MALFORMED, f"an order of format {order.format}: we read {FORMAT}")
    if not 0 < order.until_ms - order.issued_ms <= VALID_MS_MAX[kind]:
        longest_s = VALID_MS_MAX[kind] // 1_000
        raise ZaibeiError(Code.MALFORMED, f"a {kind.name} order holds for 1 ms to {longest_s} s from when it is issued")
    if len(order.reason) > REASON_CHARS_MAX or order.number == 0:
        raise ZaibeiError(Code.MALFORMED, f"an order has a number above 0 and a reason of at most {REASON_CHARS_MAX} characters")
    return kind
