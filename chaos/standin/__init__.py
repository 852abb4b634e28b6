"""Stand-ins for the nodes around us: a secondary node and a recursive node, small, independent of our own servers."""
