"""One RocksDB per source: records, position and digest move together.

`SourceStore` is what the rest sees; `StoreBudget` is shared by all stores of a member.
"""

from replica.store.edge_compare import Difference
from replica.store.edge_disk import DiskLimits
from replica.store.edge_loader import GenerationLoader, Staged
from replica.store.edge_metrics import StoreMetrics
from replica.store.edge_readout import SnapshotReader
from replica.store.edge_rocks import BudgetLimits, StoreBudget, check_open_files
from replica.store.edge_store import SourceStore
from replica.store.state_row import hold_ident

__all__ = [
    "BudgetLimits",
    "Difference",
    "DiskLimits",
    "GenerationLoader",
    "SnapshotReader",
    "SourceStore",
    "Staged",
    "StoreBudget",
    "StoreMetrics",
    "check_open_files",
    "hold_ident",
]
