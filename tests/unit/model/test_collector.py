"""What is kept for good costs no later collection anything."""

from __future__ import annotations

import gc

from replica.model.edge_collector import settle


def test_what_was_there_is_walked_no_more() -> None:
    try:
        kept = [[number] for number in range(50_000)]
        settle()
        assert gc.get_freeze_count() >= 50_000 and len(gc.get_objects()) < 50_000 and len(kept) == 50_000
    finally:
        gc.unfreeze()
