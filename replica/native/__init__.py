"""The per-record loops of zaibei: one small C module, or its pure-Python twin where there is no compiler.

`BACKEND` says which one serves: "c" or "python". `ZAIBEI_NATIVE=python` in the environment forces the twin,
`ZAIBEI_NATIVE=c` refuses to start without the C module.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from replica.native.addresses import ADDRESS_OCTETS, pack_address, unpack_address
from replica.native.contract import (
    BATCH_FAULTS,
    BUCKETS,
    CHANGE_OCTETS,
    OP_DELETE,
    OP_PUT,
    RECORD_FAULTS,
    SUM_OCTETS,
    SUMS_OCTETS,
    ColumnsFault,
    Scan,
    bucket_of,
    record_hash,
    split,
)

_wanted = os.environ.get("ZAIBEI_NATIVE", "")

if TYPE_CHECKING or _wanted == "python":
    from replica.native import twin as _backend

    BACKEND = "python"
else:
    try:
        from replica.native import fast as _backend

        BACKEND = "c"
    except ImportError:
        if _wanted == "c":
            raise
        from replica.native import twin as _backend

        BACKEND = "python"

scan = _backend.scan
delta = _backend.delta
apply_delta = _backend.apply_delta
sum_all = _backend.sum_all
level1 = _backend.level1
filter_values = _backend.filter_values
plain = _backend.plain
Datagrams = _backend.Datagrams

__all__ = [
    "ADDRESS_OCTETS",
    "BACKEND",
    "BATCH_FAULTS",
    "BUCKETS",
    "CHANGE_OCTETS",
    "OP_DELETE",
    "OP_PUT",
    "RECORD_FAULTS",
    "SUMS_OCTETS",
    "SUM_OCTETS",
    "ColumnsFault",
    "Datagrams",
    "Scan",
    "apply_delta",
    "bucket_of",
    "delta",
    "filter_values",
    "level1",
    "pack_address",
    "plain",
    "record_hash",
    "scan",
    "split",
    "sum_all",
    "unpack_address",
]
