"""Tickets: what is remembered of a token that was given out, and whether a request may be answered. Pure.

| state | reached when | a request |
| --- | --- | --- |
| OPEN | given out | with the right secret, name and role: USED |
| USED | the first good request came | the same request once more gets its answer again; any other is refused |
| CLOSED | the end came, WRONG_MAX wrong secrets, or a person closed it | is refused |

Whoever is refused learns that, and nothing of which part was wrong.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256

from replica.model.errors import Code, ZaibeiError
from replica.model.trust import Role

WRONG_MAX = 5  # wrong secrets for one ticket
CALLER_WRONG_MAX = 10  # wrong requests of one address within CALLER_WINDOW_S
CALLER_WINDOW_S = 60.0
CALLERS_MAX = 4_096


class TicketState(StrEnum):
    """See the table above."""

    OPEN = "open"
    USED = "used"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Ticket:
    """Args:
    secret_hash: SHA-256 of the secret; the secret itself is in the token alone.
    prefixes, pull: of a source: what it may write, and where members call it (empty: it pushes).
    expires_s: Unix seconds.
    wrong: wrong secrets so far; request_hash: SHA-256 of the request that used it.
    number, certificate_pem: what that request got; 0 and empty before.
    """

    ident: bytes
    secret_hash: bytes
    role: Role
    name: str
    expires_s: int
    prefixes: tuple[str, ...] = ()
    pull: tuple[str, ...] = ()
    wrong: int = 0
    closed: bool = False
    request_hash: bytes = b""
    number: int = 0
    certificate_pem: bytes = b""

    def state(self, now_s: float) -> TicketState:
        if self.closed or self.wrong >= WRONG_MAX or now_s >= self.expires_s:
            return TicketState.CLOSED
        return TicketState.USED if self.request_hash else TicketState.OPEN


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request brings, its digest included."""

    secret: bytes
    role: str
    name: str
    request_hash: bytes


def secret_hash(secret: bytes) -> bytes:
    """128 random bits need no slow hash."""
    return sha256(b"zaibei-ticket-1\0" + secret).digest()


def present(ticket: Ticket, presented: Presented, now_s: float) -> tuple[Ticket, str]:
    """One attempt.

    Returns:
        The ticket as it is from now on, and why the request is refused, for our log alone; "" when it is good.
    """
    if ticket.wrong >= WRONG_MAX:
        return ticket, "closed: too many wrong secrets"
    if not hmac.compare_digest(secret_hash(presented.secret), ticket.secret_hash):
        return replace(ticket, wrong=ticket.wrong + 1), f"wrong secret, {ticket.wrong + 1} of {WRONG_MAX}"
    state = ticket.state(now_s)
    if state is TicketState.CLOSED:
        return ticket, "closed: ended, or closed by a person"
    if (presented.role, presented.name) != (str(ticket.role), ticket.name):
        return replace(ticket, wrong=ticket.wrong + 1), "another name or role than the token's"
    if state is TicketState.USED and presented.request_hash != ticket.request_hash:
        return ticket, "used already by another request"
    return replace(ticket, request_hash=presented.request_hash), ""


def refused() -> ZaibeiError:
    """The one answer to every request that is not good."""
    return ZaibeiError(
        Code.NOT_AUTHORISED, "this token is not good here (any more). Next: ask for a new one, `zaibei source enroll` makes it"
    )


class Callers:
    """How many wrong requests each address sent lately; bounded, the one unseen for longest is forgotten."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()  # begin of its window, count

    def check(self, address: str, now_s: float) -> None:
        """Raises ZaibeiError(BUSY): too many of its requests were wrong."""
        begin_s, count = self._wrong.get(address, (now_s, 0))
        if now_s - begin_s < CALLER_WINDOW_S and count >= CALLER_WRONG_MAX:
            raise ZaibeiError(Code.BUSY, "too many wrong requests from your address: wait a minute", retry=True)

    def was_wrong(self, address: str, now_s: float) -> None:
        begin_s, count = self._wrong.pop(address, (now_s, 0))
        if now_s - begin_s >= CALLER_WINDOW_S:
            begin_s, count = now_s, 0
        self._wrong[address] = (begin_s, count + 1)
        while len(self._wrong) > CALLERS_MAX:
            self._wrong.popitem(last=False)
