"""What an order to block, or to lift one, does to a group's state: value in, value out. The leader judged its signature."""

from __future__ import annotations

from dataclasses import replace

from replica.model.blocks import ORDER_TARGETS_MAX, TARGETS_MAX, VALID_MS_MAX, BlockOrder
from replica.model.errors import ZaibeiError
from replica.model.group_state import GroupState
from replica.model.identifier import Identifier, ancestors, prefix_key
from replica.model.ladder_values import Judged, Moved, Refused
from replica.model.outcome import OutcomeKind
from replica.v1 import entry_pb2

SIGNERS_MAX = 64


def octets_of(identifiers: tuple[str, ...], prefixes: tuple[str, ...], case_sensitive: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """What an order is looked up by. Raises ZaibeiError(MALFORMED)."""
    names = [Identifier.parse(name) for name in identifiers]
    keys = [name.key(case_sensitive=any(above in case_sensitive for above in ancestors(name.prefix))) for name in names]
    return tuple(dict.fromkeys((*keys, *map(prefix_key, prefixes))))


def take_block(group: GroupState, body: entry_pb2.Block) -> Judged:
    """An order counts once: its number rises with each order of one key, so that a lifted one cannot be handed in again."""
    if body.lifted:
        return _lift(group, body)
    signer = body.approval.signature.key_id.hex()
    numbers = dict(group.block_numbers)
    try:
        octets = octets_of(tuple(body.identifiers), tuple(body.prefixes), group.case_sensitive)
    except ZaibeiError as exc:
        return Refused(exc.trouble.message)
    order = BlockOrder(
        body.approval.operator,
        signer,
        body.number,
        tuple(body.identifiers),
        tuple(body.prefixes),
        octets,
        body.until_ms,
        body.decided_ms,
        body.reason,
    )
    if any(replace(one, since_ms=order.since_ms) == order for one in group.blocks):
        return Refused("said before", OutcomeKind.ALREADY)
    if not 0 < body.until_ms - body.decided_ms <= VALID_MS_MAX:
        return Refused(f"order {body.number} does not end within {VALID_MS_MAX // 86_400_000} days after it was decided")
    if body.number <= numbers.get(signer, 0):
        return Refused(f"order {body.number} of {order.signer} is a replay: {numbers.get(signer, 0)} was seen")
    if signer not in numbers and len(numbers) >= SIGNERS_MAX:
        return Refused(f"orders of {SIGNERS_MAX} keys were seen, no more are remembered")
    if not 1 <= len(octets) <= ORDER_TARGETS_MAX:
        return Refused(f"an order names 1 to {ORDER_TARGETS_MAX} identifiers and prefixes, this one {len(octets)}")
    kept = tuple(one for one in group.blocks if one.until_ms > body.decided_ms)
    if sum(len(one.octets) for one in kept) + len(octets) > TARGETS_MAX:
        return Refused(f"{group.source}: more than {TARGETS_MAX} identifiers and prefixes would be blocked; lift what is over")
    numbers[signer] = body.number
    return Moved(replace(group, blocks=(*kept, order), block_numbers=tuple(sorted(numbers.items()))))


def _lift(group: GroupState, body: entry_pb2.Block) -> Judged:
    kept = tuple(one for one in group.blocks if one.ident != body.order)
    if len(kept) == len(group.blocks):
        return Refused(f"no order {body.order} is in force", OutcomeKind.ALREADY)
    return Moved(replace(group, blocks=kept))
