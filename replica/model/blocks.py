"""Blocks: identifiers and prefixes that are not answered, by a signed order with a number and a deadline; one look-up.

An order is a committed decision of a source's group, kept beside its content as overlays are: no record, batch or digest knows of
it. It ends by itself at its deadline, by the wall clock of whoever answers, or when it is lifted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

from replica.model.identifier import END, ROUTE, ancestors

ORDER_TARGETS_MAX: Final = 64
TARGETS_MAX: Final = 1_024  # of one source: they travel with every read
REASON_CHARS_MAX: Final = 500
VALID_MS_MAX: Final = 400 * 86_400_000  # an order without an end is a mistake


def time_text(ms: int) -> str:
    """Unix milliseconds as people write them; of a time that no calendar knows, the number."""
    try:
        return datetime.fromtimestamp(ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


class Blocked(NamedTuple):
    """One thing that is not answered.

    Args:
        octets: the store key of an identifier, or the key part of a prefix (which has no 0x00): that one and all below it.
        until_ms: Unix milliseconds. order: by which order, SIGNER/NUMBER.
    """

    octets: bytes
    until_ms: int
    order: str

    def text(self) -> str:
        """For who asked: by which order and until when; why is not for strangers."""
        return f"blocked by order {self.order} until {time_text(self.until_ms)}"


@dataclass(frozen=True, slots=True)
class BlockOrder:
    """An order in force, or over and not yet forgotten.

    Args:
        signer, key: name and hex key id of who signed it; number: rises with each order of this key.
        identifiers, prefixes: as they were written; octets: as they are looked up.
    """

    signer: str
    key: str
    number: int
    identifiers: tuple[str, ...]
    prefixes: tuple[str, ...]
    octets: tuple[bytes, ...]
    until_ms: int
    since_ms: int
    reason: str

    @property
    def ident(self) -> str:
        """How people name it."""
        return f"{self.signer}/{self.number}"

    def blocked(self) -> Iterator[Blocked]:
        return (Blocked(octets, self.until_ms, self.ident) for octets in self.octets)


class Blocks:
    """What is not answered, for look-ups; false when there is nothing."""

    __slots__ = ("_by_octets", "_near")

    def __init__(self, blocked: Iterable[Blocked] = ()) -> None:
        self._by_octets: dict[bytes, Blocked] = {}
        for one in blocked:
            held = self._by_octets.get(one.octets)
            if held is None or held.until_ms < one.until_ms:
                self._by_octets[one.octets] = one
        self._near = frozenset(octets.removeprefix(ROUTE).partition(END)[0] for octets in self._by_octets)

    def __bool__(self) -> bool:
        return bool(self._by_octets)

    def __iter__(self) -> Iterator[Blocked]:
        return iter(self._by_octets.values())

    def on(self, prefix: bytes, key: bytes, now_ms: int) -> Blocked | None:
        """What stands against a name at this moment. `prefix`: key part of its prefix, or of the prefix that a route is about."""
        for octets in (key, *ancestors(prefix)):
            found = self._by_octets.get(octets)
            if found is not None and found.until_ms > now_ms:
                return found
        return None

    def near(self, prefix: bytes) -> bool:
        """Could anything directly below this prefix be blocked?"""
        return bool(self._near) and any(above in self._near for above in ancestors(prefix))


NONE: Final = Blocks()


@lru_cache(maxsize=64)  # a front meets the same few again with every read of their sources
def blocks_of(blocked: tuple[Blocked, ...]) -> Blocks:
    """The look-up over what a view says."""
    return Blocks(blocked) if blocked else NONE


class InForce:
    """The orders of one group that are in force, made anew only when there are others or one of them ended."""

    __slots__ = ("_found", "_good_from_ms", "_good_until_ms", "_orders")

    def __init__(self) -> None:
        self._orders: tuple[BlockOrder, ...] = ()
        self._found: tuple[Blocked, ...] = ()
        self._good_from_ms = self._good_until_ms = 0

    def at(self, orders: tuple[BlockOrder, ...], now_ms: int) -> tuple[Blocked, ...]:
        """At this moment. The clock may go back: what ended by a clock that ran ahead is in force again."""
        if not orders:
            return ()
        if orders is not self._orders or not self._good_from_ms <= now_ms < self._good_until_ms:
            good = [order for order in orders if order.until_ms > now_ms]
            self._orders, self._good_from_ms = orders, now_ms
            self._good_until_ms = min((order.until_ms for order in good), default=now_ms + 1)
            self._found = tuple(one for order in good for one in order.blocked())
        return self._found
