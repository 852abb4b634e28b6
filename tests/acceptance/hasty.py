"""`zaibei` whose stores are flushed every half second, for tests that wait for it: python -m tests.acceptance.hasty up ..."""

from __future__ import annotations

from functools import partial

from ops.cli.main import main
from replica.member import copy

FLUSH_INTERVAL_S = 0.5

if __name__ == "__main__":
    copy.GroupLimits = partial(copy.GroupLimits, flush_interval_s=FLUSH_INTERVAL_S)  # type: ignore[misc, assignment]
    main()
