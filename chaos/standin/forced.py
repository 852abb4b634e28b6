"""What a recursive node knows of prefixes: answers kept by ttl, and entries forced by an operator. Pure; time is an argument.

A forced entry counts when nothing kept is still valid: without a flush it takes effect when the kept answer ends, as in
deployed nodes. Its serial never goes down, also not by removing it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from replica.model.errors import Code, ZaibeiError
from replica.model.handle.types import HS_SITE
from replica.model.handle.values import HandleValue

KEPT_MAX = 100_000
FORCED_MAX = 100_000
FORCED_TTL_S = 300


@dataclass(frozen=True, slots=True)
class Forced:
    """Sites that stand for a prefix whatever its parents say."""

    sites: tuple[bytes, ...]
    serial: int
    act: str

    def values(self, ttl_s: int) -> tuple[HandleValue, ...]:
        return tuple(HandleValue(index, HS_SITE, site, ttl=ttl_s) for index, site in enumerate(self.sites, 1))


@dataclass(slots=True)
class PrefixTable:
    """Prefixes in upper case as people write them.

    Args:
        ttl_s_max: bound on keeping answers; 0: nothing is kept; None: as long as the ttl says.
    """

    ttl_s_max: int | None = None
    forced: dict[str, Forced] = field(default_factory=dict)
    serials: dict[str, int] = field(default_factory=dict)  # highest ever seen
    _kept: OrderedDict[str, tuple[float, tuple[HandleValue, ...]]] = field(default_factory=OrderedDict)

    def find(self, prefix: str, now_s: float) -> tuple[HandleValue, ...] | None:
        """Values that answer for a prefix now; None: its parents are to be asked."""
        prefix = prefix.upper()
        kept = self._kept.get(prefix)
        if kept is not None and kept[0] > now_s:
            return kept[1]
        entry = self.forced.get(prefix)
        return None if entry is None else entry.values(min(FORCED_TTL_S, self._ttl(FORCED_TTL_S)))

    def keep(self, prefix: str, values: tuple[HandleValue, ...], ttl_s: int, now_s: float) -> None:
        """Keep what parents said."""
        until = now_s + self._ttl(ttl_s)
        if until > now_s:
            self._kept[prefix.upper()] = (until, values)
            self._kept.move_to_end(prefix.upper())
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)

    def force(self, prefix: str, sites: tuple[bytes, ...], serial: int, act: str) -> None:
        """Set an entry; the same one again changes nothing.

        Raises:
            ZaibeiError(CONFLICT): a higher serial was seen, or this one with other sites.
        """
        prefix = prefix.upper()
        self._check(prefix, serial)
        entry, old = Forced(sites, serial, act), self.forced.get(prefix)
        if self.serials.get(prefix) == serial and (old is None or old.sites != sites):
            raise ZaibeiError(Code.CONFLICT, f"serial {serial} of {prefix} stood for something else")
        if prefix not in self.serials and len(self.serials) >= FORCED_MAX:
            raise ZaibeiError(Code.CONFLICT, f"{FORCED_MAX} prefixes are forced already")
        self.forced[prefix], self.serials[prefix] = entry, serial

    def remove(self, prefix: str, serial: int) -> None:
        """End an entry; removing nothing is fine. Raises ZaibeiError(CONFLICT): a higher serial was seen."""
        prefix = prefix.upper()
        self._check(prefix, serial)
        self.forced.pop(prefix, None)
        self.serials[prefix] = serial

    def flush(self, prefix: str | None) -> int:
        """Forget what is kept of one prefix, or of all. Returns how many were forgotten."""
        if prefix is not None:
            return 0 if self._kept.pop(prefix.upper(), None) is None else 1
        count = len(self._kept)
        self._kept.clear()
        return count

    def kept(self, now_s: float) -> dict[str, float]:
        """Seconds left of each kept answer."""
        return {prefix: round(until - now_s, 3) for prefix, (until, _) in self._kept.items() if until > now_s}

    def _check(self, prefix: str, serial: int) -> None:
        highest = self.serials.get(prefix, 0)
        if serial < highest:
            raise ZaibeiError(Code.CONFLICT, f"serial {serial} for {prefix} is below {highest}")

    def _ttl(self, ttl_s: int) -> int:
        return ttl_s if self.ttl_s_max is None else min(ttl_s, self.ttl_s_max)
