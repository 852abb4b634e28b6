"""Prometheus metrics of every process: names that hold to one rule, process metrics, a small server."""

from ops.metrics.edge_server import MetricsServer
from ops.metrics.names import faults_of_names
from ops.metrics.process import new_registry, watch_loop
from ops.metrics.summary import samples

__all__ = ["MetricsServer", "faults_of_names", "new_registry", "samples", "watch_loop"]
