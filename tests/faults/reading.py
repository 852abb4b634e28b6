"""A copy read through at a member whose disk is under suspicion, as `zaibei copy scrub` does it. Blocking: for a thread."""

from __future__ import annotations

import time
from collections.abc import Collection

from ops.admin.edge_client import AdminClient
from ops.cli.copy import DAMAGED_WORDS
from replica.model.errors import ZaibeiError
from tests.faults.system import Seat

READ_S_MAX = 15.0
LOOK_EVERY_S = 0.2


def read_copy(seat: Seat, source: str) -> str:
    """What was found of a source's copy: a finding of the scrub, "out of service", "not running", or "not read" in that time."""
    end_s, asked_ms = time.monotonic() + READ_S_MAX, 0
    while seat.pid() is not None:
        try:
            with AdminClient(seat.data / "admin.sock") as client:
                if any(one.group == source and seat.name in one.out_of_service for one in client.cluster_status().groups):
                    return "out of service"
                asked_ms = asked_ms or int(client.scrub(source)["asked_ms"])
                row = next((one for one in client.copies() if one["source"] == source), None)
        except (ZaibeiError, OSError):  # it starts
            row = None
        if row is not None and not row["waiting"] and not row["reading"] and (row["at_ms"] or 0) >= asked_ms:
            return str(row["finding"])
        if time.monotonic() > end_s:
            return "not read"
        time.sleep(LOOK_EVERY_S)
    return "not running"


def found_it(findings: Collection[str]) -> bool | None:
    """Did reading through find damage that is there? None: it could not look everywhere, so nobody knows."""
    if any(damaged(one) or one in ("out of service", "not running") for one in findings):
        return True
    return False if findings and set(findings) == {"sound"} else None


def damaged(finding: str) -> bool:
    """Whether it is to be fed anew by hand: what is out of service is mended once it stays so."""
    return finding in DAMAGED_WORDS
