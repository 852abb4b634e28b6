"""`zaibei` with one planted fault, for tests that must be able to fail: python -m tests.acceptance.planted up ...

The journal's flush does nothing, so receipts leave before anything is on disk. Only a test can start this.
"""

from __future__ import annotations

from ops.cli.main import main
from replica.consensus.edge_rows import JournalRows


def forget(_rows: JournalRows) -> None:
    """Says it is on disk."""


if __name__ == "__main__":
    JournalRows.flush = forget  # type: ignore[method-assign]
    main()
