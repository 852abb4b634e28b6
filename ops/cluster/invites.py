"""What was promised with a member's token: zone, and whose place it takes. Kept beside the CA's tickets until it comes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from replica.model.errors import Code, ZaibeiError

INVITES_FORMAT = 1
INVITES_OCTETS_MAX = 1024 * 1024
INVITES_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Invite:
    """`replaces`: number of the member whose place it takes, 0: none; ends_ms: Unix milliseconds."""

    name: str
    zone: str
    replaces: int
    ends_ms: int


Invites = tuple[Invite, ...]


class _File(msgspec.Struct):
    format: int
    invites: Invites


_decode = msgspec.json.Decoder(_File).decode  # made once: threads that decode a type first in one moment crash msgspec 0.22


def with_invite(invites: Invites, new: Invite, now_ms: int) -> Invites:
    """The newest one of a name counts; those that ended are left out.

    Raises:
        ZaibeiError(BUSY): INVITES_MAX are open.
    """
    kept = tuple(one for one in invites if one.ends_ms > now_ms and one.name != new.name)
    if len(kept) >= INVITES_MAX:
        raise ZaibeiError(Code.BUSY, f"{INVITES_MAX} tokens of members are open: wait until some of them end", retry=True)
    return (*kept, new)


def invite_of(invites: Invites, name: str) -> Invite | None:
    """Of a name, also one that ended: whether its token still counts is the ticket's affair."""
    return next((one for one in reversed(invites) if one.name == name), None)


def encode_invites(invites: Invites) -> bytes:
    return msgspec.json.encode(_File(INVITES_FORMAT, invites))


def decode_invites(octets: bytes, place: str) -> Invites:
    """Raises ZaibeiError(DAMAGED): without it a token would be taken for another's."""
    try:
        file = _decode(octets)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ZaibeiError(
            Code.DAMAGED, f"{place} cannot be read ({exc}). Next: move it away and invite again; open tokens of members end"
        ) from exc
    if file.format != INVITES_FORMAT:
        raise ZaibeiError(Code.DAMAGED, f"{place} is of another version. Next: update this member")
    return file.invites
