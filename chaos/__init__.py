"""Drills: faults with their heals, workloads, checkers and verdicts."""
