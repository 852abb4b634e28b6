"""What a tenant's documents say about being answered, as every answering process sees it; part of the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class TenantView:
    """Of one source that lives here.

    Args:
        resolutions_per_s: quota of the whole tenant; None: no limit.
        burst_s: as much at once as so many seconds of a rate give.
        answered: False: it is suspended, and its documents say that nothing of it is answered meanwhile.
    """

    resolutions_per_s: float | None = None
    burst_s: float = 2.0
    answered: bool = True


PLAIN: Final = TenantView()
