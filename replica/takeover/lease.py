"""How long ago the source's newest write-path lease was renewed: counted so that it can only be too short (SEMANTICS 5.2).

Pure: boottime nanoseconds come in. The source counts from before it asked; we count from when we saw the renewal applied, or from
our election when that came later, whoever committed it. A jump of our clock or a pause of our process earns nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

MS = 1_000_000
LATE_NS_MAX = 100 * MS  # of one look beyond its interval


@dataclass(slots=True)
class LeaseCount:
    """Of one source on one member.

    Args:
        interval_ns: how often `look` is called.
    """

    interval_ns: int
    _index: int | None = None
    _looked_ns: int = 0
    _waited_ns: int = 0

    def look(self, renewed_index: int, leads: bool, now_ns: int) -> None:
        """Call it every `interval_ns`.

        Args:
            renewed_index: entry of the newest renewal that is applied here; 0: none.
            leads: this member leads the group. One that does not counts nothing.
        """
        if not leads:
            self._index = None
            return
        if self._index != renewed_index:
            self._index, self._waited_ns = renewed_index, 0
        else:
            self._waited_ns += max(0, min(now_ns - self._looked_ns, self.interval_ns + LATE_NS_MAX))
        self._looked_ns = now_ns

    def waited_ms(self, renewed_index: int) -> int:
        """Milliseconds since that renewal, or since our election; 0 when another one is the newest."""
        return self._waited_ns // MS if self._index == renewed_index else 0
