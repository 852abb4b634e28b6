"""Where a takeover is made findable: the port of publication adapters, and what we know of each publication.

Our own answers need no adapter: the committed overlay is the publication. Everything else (recursive nodes, later the top-level
record and route announcements) is an adapter: idempotent, confirmed by asking afterwards, rehearsable with a shadow prefix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from replica.model.errors import Code, ZaibeiError

RETRY_FIRST_NS = 100_000_000
RETRY_NS_MAX = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Publication:
    """What one adapter is asked to make true for one prefix.

    Args:
        prefix: as people write it.
        sites: HS_SITE data octets, first one first; empty when withdrawn.
        serial: above any seen, at withdrawal too; an adapter never replaces a higher one.
        act: the takeover (or drill) this belongs to.
    """

    prefix: str
    sites: tuple[bytes, ...]
    serial: int
    act: str
    withdrawn: bool = False
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What an adapter saw when it looked after itself. `confirmed` False: asked for, not (yet) seen; `detail`: for a person."""

    confirmed: bool
    detail: str = ""


class Publisher(Protocol):
    """One place where resolvers look. Calls for one prefix come one at a time."""

    @property
    def name(self) -> str:
        """Stable, for status and metrics."""
        ...

    async def publish(self, publication: Publication) -> Confirmation:
        """Make it true and look whether it is.

        Raises:
            ZaibeiError(UNREACHABLE): nothing is known; again later. ZaibeiError(CONFLICT): a higher serial stands there.
        """
        ...


@dataclass(slots=True)
class MemoryPublisher:
    """The twin for tests: keeps what stands, with switches for trouble.

    Args:
        down: raises UNREACHABLE; `blind`: takes it, cannot confirm.
    """

    name: str = "memory"
    down: bool = False
    blind: bool = False
    stands: dict[str, Publication] = field(default_factory=dict)
    serials: dict[str, int] = field(default_factory=dict)
    calls: list[Publication] = field(default_factory=list)

    async def publish(self, publication: Publication) -> Confirmation:
        self.calls.append(publication)
        if self.down:
            raise ZaibeiError(Code.UNREACHABLE, f"{self.name} does not answer", definite=False, retry=True)
        if publication.serial < self.serials.get(publication.prefix, 0):
            raise ZaibeiError(
                Code.CONFLICT, f"{self.name} holds serial {self.serials[publication.prefix]} for {publication.prefix}"
            )
        self.serials[publication.prefix] = publication.serial
        if publication.withdrawn:
            self.stands.pop(publication.prefix, None)
        else:
            self.stands[publication.prefix] = publication
        return Confirmation(not self.blind, "stands" if not self.blind else "cannot be asked")


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known about one (adapter, prefix): serial last confirmed and how; failures since, and when to try again."""

    serial: int = 0
    withdrawn: bool = False
    confirmed: bool = False
    detail: str = "never asked"
    failures: int = 0
    retry_ns: int = 0

    def meets(self, publication: Publication) -> bool:
        """This very publication, or the same at a higher serial, was confirmed."""
        return self.confirmed and self.serial >= publication.serial and self.withdrawn == publication.withdrawn

    def view(self, adapter: str, prefix: str) -> dict[str, object]:
        """For `takeover status --json`."""
        known = {"confirmed": self.confirmed, "serial": self.serial, "detail": self.detail}
        return {"adapter": adapter, "prefix": prefix, **known}

    def failed(self, detail: str, now_ns: int) -> Standing:
        """After one more failure: waits twice as long, at most RETRY_NS_MAX."""
        wait = min(RETRY_FIRST_NS << min(self.failures, 10), RETRY_NS_MAX)
        return Standing(self.serial, self.withdrawn, False, detail, self.failures + 1, now_ns + wait)
