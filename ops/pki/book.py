"""What the CA remembers: every certificate it signed, and every ticket it gave out. One JSON document; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from replica.enrol.tickets import Ticket, TicketState
from replica.model.errors import Code, ZaibeiError
from replica.model.trust import Role

BOOK_FORMAT = 1
TICKETS_KEPT_S = 30 * 86_400  # a ticket that ended is shown for so long


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate. Times in Unix seconds; `revoked_s` 0: it is not revoked."""

    serial: str  # hex
    role: Role
    name: str
    number: int
    fingerprint: str
    issued_s: int
    ends_s: int
    revoked_s: int = 0

    def state(self, now_s: float) -> str:
        if self.revoked_s:
            return "revoked"
        return "good" if now_s < self.ends_s else "ended"


@dataclass(frozen=True, slots=True)
class Book:
    """`list_number`: of the last revocation list."""

    issued: tuple[Issued, ...] = ()
    tickets: tuple[Ticket, ...] = ()
    list_number: int = 0

    def with_issued(self, one: Issued) -> Book:
        return replace(self, issued=(*self.issued, one))

    def with_ticket(self, ticket: Ticket, now_s: float) -> Book:
        """Put or replace a ticket; those that ended long ago are left out."""
        kept = [one for one in self.tickets if one.ident != ticket.ident and now_s < one.expires_s + TICKETS_KEPT_S]
        return replace(self, tickets=(*kept, ticket))

    def ticket(self, ident: bytes) -> Ticket | None:
        return next((one for one in self.tickets if one.ident == ident), None)

    def named(self, what: str) -> tuple[Issued, ...]:
        """Certificates that are not revoked, by serial number, `role/name` or name.

        Raises:
            ZaibeiError(NOT_FOUND): there is none. ZaibeiError(CONFLICT): the name stands for several roles.
        """
        role, slash, name = what.rpartition("/")
        live = [one for one in self.issued if not one.revoked_s]
        found = [one for one in live if one.serial == what.lower()] or [
            one for one in live if one.name == name and (not slash or one.role == role)
        ]
        if not found:
            raise ZaibeiError(Code.NOT_FOUND, f"no certificate {what!r} that is not revoked already. Next: zaibei pki show")
        roles = sorted({str(one.role) for one in found})
        if len(roles) > 1:
            raise ZaibeiError(Code.CONFLICT, f"{what!r} is {' and '.join(roles)}: write {roles[0]}/{what}, or a serial number")
        return tuple(found)

    def revoke(self, serials: frozenset[str], now_s: float) -> Book:
        """Mark these as revoked, and close their names' open tickets."""
        names = {(one.role, one.name) for one in self.issued if one.serial in serials}
        issued = tuple(
            replace(one, revoked_s=int(now_s)) if one.serial in serials and not one.revoked_s else one for one in self.issued
        )
        tickets = tuple(
            replace(one, closed=True) if (one.role, one.name) in names and one.state(now_s) is not TicketState.CLOSED else one
            for one in self.tickets
        )
        return replace(self, issued=issued, tickets=tickets)

    def revoked(self) -> list[tuple[int, float]]:
        return [(int(one.serial, 16), float(one.revoked_s)) for one in self.issued if one.revoked_s]


class _Ticket(msgspec.Struct):
    ident: str
    secret_hash: str
    role: Role
    name: str
    expires_s: int
    prefixes: tuple[str, ...]
    pull: tuple[str, ...]
    wrong: int
    closed: bool
    request_hash: str
    number: int
    certificate: str


class _File(msgspec.Struct):
    format: int
    list_number: int
    issued: tuple[Issued, ...]
    tickets: tuple[_Ticket, ...]


_decode = msgspec.json.Decoder(_File).decode  # made once: threads that decode a type first in one moment crash msgspec 0.22


def encode_book(book: Book) -> bytes:
    """JSON a person can read."""
    tickets = tuple(
        _Ticket(
            one.ident.hex(),
            one.secret_hash.hex(),
            one.role,
            one.name,
            one.expires_s,
            one.prefixes,
            one.pull,
            one.wrong,
            one.closed,
            one.request_hash.hex(),
            one.number,
            one.certificate_pem.decode(),
        )
        for one in book.tickets
    )
    file = _File(BOOK_FORMAT, book.list_number, book.issued, tickets)
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def decode_book(octets: bytes, where: str) -> Book:
    """Raises ZaibeiError(DAMAGED)."""
    try:
        file = _decode(octets)
        if file.format != BOOK_FORMAT:
            raise ValueError(f"format {file.format}, this version reads {BOOK_FORMAT}")
        tickets = tuple(
            Ticket(
                bytes.fromhex(one.ident),
                bytes.fromhex(one.secret_hash),
                one.role,
                one.name,
                one.expires_s,
                one.prefixes,
                one.pull,
                one.wrong,
                one.closed,
                bytes.fromhex(one.request_hash),
                one.number,
                one.certificate.encode(),
            )
            for one in file.tickets
        )
        return Book(file.issued, tickets, file.list_number)
    except (ValueError, msgspec.MsgspecError) as exc:
        raise ZaibeiError(Code.DAMAGED, f"{where} does not parse ({exc}): restore it from a copy of the CA's folder") from exc
