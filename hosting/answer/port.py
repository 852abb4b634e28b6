"""The port through which answering reads stores, and its memory twin.

One process opens a store and everyone else asks it (DESIGN 5). The member implements the port in process; `hosting.front`
carries the same port over a socket for fronts that live apart from the owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from replica.model.catalog import Catalog
from replica.model.errors import Trouble, ZaibeiError
from replica.model.view import SourceView

Values = list[bytes | None]
Wants = Mapping[str, Sequence[bytes]]
Found = Mapping[str, tuple[Values, SourceView]]


class AnswerPort(Protocol):
    """What answering asks of whoever owns the stores."""

    def catalog(self) -> Catalog:
        """The newest catalog; the same object until something in it changes. Never blocks.

        Raises:
            ZaibeiError: whoever holds it cannot be asked now; every question is answered 2.
        """
        ...

    async def get_many(self, wants: Wants) -> Found:
        """Read records of several sources, one call for all questions of a loop tick.

        Args:
            wants: source name -> keys; no keys asks for the view alone.
        Returns:
            For each wanted source that is held here: its values in the order of the keys (None: no such record, b"": the
            record is quarantined) and the view whose position was read with them and whose age was taken after them. A
            source that is not held here is left out.
        Raises:
            ZaibeiError: nothing can be read now; every question of the call is answered 2.
        """
        ...


@dataclass(slots=True)
class MemoryAnswerPort:
    """The port over dictionaries. `trouble` makes every read fail; `calls` records the wants of each."""

    held: Catalog
    views: dict[str, SourceView]
    records: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    trouble: Trouble | None = None
    calls: list[dict[str, list[bytes]]] = field(default_factory=list)

    def catalog(self) -> Catalog:
        self._fail()
        return self.held

    async def get_many(self, wants: Wants) -> Found:
        self.calls.append({source: list(keys) for source, keys in wants.items()})
        self._fail()
        return {
            source: ([self.records.get(source, {}).get(key) for key in keys], self.views[source])
            for source, keys in wants.items()
            if source in self.views
        }

    def _fail(self) -> None:
        if self.trouble is not None:
            raise ZaibeiError(self.trouble.code, self.trouble.message, definite=self.trouble.definite, retry=self.trouble.retry)
