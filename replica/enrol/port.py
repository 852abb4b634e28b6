"""Ports of this room, stated where they are used; `memory.py` holds the twins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from replica.enrol.tickets import Ticket
from replica.model.trust import Claims


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """A member that wants to join.

    Args:
        number: 0, or the number that an earlier answer to the very same request gave: it must be given again.
        links, feeds: `host:port` as others reach it.
        journal: 16 octets, or empty.
    """

    name: str
    zone: str
    links: tuple[str, ...]
    feeds: tuple[str, ...]
    journal: bytes = b""
    number: int = 0


@dataclass(frozen=True, slots=True)
class AdmissionResult:
    """`card`: the member's card as its file shall hold it; `cluster`: 16 octets."""

    number: int
    card: bytes
    cluster: bytes


class Admission(Protocol):
    """Takes members into the cluster."""

    async def admit(self, request: AdmissionRequest) -> AdmissionResult:
        """Commit the member and its number. The same name with the same number again: the same answer.

        Raises:
            ZaibeiError: refused, or not now (no majority); nothing was committed unless `definite` is False.
        """
        ...


class Shelf(Protocol):
    """Keeps tickets. Calls block: a thread's."""

    def change(self, ident: bytes, step: Callable[[Ticket], Ticket]) -> Ticket | None:
        """Replace a ticket by what `step` makes of it, on disk before this returns; one change at a time.

        Returns:
            The ticket afterwards; None: there is none of this name, and `step` was not called.
        """
        ...


class Issuer(Protocol):
    """The CA. Calls block: a thread's."""

    def issue(self, claims: Claims, tls: ec.EllipticCurvePublicKey, signing_key: bytes) -> bytes:
        """A certificate, followed by the CAs that signed it, as PEM; written into the CA's book before this returns."""
        ...

    def roots_pem(self) -> bytes: ...

    def lists_pem(self) -> bytes:
        """What was revoked so far."""
        ...


@dataclass(frozen=True, slots=True)
class Centre:
    """A member that an enrolled source is copied by. `feeds`: `host:port` as it reaches that member."""

    name: str
    number: int
    feeds: tuple[str, ...]


class Welcome(Protocol):
    """Told once a source has its certificate, so that the running member lets it in."""

    async def source(self, ticket: Ticket) -> None:
        """May be told the same again."""
        ...
