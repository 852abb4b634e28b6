"""Who owns which prefix, and what is answered in its place: what an answering process needs beside records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from replica.model.blocks import NONE, Blocks
from replica.model.group_state import OverlaySites
from replica.model.identifier import PrefixTree
from replica.model.states import Mode
from replica.model.tenant_view import TenantView


@dataclass(frozen=True, slots=True)
class Owner:
    """The source that owns a prefix. `case_sensitive`: policy of suffixes below it (the longest matching prefix decides)."""

    source: str
    mode: Mode
    case_sensitive: bool = False


@dataclass(frozen=True, slots=True)
class Catalog:
    """Made anew when ownership or an overlay changes; `version` rises.

    Args:
        owners: owned prefix (key part) -> Owner.
        overlays: prefix (key part) -> sites answered first.
        blocks: what is not answered by order; some of it may be over by now.
        tenants: source -> what its documents say about being answered; whose say nothing are left out.
        own_site: HS_SITE data octets of this cluster, for op 2 and /api/site.
    """

    version: int = 0
    owners: PrefixTree[Owner] = field(default_factory=PrefixTree)
    overlays: dict[bytes, OverlaySites] = field(default_factory=dict)
    own_site: bytes = b""
    blocks: Blocks = NONE
    tenants: Mapping[str, TenantView] = field(default_factory=dict)

    def answers(self, source: str) -> bool:
        """False: a suspended tenant, whose documents say that nothing of it is answered meanwhile."""
        view = self.tenants.get(source)
        return view is None or view.answered
