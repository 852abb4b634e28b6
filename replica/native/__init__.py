"""Per-record loops in C, each with a pure-Python twin."""
