"""One TOML file per member: read whole, checked whole, every fault told at once; no file at all means embedded defaults."""

from ops.config.address import Address
from ops.config.edge_load import Effective, load_config
from ops.config.values import (
    ClusterPart,
    Limits,
    Listen,
    MemberConfig,
    MemberPart,
    OperatorKey,
    PkiPart,
    Probe,
    Published,
    Recursive,
    Site,
    Source,
    TakeoverPolicy,
)

__all__ = [
    "Address",
    "ClusterPart",
    "Effective",
    "Limits",
    "Listen",
    "MemberConfig",
    "MemberPart",
    "OperatorKey",
    "PkiPart",
    "Probe",
    "Published",
    "Recursive",
    "Site",
    "Source",
    "TakeoverPolicy",
    "load_config",
]
