"""Places for registrations under way at one member, shared so that no tenant takes the others' places; pure.

A tenant may have as many as are free besides. So one alone has half of them, and of n who ask all the time each comes to have
1/(n + 1): that much is always free for a tenant that had none, however long those before it hold theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from replica.model.errors import Code, ZaibeiError

AGAIN_MS = 200  # told to who found no place


class Places:
    """See the module. `total`: places of all tenants together."""

    def __init__(self, total: int) -> None:
        self.total, self.taken = total, 0
        self._of: dict[str, int] = {}

    def of(self, tenant: str) -> int:
        """How many it has."""
        return self._of.get(tenant, 0)

    @contextmanager
    def one(self, tenant: str) -> Iterator[None]:
        """A place, for as long as the block lasts. Raises ZaibeiError(BUSY): the tenant has its share; nothing was done."""
        if self.of(tenant) >= self.total - self.taken:
            why = f"{self.of(tenant)} registrations of {tenant or 'this kind'} are under way, which is its share: again later"
            raise ZaibeiError(Code.BUSY, why, retry=True, retry_ms=AGAIN_MS)
        self._of[tenant] = self.of(tenant) + 1
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._of[tenant] -= 1
            if not self._of[tenant]:
                del self._of[tenant]
