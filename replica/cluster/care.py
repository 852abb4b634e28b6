"""What the leader of the control group does by itself now and then: entries for placement, and the end of a removal. Pure."""

from __future__ import annotations

from hashlib import sha256

from replica.cluster import entries
from replica.cluster.placement import World, next_steps
from replica.cluster.state import MemberState
from replica.v1 import entry_pb2

CARE_EVERY_MS = 1_000


def next_entries(world: World, now_ms: int) -> list[entry_pb2.Entry]:
    """Entries to propose now, in this order; decide again once they are applied.

    Args:
        world: as the leader sees it; groups it does not know of are not touched.
    """
    steps = next_steps(world)
    found = [
        entries.placed(_act(world, "place", f"{step.group} {step.placement}"), now_ms, step.group, step.placement)
        for step in steps
    ]
    for number in emptied(world):
        found.append(entries.removed(_act(world, "end", str(number)), now_ms, number, ""))
    return found


def emptied(world: World) -> list[int]:
    """Members that leave and are in no group's log any more, as far as every group is known of."""
    if any(group.name not in world.groups for group in world.state.groups):
        return []
    held = {number for seen in world.groups.values() for number in seen.everyone}
    leaving = [member.number for member in world.state.members if member.state is MemberState.LEAVING]
    return [number for number in leaving if number not in held and not world.state.places_of(number)]


def _act(world: World, what: str, subject: str) -> str:
    """The same decision on the same state is the same act, so that proposing it twice is harmless."""
    octets = f"{what}\0{subject}\0{world.state.index}\0{len(world.state.acts)}".encode()
    return f"{what}:{sha256(octets).hexdigest()[:24]}"
