"""Memory twins of the ports of this room."""

from __future__ import annotations

from collections.abc import Callable

from replica.enrol.port import AdmissionRequest, AdmissionResult
from replica.enrol.tickets import Ticket
from replica.model.errors import Code, ZaibeiError


class MemoryShelf:
    """Satisfies Shelf."""

    def __init__(self, *tickets: Ticket) -> None:
        self.tickets = {ticket.ident: ticket for ticket in tickets}

    def change(self, ident: bytes, step: Callable[[Ticket], Ticket]) -> Ticket | None:
        if ident not in self.tickets:
            return None
        self.tickets[ident] = step(self.tickets[ident])
        return self.tickets[ident]


class MemoryAdmission:
    """Satisfies Admission: numbers in the order of asking; `closed`: it has no majority."""

    def __init__(self, cluster: bytes, first: int = 2) -> None:
        self.cluster, self.asked, self.closed = cluster, list[AdmissionRequest](), False
        self._next = first

    async def admit(self, request: AdmissionRequest) -> AdmissionResult:
        if self.closed:
            raise ZaibeiError(Code.UNREACHABLE, "the cluster has no majority: try again", retry=True)
        self.asked.append(request)
        number = request.number
        if not number:
            number, self._next = self._next, self._next + 1
        return AdmissionResult(number, f"card of {request.name}, {number}".encode(), self.cluster)


class MemoryWelcome:
    """Satisfies Welcome."""

    def __init__(self) -> None:
        self.sources: list[str] = []

    async def source(self, ticket: Ticket) -> None:
        self.sources.append(ticket.name)
