"""The rule of metric names: `zaibei_<room>_<what>_<unit>`. Pure."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry

ROOMS = (
    "process",
    "member",
    "consensus",
    "journal",
    "store",
    "feed",
    "takeover",
    "agent",
    "publisher",
    "answer",
    "front",
    "tenant",
    "client",
    "admin",
    "ops",
    "demo",
    "standin",
)
# Base units, and counted things. A state is an info or a number of `state` with its table in the help.
UNITS = (
    "seconds",
    "octets",
    "bytes",
    "ratio",
    "info",
    "state",
    "count",
    "entries",
    "records",
    "changes",
    "batches",
    "requests",
    "answers",
    "datagrams",
    "connections",
    "streams",
    "fds",
    "threads",
    "index",
    "position",
    "seq",
    "epoch",
    # yes or no, as 1 or 0
    "connected",
    "failed",
    "full",
)
_NAME = re.compile(rf"zaibei_({'|'.join(ROOMS)})_[a-z0-9]+(_[a-z0-9]+)*\Z")
KINDS_WITHOUT_UNIT = frozenset({"info", "stateset"})


def faults_of_names(registry: CollectorRegistry) -> list[str]:
    """What is wrong with the names and help texts of everything registered; empty: nothing.

    A counter's family name has no `_total` (the library adds it), and counts the thing its last word names.
    """
    faults = []
    for metric in registry.collect():
        name = metric.name
        if not _NAME.match(name):
            faults.append(f"{name}: write zaibei_<room>_<what>_<unit>, room one of {', '.join(ROOMS)}")
        elif metric.type not in (*KINDS_WITHOUT_UNIT, "counter") and not name.endswith(tuple(f"_{unit}" for unit in UNITS)):
            faults.append(f"{name}: ends with no unit of {', '.join(UNITS)}")
        if not metric.documentation.strip():
            faults.append(f"{name}: has no help text")
    return faults
