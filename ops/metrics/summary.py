"""Current values of a registry as plain samples, for the admin channel. Pure."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry

from ops.admin.values import Sample

SAMPLES_MAX = 20_000


def samples(registry: CollectorRegistry, prefix: str = "") -> list[Sample]:
    """Values whose name begins with `prefix`, sorted by name; at most SAMPLES_MAX. Histogram buckets are left out."""
    found = [
        Sample(sample.name, dict(sample.labels), float(sample.value), metric.documentation)
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name.startswith(prefix) and not sample.name.endswith(("_bucket", "_created")) and math.isfinite(sample.value)
    ]
    return sorted(found, key=lambda sample: (sample.name, sorted(sample.labels.items())))[:SAMPLES_MAX]
