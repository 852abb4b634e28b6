"""What a process keeps for good is taken out of the garbage collector's sight.

A full collection walks every container object there is: 74,000 after the imports alone, 100 to 340 ms on a busy core, while all
stands still. A detector of dead nodes that was late by more than 100 ms knows nothing and begins anew (SEMANTICS 6), so such a
pause costs a takeover half a second.
"""

from __future__ import annotations

import gc


def settle() -> None:
    """Call it when all is imported, before anything is served, and again when all is built; the first costs a collection."""
    gc.collect()
    gc.freeze()
