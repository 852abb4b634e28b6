"""Evidence of drills: bundles that are signed, chained, readable by a stranger, and drawn as a page."""
